"""``python -m leia_eval``: the same as the command ``leia-eval``."""

import sys

from leia_eval.cli import main

if __name__ == "__main__":
    sys.exit(main())
