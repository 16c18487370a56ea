"""What strategies of whole rounds share: when a member is ready, who comes first, how one is told from another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pbt.core.describe import describe_record
from pbt.core.population import StateRef, View
from pbt.core.rules import resolved, whole
from pbt.core.strategy import Mode, Proposal, births
from pbt.errors import UsageError
from pbt.space import HParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """The base of strategies that decide on everybody at once, at the end of rounds of equal length.

    Args:
        interval: Training steps of a round.

    Raises:
        UsageError: Interval below 1.
    """

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
        """`sync`: everyone waits at the end of a round."""
        return "sync"

    @property
    def lookback(self) -> int:
        """How many earlier reports of each member the view shall hold."""
        return 0

    def next_ready(self, step: int) -> int:
        """The step at which a member that stands at `step` is ready again."""
        return step + self.interval

    def begin(self, view: View, population: int, initial: Sequence[HParams]) -> Proposal:
        """The first members, from the given values and then from the priors."""
        return Proposal(starts=births(view, population, initial))

    def retain(self, view: View) -> set[StateRef]:  # noqa: ARG002 (the form of a strategy)
        """No states but those that the members stand on."""
        return set()

    def describe(self) -> dict[str, Any]:
        """Plain values that say which strategy this is."""
        return describe_record(self)
