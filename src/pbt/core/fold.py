"""Fold of the log: computes the population from events. No other code makes a `View`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any

from pbt.core.ages import Ageing
from pbt.core.events import Born, Decided, Decision, Ended, Event, Failed, MemoryUpdated, Reported, Retired
from pbt.core.population import Best, Member, View
from pbt.space import Space


def fold(events: Iterable[Event], empty: View) -> View:
    """The population after these events; `empty` carries the seed, the space and the lookback."""
    return apply(empty, events)


def empty_view(meta: Mapping[str, Any]) -> View:
    """The view before the first event of a run with this meta data.

    Raises:
        KeyError: No seed or no space is recorded.
        SpaceError: The recorded space is invalid.
    """
    objective = meta.get("objective", "maximize")
    space = Space.from_dict(meta["space"])
    return View(seed=int(meta["seed"]), space=space, sign=sign_of(objective), signs=signs_of(objective))


def sign_of(objective: str | Sequence[str]) -> int:
    """`View.sign` under an objective, `"maximize"` or `"minimize"`, or under the first of several."""
    first = objective if isinstance(objective, str) else objective[0]
    return -1 if first == "minimize" else 1


def signs_of(objective: str | Sequence[str]) -> tuple[int, ...]:
    """`View.signs` under an objective, or under one for each score."""
    return () if isinstance(objective, str) else tuple(map(sign_of, objective))


def turned(sign: int, values: Sequence[float], signs: Sequence[int] = ()) -> tuple[float, ...]:
    """Convert between the task's scores and scores of which higher is better.

    Args:
        sign: `View.sign`.
        values: Scores, or a series of the first score.
        signs: `View.signs`, for scores.
    """
    if signs:
        return tuple(value if each > 0 else -value for value, each in zip(values, chain(signs, repeat(sign))))  # noqa: B905
    return tuple(values) if sign > 0 else tuple(-value for value in values)


def apply(view: View, events: Iterable[Event]) -> View:
    """The view after further events. Pure; constant work per event and one pass over the members."""
    members = {member.id: member for member in view.members}
    history = dict(view.history)
    memory, best, ended, last = view.memory, view.best, view.ended, view.round
    ageing = None if view.ages is None else Ageing(view.ages)
    for event in events if ageing is None else _aged(events, ageing, members, view):
        match event:
            case Reported():
                member = members[event.member] = _reported(members[event.member], event, view)
                last = max(last, event.round)
                ended = None  # a stopped run continues with its open rounds
                best = _better(best, member)
                if view.lookback:
                    history[member.id] = (*history.get(member.id, ()), member)[-view.lookback :]
            case Decided():
                decision = event.decision
                members[decision.member] = _decided(members[decision.member], decision, view)
                ended = None
            case Failed():
                # The member keeps the state it started from: a failed round leaves none.
                members[event.member] = members[event.member]._replace(
                    round=event.round,
                    status="failed",
                    scores=(),
                    series=(),
                    inherited=False,
                )
                last = max(last, event.round)
                ended = None
            case Born():
                members[event.member] = _born(event)
            case MemoryUpdated():
                memory = event.memory
            case Retired():
                members[event.member] = members[event.member]._replace(status="retired")
            case Ended():
                ended = event.why
    # In order unless members were born, whose ids may be any.
    ordered = members.values() if len(members) == len(view.members) else [members[id_] for id_ in sorted(members)]
    return View(
        seed=view.seed,
        space=view.space,
        sign=view.sign,
        signs=view.signs,
        lookback=view.lookback,
        rank=view.rank,
        round=last,
        members=tuple(ordered),
        memory=memory,
        history=history,
        best=best,
        ended=ended,
        ages=None if ageing is None else ageing.ages(),
    )


def _aged(events: Iterable[Event], ageing: Ageing, members: Mapping[int, Member], view: View) -> Iterator[Event]:
    """Yield the events, each after `ageing` recorded it; `members` is the population before them."""
    for event in events:
        match event:
            case Born(role="member"):
                ageing.enter(event.member, event.step)
            case Reported():
                member = _reported(members[event.member], event, view)
                if member.role == "member":
                    ageing.report(member, partial(_population, members))
            case Decided(decision=decision):
                ageing.decide(decision, copied=decision.start != members[decision.member].state)
            case Retired():
                ageing.leave(event.member)
        yield event


def _population(members: Mapping[int, Member]) -> int:
    return sum(member.role == "member" and member.status != "retired" for member in members.values())


def _born(event: Born) -> Member:
    return Member(
        id=event.member,
        hparams=event.hparams,
        step=event.step,
        state=event.start,
        round=event.round - 1,
        opened=event.round,
        role=event.role,
        group=event.group,
    )


# As plain tuples, field after field: in half the time of a call of `Member`, which is made once or twice per member and
# round.
_new = tuple.__new__


def _reported(member: Member, event: Reported, view: View) -> Member:
    id_, hparams, _, _, _, _, _, opened, role, group, _, _, copied_at = member
    scores, series = event.scores, event.series
    if view.sign < 0 or view.signs or type(scores) is not tuple or type(series) is not tuple:
        scores, series = turned(view.sign, scores, view.signs), turned(view.sign, series)
    step, state, round_ = event.step, event.state, event.round
    return _new(
        Member, (id_, hparams, step, scores, series, state, round_, opened, role, group, "live", False, copied_at)
    )


def _decided(member: Member, decision: Decision, view: View) -> Member:
    start, state = decision.start, member.state
    own = (start is state or start == state) and member.status == "live"
    if own and decision.donor is None:
        id_, _, step, scores, series, state, round_, _, role, group, _, inherited, copied_at = member
        hparams, opened = decision.hparams, decision.round
        return _new(
            Member,
            (id_, hparams, step, scores, series, state, round_, opened, role, group, "live", inherited, copied_at),
        )
    return Member(
        member.id,
        decision.hparams,
        member.step if own else decision.step,
        member.scores if own else turned(view.sign, decision.scores, view.signs),
        member.series if own else turned(view.sign, decision.series),
        decision.start,
        member.round,
        decision.round,
        member.role,
        member.group,
        "live",
        member.inherited if own else True,
        member.copied_at if decision.donor is None else decision.step,
    )


def _better(best: Best | None, member: Member) -> Best | None:
    scores = member.scores
    if best is not None and scores and not scores[0] > best.score:
        return best  # the frequent case
    if member.role != "member" or not member.healthy or member.state is None:
        return best
    if best is not None and member.score <= best.score:
        return best
    return Best(score=member.score, state=member.state, hparams=member.hparams, step=member.step)
