"""Curves of a run: numbers against training steps, in curves that never run backwards."""

import contextlib
from collections.abc import Mapping
from typing import Any

from pbt.runs.callbacks import MemberReport


def values(report: MemberReport) -> dict[str, Any]:
    """Score, hyperparameters and reported values by name; a taken name gets a longer one."""
    found: dict[str, Any] = {"score": report.score}
    for kind, more in (("hparams", report.hparams), ("reported", report.reported)):
        for name, value in more.items():
            found[f"{kind}.{name}" if name in found else name] = value
    return found


def points(report: MemberReport) -> list[tuple[int, dict[str, float]]]:
    """The numbers reported during the round, by step in ascending order; a taken name gets a longer one."""
    taken = values(report)
    found: dict[int, dict[str, float]] = {}
    for name, series in report.points.items():
        for step, value in series:
            found.setdefault(step, {})[f"curve.{name}" if name in taken else name] = value
    return sorted(found.items())


def numbers(named: Mapping[str, Any]) -> dict[str, float]:
    """The values that can be plotted: numbers, without booleans."""
    found = {}
    for name, value in named.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):  # an integer of hundreds of digits
                found[name] = float(value)
    return found


class Curves:
    """Splits a member's curves where they would run backwards.

    Training steps increase along a lineage, but not always along a member: in an asynchronous run, or when an earlier
    state is copied, its donor may have fewer steps than the member. A single curve would cross itself.
    """

    def __init__(self) -> None:
        self._end: dict[int, int] = {}
        self._suffix: dict[int, str] = {}

    def suffix(self, report: MemberReport) -> str:
        """The suffix for names of curves from this report of its member on; empty until a curve would run backwards."""
        if report.first_step < self._end.get(report.member, 0):
            self._suffix[report.member] = f".from_round_{report.round}"
        self._end[report.member] = report.step
        return self._suffix.get(report.member, "")
