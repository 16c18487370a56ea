"""Parameters of which the default suite takes only a few."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def sampled(values: Iterable[Any], kept: Collection[Any]) -> list[Any]:
    """All values, of which those outside `kept` are marked `long`."""
    return [value if value in kept else pytest.param(value, marks=pytest.mark.long) for value in values]
