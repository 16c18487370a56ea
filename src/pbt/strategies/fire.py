"""FIRE PBT: faster improvement rate, so that what pays at once does not drive out what pays later.

Dalibard & Jaderberg 2021, "Faster Improvement Rate Population Based Training" (arXiv 2109.13800).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pbt.core.events import Born, Decision, Retired
from pbt.core.exploit import Truncation, number_replaced
from pbt.core.explore import Explore, Perturb, explored
from pbt.core.population import Member, View, by_score
from pbt.core.strategy import Proposal, births, hand_over
from pbt.errors import UsageError
from pbt.space import HParams
from pbt.strategies.base import Rounds
from pbt.strategies.curves import best_difference, chance, overlap, points_needed

FIRST, SECOND = 1, 2  # `Member.group`
FASTER = "rises faster than its child"

Decisions = dict[int, Decision]  # by member; who leaves has none


class _Trial(NamedTuple):
    """An evaluator at work, and what it has shown in how many rounds."""

    evaluator: Member
    parent: int
    child: int
    curve: list[float]
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire(Rounds):
    """Half of the population is greedy; the other half is judged by how fast it improves, and lends its weights.

    The first group (`group` 1) is ordinary PBT by score. The second (`group` 2) is not judged by its scores, which
    would make it as greedy. Instead *evaluators*, extra members that are neither counted nor ranked, go on from the
    weights of one of its members, the parent, with the hyperparameters of the best member of the first group, the
    child. How far their curves rise above each other's is the fitness of their parents. An evaluator whose curve
    surely rises faster than the child's, from the same value on, hands its weights to the child, which keeps its
    hyperparameters. So weights made with unhurried hyperparameters are finished by greedy ones.

    Use it where what helps the score at once harms it later, as a lower learning rate does, and PBT is seen to fall
    for it. Use it not where greed is right (evaluators then train for nothing), nor without a curve of the score in
    every report (`series`, 3 points a round or more), nor where that curve is noisy: the paper smooths curves by a
    Gaussian process, here they are compared as the task returns them.

    The result is the best of the first group: `max((m for m in run.view.population if m.group == 1), key=lambda m:
    m.score)`. `run.best` is the best state that either group ever had, mostly the same one. A population of 16 is
    8 + 8, and trains up to `evaluators` more members at the same time.

    Args:
        interval: Training steps of a round.
        fraction: Share of each group that is replaced.
        explore: How copied values change; the paper's factor is 2 or 1/2.
        evaluators: Most evaluators at a time.
        patience: Rounds after which an evaluator that has not come near the child gives up; the longer it takes,
            the surer it has to be.
        p: How unlikely a rise by chance must be for weights to be handed over.
        window: Rounds that curves reach back.

    Raises:
        UsageError: A setting outside these; reports without series, or with such short ones that no evaluator could
            ever be sure.
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
    def lookback(self) -> int:
        """Curves are read from the last reports."""
        return self.window

    def begin(self, view: View, population: int, initial: Sequence[HParams]) -> Proposal:
        """The two groups by turns, so that both have a share of the given first values."""
        starts = births(view, population, initial)
        return Proposal(starts=[replace(start, group=SECOND if i % 2 else FIRST) for i, start in enumerate(starts)])

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """Both groups select and explore, then the evaluators are judged, then new ones enter."""
        self._check_series(ready)
        wave = sorted(ready, key=lambda member: member.id)
        first, second = ([m for m in wave if m.role == "member" and m.group == group] for group in (FIRST, SECOND))
        trials = [_trial(member, view) for member in wave if member.role == "evaluator"]
        donors = _truncation(first, {member.id: member.score for member in first}, self.fraction)
        donors |= _truncation(second, _rates(trials), self.fraction)
        answers = {m.id: self._answer(m, donors.get(m.id, ()), view) for m in (*first, *second)}
        decisions = {id_: decision for id_, decision in answers.items() if decision is not None}
        leaving = dict.fromkeys(answers.keys() - decisions.keys(), "failed, and nobody is copied")
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
                f"let the task return its score at more steps of a round ({needed} points are surer than p={self.p:g})"
            )

    def _answer(self, member: Member, donors: Sequence[Member], view: View) -> Decision | None:
        """How a member of the population goes on; None: it failed, and there is nobody to copy."""
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
        """Decide on the evaluators, and again on the children that take a state of theirs; who leaves, and why."""
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
        """Why an evaluator leaves; None: it goes on."""
        if trial.evaluator.status == "failed":
            return "failed"
        if _is_moved(trial.child, decisions):
            return "its child was replaced"
        aim = self._curve(trial.child, view)
        p = chance(trial.curve, aim)
        if p < self.p and best_difference(trial.curve, aim) > 0:
            return FASTER
        # The longer an evaluator has tried, the less it may leave to chance.
        left = max(0.0, 1 - trial.rounds / self.patience)
        if p > self.p + left if overlap(trial.curve, aim) else not left:
            return "gave up"
        return "its parent was replaced" if _is_moved(trial.parent, decisions) else None

    def _curve(self, member: int, view: View) -> list[float]:
        """The curve of one of the first group since it was replaced, with that of an evaluator whose state it took."""
        since, donor = view.memory["curves"].get(str(member), (0, None))
        own = _points(member, view, since)
        # Where own reports have left the window, those before them must not be put in front of the rest.
        whole = view.round - since <= self.window
        return _points(donor, view) + own if donor is not None and whole else own


