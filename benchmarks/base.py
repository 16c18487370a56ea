"""What every benchmark gives: rows of one table. And how each begins: with the asked repeats, or the whole of it."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asked for."""

    repeats: int = 5
    full: bool = False
    """Whole epochs where a slice of one stands for it otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured comparison; all numbers are medians."""

    work: str
    measured: str
    against: str
    value: float | None
    """The ratio, ours to theirs, or the one number that is compared with `limit`; None: not measured."""
    limit: float | None = None
    """The value must not be above it; None: nothing is asked."""
    aim: float | None = None
    """What is hoped for."""
    unit: str = ""

    @classmethod
    def missing(cls, work: str, why: str, *, limit: float | None = None, aim: float | None = None) -> Self:
        """A row without a number, and why; where there is a limit, it counts as missed."""
        return cls(work=work, measured=f"not measured: {why}", against="", value=None, limit=limit, aim=aim)

    @property
    def reached(self) -> bool:
        """Whether the value is at or below the limit, if there is one."""
        return self.limit is None or (self.value is not None and self.value <= self.limit)

    def line(self) -> str:
        """The row in Markdown."""
        value = "" if self.value is None else f"{self.value:.3g}{self.unit}"
        return f"| {self.work} | {self.measured} | {self.against} | {value} | {self._wanted()} |"

    def _wanted(self) -> str:
        if self.limit is None:
            return ""
        aim = "" if self.aim is None else f", aim {self.aim:.3g}{self.unit}"
        mark = "" if self.reached else " (not measured)" if self.value is None else " (missed)"
        return f"at most {self.limit:.3g}{self.unit}{aim}{mark}"


def times_faster(factor: float) -> float:
    """The limit of a ratio, ours to theirs, that must be so many times faster."""
    return round(1 / factor, 3)
