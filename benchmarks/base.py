"""Options and result rows shared by all benchmarks."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the command line."""

    repeats: int = 5
    full: bool = False
    """Train whole epochs instead of slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured comparison; all numbers are medians."""

    work: str
    measured: str
    against: str
    value: float | None
    """The ratio of `pbt` to the reference, or the number compared with `limit`; None: not measured."""
    limit: float | None = None
    """Largest acceptable value; None: no limit."""
    aim: float | None = None
    """Target value."""
    unit: str = ""

    @classmethod
    def missing(cls, work: str, why: str, *, limit: float | None = None, aim: float | None = None) -> Self:
        """A row without a number, with the reason; a limit counts as missed."""
        return cls(work=work, measured=f"not measured: {why}", against="", value=None, limit=limit, aim=aim)

    @property
    def reached(self) -> bool:
        """Whether the value is at or below the limit, if there is one."""
        return self.limit is None or (self.value is not None and self.value <= self.limit)

    def line(self) -> str:
        """The row in Markdown."""
        value = "" if self.value is None else f"{self.value:.3g}{self.unit}"
        return f"| {self.work} | {self.measured} | {self.against} | {value} | {self._limit()} |"

    def _limit(self) -> str:
        if self.limit is None:
            return ""
        aim = "" if self.aim is None else f", aim {self.aim:.3g}{self.unit}"
        mark = "" if self.reached else " (not measured)" if self.value is None else " (missed)"
        return f"at most {self.limit:.3g}{self.unit}{aim}{mark}"


def times_faster(factor: float) -> float:
    """The limit of the ratio for `pbt` to be this many times as fast."""
    return round(1 / factor, 3)
