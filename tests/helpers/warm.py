"""Worker processes that are forked from one that has imported torch, because each that starts anew takes seconds.

For tests whose subject is what workers train. How workers start is the subject of `tests/executors`, which start theirs
as users do.
"""

import contextlib
import multiprocessing
from collections.abc import Iterator
from unittest import mock

# The optimizer of a first step imports most of the rest.
PRELOADED = ["torch", "torch._dynamo", "pbt.pytorch.vectorized", "pbt.runs.experiment"]


@contextlib.contextmanager
def warm_workers() -> Iterator[None]:
    """In the body, workers start within milliseconds; they see the environment variables of the first ones' start."""
    made = multiprocessing.get_context
    warm = made("forkserver")
    warm.set_forkserver_preload(PRELOADED)
    with mock.patch("multiprocessing.get_context", lambda way=None: warm if way == "spawn" else made(way)):
        yield
