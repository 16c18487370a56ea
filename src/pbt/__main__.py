"""The same as the command `pbt`: python -m pbt."""

import sys

from pbt.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
