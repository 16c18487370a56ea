"""Fold of what a log says of each member besides the `View`: its opening, its own best score, its founder.

The engine and the tables of a run read it. Like `View` it is a function of the log, and can be saved and continued.
"""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from pbt.core.events import Born, Decided, Event, Opening, Reported
from pbt.core.population import StateRef

if TYPE_CHECKING:
    from pbt.space import HParams

RECENT = 2
"""Rounds whose states are remembered by member, and kept."""


class Standings:
    """The standing of every member after the events taken so far. Mutable; one pass, constant work per event.

    Args:
        sign: `View.sign`: which of two scores is better.

    Attributes:
        last: Id of the last event taken.
        openings: The record that opened each member's last round.
        before: The hyperparameters of the round before that, by member.
        bests: Each member's own best score, as the task returned it.
        recent: Each member's own last two states, older first.
        founders: The founder of the lineage of each state.
        scores: Number of scores per report; 0: no report yet.
    """

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.last = 0
        self.openings: dict[int, Opening] = {}
        self.before: dict[int, HParams] = {}
        self.bests: dict[int, float] = {}
        self.recent: dict[int, tuple[StateRef, ...]] = {}
        self.founders: dict[StateRef, int] = {}
        self.scores = 0

    def take(self, events: Iterable[Event]) -> None:
        """Take the next events of the log."""
        for event in events:
            self.last += 1
            if isinstance(event, Decided):
                member = event.decision.member
                self.before[member] = self.openings[member].hparams
                self.openings[member] = event.decision
            elif isinstance(event, Reported):
                self._report(event)
            elif isinstance(event, Born):
                self.openings[event.member] = event

    def _report(self, event: Reported) -> None:
        member, start = event.member, self.openings[event.member].start
        self.founders[event.state] = member if start is None else self.founders.get(start, member)
        self.recent[member] = (*self.recent.get(member, ()), event.state)[-RECENT:]
        self.scores = self.scores or len(event.scores)
        best = self.bests.get(member)
        if best is None or self.sign * event.scores[0] > self.sign * best:
            self.bests[member] = event.scores[0]

    def founder(self, member: int, state: StateRef | None) -> int:
        """The founder of a member that continues from this state; itself if it is freshly built."""
        return member if state is None else self.founders.get(state, member)

    def forget(self, keep: Collection[StateRef | None]) -> None:
        """Forget the founders of all other states: no member starts from a state that is no longer stored."""
        self.founders = {ref: founder for ref, founder in self.founders.items() if ref in keep}
