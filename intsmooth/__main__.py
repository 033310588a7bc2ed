"""`python -m intsmooth` is the command line."""

import sys

from intsmooth.cli import main

if __name__ == "__main__":
    sys.exit(main())
