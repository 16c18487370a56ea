"""Output of the commands: notices, download progress, and the result of a test."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pbt.mnist.config.record import Config
from pbt.mnist.config.types import plain
from pbt.mnist.data.find import Dataset
from pbt.mnist.models import Shape, count_parameters
from pbt.mnist.tester import Tested
from pbt.terminal.console import can_redraw, console_for
from pbt.terminal.exit import StderrHandler, print_error


def report_notices() -> None:
    """Print the log messages of the package on stderr, one line each."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, handlers=[StderrHandler()])


def print_start(config: Config, data: Dataset) -> None:
    """Print the network and the data on stderr."""
    shape = Shape.of(config.train)
    print_error(f"network: {shape.model} {plain(shape.sizes)}, {count_parameters(shape):,} parameters")
    print_error(f"data: {data.line}")


@contextmanager
def searching(show: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar per downloaded file; yields the function to call with file name, bytes so far and bytes in all."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = console_for(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not (show and can_redraw(console))) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total or None)
            bar.update(tasks[name], completed=done)

        yield advance


def print_test(tested: Tested, mode: Literal["test", "val"]) -> None:
    """Print the result of a test on stdout."""
    images = "test" if mode == "test" else "held-out"
    lines = [tested.what, f"network: {tested.network}", f"data: {tested.data}"]
    scores = ", ".join(f"{name} {value:.4f}" for name, value in tested.scores.items())
    lines.append(f"{tested.images:,} {images} images: {scores}")
    console_for().print("\n".join(lines), soft_wrap=True)
