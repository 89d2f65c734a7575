"""`python -m leia_train`: the same as `leia-train`, for launchers that start a module."""

import sys

from leia_train.cli import main

if __name__ == "__main__":
    sys.exit(main())
