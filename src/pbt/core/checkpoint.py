"""A checkpoint of the fold: a `View` and `Standings` as plain values, in columns, and back.

A checkpoint is only a cache: continued with the later events, it gives what the whole log gives.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

from pbt.core.ages import Ages, Cohort
from pbt.core.events import Born, Decision, Event, Opening, decode_floats, encode_floats
from pbt.core.fold import apply
from pbt.core.population import Best, Member, StateRef, View
from pbt.core.standings import Standings
from pbt.values import from_lists, plain

VERSION = 1
"""Raised with every change of the values below; a checkpoint of another version is not read."""
_EXACT = frozenset((int, str, bool, type(None)))


class FoldedLog(NamedTuple):
    """A log up to an event."""

    view: View
    standings: Standings

    def after(self, events: Sequence[Event]) -> "FoldedLog":
        """The fold after further events; these standings are updated in place."""
        self.standings.take(events)
        return FoldedLog(apply(self.view, events), self.standings)


def unfolded(empty: View) -> FoldedLog:
    """The fold before the first event."""
    return FoldedLog(empty, Standings(empty.sign))


def to_plain(folded: FoldedLog) -> dict[str, Any]:
    """Convert a fold to JSON-ready values."""
    view, standings = folded
    ids = [member.id for member in view.members]
    before = [(id_, standings.before[id_]) for id_ in ids if id_ in standings.before]
    founders = sorted(standings.founders.items())
    return {
        "version": VERSION,
        "lookback": view.lookback,
        "round": view.round,
        "memory": encode_floats(view.memory),
        "ended": view.ended,
        "best": None if view.best is None else encode_floats([*_fields_of(view.best)]),
        "members": _packed_members(view.members),
        "history": _packed_groups(view.history.items()),
        "ages": None if view.ages is None else _packed_ages(view.ages),
        "scores": standings.scores,
        "openings": _packed_openings([standings.openings[id_] for id_ in ids]),
        "before": [[id_ for id_, _ in before], _packed_mappings([hparams for _, hparams in before])],
        "bests": _packed([standings.bests.get(id_) for id_ in ids]),
        "recent": [standings.recent.get(id_, ()) for id_ in ids],
        "founders": [[ref for ref, _ in founders], [founder for _, founder in founders]],
    }


def _fields_of(best: Best) -> tuple[Any, ...]:
    """The fields of the best state, in order."""
    return best.score, best.state, best.hparams, best.step


def from_plain(plain: Mapping[str, Any], last: int, empty: View) -> FoldedLog | None:
    """The fold that `to_plain` converted; None if it lacks something that `empty` asks for.

    Args:
        plain: The values.
        last: Id of the last event that they contain.
        empty: The view before the first event: seed, space, sign, lookback, and ages if they are needed.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: These are not such values.
    """
    lacks = plain["version"] != VERSION or plain["lookback"] < empty.lookback
    if lacks or (empty.ages is not None and plain["ages"] is None):
        return None
    members = _members(plain["members"])
    history = _groups(plain["history"]) if empty.lookback else {}
    view = replace(
        empty,
        round=plain["round"],
        members=tuple(members),
        memory=decode_floats(plain["memory"]),
        history={id_: past[-empty.lookback :] for id_, past in history.items()},
        best=None if plain["best"] is None else _best(*decode_floats(plain["best"])),
        ended=plain["ended"],
        ages=None if empty.ages is None else _ages(plain["ages"]),
    )
    standings = Standings(empty.sign)
    standings.last, standings.scores = last, plain["scores"]
    standings.openings = _openings(plain["openings"], members)
    ids, before = plain["before"]
    standings.before = dict(zip(ids, _mappings(before, len(ids)), strict=True))
    bests = _unpacked(plain["bests"], len(members))
    standings.bests = {m.id: best for m, best in zip(members, bests, strict=True) if best is not None}
    recent = zip(members, plain["recent"], strict=True)
    standings.recent = {m.id: tuple(StateRef(*ref) for ref in refs) for m, refs in recent if refs}
    refs, founders = plain["founders"]
    standings.founders = {StateRef(*ref): founder for ref, founder in zip(refs, founders, strict=True)}
    return FoldedLog(view, standings)


def _packed(column: Sequence[Any]) -> Any:
    """A column of plain values; a constant one as `{"all": value}`."""
    kinds = set(map(type, column))
    if len(kinds) == 1 and kinds <= _EXACT and column.count(column[0]) == len(column):
        return {"all": column[0]}
    if kinds <= _EXACT or (kinds == {float} and all(map(math.isfinite, column))):
        return list(column)
    return encode_floats(column)


def _unpacked(packed: Any, count: int) -> list[Any]:
    if isinstance(packed, dict):
        return [packed["all"]] * count
    if len(packed) != count:
        raise ValueError(f"expected {count} values, got {len(packed)}")
    kinds = set(map(type, packed))
    return [decode_floats(value) for value in packed] if dict in kinds or list in kinds else packed


def _packed_mappings(column: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mappings with equal names as one column per name, in the order of the names, which draws depend on."""
    if len({tuple(mapping) for mapping in column}) != 1:
        return {"each": [encode_floats(mapping) for mapping in column]}
    columns = zip(*(mapping.values() for mapping in column), strict=True)
    return {"names": list(column[0]), "columns": [_packed(values) for values in columns]}


