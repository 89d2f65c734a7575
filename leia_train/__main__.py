"""`python -m leia_train`: the same as `leia-train`, for launchers that start a module."""

import os
import sys

from leia_train.cli import main
from leia_train.launcher import is_launched

if __name__ == "__main__":
    code = main()
    if is_launched(os.environ):
        # One of several processes ends here, with all of its files closed: while the interpreter is taken down, gloo's threads
        # can wait for its lock for ever, or end the process as if it had failed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
