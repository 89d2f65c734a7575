"""`python -m leia_beam`."""

import sys

from leia_beam.cli import main

if __name__ == "__main__":
    sys.exit(main())
