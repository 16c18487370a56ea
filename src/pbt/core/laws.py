"""The laws of a log: the form of every event, and what can follow what.

A run directory from an unknown author can have right checksums around events that no run produces. `check_form` is for
each event alone, `LogLaws` for an event after those before it, and `check_fold` for a checkpoint of the fold. Readers
rely on them: what passes is a population that can be shown, exported and continued.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pbt.core.checkpoint import FoldedLog
from pbt.core.events import Born, Decided, Decision, Ended, Event, Failed, MemoryUpdated, Opening, Reported, Retired
from pbt.core.history import RunHistory
from pbt.core.population import Member, StateRef, View
from pbt.errors import CorruptError
from pbt.space import Space
from pbt.values import are_exact

_LARGEST = 1 << 53
"""Numbers of members, rounds and steps are below it: a float, and so every reader, has them exactly."""
_NUMBERS = frozenset((float, int))
_KINDS = frozenset(("continue", "explore", "exploit", "replace"))
_ROLES = frozenset(("member", "evaluator", "elite"))
_STATUSES = frozenset(("live", "failed", "retired"))


def check_form(event: Event) -> None:
    """Check the types and ranges of an event's fields.

    Raises:
        ValueError: A field has a value that no run writes; the message names the field.
    """
    kind = type(event)
    if kind is Reported:
        _check_report(event)  # type: ignore[arg-type]
    elif kind is Decided:
        _check_decision(event.decision)  # type: ignore[union-attr]
    elif kind is Born:
        _check_birth(event)  # type: ignore[arg-type]
    else:
        _check_other(event)


# The two frequent events are first accepted by one expression, which takes half the time; the rest names the field.


def _check_report(event: Reported) -> None:
    if (
        type(event.member) is type(event.round) is type(event.step) is int
        and 0 <= event.member < _LARGEST
        and 1 <= event.round < _LARGEST
        and 0 <= event.step < _LARGEST
        and event.state == (event.member, event.round)
        and event.scores
        and _are_numbers(event.scores)
        and (event.series == () or _are_numbers(event.series))
        and type(event.digest) is str
        and isinstance(event.reported, Mapping)
    ):
        return
    _check_counts(event, "member", "round", "step")
    _expect(event.round >= 1, "round", event.round)
    _expect(event.state == (event.member, event.round), "state", event.state)
    _expect(_are_numbers(event.scores) and bool(event.scores), "scores", event.scores)
    _expect(_are_numbers(event.series), "series", event.series)
    _expect(type(event.digest) is str, "digest", event.digest)
    _expect(isinstance(event.reported, Mapping), "reported", event.reported)


def _check_decision(one: Decision) -> None:
    if (
        type(one.member) is type(one.round) is type(one.step) is int
        and 0 <= one.member < _LARGEST
        and 1 <= one.round < _LARGEST
        and 0 <= one.step < _LARGEST
        and (one.start is None or _is_ref(one.start))
        and _are_values(one.hparams)
        and one.scores == one.series == ()
        and one.donor is None
        and one.compared is None
        and (one.hparams_from is None or _is_count(one.hparams_from))
        and _is_one_of(one.kind, _KINDS)
        and type(one.why) is str
        and type(one.draws) is dict
    ):
        return
    _check_counts(one, "member", "round", "step")
    _check_opening(one)
    _expect(_are_numbers(one.scores), "scores", one.scores)
    _expect(_are_numbers(one.series), "series", one.series)
    for name in ("donor", "hparams_from", "compared"):
        value = getattr(one, name)
        _expect(value is None or _is_count(value), name, value)
    _expect(_is_one_of(one.kind, _KINDS), "how", one.kind)
    _expect(type(one.draws) is dict, "draws", one.draws)
    _expect(type(one.why) is str, "why", one.why)


def _check_birth(event: Born) -> None:
    _check_counts(event, "member", "round", "step")
    _check_opening(event)
    _expect(_is_one_of(event.role, _ROLES), "role", event.role)
    _expect(type(event.group) is int and abs(event.group) < _LARGEST, "group", event.group)


def _check_opening(opening: Opening) -> None:
    _expect(opening.round >= 1, "round", opening.round)
    _expect(opening.start is None or _is_ref(opening.start), "start", opening.start)
    _expect(_are_values(opening.hparams), "hparams", opening.hparams)


def _check_other(event: Event) -> None:
    _check_counts(event, "round")
    match event:
        case Failed():
            _check_counts(event, "member")
            _expect(type(event.cause) is str, "cause", event.cause)
            _expect(type(event.message) is str, "message", event.message)
        case MemoryUpdated():
            _expect(isinstance(event.memory, Mapping), "memory", event.memory)
        case Retired() | Ended():
            _expect(type(event.why) is str, "why", event.why)
            if isinstance(event, Retired):
                _check_counts(event, "member")
        case _:
            raise ValueError(f"unknown kind of event {type(event).__name__}")


def _check_counts(record: Any, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if type(value) is not int or not 0 <= value < _LARGEST:
            _expect(False, name, value)


def _expect(is_right: bool, name: str, value: object) -> None:
    if not is_right:
        raise ValueError(f"'{name}' cannot be {value!r:.60}")


def _is_one_of(value: object, names: frozenset[str]) -> bool:
    return type(value) is str and value in names


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _is_ref(value: object) -> bool:
    return type(value) is StateRef and _is_count(value.member) and _is_count(value.round) and value.round >= 1


def _are_numbers(values: object) -> bool:
    return type(values) is tuple and _NUMBERS.issuperset(map(type, values))


def _are_values(values: object) -> bool:
    return type(values) is dict and are_exact(values)


class LogLaws:
    """Checks the events of a log, one after the other, against those before them. Mutable.

    Args:
        space: The space of the hyperparameters.
        folded: The log up to the first event to check. Default: its beginning.
    """

    def __init__(self, space: Space, folded: FoldedLog | None = None) -> None:
        self._space = space
        self._opened: dict[int, int] = {}
        self._closed: dict[int, int] = {}
        self._starts: dict[int, int] = {}
        self._retired: set[int] = set()
        self._states: dict[StateRef, int | None] = {}
        self._scores = 0
        self.last = 0
        """Id of the last event that was checked."""
        if folded is not None:
            self._continue(folded)

    def _continue(self, folded: FoldedLog) -> None:
        view, standings = folded
        self.last, self._scores = standings.last, standings.scores
        self._states = dict.fromkeys(standings.founders)
        for member in view.members:
            self._opened[member.id], self._closed[member.id] = member.opened, member.round
            self._starts[member.id] = member.step
            if member.status == "retired":
                self._retired.add(member.id)
            if member.state is not None:
                self._states[member.state] = member.step

    def check(self, events: Iterable[Event]) -> None:
        """Check the next events.

        Raises:
            CorruptError: An event cannot have happened; the message names it.
        """
        for event in events:
            self.last += 1
            problem = self._problem(event)
            if problem:
                raise CorruptError(f"event {self.last}: {problem}: no run writes such a log")

    def _problem(self, event: Event) -> str:
        kind = type(event)
        if kind is Reported:
            return self._report(event)  # type: ignore[arg-type]
        if kind is Decided:
            return self._decide(event.decision)  # type: ignore[union-attr]
        if kind is Born:
            return self._birth(event)  # type: ignore[arg-type]
        if kind is Failed:
            return self._close(event.member, event.round)  # type: ignore[union-attr]
        if kind is Retired:
            return self._retire(event.member)  # type: ignore[union-attr]
        return ""

    def _birth(self, birth: Born) -> str:
        if birth.member in self._opened:
            return f"expected a new member, found member {birth.member} again"
        self._closed[birth.member] = birth.round - 1
        return self._open(birth)

    def _decide(self, one: Decision) -> str:
        member, closed = one.member, self._closed.get(one.member)
        if closed is None or member in self._retired:
            return f"expected a decision about a member of the population, found member {member}"
        if not self._opened[member] == closed == one.round - 1:
            return f"expected a decision after the end of round {one.round - 1} of member {member}, found another"
        for other in (one.donor, one.hparams_from):
            if other is not None and other not in self._closed:
                return f"expected a donor in the population, found member {other}"
        return self._open(one)

    def _open(self, opening: Opening) -> str:
        start, step = opening.start, 0
        if start is not None:
            if start not in self._states:
                return f"expected a known state to start from, found that of member {start.member}, round {start.round}"
            known = self._states[start]
            step = opening.step if known is None else known
        if opening.step != step:
            return f"expected {step} steps in the state to start from, found {opening.step}"
        if not self._space.contains(opening.hparams):
            return f"expected hyperparameters in their domains, found {dict(opening.hparams)!r:.120}"
        self._opened[opening.member], self._starts[opening.member] = opening.round, step
        return ""

    def _report(self, event: Reported) -> str:
        problem = self._close(event.member, event.round)
        if problem:
            return problem
        if event.step <= self._starts[event.member]:
            return f"expected more than {self._starts[event.member]} steps, found {event.step}"
        self._scores = self._scores or len(event.scores)
        if len(event.scores) != self._scores:
            return f"expected {self._scores} scores as in the reports before, found {len(event.scores)}"
        self._states[event.state] = event.step
        return ""

    def _close(self, member: int, round_: int) -> str:
        if member in self._retired or self._opened.get(member) != round_ or self._closed.get(member) != round_ - 1:
            return f"expected the end of an open round, found that of member {member}, round {round_}"
        self._closed[member] = round_
        return ""

    def _retire(self, member: int) -> str:
        if member in self._retired or member not in self._closed:
            return f"expected the retirement of a member of the population, found member {member}"
        self._retired.add(member)
        return ""


def check_fold(folded: FoldedLog) -> None:
    """Check the types and relations of a fold that was read from a checkpoint.

    Raises:
        ValueError: It is the fold of no log; the message names the value.
    """
    view, standings = folded
    _expect(_is_count(view.round), "round", view.round)
    _expect(isinstance(view.memory, Mapping), "memory", view.memory)
    _expect(view.ended is None or type(view.ended) is str, "ended", view.ended)
    ids = [member.id for member in view.members]
    _check_members(view.members, view.space)
    _expect(ids == sorted(set(ids)), "members", ids)
    for past in view.history.values():
        _check_members(past, view.space)
    known = set(ids)
    _expect(known >= set(view.history), "history", list(view.history))
    if view.best is not None:
        best = view.best
        _expect(_are_numbers((best.score,)), "score", best.score)
        _expect(_is_ref(best.state) and best.state.member in known, "best", best.state)
        _expect(_is_count(best.step) and _are_values(best.hparams), "best", best.step)
    for opening in standings.openings.values():
        if isinstance(opening, Decision):
            _check_decision(opening)
        else:
            _check_birth(opening)
    _check_standings(folded)
    _check_ages(view)


def _check_members(members: Sequence[Member], space: Space) -> None:
    for one in members:
        _check_counts(one, "id", "step", "round", "opened")
        _expect(one.opened in (one.round, one.round + 1), "opened", one.opened)
        _expect(_are_values(one.hparams) and space.contains(one.hparams), "hparams", one.hparams)
        _expect(_are_numbers(one.scores), "scores", one.scores)
        _expect(_are_numbers(one.series), "series", one.series)
        _expect(one.state is None or _is_ref(one.state), "state", one.state)
        _expect(_is_one_of(one.role, _ROLES), "role", one.role)
        _expect(type(one.group) is int and abs(one.group) < _LARGEST, "group", one.group)
        _expect(_is_one_of(one.status, _STATUSES), "status", one.status)
        _expect(type(one.inherited) is bool, "inherited", one.inherited)
        _expect(one.copied_at is None or _is_count(one.copied_at), "copied_at", one.copied_at)


def _check_standings(folded: FoldedLog) -> None:
    view, standings = folded
    known = {member.id: member for member in view.members}
    _expect(_is_count(standings.scores), "scores", standings.scores)
    for id_, opening in standings.openings.items():
        _expect(opening.round == known[id_].opened, "openings", opening.round)
    for id_, before in standings.before.items():
        _expect(id_ in known and _are_values(before), "before", before)
    for best in standings.bests.values():
        _expect(_are_numbers((best,)), "bests", best)
    for id_, refs in standings.recent.items():
        _expect(all(_is_ref(ref) and ref.member == id_ for ref in refs), "recent", refs)
    for ref, founder in standings.founders.items():
        _expect(_is_ref(ref) and ref.member in known and founder in known, "founders", founder)
    reported = [len(member.scores) for member in view.members if member.scores]
    _expect(set(reported) <= {standings.scores}, "scores", reported)


def _check_ages(view: View) -> None:
    ages = view.ages
    if ages is None:
        return
    known = {member.id for member in view.members}
    for counts in (ages.begun, ages.starts):
        _expect(all(map(_is_count, (*counts, *counts.values()))), "ages", counts)
    for cohort in ages.cohorts:
        _expect(_is_count(cohort.step) and _is_count(cohort.size), "cohorts", cohort.step)
        _check_members(cohort.members, view.space)
        within = {one.id for one in cohort.members}
        _expect(within <= known and (cohort.waiting is None or cohort.waiting <= within), "cohorts", cohort.waiting)
    for line in ages.lines.values():
        _check_members(tuple(line.values()), view.space)
    _expect(known >= {*ages.lines, *ages.starts}, "ages", list(ages.lines))


def check_index(folded: FoldedLog, history: RunHistory) -> None:
    """Check that a fold, which may come from a checkpoint, names only what the log has.

    Raises:
        CorruptError: It does not.
    """
    view, standings = folded
    named = [ref for refs in standings.recent.values() for ref in refs]
    named += [member.state for member in view.members if member.state is not None]
    if view.best is not None:
        named.append(view.best.state)
    for ref in named:
        if ref not in history.states:
            raise CorruptError(
                f"checkpoint: expected the fold of this log, found member {ref.member}, round {ref.round}, in it only"
            )
    if history.births.keys() != {member.id for member in view.members}:
        raise CorruptError("checkpoint: expected the members of this log, found others")
