"""FIRE PBT, which selects by the rate of improvement to counter greedy selection.

Dalibard & Jaderberg 2021, "Faster Improvement Rate Population Based Training" (arXiv 2109.13800).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pbt.core.events import Born, Decision, Retired
from pbt.core.exploit import Truncation, number_replaced
from pbt.core.explore import Explore, Perturb, explored
from pbt.core.needs import Needs
from pbt.core.population import Member, View, by_score
from pbt.core.strategy import Proposal, births, hand_over
from pbt.errors import UsageError
from pbt.space import HParams
from pbt.strategies.base import NO_DONOR, Rounds
from pbt.strategies.curves import best_difference, chance, overlap, points_needed

FIRST, SECOND = 1, 2  # `Member.group`
FASTER = "rises faster than its child"

Decisions = dict[int, Decision]
"""Decisions by member; a retired member has none."""


class _Trial(NamedTuple):
    """An active evaluator with its curve so far."""

    evaluator: Member
    parent: int
    child: int
    curve: list[float]
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire(Rounds):
    """Half of the population is selected by score; the other half by its rate of improvement, and lends its weights.

    The first group (`group` 1) is ordinary PBT by score. The second (`group` 2) is not selected by its scores, which
    would make it greedy, too. Instead *evaluators*, extra members that are neither counted nor ranked, continue from
    the weights of one of its members, the parent, with the hyperparameters of the best member of the first group, the
    child. The fitness of a parent is how far its evaluator's curve rises above those of the other evaluators. An
    evaluator whose curve rises significantly faster than the child's, from the same value on, hands its weights to the
    child, which keeps its hyperparameters. Thus weights trained with patient hyperparameters are finished by greedy
    ones.

    Use it where a change that improves the score now harms it later, such as a lower learning rate, and plain PBT is
    misled by it. Do not use it where greedy choices are right (evaluators then cost training without benefit), without
    a curve of the score in every report (`series`, at least 3 points per round), or with a noisy curve: the paper
    smooths curves by a Gaussian process, here they are compared as returned by the task.

    The result is the best of the first group: `max((m for m in run.view.population if m.group == 1), key=lambda m:
    m.score)`. `run.best` is the best state of both groups over the whole run, usually the same one. A population of 16
    is split into 8 + 8, and up to `evaluators` more members train at the same time.

    Args:
        interval: Training steps of a round.
        fraction: Share of each group that is replaced.
        explore: How copied values change; the paper's factor is 2 or 1/2.
        evaluators: The most evaluators at the same time.
        patience: Rounds after which an evaluator that has not come near the child is retired; the longer it takes, the
            more significant its rise must be.
        p: The p-value below which an evaluator hands over its weights.
        window: Rounds of history in the curves.

    Raises:
        UsageError: An argument is outside its range; or reports have no series, or series too short to ever reach `p`.
    """

    fraction: float = 0.25
    explore: Explore = field(default_factory=lambda: Perturb((0.5, 2.0)))
    evaluators: int = 6
    patience: int = 3
    p: float = 0.01
    window: int = 20

    def __post_init__(self) -> None:
        Rounds.__post_init__(self)
        Truncation(self.fraction)
        if self.evaluators < 1 or not 1 <= self.patience <= self.window or not 0 < self.p < 1:
            raise UsageError(
                "Fire: expected evaluators and patience of at least 1, a window no shorter than patience and p between "
                f"0 and 1, got {self.evaluators}, {self.patience}, {self.window} and {self.p}"
            )

    @property
    def needs(self) -> Needs:
        """Two groups that select, and series long enough to reach `p`."""
        return Needs(name="Fire", members=4, series=-(-points_needed(self.p) // self.patience))

    @property
    def lookback(self) -> int:
        """The `window` rounds from which curves are read."""
        return self.window

    def begin(self, view: View, population: int, initial: Sequence[HParams]) -> Proposal:
        """Assign initial members to the two groups alternately, so that both share the given initial values."""
        starts = births(view, population, initial)
        return Proposal(starts=[replace(start, group=SECOND if i % 2 else FIRST) for i, start in enumerate(starts)])

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """Select and explore in both groups, then decide on the evaluators, then start new ones."""
        self._check_series(ready)
        wave = sorted(ready, key=lambda member: member.id)
        first, second = ([m for m in wave if m.role == "member" and m.group == group] for group in (FIRST, SECOND))
        trials = [_trial(member, view) for member in wave if member.role == "evaluator"]
        donors = _truncation(first, {member.id: member.score for member in first}, self.fraction)
        donors |= _truncation(second, _rates(trials), self.fraction)
        proposed = {m.id: self._decision(m, donors.get(m.id, ()), view) for m in (*first, *second)}
        decisions = {id_: decision for id_, decision in proposed.items() if decision is not None}
        leaving = dict.fromkeys(proposed.keys() - decisions.keys(), NO_DONOR)
        leaving |= self._judge(trials, decisions, view)
        going = {t.evaluator.id: [t.parent, t.child] for t in trials if t.evaluator.id in decisions}
        seen = _seen(second, trials, decisions, view)
        children = by_score([member for member in first if not _is_moved(member.id, decisions)])
        waiting = sorted(seen.keys() - {parent for parent, _ in going.values()}, key=lambda id_: (seen[id_], id_))
        parents = waiting[: self.evaluators - len(going)] if children else []
        starts = [_entry(i, decisions[parent], children[0]) for i, parent in enumerate(parents, len(view.members))]
        going |= {start.member: [parent, children[0].id] for start, parent in zip(starts, parents, strict=True)}
        return Proposal(
            decisions=list(decisions.values()),
            starts=starts,
            retirements=[Retired(member=m.id, round=m.round, why=leaving[m.id]) for m in wave if m.id in leaving],
            memory={
                "trials": {str(id_): pair for id_, pair in going.items()},
                "seen": {str(id_): round_ for id_, round_ in seen.items()},
                "curves": _curve_starts(first, decisions, view),
            },
        )

    def _check_series(self, ready: Sequence[Member]) -> None:
        needed = points_needed(self.p)
        points = max((len(member.series) for member in ready if member.healthy), default=needed)
        if points * self.patience < needed:
            raise UsageError(
                f"Fire: expected at least {-(-needed // self.patience)} points of 'series' in a report, got {points}; "
                f"return the score at more steps of a round (p={self.p:g} takes {needed} points)"
            )

    def _decision(self, member: Member, donors: Sequence[Member], view: View) -> Decision | None:
        """The decision on a member of the population; None for a failed one without a donor."""
        failed = member.status == "failed"
        donors = _substitutes(member, view) if failed else donors
        if not donors:
            return None if failed else hand_over(member, member.hparams)
        donor = view.rng("decide", member.id, member.round, "exploit").choice(donors)
        rng = view.rng("decide", member.id, member.round, "explore")
        hparams, draws = explored(self.explore, donor.hparams, member, view, rng)
        why = "failed" if failed else f"among the worst of group {member.group}"
        return hand_over(member, hparams, source=donor, origin=donor, draws=draws, why=why)

    def _judge(self, trials: Sequence[_Trial], decisions: Decisions, view: View) -> dict[int, str]:
        """Decide on the evaluators, and anew on children that take a state of theirs; returns reasons of retirement."""
        leaving = {}
        for trial in trials:
            evaluator, child = trial.evaluator, view.member(trial.child)
            end = self._end(trial, decisions, view)
            if end is None:
                decisions[evaluator.id] = hand_over(evaluator, evaluator.hparams)
            else:
                leaving[evaluator.id] = end
            if end == FASTER:
                why = f"evaluator {evaluator.id} of member {trial.parent} {FASTER}"
                decisions[child.id] = hand_over(child, child.hparams, source=evaluator, why=why)
        return leaving

    def _end(self, trial: _Trial, decisions: Decisions, view: View) -> str | None:
        """The reason why an evaluator retires; None if it continues."""
        if trial.evaluator.status == "failed":
            return "failed"
        if _is_moved(trial.child, decisions):
            return "its child was replaced"
        aim = self._curve(trial.child, view)
        p = chance(trial.curve, aim)
        if p < self.p and best_difference(trial.curve, aim) > 0:
            return FASTER
        # The longer an evaluator has trained, the smaller the p-value that lets it continue.
        left = max(0.0, 1 - trial.rounds / self.patience)
        if p > self.p + left if overlap(trial.curve, aim) else not left:
            return "gave up"
        return "its parent was replaced" if _is_moved(trial.parent, decisions) else None

    def _curve(self, member: int, view: View) -> list[float]:
        """The curve of a member of the first group since its last copy, after that of the evaluator it copied."""
        since, donor = view.memory["curves"].get(str(member), (0, None))
        own = _points(member, view, since)
        # If own reports have left the window, the evaluator's curve is no longer adjacent to the rest.
        whole = view.round - since <= self.window
        return _points(donor, view) + own if donor is not None and whole else own


def _entry(new: int, parent: Decision, child: Member) -> Born:
    """A new evaluator: the state from which the parent continues, with the child's hyperparameters."""
    start, step = parent.start, parent.step
    return Born(member=new, round=parent.round, hparams=child.hparams, start=start, step=step, role="evaluator")