def _mappings(packed: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    if "each" in packed:
        return [dict(from_lists(decode_floats(mapping))) for mapping in packed["each"]]
    names = packed["names"]
    columns = [_with_tuples(_unpacked(column, count)) for column in packed["columns"]]
    if not names:
        return [{} for _ in range(count)]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _with_tuples(column: list[Any]) -> list[Any]:
    return list(map(plain, column)) if list in map(type, column) else column


def _packed_numbers(column: Sequence[Sequence[float]]) -> Any:
    """Tuples of numbers: scores and series."""
    if not any(column):
        return {"all": ()}
    finite = all(map(math.isfinite, chain.from_iterable(column)))
    return list(column) if finite else encode_floats(column)


def _numbers(packed: Any, count: int) -> list[tuple[float, ...]]:
    return [tuple(values) for values in _unpacked(packed, count)]


def _refs(packed: Any, count: int) -> list[StateRef | None]:
    if isinstance(packed, dict):
        return [None] * count
    return [None if ref is None else StateRef(*ref) for ref in packed]


def _packed_refs(column: Sequence[StateRef | None]) -> Any:
    return list(column) if any(column) else {"all": None}


_MAPPINGS, _NUMBERS, _REFS = ("hparams", "draws"), ("scores", "series"), ("state", "start")
"""The fields of members and decisions that are not single values."""


def _packed_column(name: str, column: Sequence[Any]) -> Any:
    if name in _MAPPINGS:
        return _packed_mappings(column)
    if name in _NUMBERS:
        return _packed_numbers(column)
    return _packed_refs(column) if name in _REFS else _packed(column)


def _column(name: str, packed: Any, count: int) -> list[Any]:
    if name in _MAPPINGS:
        return _mappings(packed, count)
    if name in _NUMBERS:
        return _numbers(packed, count)
    return _refs(packed, count) if name in _REFS else _unpacked(packed, count)


def _packed_members(members: Sequence[Member]) -> list[Any]:
    columns = zip(*members, strict=True)
    return [len(members), [_packed_column(name, column) for name, column in zip(Member._fields, columns, strict=False)]]


def _members(packed: Sequence[Any]) -> list[Member]:
    count, columns = packed
    if count == 0:
        return []
    found = [_column(name, column, count) for name, column in zip(Member._fields, columns, strict=True)]
    return [Member._make(values) for values in zip(*found, strict=True)]


_OPENING = tuple(name for name in Decision._fields if name not in ("member", "hparams"))
"""The hyperparameters of a member are those of its last opening."""


def _packed_openings(openings: Sequence[Opening]) -> list[Any]:
    rows = [one if isinstance(one, Decision) else _as_decision(one) for one in openings]
    columns = dict(zip(Decision._fields, zip(*rows, strict=True), strict=False))
    return [_packed_column(name, columns.get(name, ())) for name in _OPENING]


def _as_decision(birth: Born) -> Decision:
    fields = {"member": birth.member, "round": birth.round, "start": birth.start, "step": birth.step}
    return Decision(**fields, hparams=birth.hparams, kind=Born.kind)  # type: ignore[arg-type]


def _openings(packed: Sequence[Any], members: Sequence[Member]) -> dict[int, Opening]:
    columns = [_column(name, column, len(members)) for name, column in zip(_OPENING, packed, strict=True)]
    found: dict[int, Opening] = {}
    for member, values in zip(members, zip(*columns, strict=True), strict=True):
        fields = dict(zip(_OPENING, values, strict=True))
        one = Decision(member=member.id, hparams=member.hparams, **fields)
        found[member.id] = one if fields["kind"] != Born.kind else _as_birth(one, member)
    return found


def _as_birth(one: Decision, member: Member) -> Born:
    return Born(
        member=one.member,
        round=one.round,
        hparams=one.hparams,
        start=one.start,
        step=one.step,
        role=member.role,
        group=member.group,
    )


def _packed_groups(groups: Iterable[tuple[int, Sequence[Member]]]) -> list[Any]:
    """Members by a number: the numbers, the count of each, and all members."""
    known = list(groups)
    counts = [len(members) for _, members in known]
    return [[number for number, _ in known], counts, _packed_members([m for _, members in known for m in members])]


def _groups(packed: Sequence[Any]) -> dict[int, tuple[Member, ...]]:
    numbers, counts, columns = packed
    members = iter(_members(columns))
    return {number: tuple(next(members) for _ in range(count)) for number, count in zip(numbers, counts, strict=True)}


def _packed_ages(ages: Ages) -> dict[str, Any]:
    return {
        "begun": list(ages.begun.items()),
        "cohorts": [
            [cohort.step, cohort.size, None if cohort.waiting is None else sorted(cohort.waiting)]
            for cohort in ages.cohorts
        ],
        "in_cohorts": _packed_groups((index, cohort.members) for index, cohort in enumerate(ages.cohorts)),
        # A report is kept under its step.
        "lines": _packed_groups((id_, tuple(line.values())) for id_, line in ages.lines.items()),
        "starts": list(ages.starts.items()),
    }


def _ages(packed: Mapping[str, Any]) -> Ages:
    members = _groups(packed["in_cohorts"])
    return Ages(
        begun=dict(packed["begun"]),
        cohorts=tuple(
            Cohort(step, size, members[index], None if waiting is None else frozenset(waiting))
            for index, (step, size, waiting) in enumerate(packed["cohorts"])
        ),
        lines={id_: {one.step: one for one in line} for id_, line in _groups(packed["lines"]).items()},
        starts=dict(packed["starts"]),
    )


def _best(score: float, state: Sequence[int], hparams: Mapping[str, Any], step: int) -> Best:
    return Best(score=score, state=StateRef(*state), hparams=from_lists(hparams), step=step)
