"""`python -m localseek` is the command line."""

import sys

from localseek.cli import main

if __name__ == "__main__":
    sys.exit(main())
