"""Comparison of members at equal age, for asynchronous plans.

In a population of different speeds the current scores belong to states of different ages. Here the members that
report the same step one after the other form a *cohort*. The members of a complete cohort are compared only with each
other, each once, at its next ready point: either of two members can lose to the other, so no speed is favored. The
first cohort of a step is two thirds of the population, so that a few stragglers do not hold up selection; the second
is the rest. A cohort that no member is still heading for is complete as it is.

A member that copies continues from the donor's newest report that is not ahead of the member's own step, and its own
earlier reports no longer count. Everything is a function of the log.
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
"""Largest population that is a single cohort."""
DEEPEST = 8
"""Reports kept per member for comparison; bounds the number of states that a run keeps."""


class Cohort(NamedTuple):
    """Members that reported the same step one after the other."""

    step: int
    size: int
    """Number of reports that complete it."""
    members: tuple[Member, ...] = ()
    """Each member as it was at its report."""
    waiting: frozenset[int] | None = None
    """Members whose decision by this cohort is pending; None: the cohort is incomplete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """The reports that members are still compared by."""

    begun: Mapping[int, int] = field(default_factory=dict)
    """Number of cohorts started, by step."""
    cohorts: tuple[Cohort, ...] = ()
    """Incomplete cohorts, and complete ones with pending decisions."""
    lines: Mapping[int, Mapping[int, Member]] = field(default_factory=dict)
    """Each member's own reports since it last copied, by member and step."""
    starts: Mapping[int, int] = field(default_factory=dict)
    """Start step of each member's open or last round."""

    def stands(self, report: Member) -> bool:
        """Whether a report still counts: its member has neither copied nor gone back to an earlier step since."""
        return _stands(self.lines, report)

    def pending(self, member: Member) -> Iterator[Cohort]:
        """The complete cohorts that this member's decision is pending for, earliest step first."""
        for cohort in sorted(self.cohorts, key=lambda cohort: cohort.step):
            mine = (one for one in cohort.members if one.id == member.id and self.stands(one))
            if cohort.waiting is not None and member.id in cohort.waiting and any(mine):
                yield cohort

    def newest(self, member: int, first: int, last: int) -> Member | None:
        """The newest report of a member between two steps, inclusive."""
        steps = [step for step in self.lines.get(member, ()) if first <= step <= last]
        return self.lines[member][max(steps)] if steps else None

    def states(self) -> set[StateRef]:
        """The states that may still be copied."""
        return {one.state for line in self.lines.values() for one in line.values() if one.state is not None}


def _stands(lines: Mapping[int, Mapping[int, Member]], report: Member) -> bool:
    there = lines.get(report.id, {}).get(report.step)
    return there is not None and there.state == report.state


class Ageing:
    """A mutable copy of `Ages` that takes events one at a time, without a pass over the members for each."""

    def __init__(self, ages: Ages) -> None:
        self._begun = dict(ages.begun)
        self._cohorts = list(ages.cohorts)
        # The mapping of a member's reports is replaced, never mutated, so it need not be copied here.
        self._lines = dict(ages.lines)
        self._starts = dict(ages.starts)

    def enter(self, member: int, step: int) -> None:
        """Record a birth."""
        self._starts[member] = step

    def report(self, member: Member, population: Callable[[], int]) -> None:
        """Record a finished round; `population` counts the members."""
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
        """Record a decision; `copied`: the member continues from another's state."""
        id_ = decision.member
        if copied:
            line = self._lines.get(id_, {})
            self._lines[id_] = {step: one for step, one in line.items() if step == decision.compared}
        self._left(id_)
        self._starts[id_] = decision.step
        self._close()

    def leave(self, member: int) -> None:
        """Record a retirement."""
        self._lines.pop(member, None)
        self._starts.pop(member, None)
        self._left(member)
        self._close()

    def _close(self) -> None:
        """Complete the cohorts that no member is still heading for: some failed, or copied a state beyond that step."""
        lowest = min(self._starts.values(), default=0)
        self._cohorts = [
            self._complete(cohort) if cohort.waiting is None and cohort.step <= lowest else cohort
            for cohort in self._cohorts
        ]

    def _left(self, member: int) -> None:
        """Remove the member from every cohort; forget cohorts without pending decisions and the reports they needed."""
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
        """The immutable record of this copy."""
        return Ages(begun=self._begun, cohorts=tuple(self._cohorts), lines=self._lines, starts=self._starts)


def _needed(line: Mapping[int, Member], first: int | None) -> dict[int, Member]:
    """The reports from `first` on, and the newest in any case."""
    newest = max(line, default=0)
    return {step: one for step, one in line.items() if step == newest or (first is not None and step >= first)}


def _size(population: int, before: int) -> int:
    """The number of reports that complete a cohort, after `before` earlier reports at its step."""
    part, whole = SHARE
    first = population if population <= WHOLE else -(-part * population // whole)
    return first if before % 2 == 0 or first == population else population - first


def at_equal_age(member: Member, cohort: Cohort, view: View, ages: Ages) -> View:
    """The view for comparing a member within a cohort: the members whose report still counts, as they were then.

    Members that have finished the run are left out: they cannot copy, so they are not copied.
    """
    standing = {one.id: one for one in cohort.members if ages.stands(one) and _takes_part(view.member(one.id), member)}
    members = tuple(standing[id_] for id_ in sorted(standing))
    return View(
        seed=view.seed,
        space=view.space,
        sign=view.sign,
        signs=view.signs,
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
    """By score, ties by a draw: ties by id would favor low ids."""

    def ranked(members: Sequence[Member]) -> list[Member]:
        if len({member.score for member in members}) == len(members):
            return by_score(members)
        draws = {member.id: view.rng("ties", step, member.id).random() for member in members}
        return sorted(
            members, key=lambda member: (-member.score if member.healthy else math.inf, draws[member.id], member.id)
        )

    return ranked


def renewal(member: Member, view: View, ages: Ages, until: int) -> Member | None:
    """A donor for a failed member: uniform among the better half of those that reported the step it failed to reach.

    If there are none, the nearest earlier step that others reported, then the earliest later one.

    Args:
        member: The failed member.
        view: The population.
        ages: Its reports.
        until: The step at which the failed round would have ended.
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
