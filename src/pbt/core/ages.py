"""Comparing members at equal age, for asynchronous plans.

In a population of different speeds the present scores compare states of different ages. Here the members that report
the same step one after the other form a *cohort*. When a cohort is complete, its members are compared with each other
and with no one else, each once, at its next ready point: what one may lose to another, the other may lose to it, so
that no speed is favored. The first cohort of a step is two thirds of the population, so that a few stragglers hold up
no selection, and the second one the rest; a cohort that no member is on its way to is complete as it is.

A member that copies goes on from the donor's newest report that is no older than itself, and its own earlier reports no
longer count. Everything is a function of the log.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pbt.core.events import Decision
from pbt.core.population import Member, Rank, StateRef, View, by_score

SHARE = (2, 3)
"""The first cohort's share of the population, as a fraction."""
WHOLE = 4
"""Members up to which the population is one cohort."""
DEEPEST = 8
"""Reports of a member that are kept for comparisons; a bound for the states that a run keeps."""


class Cohort(NamedTuple):
    """Members that reported the same step one after the other."""

    step: int
    size: int
    """Reports that complete it."""
    members: tuple[Member, ...] = ()
    """Each as it reported."""
    waiting: frozenset[int] | None = None
    """Members that are still to be decided on by it; None: it is not complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """The reports that members are still compared by."""

    begun: Mapping[int, int] = field(default_factory=dict)
    """Step to the number of cohorts that were begun there."""
    cohorts: tuple[Cohort, ...] = ()
    """Those that are not complete, and those that a member is still to be decided on by."""
    lines: Mapping[int, Mapping[int, Member]] = field(default_factory=dict)
    """Member to step to its own report there, since it last copied."""
    starts: Mapping[int, int] = field(default_factory=dict)
    """Member to the step that its open round, or its last one, started from."""

    def stands(self, report: Member) -> bool:
        """Whether the member still stands by this report: it has not gone back behind it, nor copied since."""
        return _stands(self.lines, report)

    def pending(self, member: Member) -> Iterator[Cohort]:
        """The complete cohorts that this member is to be decided on by, the earliest step first."""
        for cohort in sorted(self.cohorts, key=lambda cohort: cohort.step):
            mine = (one for one in cohort.members if one.id == member.id and self.stands(one))
            if cohort.waiting is not None and member.id in cohort.waiting and any(mine):
                yield cohort

    def newest(self, member: int, first: int, last: int) -> Member | None:
        """A member's newest report between two steps, both included."""
        steps = [step for step in self.lines.get(member, ()) if first <= step <= last]
        return self.lines[member][max(steps)] if steps else None

    def states(self) -> set[StateRef]:
        """The states that may still be copied."""
        return {one.state for line in self.lines.values() for one in line.values() if one.state is not None}


def _stands(lines: Mapping[int, Mapping[int, Member]], report: Member) -> bool:
    there = lines.get(report.id, {}).get(report.step)
    return there is not None and there.state == report.state