def _entry(new: int, parent: Decision, child: Member) -> Born:
    """An evaluator: what the parent goes on from, with the child's hyperparameters."""
    start, step = parent.start, parent.step
    return Born(member=new, round=parent.round, hparams=child.hparams, start=start, step=step, role="evaluator")


def _points(member: int, view: View, since: int = 0) -> list[float]:
    """The curve of a member behind a round."""
    return [point for report in view.history.get(member, ()) if report.round > since for point in report.series]


def _trial(evaluator: Member, view: View) -> _Trial:
    parent, child = view.memory["trials"][str(evaluator.id)]
    return _Trial(evaluator, parent, child, _points(evaluator.id, view), len(view.history.get(evaluator.id, ())))


def _rates(trials: Sequence[_Trial]) -> dict[int, float]:
    """How fast parents improve: by how much the curve of each one's evaluator rises above those of the others."""
    live = [trial for trial in trials if trial.evaluator.status != "failed"]
    return {one.parent: sum(best_difference(one.curve, two.curve) for two in live if two is not one) for one in live}


def _truncation(group: Sequence[Member], fitness: Mapping[int, float], fraction: float) -> dict[int, list[Member]]:
    """The worst of a group, with those of its best that each may copy: all that are better than itself."""
    number = number_replaced(fraction, len(group))
    known = [member for member in group if member.healthy and member.id in fitness]
    # Of fewer it cannot be told who is among the worst of all.
    if not number or len(known) < 2 * number:
        return {}
    ranked = sorted(known, key=lambda member: (-fitness[member.id], member.id))
    best = ranked[:number]
    return {m.id: [donor for donor in best if fitness[donor.id] > fitness[m.id]] for m in ranked[-number:]}


def _substitutes(failed: Member, view: View) -> Sequence[Member]:
    """Who may replace a failed member: of the first group the better half, of the second anybody."""
    peers = [member for member in view.ranking if member.group == failed.group] or view.ranking
    return peers[: (len(peers) + 1) // 2] if failed.group == FIRST else peers


def _is_moved(member: int, decisions: Decisions) -> bool:
    """Whether a member does not go on from where it stood."""
    return member not in decisions or decisions[member].donor is not None


def _seen(second: Sequence[Member], trials: Sequence[_Trial], decisions: Decisions, view: View) -> dict[int, int]:
    """The round in which each of the second group was last under evaluation; one later: it was replaced just then."""
    before, now = view.memory.get("seen", {}), {trial.parent for trial in trials}
    seen = {m.id: view.round if m.id in now else before.get(str(m.id), 0) for m in second if m.id in decisions}
    return {id_: view.round + 1 if _is_moved(id_, decisions) else last for id_, last in seen.items()}


def _curve_starts(first: Sequence[Member], decisions: Decisions, view: View) -> dict[str, list[int | None]]:
    """After which round the curve of each of the first group begins, and the evaluator whose curve comes before it."""
    starts = dict(view.memory.get("curves", {}))
    for member in first:
        if _is_moved(member.id, decisions):
            # Only what an evaluator hands over comes with the member's own hyperparameters.
            taken = decisions.get(member.id)
            starts[str(member.id)] = [view.round, taken.donor if taken and taken.hparams_from == member.id else None]
    return starts