def _points(member: int, view: View, since: int = 0) -> list[float]:
    """The curve of a member after a round."""
    return [point for report in view.history.get(member, ()) if report.round > since for point in report.series]


def _trial(evaluator: Member, view: View) -> _Trial:
    parent, child = view.memory["trials"][str(evaluator.id)]
    return _Trial(evaluator, parent, child, _points(evaluator.id, view), len(view.history.get(evaluator.id, ())))


def _rates(trials: Sequence[_Trial]) -> dict[int, float]:
    """The fitness of parents: how far the curve of each one's evaluator rises above those of the others."""
    live = [trial for trial in trials if trial.evaluator.status != "failed"]
    return {one.parent: sum(best_difference(one.curve, two.curve) for two in live if two is not one) for one in live}


def _truncation(group: Sequence[Member], fitness: Mapping[int, float], fraction: float) -> dict[int, list[Member]]:
    """The worst members of a group, each with its possible donors: the best ones with a higher fitness."""
    number = number_replaced(fraction, len(group))
    evaluated = [member for member in group if member.healthy and member.id in fitness]
    # With fewer members the best and the worst would overlap.
    if not number or len(evaluated) < 2 * number:
        return {}
    ranked = sorted(evaluated, key=lambda member: (-fitness[member.id], member.id))
    best = ranked[:number]
    return {m.id: [donor for donor in best if fitness[donor.id] > fitness[m.id]] for m in ranked[-number:]}


