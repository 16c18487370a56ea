"""Training and testing of one MNIST network: python3 main.py config/fc.json."""

import sys

if __name__ == "__main__":
    try:
        from pbt.mnist.commands import single
    except ModuleNotFoundError as error:
        sys.exit(f"{error}. Install this package first: pip install '.[mnist]' (or run scripts/demo)")
    sys.exit(single())
