"""Run the table and write how many cases gave each word: `python -m tests.pytorch.vectorized.zoo [NAME...]`."""

import sys
from collections import Counter

import torch

from tests.pytorch.vectorized.zoo import CASES
from tests.pytorch.vectorized.zoo.run import agrees, run


def main(names: list[str]) -> None:
    """Run the cases whose names contain one of `names`, or all; write each that is not the expected word."""
    torch.set_num_threads(1)
    words: Counter[str] = Counter()
    for name, case in CASES.items():
        if names and not any(part in name for part in names):
            continue
        result = run(case)
        words[result.word] += 1
        if names or agrees(case, result):
            sys.stdout.write(f"{name}: {agrees(case, result) or result}\n")
    sys.stdout.write(", ".join(f"{count} {word}" for word, count in words.most_common()) + f" of {words.total()}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
