"""Every lineage goes back to its best when it loses too much.

Zhang et al. 2021, "On the Importance of Hyperparameter Optimization for Model-based Reinforcement Learning",
arXiv 2102.13651 (PBT-BT). The criterion here is another one than the paper's, which compares by a ratio and therefore
depends on the sign and the scale of the scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_low, quantiles
from typing import Any

from pbt.core.events import Decision, Retired
from pbt.core.exploit import Copy, Exploit, Stay, Truncation
from pbt.core.explore import Explore, PerturbOrResample, explored
from pbt.core.population import Member, StateRef, View
from pbt.core.strategy import Proposal, hand_over, replacement
from pbt.errors import UsageError
from pbt.space import HParams
from pbt.strategies.base import Rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Elite:
    """The best that a lineage ever came to."""

    state: StateRef
    step: int
    scores: tuple[float, ...]
    hparams: HParams
    restored: int = 0
    """How often the lineage went back to it without coming to anything better."""

    def of(self, member: Member) -> Member:
        """The member as it was then."""
        return member._replace(
            state=self.state, step=self.step, scores=self.scores, series=(), hparams=self.hparams, status="live"
        )

    def plain(self) -> dict[str, Any]:
        return {
            "state": list(self.state),
            "step": self.step,
            "scores": list(self.scores),
            "hparams": dict(self.hparams),
            "restored": self.restored,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "_Elite":
        return cls(**{**plain, "state": StateRef(*plain["state"]), "scores": tuple(plain["scores"])})


RANGES = 5
"""Rounds over which the range of the scores is a median."""
Elites = dict[int, _Elite]
"""By member: a lineage is what goes on under the member's id, and a copier takes the donor's elite along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtracking(Rounds):
    """PBT-BT: a member that has lost too much goes back to the best state of its lineage, then the usual plan follows.

    A member goes back, weights, optimizer and hyperparameters, and explores from there, if its elite is better than
    it by more than `tolerance` interquartile ranges of the population's scores, the median range of the last five
    rounds. Everybody else does what `exploit` says. A copier takes the donor's elite along with the donor's state; a
    donor that itself goes back is copied as it was then. A failed member goes back to the weights of its elite, too,
    but under the explored hyperparameters of one of the better half, since its own have failed it; without an elite
    it copies that member whole.

    Use it where training breaks down now and then (model-based and other reinforcement learning, GANs, large learning
    rates), and a breakdown would otherwise spread or cost a lineage. Do not use it on scores that are drawn anew at
    each evaluation: score on one fixed set, or enough episodes, else a lucky score is gone back to again and again;
    `patience` bounds that. A member that goes back stands at an earlier step than the others: compare runs by the
    steps that were computed.

    Args:
        tolerance: Interquartile ranges that a member may lose. 1.5 is where Tukey's fences begin to call a value
            an outlier.
        quorum: Healthy members without which there is no range to speak of; in a smaller population only failed
            members go back.
        patience: How often a lineage may go back to the same elite. After that the elite is given up for what the
            member has now, or for the donor's if it failed.
        exploit: Who copies whom, of those that do not go back.
        explore: How values change after a copy, and after going back.
        interval: Training steps of a round.

    Raises:
        UsageError: Tolerance negative, quorum below 2, or patience below 1.
    """

    tolerance: float = 1.5
    quorum: int = 5
    patience: int = 3
    exploit: Exploit = field(default_factory=Truncation)
    explore: Explore = field(default_factory=lambda: PerturbOrResample((0.8, 1.2), 0.2))

    def __post_init__(self) -> None:
        Rounds.__post_init__(self)
        if not self.tolerance >= 0:
            raise UsageError(f"Backtracking: expected a tolerance that is not negative, got {self.tolerance!r}")
        if self.quorum < 2 or self.patience < 1:
            raise UsageError(
                f"Backtracking: expected a quorum of at least 2 and a patience of at least 1, "
                f"got {self.quorum!r} and {self.patience!r}"
            )

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """One decision for each ready member, all read from the same view and the same elites."""
        elites, ranges = _remembered(view), self._ranges(view)
        for member in view.ranking:
            if member.id not in elites or member.score > elites[member.id].scores[0]:
                elites[member.id] = _now(member)
        lost = self._lost(view, elites, ranges)
        after, decisions, retirements = dict(elites), [], []
        for member in ready:
            handed = self._handed_over(member, view, elites, lost)
            if handed is None:
                retirements.append(Retired(member=member.id, round=member.round, why="failed, and nobody is left"))
                after.pop(member.id, None)
            else:
                decision, after[member.id] = handed
                decisions.append(decision)
        plain = {str(id_): elite.plain() for id_, elite in sorted(after.items())}
        return Proposal(decisions=decisions, retirements=retirements, memory={"elites": plain, "ranges": ranges})

    def retain(self, view: View) -> set[StateRef]:
        """The states of the elites, and those that members stand on, which the next decision may make elites."""
        standing = {member.state for member in view.members if member.state is not None}
        return standing | {elite.state for elite in _remembered(view).values()}

    def _ranges(self, view: View) -> list[float]:
        """The interquartile ranges of the scores after the last rounds, this one the last."""
        ranges = list(view.memory.get("ranges", ()))
        if len(view.ranking) >= self.quorum:
            first, _, third = quantiles([member.score for member in view.ranking], method="inclusive")
            ranges.append(third - first)
        return ranges[-RANGES:]

    def _lost(self, view: View, elites: Elites, ranges: Sequence[float]) -> set[int]:
        """Who goes back to its elite. Those of whom patience is at an end are given another elite, and do not."""
        if not ranges:
            return set()
        # The median, since a round in which most of the population breaks down has a range beyond all measure.
        allowed = self.tolerance * median_low(ranges)
        lost = set()
        for member in view.ranking:
            if elites[member.id].scores[0] - member.score > allowed:
                if elites[member.id].restored < self.patience:
                    lost.add(member.id)
                else:
                    elites[member.id] = _now(member)
        return lost

    def _handed_over(
        self, member: Member, view: View, elites: Elites, lost: set[int]
    ) -> tuple[Decision, _Elite] | None:
        """How the member goes on, and what its lineage's elite is from then on; None: it cannot."""
        if member.status == "failed":
            return self._renewed(member, view, elites, lost)
        own = elites[member.id]
        if member.id in lost:
            back = own.of(member)
            why = f"fell from {back.score:.6g} to {member.score:.6g}"
            return self._explored(member, back, back, view, why), replace(own, restored=own.restored + 1)
        choice = self.exploit(member, view, view.rng("decide", member.id, member.round, "exploit"))
        if isinstance(choice, Stay):
            return hand_over(member, member.hparams, why=choice.why), own
        if not isinstance(choice, Copy):
            return self._explored(member, None, None, view, choice.why), own
        donor = view.member(choice.donor)
        if choice.state not in (None, donor.state):
            raise UsageError(
                f"Backtracking: expected exploit to copy the state that a donor stands on, {donor.state}, got "
                f"{choice.state}; going back is for this strategy to decide"
            )
        stand = elites[donor.id].of(donor) if donor.id in lost else donor
        return self._explored(member, stand, stand, view, choice.why), replace(elites[donor.id], restored=0)

    def _renewed(self, member: Member, view: View, elites: Elites, lost: set[int]) -> tuple[Decision, _Elite] | None:
        donor = replacement(member, view)
        if donor is None:
            return None
        stand = elites[donor.id].of(donor) if donor.id in lost else donor
        own = elites.get(member.id)
        if own is None or own.restored >= self.patience:
            return self._explored(member, stand, stand, view, "failed"), replace(elites[donor.id], restored=0)
        decision = self._explored(member, own.of(member), stand, view, "failed, goes back")
        # Its own state, another's values: the donor is whose values these are.
        return decision._replace(donor=donor.id), replace(own, restored=own.restored + 1)

    def _explored(self, member: Member, source: Member | None, origin: Member | None, view: View, why: str) -> Decision:
        rng = view.rng("decide", member.id, member.round, "explore")
        hparams, draws = explored(self.explore, (origin or member).hparams, member, view, rng)
        return hand_over(member, hparams, source=source, origin=origin, draws=draws, why=why)


def _remembered(view: View) -> Elites:
    return {int(id_): _Elite.from_plain(plain) for id_, plain in view.memory.get("elites", {}).items()}


def _now(member: Member) -> _Elite:
    """What the member has now, as the elite of its lineage."""
    if member.state is None:
        raise UsageError(f"Backtracking: expected the state of member {member.id} to be kept, got none")
    return _Elite(state=member.state, step=member.step, scores=member.scores, hparams=member.hparams)
