"""Ancestry of states, and the hyperparameter schedules that made them, read from the log alone.

A state's ancestry is a path through members: each link is one round of one member, and ends with the state that the
next link starts from.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pbt.core.events import Born, Decided, Decision, Event, Failed, Reported
from pbt.core.population import StateRef
from pbt.errors import UsageError
from pbt.space import HParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Constant values of a schedule from step `start` up to, not including, step `stop`."""

    start: int
    stop: int
    hparams: HParams


@dataclass(frozen=True, slots=True)
class Schedule:
    """Hyperparameters as a function of the training step; contiguous segments from step 0.

    Raises:
        UsageError: No segments, or segments with gaps or overlaps.
    """

    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        edges = [0, *(segment.stop for segment in self.segments)]
        if not self.segments or any(
            segment.start != start or segment.stop <= start
            for segment, start in zip(self.segments, edges, strict=False)
        ):
            raise UsageError("schedule: expected one or more segments that join without gaps, from step 0")

    def at(self, step: int) -> HParams:
        """The values at a step; after the end, the last values."""
        for segment in self.segments:
            if step < segment.stop:
                return segment.hparams
        return self.segments[-1].hparams

    @property
    def steps(self) -> int:
        """Total number of steps."""
        return self.segments[-1].stop

    def stretched(self, steps: int) -> "Schedule":
        """The same schedule over another number of steps; segments that shrink to less than one step are dropped.

        Raises:
            UsageError: `steps` is less than one.
        """
        if type(steps) is not int or steps < 1:
            raise UsageError(f"stretched: expected a whole number of steps, at least 1, got {steps!r}")
        # In integers, so that a stretch by an integer factor and back is exact at any length.
        edges = [(2 * stop * steps + self.steps) // (2 * self.steps) for stop in (0, *(s.stop for s in self.segments))]
        parts = zip(itertools.pairwise(edges), self.segments, strict=True)
        return Schedule(tuple(Segment(start=a, stop=b, hparams=s.hparams) for (a, b), s in parts if a < b))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: a list of segments."""
        return {
            "segments": [
                {"start": segment.start, "stop": segment.stop, "hparams": dict(segment.hparams)}
                for segment in self.segments
            ]
        }

    @classmethod
    def from_dict(cls, plain: Any) -> "Schedule":
        """The schedule that `to_dict` described; other keys are ignored.

        Raises:
            UsageError: Not the description of a schedule.
        """
        segments = plain.get("segments") if isinstance(plain, Mapping) else None
        if not isinstance(segments, (list, tuple)):
            raise UsageError("schedule: expected a mapping with a list of 'segments', found none")
        return cls(tuple(_segment(number, segment) for number, segment in enumerate(segments, 1)))


def _segment(number: int, plain: Any) -> Segment:
    """One validated segment of a description."""
    names = {"start", "stop", "hparams"}
    if not isinstance(plain, Mapping) or set(plain) != names:
        content = sorted(map(str, plain)) if isinstance(plain, Mapping) else repr(plain)
        raise UsageError(f"schedule, segment {number}: expected start, stop and hparams, found {content}")
    start, stop, hparams = plain["start"], plain["stop"], plain["hparams"]
    if type(start) is not int or type(stop) is not int:
        raise UsageError(f"schedule, segment {number}: expected whole numbers of steps, found {start!r} and {stop!r}")
    if not isinstance(hparams, Mapping) or not all(_is_value(value) for value in hparams.values()):
        raise UsageError(f"schedule, segment {number}: expected a value for each hyperparameter, found {hparams!r}")
    return Segment(start=start, stop=stop, hparams={str(name): value for name, value in hparams.items()})


def _is_value(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One round of an ancestry."""

    member: int
    round: int
    start: StateRef | None
    """The state the round started from; None: freshly built."""
    first_step: int
    last_step: int
    hparams: HParams
    score: float
    decision: Decision | None
    """The decision that opened the round; None: opened by birth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageSegment:
    """Consecutive rounds of one member: from a birth or a copy to the next copy, or to the end."""

    member: int
    first_round: int
    last_round: int
    first_step: int
    last_step: int
    start: StateRef | None
    """The state it started from; None: freshly built."""
    score: float
    """Score of its last round."""

    @property
    def state(self) -> StateRef:
        """Its final state."""
        return StateRef(self.member, self.last_round)


class Lineage:
    """Index of a run's log by member and round."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.births: dict[int, Born] = {}
        self.decisions: dict[tuple[int, int], Decision] = {}
        self.reports: dict[StateRef, Reported] = {}
        self.failures: dict[tuple[int, int], Failed] = {}
        for event in events:
            match event:
                case Born():
                    self.births[event.member] = event
                case Decided(decision=decision):
                    self.decisions[decision.member, decision.round] = decision
                case Reported():
                    self.reports[event.state] = event
                case Failed():
                    self.failures[event.member, event.round] = event

    def hparams(self, member: int, round_: int) -> HParams:
        """The hyperparameters of a member's round, trained or open."""
        decision = self.decisions.get((member, round_))
        return decision.hparams if decision is not None else self.births[member].hparams

    def start(self, member: int, round_: int) -> StateRef | None:
        """The start state of a member's round."""
        decision = self.decisions.get((member, round_))
        return decision.start if decision is not None else self.births[member].start

    def ancestry(self, ref: StateRef) -> list[Link]:
        """The rounds that led to this state, first to last.

        Raises:
            KeyError: No report names the state.
        """
        links = []
        current: StateRef | None = ref
        while current is not None:
            report = self.reports[current]
            start = self.start(*current)
            links.append(
                Link(
                    member=current.member,
                    round=current.round,
                    start=start,
                    first_step=self.reports[start].step if start is not None else 0,
                    last_step=report.step,
                    hparams=self.hparams(*current),
                    score=report.scores[0],
                    decision=self.decisions.get((current.member, current.round)),
                )
            )
            current = start
        return links[::-1]

    def schedule(self, ref: StateRef) -> Schedule:
        """The hyperparameters along the ancestry of a state; adjacent segments with equal values are merged."""
        segments = []
        for hparams, group in itertools.groupby(self.ancestry(ref), key=lambda link: link.hparams):
            links = list(group)
            segments.append(Segment(start=links[0].first_step, stop=links[-1].last_step, hparams=hparams))
        return Schedule(tuple(segments))

    def segments(self) -> list[LineageSegment]:
        """All trained rounds as segments, in log order; each starts from a round of an earlier segment, or at birth."""
        found: dict[StateRef, LineageSegment] = {}
        for ref, report in self.reports.items():
            start = self.start(*ref)
            goes_on = found.pop(start) if start in found and start == (ref.member, ref.round - 1) else None
            stint = goes_on or LineageSegment(
                member=ref.member,
                first_round=ref.round,
                last_round=ref.round,
                first_step=self.reports[start].step if start is not None else 0,
                last_step=report.step,
                start=start,
                score=report.scores[0],
            )
            found[ref] = replace(stint, last_round=ref.round, last_step=report.step, score=report.scores[0])
        order = {ref: place for place, ref in enumerate(self.reports)}
        return sorted(found.values(), key=lambda stint: order[StateRef(stint.member, stint.first_round)])

    def founder(self, ref: StateRef) -> int:
        """The member whose birth is the root of this state's ancestry."""
        return self._founders[ref]

    def founders(self, refs: Sequence[StateRef]) -> Counter[int]:
        """Number of these states per founder."""
        return Counter(self.founder(ref) for ref in refs)

    @cached_property
    def _founders(self) -> dict[StateRef, int]:
        found: dict[StateRef, int] = {}
        # A start state is reported before it is used, so one pass in log order is enough.
        for ref in self.reports:
            start = self.start(*ref)
            found[ref] = ref.member if start is None else found[start]
        return found
