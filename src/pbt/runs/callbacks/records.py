"""What callbacks are told, as frozen records, and how they are made of a log."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pbt.core.events import Born, Decided, Decision, Ended, Event, Failed, Reported, Retired
from pbt.runs.results import Run
from pbt.space import HParams, Value

RunOutcome = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberReport:
    """A member finished a round: it was trained and scored, and its state is durable."""

    member: int
    round: int
    """Counts up from 1."""
    first_step: int
    """Training steps in the state it started from: fewer than its own, where it copied a member that is behind."""
    step: int
    """Training steps in its state now."""
    scores: tuple[float, ...]
    """Validation scores, as the task returned them."""
    hparams: HParams
    """What it was trained with."""
    reported: Mapping[str, Any] = field(default_factory=dict)
    """What else the task returned."""

    @property
    def score(self) -> float:
        """*The* score: the first one."""
        return self.scores[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFailure:
    """A member's round came to nothing."""

    member: int
    round: int
    cause: str
    """`score` (no usable metrics), `state` (it cannot be stored), `exception` or `worker` (lost too often)."""
    message: str
    hparams: HParams
    """What it was to be trained with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A member took over a donor's state, hyperparameters or both, and explored from there."""

    member: int
    round: int
    """The round that begins with the copy."""
    donor: int
    kind: Literal["exploit", "replace"]
    """`exploit`: the strategy's choice; `replace`: the member had failed."""
    why: str
    score: float | None
    """What the member itself had scored; None: it had failed."""
    donor_score: float | None
    """What the copied state had scored; None: only hyperparameters were taken."""
    first_step: int
    """Training steps in the state it goes on from."""
    hparams_before: HParams
    hparams: HParams
    """What the round is trained with, explored already."""
    draws: Mapping[str, Value] = field(default_factory=dict)
    """What was drawn per changed name: a factor, a shift, or "resample"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundEnd:
    """Every member that is not retired has finished this round, or failed in it."""

    round: int
    reports: tuple[MemberReport, ...]
    """Of this round, by member."""
    failures: tuple[MemberFailure, ...]
    """Of this round, by member."""
    best: MemberReport | None
    """The best report until now, of any round; None: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """A run begins, or goes on."""

    run: Run
    """As it is now; `past(run)` tells what happened before."""
    rounds: int
    """That every member shall train."""
    rounds_done: int
    """That every member has finished already."""
    resumed: bool
    """Whether it was begun earlier. Also true where that came to no whole round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """A run is over, or stops."""

    run: Run
    """As it is now."""
    outcome: RunOutcome
    """`interrupted` by Ctrl-C or a signal, `failed` by an error; the run can be resumed unless every member failed."""
    error: BaseException | None = None
    """What stopped it."""


CallbackRecord = MemberReport | MemberFailure | Copied | RoundEnd


def past(run: Run) -> Iterator[CallbackRecord]:
    """What the hooks between start and end would have been told of a run so far: all of it, in order."""
    return Records(run.view.sign).take(run.events)


class Records:
    """Makes records of a log that is given piece by piece; what ends in a piece is told at its end.

    Args:
        sign: `View.sign`: which of two scores is the better one.

    Attributes:
        rounds_done: Rounds that every member has finished.
    """

    def __init__(self, sign: int) -> None:
        self.rounds_done = 0
        self._sign = sign
        self._hparams: dict[int, HParams] = {}
        self._first_step: dict[int, int] = {}
        self._last: dict[int, Reported] = {}
        # Rounds finished, per member that is not retired, and how many of them are not beyond `rounds_done`.
        self._finished: dict[int, int] = {}
        self._behind = 0
        self._reports: dict[int, list[MemberReport]] = defaultdict(list)
        self._failures: dict[int, list[MemberFailure]] = defaultdict(list)
        self._candidates: set[int] = set()
        self._best: MemberReport | None = None

    def take(self, events: Iterable[Event]) -> Iterator[CallbackRecord]:
        """What callbacks are told of these events."""
        for event in events:
            if isinstance(event, Reported | Failed | Ended):
                # Only now, so that what was decided at the end of a round is told before its end.
                yield from self._ended()
            match event:
                case Born():
                    self._hparams[event.member], self._first_step[event.member] = event.hparams, 0
                    self._finished[event.member] = event.round - 1
                    self._behind += event.round - 1 <= self.rounds_done
                    if event.role == "member":
                        self._candidates.add(event.member)
                case Reported():
                    yield self._reported(event)
                case Failed():
                    yield self._failed(event)
                case Decided(decision=decision):
                    yield from self._decided(decision)
                case Retired():
                    self._behind -= self._finished.pop(event.member) <= self.rounds_done
        yield from self._ended()

    def _reported(self, event: Reported) -> MemberReport:
        self._last[event.member] = event
        report = MemberReport(
            member=event.member,
            round=event.round,
            first_step=self._first_step[event.member],
            step=event.step,
            scores=event.scores,
            hparams=self._hparams[event.member],
            reported=event.reported,
        )
        better = self._best is None or self._sign * report.score > self._sign * self._best.score
        if event.member in self._candidates and math.isfinite(report.score) and better:
            self._best = report
        self._reports[event.round].append(report)
        self._finish(event)
        return report

    def _failed(self, event: Failed) -> MemberFailure:
        self._last.pop(event.member, None)
        failure = MemberFailure(
            member=event.member,
            round=event.round,
            cause=event.cause,
            message=event.message,
            hparams=self._hparams[event.member],
        )
        self._failures[event.round].append(failure)
        self._finish(event)
        return failure

    def _decided(self, decision: Decision) -> Iterator[Copied]:
        member = decision.member
        before, last = self._hparams[member], self._last.get(member)
        self._hparams[member], self._first_step[member] = decision.hparams, decision.step
        if decision.donor is not None:
            yield Copied(
                member=member,
                round=decision.round,
                donor=decision.donor,
                kind="replace" if decision.kind == "replace" else "exploit",
                why=decision.why,
                score=None if last is None else last.scores[0],
                donor_score=decision.scores[0] if decision.scores else None,
                first_step=decision.step,
                hparams_before=before,
                hparams=decision.hparams,
                draws=decision.draws,
            )

    def _finish(self, event: Reported | Failed) -> None:
        before, self._finished[event.member] = self._finished[event.member], event.round
        self._behind -= before <= self.rounds_done < event.round

    def _ended(self) -> Iterator[RoundEnd]:
        """The rounds that the last of the members has left."""
        while self._finished and not self._behind:
            self.rounds_done += 1
            # Counted once a round, so that a report costs the same in a population of any size.
            self._behind = sum(finished <= self.rounds_done for finished in self._finished.values())
            yield RoundEnd(
                round=self.rounds_done,
                reports=tuple(sorted(self._reports.pop(self.rounds_done, ()), key=lambda report: report.member)),
                failures=tuple(sorted(self._failures.pop(self.rounds_done, ()), key=lambda failed: failed.member)),
                best=self._best,
            )
