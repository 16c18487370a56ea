"""Population based training of the MNIST networks: python3 main_PBT.py config/fc_PBT.json."""

import sys

if __name__ == "__main__":
    try:
        from pbt.mnist.commands import population
    except ModuleNotFoundError as error:
        sys.exit(f"{error}. Install this package first: pip install '.[mnist]' (or run scripts/demo)")
    sys.exit(population())
