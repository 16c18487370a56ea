"""From events to the population: the only way state is made."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from pbt.core.ages import Ageing
from pbt.core.events import Born, Decided, Decision, Ended, Event, Failed, Noted, Reported, Retired
from pbt.core.population import Best, Member, View


def fold(events: Iterable[Event], empty: View) -> View:
    """The population after these events; `empty` carries the seed, the space and the lookback."""
    return apply(empty, events)


def apply(view: View, events: Iterable[Event]) -> View:
    """The view after more events. Pure; a handful of operations per event and one pass over the members."""
    members = {member.id: member for member in view.members}
    history = dict(view.history)
    memory, best, ended, last = view.memory, view.best, view.ended, view.round
    ageing = None if view.ages is None else Ageing(view.ages)
    for event in events if ageing is None else _aged(events, ageing, members):
        match event:
            case Born():
                members[event.member] = _born(event)
            case Reported():
                member = members[event.member] = _reported(members[event.member], event)
                last = max(last, event.round)
                best = _better(best, member)
                if view.lookback:
                    history[member.id] = (*history.get(member.id, ()), member)[-view.lookback :]
            case Failed():
                # The state stays the one it started from: nothing of a failed round is kept.
                members[event.member] = members[event.member]._replace(
                    round=event.round,
                    status="failed",
                    scores=(),
                    series=(),
                    inherited=False,
                )
                last = max(last, event.round)
            case Decided():
                decision = event.decision
                members[decision.member] = _decided(members[decision.member], decision)
                ended = None
            case Noted():
                memory = event.memory
            case Retired():
                members[event.member] = members[event.member]._replace(status="retired")
            case Ended():
                ended = event.why
    ordered = tuple(members[id_] for id_ in sorted(members))
    return View(
        seed=view.seed,
        space=view.space,
        lookback=view.lookback,
        rank=view.rank,
        round=last,
        members=ordered,
        memory=memory,
        history=history,
        best=best,
        ended=ended,
        ages=None if ageing is None else ageing.ages(),
    )


def _aged(events: Iterable[Event], ageing: Ageing, members: Mapping[int, Member]) -> Iterator[Event]:
    """The events, each after the ages have taken it; `members` are those before it."""
    for event in events:
        match event:
            case Born(role="member"):
                ageing.enter(event.member, event.step)
            case Reported():
                member = _reported(members[event.member], event)
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


def _reported(member: Member, event: Reported) -> Member:
    return member._replace(
        step=event.step,
        scores=event.scores,
        series=event.series,
        state=event.state,
        round=event.round,
        status="live",
        inherited=False,
    )


def _decided(member: Member, decision: Decision) -> Member:
    own = decision.start == member.state and member.status == "live"
    return member._replace(
        hparams=decision.hparams,
        state=decision.start,
        step=member.step if own else decision.step,
        scores=member.scores if own else decision.scores,
        series=member.series if own else decision.series,
        inherited=member.inherited if own else True,
        opened=decision.round,
        status="live",
        copied_at=member.copied_at if decision.donor is None else decision.step,
    )


def _better(best: Best | None, member: Member) -> Best | None:
    if member.role != "member" or not member.healthy or member.state is None:
        return best
    if best is not None and member.score <= best.score:
        return best
    return Best(score=member.score, state=member.state, hparams=member.hparams, step=member.step)
