"""The base class of strategies that decide at the end of rounds of equal length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pbt.core.describe import describe_record
from pbt.core.population import StateRef, View
from pbt.core.rules import resolved, whole
from pbt.core.strategy import Mode, Proposal, births
from pbt.errors import UsageError
from pbt.space import HParams

NO_DONOR = "failed, and no healthy member is left"
"""Why a failed member is retired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """The base of strategies that decide on all members together, at the end of rounds of equal length.

    Args:
        interval: Training steps of a round.

    Raises:
        UsageError: The interval is not a whole number of at least 1.
    """

    resizable: ClassVar[bool] = False
    """Whether a population may grow or shrink when a run is resumed."""
    interval: int = 1

    def __post_init__(self) -> None:
        owner, steps = type(self).__name__, whole(self.interval)
        if steps is None or steps < 1:
            raise UsageError(f"{owner}: expected an interval of at least 1 whole step, got {self.interval!r}")
        for kind in ("exploit", "explore"):
            if hasattr(self, kind):
                object.__setattr__(self, kind, resolved(getattr(self, kind), kind, owner))

    @property
    def mode(self) -> Mode:
        """`sync`: all members wait at the end of a round."""
        return "sync"

    @property
    def lookback(self) -> int:
        """The number of earlier reports of each member that the view holds."""
        return 0

    def next_ready(self, step: int) -> int:
        """The step at which a member at `step` is ready again."""
        return step + self.interval

    def begin(self, view: View, population: int, initial: Sequence[HParams]) -> Proposal:
        """The initial members, first with the given values, then with values drawn from the priors."""
        return Proposal(starts=births(view, population, initial))

    def retain(self, view: View) -> set[StateRef]:  # noqa: ARG002 (the form of a strategy)
        """Keep no states besides the members' current ones."""
        return set()

    def describe(self) -> dict[str, Any]:
        """Plain values that identify the strategy."""
        return describe_record(self)
