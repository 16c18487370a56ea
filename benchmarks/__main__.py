"""Run benchmarks and print a table: python -m benchmarks [--only NAME] [--repeats N] [--full]."""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path

import torch

from benchmarks import accelerator, cluster, conv, convolution, decision, fc, frameworks, memory, mlp, scale, toy
from benchmarks.base import Options, Row

BENCHMARKS: dict[str, Callable[[Options], Iterable[Row]]] = {
    "fc": fc.measure,
    "conv": conv.measure,
    "mlp": mlp.measure,
    "toy": toy.measure,
    "decision": decision.measure,
    "scale": scale.measure,
    "memory": memory.measure,
    "convolution": convolution.measure,
    "ray": cluster.measure,
    "frameworks": frameworks.measure,
    "accelerator": accelerator.measure,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "--only", choices=sorted(BENCHMARKS), action="append", help="run only this benchmark; may be repeated"
    )
    parser.add_argument(
        "--repeats", type=_positive, default=5, help="repeats of each measurement; the table shows medians (default: 5)"
    )
    parser.add_argument("--full", action="store_true", help="train whole epochs of the conv network; takes an hour")
    return parser.parse_args(arguments)


def main() -> int:
    """Run the selected benchmarks; return 1 if a limit was missed or could not be measured."""
    options = parse()
    for line in environment():
        print(line)
    print("\n| work | `pbt` | reference | ratio | limit |\n|---|---|---|---|---|", flush=True)
    missed = False
    for name, measure in BENCHMARKS.items():
        if options.only is None or name in options.only:
            for row in measure(Options(repeats=options.repeats, full=options.full)):
                print(row.line(), flush=True)
                missed |= not row.reached
    return int(missed)


def environment() -> list[str]:
    """Hardware and versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy"))
    return [
        f"{_cpu()}, {cores} cores, {torch.get_num_threads()} threads by default, {device}, {platform.platform()}",
        f"Python {platform.python_version()}, {versions}",
    ]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def _cpu() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
