"""Validation of outcomes and proposals, and their conversion to events and journal entries."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from pbt.core.events import Born, Decided, Decision, Event, Failed, MemoryUpdated, Reported
from pbt.core.fold import turned
from pbt.core.population import Member, StateRef, View
from pbt.core.strategy import Proposal
from pbt.errors import UsageError
from pbt.executors.base import Failure, Outcome, Report, RoundTask
from pbt.store.base import JournalEntry, NewEntry
from pbt.store.points import Points, from_plain, to_plain
from pbt.values import are_exact

CURVE = "curve"
"""The kind of the journal entries with the points of a round."""


def event_of(task: RoundTask, outcome: Outcome) -> Event:
    """The event of a member's round."""
    if isinstance(outcome, Failure):
        return Failed(member=task.member, round=task.round, cause=outcome.cause, message=outcome.message)
    return Reported(
        member=task.member,
        round=task.round,
        step=task.first_step + task.steps,
        scores=outcome.scores,
        series=outcome.series,
        state=StateRef(task.member, task.round),
        digest=outcome.stored.digest,
        reported=outcome.reported,
    )


def other_scores(report: Report, expected: int, *, listed: bool) -> Failure:
    """The failure of a member whose number of scores differs from the run's; `listed`: from its objectives'."""
    scores = "1 score" if len(report.scores) == 1 else f"{len(report.scores)} scores"
    right = f"objective has one for each of {expected}" if listed else f"the other reports of this run have {expected}"
    return Failure(
        member=report.member,
        round=report.round,
        attempt=report.attempt,
        cause="score",
        message=f"the task returned {scores}, {right}; return as many each time, as 'scores'",
    )


def note_of(outcome: Outcome) -> NewEntry:
    """The parts of an outcome that differ between equal runs and are journaled, not logged: attempts and times."""
    details = {"member": outcome.member, "round": outcome.round, "attempt": outcome.attempt}
    if isinstance(outcome, Failure):
        text = {"message": outcome.message, "traceback": outcome.traceback}
        place = {"file": outcome.file, "line": outcome.line} if outcome.file else {}
        return NewEntry(kind="failure", details={**details, **text, **place})
    return NewEntry(kind="round", details={**details, "seconds": outcome.seconds})


def notes_of(outcome: Outcome) -> list[NewEntry]:
    """The journal entries of an outcome: its attempt and times, and the points that the task reported."""
    notes = [note_of(outcome)]
    if outcome.points:
        details = {"member": outcome.member, "round": outcome.round, "points": to_plain(outcome.points)}
        notes.append(NewEntry(kind=CURVE, details=details))
    return notes


def points_of(journal: Iterable[JournalEntry]) -> dict[tuple[int, int], Points]:
    """The points of each (member, round) in a journal."""
    found = {}
    for entry in journal:
        if entry.kind == CURVE and isinstance(entry.details, Mapping):
            member, round_ = entry.details.get("member"), entry.details.get("round")
            if isinstance(member, int) and isinstance(round_, int):
                found[member, round_] = from_plain(entry.details.get("points"))
    return found


def decided_events(proposal: Proposal, view: View, ready: Sequence[Member]) -> list[Event]:
    """The events of a validated proposal for ready members.

    Raises:
        UsageError: The proposal is not one valid decision or retirement per member.
        SpaceError: Decided hyperparameters are outside the space.
    """
    answered = [d.member for d in proposal.decisions] + [r.member for r in proposal.retirements]
    if sorted(answered) != [member.id for member in ready]:
        raise UsageError(
            f"expected the strategy to decide once on each of members {[m.id for m in ready]}, got {answered}"
        )
    decisions = []
    for decision in proposal.decisions:
        member = view.member(decision.member)
        if decision.round != member.round + 1:
            raise UsageError(
                f"expected a decision to open round {member.round + 1} of member {member.id}, got {decision.round}"
            )
        # Values that the member has already were checked when it got them.
        if decision.hparams is member.hparams or (
            are_exact(decision.hparams) and view.space.contains(decision.hparams)
        ):
            decisions.append(decision)
        else:
            checked = view.space.check(decision.hparams, f"hyperparameters decided for member {member.id}")
            decisions.append(decision._replace(hparams=checked))
    decided = [Decided(decision=_as_returned(d, view)) for d in sorted(decisions, key=_MEMBER)]
    return [*decided, *proposal.retirements, *first_events(proposal, view)]


_MEMBER = attrgetter("member")


def _as_returned(decision: Decision, view: View) -> Decision:
    """The decision with scores as the task returned them, as the log holds them."""
    if (view.sign > 0 and not view.signs) or not (decision.scores or decision.series):
        return decision
    scores = turned(view.sign, decision.scores, view.signs)
    return decision._replace(scores=scores, series=turned(view.sign, decision.series))


def first_events(proposal: Proposal, view: View) -> list[Event]:
    """The events of a proposal's validated births and memory."""
    memory = [] if proposal.memory is None else [MemoryUpdated(round=view.round, memory=proposal.memory)]
    return [*births_of(proposal, view), *memory]


def births_of(proposal: Proposal, view: View) -> list[Born]:
    """The validated births of a proposal.

    Raises:
        UsageError: One is that of a member that exists already.
        SpaceError: Its hyperparameters are outside the space.
    """
    known, starts = {member.id for member in view.members}, []
    for start in proposal.starts:
        if start.member in known:
            raise UsageError(
                f"expected the strategy to start new members, got member {start.member}, which exists already"
            )
        known.add(start.member)
        hparams = view.space.check(start.hparams, f"hyperparameters of new member {start.member}")
        starts.append(replace(start, hparams=hparams))
    return starts
