"""Runs benchmarks and prints a table: python -m benchmarks [--only NAME] [--repeats N]."""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from benchmarks import convolution, overhead, toy
from benchmarks.base import Row

BENCHMARKS: dict[str, Callable[[int], Sequence[Row]]] = {
    "overhead": overhead.measure,
    "toy": toy.measure,
    "convolution": convolution.measure,
}


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--only", choices=sorted(BENCHMARKS), help="one benchmark instead of all")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of each measurement; the table has medians")
    asked = parser.parse_args()
    print(f"{_cpu()}, {len(os.sched_getaffinity(0))} cores, {platform.platform()}")
    print(f"Python {platform.python_version()}, torch {metadata.version('torch')}, numpy {metadata.version('numpy')}\n")
    print("| work | measured | against | ratio | wanted |\n|---|---|---|---|---|")
    missed = False
    for name, measure in BENCHMARKS.items():
        if asked.only in (None, name):
            for row in measure(asked.repeats):
                print(row.line(), flush=True)
                missed |= not row.reached
    return int(missed)


def _cpu() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
