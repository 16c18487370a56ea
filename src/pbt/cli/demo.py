"""`pbt demo`: the MNIST application on handwritten digits, in a minute or two."""

import importlib
from pathlib import Path
from typing import Literal

from pbt.cli.options import Flag
from pbt.errors import MissingExtraError
from pbt.terminal.exit import exit_code_of, print_error


def demo(
    *,
    rounds: int | None = None,
    seed: int = 117,
    out: Path | None = None,
    executor: Literal["auto", "inline", "processes", "vectorized", "ray"] | None = None,
    device: str | None = None,
    address: str | None = None,
    max_disk: str | None = None,
    no_progress: Flag = False,
) -> int:
    """Train ten networks on handwritten digits in a minute or two, with all tables and figures.

    Example: pbt demo --out runs/demo

    Args:
        rounds: Epochs per member. Default: a number that takes a minute or two on two cores.
        seed: Random seed.
        out: Run directory. Default: a new directory in runs.
        executor: How members are trained (docs/executors.md). Default: the fastest on this machine.
        device: cpu, cuda or cuda:N. Default: cuda if available.
        address: Address of the Ray cluster: host:port or auto. Default: RAY_ADDRESS, else a local Ray for this run.
        max_disk: Stop, resumable, before the run directory exceeds this size, such as 2G. Default: unlimited.
        no_progress: Hide the progress display during training.
    """
    # Printed first, because loading PyTorch can take seconds.
    print_error("training a population of ten networks on handwritten digits; takes a minute or two on two cores")
    try:
        commands = importlib.import_module("pbt.mnist.commands")
    except ImportError as error:
        raise MissingExtraError("pbt demo", "mnist") from error
    started: list[Path] = []
    flags = {"out": out, "rounds": rounds, "seed": seed, "executor": executor, "device": device, "begun": started}
    flags |= {"address": address, "max_disk": max_disk}
    return exit_code_of(
        lambda: commands.demo(**flags, show=not no_progress), lambda: commands.resume_line(started) if started else None
    )
