"""Suspension of Python's garbage collector during a round's decisions."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Suspend the garbage collector.

    A round makes several long-lived records per member, and the collector scans all of them repeatedly: with 100,000
    members that takes as long as a quarter of the decisions.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
