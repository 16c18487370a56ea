"""The index of a run's log: every trained state with its round, its hyperparameters and its ancestry.

A state's ancestry is a path through members: each step is one round of one member, and ends with the state from which
the next one starts.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from pbt.core.events import Born, Decided, Decision, Event, Failed, Opening, Reported
from pbt.core.population import StateRef
from pbt.core.schedule import Schedule, Segment
from pbt.space import HParams


class TrainedState(NamedTuple):
    """The state of a member after one of its rounds, with that round. A tuple for speed, like `Member`."""

    report: Reported
    opening: Opening
    """The record that opened the round."""
    first_step: int
    """Training steps in the state from which the round started."""
    founder: int
    """The member whose birth is the root of its ancestry."""
    depth: int
    """Number of rounds along its ancestry, from 1."""

    @property
    def state(self) -> StateRef:
        """The name of the state."""
        return self.report.state

    @property
    def member(self) -> int:
        """The member that trained it."""
        return self.report.member

    @property
    def round(self) -> int:
        """The round of that member."""
        return self.report.round

    @property
    def step(self) -> int:
        """Training steps in the state."""
        return self.report.step

    @property
    def score(self) -> float:
        """*The* score, as returned by the task."""
        return self.report.scores[0]

    @property
    def reported(self) -> Mapping[str, Any]:
        """Reported metrics; the selection does not use them."""
        return self.report.reported

    @property
    def start(self) -> StateRef | None:
        """The state from which the round started; None: freshly built."""
        return self.opening.start

    @property
    def hparams(self) -> HParams:
        """The hyperparameters of the round."""
        return self.opening.hparams

    @property
    def decision(self) -> Decision | None:
        """The decision that opened the round; None: opened by birth."""
        return None if isinstance(self.opening, Born) else self.opening


class LineageSegment(NamedTuple):
    """Consecutive rounds of one member: from a birth or a copy to the next copy, or to the end."""

    first: TrainedState
    last: TrainedState

    @property
    def member(self) -> int:
        """The member."""
        return self.first.member

    @property
    def start(self) -> StateRef | None:
        """The state from which it started; None: freshly built."""
        return self.first.start


class RunHistory:
    """The index of a log, built in one pass and not changed afterwards.

    Args:
        events: The log, in order.

    Attributes:
        births: Births by member.
        decisions: Decisions by the member and the round that they open.
        states: All trained states in the order of the log: each follows the state from which it started.
        failures: Failed rounds by member and round.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        self.births: dict[int, Born] = {}
        self.decisions: dict[tuple[int, int], Decision] = {}
        self.states: dict[StateRef, TrainedState] = {}
        self.failures: dict[tuple[int, int], Failed] = {}
        for event in events:
            match event:
                case Born():
                    self.births[event.member] = event
                case Decided(decision=decision):
                    self.decisions[decision.member, decision.round] = decision
                case Reported():
                    self.states[event.state] = self._trained(event)
                case Failed():
                    self.failures[event.member, event.round] = event

    def _trained(self, report: Reported) -> TrainedState:
        opening = self.opening(report.member, report.round)
        if opening.start is None:
            return TrainedState(report, opening, first_step=0, founder=report.member, depth=1)
        before = self.states[opening.start]
        return TrainedState(report, opening, first_step=before.step, founder=before.founder, depth=before.depth + 1)

    @cached_property
    def reports(self) -> Mapping[StateRef, Reported]:
        """All reports by state, in the order of the log."""
        return {ref: state.report for ref, state in self.states.items()}

    @cached_property
    def newest(self) -> Mapping[int, TrainedState]:
        """The last state of each member that has finished a round."""
        return {state.member: state for state in self.states.values()}

    @cached_property
    def children(self) -> Mapping[StateRef | None, Sequence[StateRef]]:
        """The states that started from each state, in the order of the log; None is the key of the freshly built."""
        children: dict[StateRef | None, list[StateRef]] = defaultdict(list)
        for ref, state in self.states.items():
            children[state.start].append(ref)
        return dict(children)

    def opening(self, member: int, round_: int) -> Opening:
        """The record that opened a member's round, trained or not."""
        return self.decisions.get((member, round_)) or self.births[member]

    def hparams(self, member: int, round_: int) -> HParams:
        """The hyperparameters of a member's round, trained or not."""
        return self.opening(member, round_).hparams

    def start(self, member: int, round_: int) -> StateRef | None:
        """The start state of a member's round."""
        return self.opening(member, round_).start

    def ancestry(self, ref: StateRef) -> list[TrainedState]:
        """The ancestors of a state in order, and the state itself last.

        Raises:
            KeyError: No report names the state.
        """
        path = []
        current: StateRef | None = ref
        while current is not None:
            path.append(self.states[current])
            current = path[-1].start
        return path[::-1]

    def schedule(self, ref: StateRef) -> Schedule:
        """The hyperparameters along the ancestry of a state; adjacent segments with equal values are merged."""
        return schedule_of(self.ancestry(ref))

    def segments(self) -> list[LineageSegment]:
        """All states as segments, in log order; each starts from a round of an earlier segment, or at birth."""
        segments: list[LineageSegment] = []
        ends: dict[StateRef, int] = {}
        for ref, state in self.states.items():
            start = state.start
            index = ends.pop(start, None) if start == (ref.member, ref.round - 1) else None
            if index is None:
                index = len(segments)
                segments.append(LineageSegment(state, state))
            else:
                segments[index] = LineageSegment(segments[index].first, state)
            ends[ref] = index
        return segments

    def founder(self, ref: StateRef) -> int:
        """The member whose birth is the root of this state's ancestry."""
        return self.states[ref].founder

    def founders(self, refs: Iterable[StateRef]) -> Counter[int]:
        """Number of these states per founder."""
        return Counter(self.founder(ref) for ref in refs)


def schedule_of(ancestry: Sequence[TrainedState]) -> Schedule:
    """The hyperparameters along an ancestry; adjacent segments with equal values are merged."""
    segments = []
    for hparams, group in itertools.groupby(ancestry, key=lambda state: state.hparams):
        states = list(group)
        segments.append(Segment(start=states[0].first_step, stop=states[-1].step, hparams=hparams))
    return Schedule(tuple(segments))


def ancestry_of(path: Iterable[tuple[Opening, Reported]]) -> list[TrainedState]:
    """The ancestry of a state from the openings and reports of its rounds, first to last."""
    found: list[TrainedState] = []
    for opening, report in path:
        step, founder = (found[-1].step, found[-1].founder) if found else (0, report.member)
        found.append(TrainedState(report, opening, first_step=step, founder=founder, depth=len(found) + 1))
    return found
