"""Worker processes that are forked from one that has imported torch, because each that starts anew takes seconds.

For tests whose subject is what processes do. How they start is the subject of others, which start theirs as users do.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any
from unittest import mock

# The first step of an optimizer imports most of the rest.
PRELOADED = ["torch", "torch._dynamo", "pbt.pytorch.vectorized", "pbt.runs.experiment"]


class WarmProcess(ForkServerProcess):
    """A process with the environment variables of its start, as a spawned one has them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.environment = dict(os.environ)

    def run(self) -> None:
        """Run the target."""
        os.environ.clear()
        os.environ.update(self.environment)
        super().run()


class WarmContext(ForkServerContext):
    """Starts such processes."""

    Process = WarmProcess


@contextlib.contextmanager
def warm_workers() -> Iterator[None]:
    """In the body, spawned processes start within milliseconds; they inherit no signal mask and no open file."""
    made = multiprocessing.get_context
    warm = WarmContext()
    warm.set_forkserver_preload(PRELOADED)
    with mock.patch("multiprocessing.get_context", lambda way=None: warm if way == "spawn" else made(way)):
        yield