class Ageing:
    """Ages that take events: a working copy, in which an event costs no pass over the members."""

    def __init__(self, ages: Ages) -> None:
        self._begun = dict(ages.begun)
        self._cohorts = list(ages.cohorts)
        # What a member's line maps is replaced, never changed, so that it need not be copied here.
        self._lines = dict(ages.lines)
        self._starts = dict(ages.starts)

    def enter(self, member: int, step: int) -> None:
        """A member entered the population."""
        self._starts[member] = step

    def report(self, member: Member, population: Callable[[], int]) -> None:
        """A member finished a round; `population` counts the members."""
        line = {**self._lines.get(member.id, {}), member.step: member}
        self._lines[member.id] = {step: line[step] for step in sorted(line)[-DEEPEST:]}
        place = next((i for i, c in enumerate(self._cohorts) if c.step == member.step and c.waiting is None), None)
        if place is None:
            place, before = len(self._cohorts), self._begun.get(member.step, 0)
            self._begun[member.step] = before + 1
            self._cohorts.append(Cohort(member.step, _size(population(), before)))
        cohort = self._cohorts[place]
        cohort = cohort._replace(members=(*cohort.members, member))
        self._cohorts[place] = self._complete(cohort) if len(cohort.members) >= cohort.size else cohort

    def _complete(self, cohort: Cohort) -> Cohort:
        return cohort._replace(waiting=frozenset(one.id for one in cohort.members if _stands(self._lines, one)))

    def decide(self, decision: Decision, *, copied: bool) -> None:
        """A member was decided on; `copied`: it goes on from a state that is not its own."""
        id_ = decision.member
        if copied:
            line = self._lines.get(id_, {})
            self._lines[id_] = {step: one for step, one in line.items() if step == decision.compared}
        self._left(id_)
        self._starts[id_] = decision.step
        self._close()

    def leave(self, member: int) -> None:
        """A member left the population."""
        self._lines.pop(member, None)
        self._starts.pop(member, None)
        self._left(member)
        self._close()

    def _close(self) -> None:
        """Complete the cohorts that no member is on its way to: some failed, or copied a state beyond that step."""
        lowest = min(self._starts.values(), default=0)
        self._cohorts = [
            self._complete(cohort) if cohort.waiting is None and cohort.step <= lowest else cohort
            for cohort in self._cohorts
        ]

    def _left(self, member: int) -> None:
        """No cohort waits for this member any more; forget those that wait for none, and what only they needed."""
        over: list[Cohort] = []
        kept: list[Cohort] = []
        for cohort in self._cohorts:
            if cohort.waiting is not None and member in cohort.waiting:
                cohort = cohort._replace(waiting=cohort.waiting - {member})  # noqa: PLW2901 (its successor)
            (over if cohort.waiting is not None and not cohort.waiting else kept).append(cohort)
        self._cohorts = kept
        if over:
            first: dict[int, int] = {}
            for cohort in kept:
                for one in cohort.members:
                    first[one.id] = min(first.get(one.id, cohort.step), cohort.step)
            for one in {one.id: one for cohort in over for one in cohort.members}.values():
                self._lines[one.id] = _needed(self._lines.get(one.id, {}), first.get(one.id))

    def ages(self) -> Ages:
        """What is still needed."""
        return Ages(begun=self._begun, cohorts=tuple(self._cohorts), lines=self._lines, starts=self._starts)


def _needed(line: Mapping[int, Member], first: int | None) -> dict[int, Member]:
    """The reports from the first step on that is still compared, and the newest in any case."""
    newest = max(line, default=0)
    return {step: one for step, one in line.items() if step == newest or (first is not None and step >= first)}


def _size(population: int, before: int) -> int:
    """The reports that complete a cohort, after so many others at its step."""
    part, whole = SHARE
    first = population if population <= WHOLE else -(-part * population // whole)
    return first if before % 2 == 0 or first == population else population - first


def at_equal_age(member: Member, cohort: Cohort, view: View, ages: Ages) -> View:
    """The view in which a member of a cohort is compared: those who still stand by their report, as they reported.

    Members that have finished the run are left out: they can copy no one, so no one copies them.
    """
    standing = {one.id: one for one in cohort.members if ages.stands(one) and _takes_part(view.member(one.id), member)}
    members = tuple(standing[id_] for id_ in sorted(standing))
    return View(
        seed=view.seed,
        space=view.space,
        sign=view.sign,
        lookback=view.lookback,
        round=view.round,
        members=members,
        memory=view.memory,
        history=view.history,
        best=view.best,
        rank=_drawn_ties(view, cohort.step) if view.rank is by_score else view.rank,
    )


def _takes_part(other: Member, member: Member) -> bool:
    finished = other.opened == other.round and other.step > member.step
    return other.status == "live" and not finished


def _drawn_ties(view: View, step: int) -> Rank:
    """By score, ties by a draw: by id they would favor those that happen to come first."""

    def ranked(members: Sequence[Member]) -> list[Member]:
        if len({member.score for member in members}) == len(members):
            return by_score(members)
        draws = {member.id: view.rng("ties", step, member.id).random() for member in members}
        return sorted(
            members, key=lambda member: (-member.score if member.healthy else math.inf, draws[member.id], member.id)
        )

    return ranked


def renewal(member: Member, view: View, ages: Ages, until: int) -> Member | None:
    """A donor for a failed member: any of the better half of those that reported the step it failed to reach.

    Where there is none, the nearest earlier step that others reported, then the earliest one behind it.

    Args:
        member: Who failed.
        view: The population.
        ages: Its reports.
        until: The step that the failed round would have led to.
    """
    others = [m.id for m in view.ranking if m.id != member.id]
    found = [one for id_ in others if (one := ages.newest(id_, 0, until)) is not None]
    if not found:
        firsts = [min(ages.lines[id_].values(), key=lambda one: one.step) for id_ in others if ages.lines.get(id_)]
        found = [one for one in firsts if one.step == min(other.step for other in firsts)]
    last = max((one.step for one in found), default=0)
    ordered = by_score([one for one in found if one.step == last])
    draw = view.rng("decide", member.id, member.round, "replace")
    return ordered[draw.below((len(ordered) + 1) // 2)] if ordered else None
