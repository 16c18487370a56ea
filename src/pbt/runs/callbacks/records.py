"""The records passed to callbacks, and their derivation from the log."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pbt.core.events import Born, Decided, Decision, Ended, Event, Failed, Opening, Reported, Retired
from pbt.runs.log_entries import points_of
from pbt.runs.results import Run
from pbt.space import HParams
from pbt.store.points import Points
from pbt.values import Value

RunOutcome = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberReport:
    """A member finished a round: it is trained and scored, and its state is durable."""

    member: int
    round: int
    """Counted from 1."""
    first_step: int
    """Training steps of the start state; may be less than the member's own before, after a copy."""
    step: int
    """Training steps of the new state."""
    scores: tuple[float, ...]
    """Validation scores, as the task returned them."""
    hparams: HParams
    """Hyperparameters of the round."""
    reported: Mapping[str, Any] = field(default_factory=dict)
    """Other metrics returned by the task."""
    points: Points = field(default_factory=dict)
    """Numbers reported with `ctx.report` during the round: (step, value) pairs by name."""

    @property
    def score(self) -> float:
        """*The* score: the first one."""
        return self.scores[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFailure:
    """A member's round failed."""

    member: int
    round: int
    cause: str
    """`score` (no usable metrics), `state` (it cannot be stored), `exception` or `worker` (too many lost workers)."""
    message: str
    hparams: HParams
    """Hyperparameters of the round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A member copied a donor's state, hyperparameters or both, and explored."""

    member: int
    round: int
    """The round that starts with the copy."""
    donor: int
    kind: Literal["exploit", "replace"]
    """`exploit`: the strategy's choice; `replace`: the member had failed."""
    why: str
    score: float | None
    """The member's own score before; None: it had failed."""
    donor_score: float | None
    """The score of the copied state; None: only hyperparameters were copied."""
    first_step: int
    """Training steps of the state it continues from."""
    hparams_before: HParams
    hparams: HParams
    """Hyperparameters of the round, explored."""
    draws: Mapping[str, Value] = field(default_factory=dict)
    """The draw per changed name: a factor, a shift, or "resample"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundEnd:
    """Every current member has finished this round or failed in it."""

    round: int
    reports: tuple[MemberReport, ...]
    """Of this round, by member."""
    failures: tuple[MemberFailure, ...]
    """Of this round, by member."""
    best: MemberReport | None
    """The best report so far, of any round; None: no report yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """A run starts or resumes."""

    run: Run
    """Current results; `past(run)` yields the earlier events."""
    rounds: int
    """Requested rounds per member."""
    rounds_done: int
    """Rounds that every member has finished already."""
    resumed: bool
    """Whether the run was started earlier, even if no round was finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """A run ends or stops."""

    run: Run
    """Current results."""
    outcome: RunOutcome
    """`interrupted` by Ctrl-C or a signal, `failed` by an error; the run can be resumed unless every member failed."""
    error: BaseException | None = None
    """The exception that stopped it."""


CallbackRecord = MemberReport | MemberFailure | Copied | RoundEnd


def past(run: Run) -> Iterator[CallbackRecord]:
    """All records of a run so far, in order, as hooks would have received them between start and end."""
    return Records(run.view.sign).take(run.events, points_of(run.journal()))


class Records:
    """Derives records from a log given in parts; rounds that end within a part are reported at its end.

    Args:
        sign: `View.sign`: which of two scores is better.

    Attributes:
        rounds_done: Rounds finished by every member.
    """

    def __init__(self, sign: int) -> None:
        self.rounds_done = 0
        self._sign = sign
        self._opened: dict[int, Opening] = {}
        self._last: dict[int, Reported] = {}
        # Finished rounds per current member, and the number of members not beyond `rounds_done`.
        self._finished: dict[int, int] = {}
        self._behind = 0
        self._reports: dict[int, list[MemberReport]] = defaultdict(list)
        self._failures: dict[int, list[MemberFailure]] = defaultdict(list)
        self._candidates: set[int] = set()
        self._best: MemberReport | None = None

    def take(
        self, events: Iterable[Event], points: Mapping[tuple[int, int], Points] | None = None
    ) -> Iterator[CallbackRecord]:
        """The records of these events, with the points of their rounds by (member, round)."""
        for event in events:
            if isinstance(event, Reported | Failed | Ended):
                # Yielded last, so that a round's decisions are reported before its end.
                yield from self._ended()
            match event:
                case Born():
                    self._opened[event.member] = event
                    self._finished[event.member] = event.round - 1
                    self._behind += event.round - 1 <= self.rounds_done
                    if event.role == "member":
                        self._candidates.add(event.member)
                case Reported():
                    yield self._reported(event, (points or {}).get((event.member, event.round), {}))
                case Failed():
                    yield self._failed(event)
                case Decided(decision=decision):
                    yield from self._decided(decision)
                case Retired():
                    self._behind -= self._finished.pop(event.member) <= self.rounds_done
        yield from self._ended()

    def _reported(self, event: Reported, points: Points) -> MemberReport:
        self._last[event.member] = event
        report = MemberReport(
            member=event.member,
            round=event.round,
            first_step=self._opened[event.member].step,
            step=event.step,
            scores=event.scores,
            hparams=self._opened[event.member].hparams,
            reported=event.reported,
            points=points,
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
            hparams=self._opened[event.member].hparams,
        )
        self._failures[event.round].append(failure)
        self._finish(event)
        return failure

    def _decided(self, decision: Decision) -> Iterator[Copied]:
        member = decision.member
        before, last = self._opened[member], self._last.get(member)
        self._opened[member] = decision
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
                hparams_before=before.hparams,
                hparams=decision.hparams,
                draws=decision.draws,
            )

    def _finish(self, event: Reported | Failed) -> None:
        before, self._finished[event.member] = self._finished[event.member], event.round
        self._behind -= before <= self.rounds_done < event.round

    def _ended(self) -> Iterator[RoundEnd]:
        """The rounds that the last member has finished."""
        while self._finished and not self._behind:
            self.rounds_done += 1
            # Counted once per round, so that the cost of a report does not depend on the population size.
            self._behind = sum(finished <= self.rounds_done for finished in self._finished.values())
            yield RoundEnd(
                round=self.rounds_done,
                reports=tuple(sorted(self._reports.pop(self.rounds_done, ()), key=lambda report: report.member)),
                failures=tuple(sorted(self._failures.pop(self.rounds_done, ()), key=lambda failed: failed.member)),
                best=self._best,
            )
