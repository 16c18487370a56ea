"""What every benchmark gives: rows of one table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured comparison; all numbers are medians."""

    work: str
    measured: str
    against: str
    value: float
    """The ratio, or the one number that is compared with `limit`."""
    limit: float
    unit: str = ""

    @property
    def reached(self) -> bool:
        """Whether the value is at or below the limit."""
        return self.value <= self.limit

    def line(self) -> str:
        """The row in Markdown."""
        mark = "" if self.reached else " (missed)"
        wanted = f"at most {self.limit:g}{self.unit}{mark}"
        return f"| {self.work} | {self.measured} | {self.against} | {self.value:.3g}{self.unit} | {wanted} |"
