"""What is drawn of a run: numbers against training steps, and curves that never run backwards."""

import contextlib
from collections.abc import Mapping
from typing import Any

from pbt.runs.callbacks import MemberReport


def values(report: MemberReport) -> dict[str, Any]:
    """Score, hyperparameters and reported values by name; a name that is taken gets a longer one."""
    found: dict[str, Any] = {"score": report.score}
    for kind, more in (("hparams", report.hparams), ("reported", report.reported)):
        for name, value in more.items():
            found[f"{kind}.{name}" if name in found else name] = value
    return found


def numbers(named: Mapping[str, Any]) -> dict[str, float]:
    """Those that can be drawn: truth values and texts cannot."""
    found = {}
    for name, value in named.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):  # a whole number of hundreds of digits
                found[name] = float(value)
    return found


class Curves:
    """Where a member's curves break off and new ones begin.

    Training steps grow along a lineage, but not always along a member: in an asynchronous run, or where an older state
    is copied, its donor may have trained less than it has. Drawn as one curve it would run back and cross itself.
    """

    def __init__(self) -> None:
        self._end: dict[int, int] = {}
        self._suffix: dict[int, str] = {}

    def suffix(self, report: MemberReport) -> str:
        """What names of curves end in from this report of its member on: nothing until one would run backwards."""
        if report.first_step < self._end.get(report.member, 0):
            self._suffix[report.member] = f".from_round_{report.round}"
        self._end[report.member] = report.step
        return self._suffix.get(report.member, "")