def _substitutes(failed: Member, view: View) -> Sequence[Member]:
    """Possible donors for a failed member: the better half of the first group, all of the second."""
    peers = [member for member in view.ranking if member.group == failed.group] or view.ranking
    return peers[: (len(peers) + 1) // 2] if failed.group == FIRST else peers


def _is_moved(member: int, decisions: Decisions) -> bool:
    """Whether a member was retired or copies a donor."""
    return member not in decisions or decisions[member].donor is not None


def _seen(second: Sequence[Member], trials: Sequence[_Trial], decisions: Decisions, view: View) -> dict[int, int]:
    """The last round of evaluation of each member of the second group; the next round if it was just replaced."""
    before, now = view.memory.get("seen", {}), {trial.parent for trial in trials}
    seen = {m.id: view.round if m.id in now else before.get(str(m.id), 0) for m in second if m.id in decisions}
    return {id_: view.round + 1 if _is_moved(id_, decisions) else last for id_, last in seen.items()}


def _curve_starts(first: Sequence[Member], decisions: Decisions, view: View) -> dict[str, list[int | None]]:
    """For each member of the first group, the round after which its curve starts, and the evaluator it copied."""
    starts = dict(view.memory.get("curves", {}))
    for member in first:
        if _is_moved(member.id, decisions):
            # Only a copy of an evaluator keeps the member's own hyperparameters.
            taken = decisions.get(member.id)
            starts[str(member.id)] = [view.round, taken.donor if taken and taken.hparams_from == member.id else None]
    return starts
