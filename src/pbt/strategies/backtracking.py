"""PBT-BT: a lineage whose score drops too far returns to its best state.

Zhang et al. 2021, "On the Importance of Hyperparameter Optimization for Model-based Reinforcement Learning",
arXiv 2102.13651. The criterion differs from the paper's, which compares by a ratio and therefore depends on the sign
and the scale of the scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_low, quantiles
from typing import Any, ClassVar

from pbt.core.events import Decision, Retired
from pbt.core.exploit import Copy, Exploit, Stay, Truncation
from pbt.core.explore import Explore, PerturbOrResample, explored
from pbt.core.needs import Needs
from pbt.core.population import Member, StateRef, View
from pbt.core.strategy import Proposal, hand_over, replacement
from pbt.errors import UsageError
from pbt.space import HParams
from pbt.strategies.base import NO_DONOR, Rounds
from pbt.values import from_lists


@dataclass(frozen=True, slots=True, kw_only=True)
class _Elite:
    """The best state of a lineage."""

    state: StateRef
    step: int
    scores: tuple[float, ...]
    hparams: HParams
    restored: int = 0
    """How often the lineage returned to it without a better score since."""

    def of(self, member: Member) -> Member:
        """The member in this state."""
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
        values = {"state": StateRef(*plain["state"]), "scores": tuple(plain["scores"])}
        return cls(**{**plain, **values, "hparams": from_lists(plain["hparams"])})


RANGES = 5
"""The number of rounds over which the median of the interquartile ranges is taken."""
Elites = dict[int, _Elite]
"""Elites by member; a member that copies takes the donor's elite along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtracking(Rounds):
    """PBT-BT: a member whose score drops too far returns to the best state of its lineage; the others follow `exploit`.

    The best state of a lineage is its elite. A member returns to it, with weights, optimizer and hyperparameters, and
    explores from there, if the elite is better by more than `tolerance` interquartile ranges of the population's scores
    (the median range of the last five rounds). A member that copies takes the donor's elite along with the donor's
    state; a donor that itself returns is copied in its elite state. A failed member returns to the weights of its
    elite, too, but with the explored hyperparameters of one of the better half, since its own have failed; without an
    elite it copies that member whole.

    Use it where training occasionally breaks down (model-based and other reinforcement learning, GANs, large learning
    rates), and a breakdown would otherwise spread or end a lineage. Do not use it with scores that vary from one
    evaluation to the next: evaluate on a fixed set or on enough episodes, or members will return to a lucky score
    repeatedly, up to `patience` times. A member that returns is at an earlier step than the others: compare runs by the
    number of computed steps.

    Args:
        tolerance: The drop in score, in interquartile ranges, beyond which a member returns. 1.5 is the limit of
            Tukey's fences for outliers.
        quorum: The fewest healthy members for which the interquartile range is computed; with fewer, only failed
            members return.
        patience: How often a lineage may return to the same elite. After that, the member's current state becomes the
            elite, or the donor's elite if the member failed.
        exploit: The exploit rule for members that do not return.
        explore: How values change after a copy, and after a return.
        interval: Training steps of a round.

    Raises:
        UsageError: The tolerance is negative, the quorum is below 2, or the patience is below 1.
    """

    resizable: ClassVar[bool] = True
    tolerance: float = 1.5
    quorum: int = 5
    patience: int = 3
    exploit: Exploit = field(default_factory=Truncation)
    explore: Explore = field(default_factory=lambda: PerturbOrResample((0.8, 1.2), 0.2))

    def __post_init__(self) -> None:
        Rounds.__post_init__(self)
        if not self.tolerance >= 0:
            raise UsageError(f"Backtracking: expected a tolerance of at least 0, got {self.tolerance!r}")
        if self.quorum < 2 or self.patience < 1:
            raise UsageError(
                f"Backtracking: expected a quorum of at least 2 and a patience of at least 1, "
                f"got {self.quorum!r} and {self.patience!r}"
            )

    @property
    def needs(self) -> Needs:
        """A quorum: with fewer members, no score is ever found to have dropped."""
        return Needs(name="Backtracking", members=self.quorum)

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """One decision for each ready member, all based on the same view and elites."""
        elites, ranges = _remembered(view), self._ranges(view)
        for member in view.ranking:
            if member.id not in elites or member.score > elites[member.id].scores[0]:
                elites[member.id] = _now(member)
        lost = self._lost(view, elites, ranges)
        after, decisions, retirements = dict(elites), [], []
        for member in ready:
            handed = self._handed_over(member, view, elites, lost)
            if handed is None:
                retirements.append(Retired(member=member.id, round=member.round, why=NO_DONOR))
                after.pop(member.id, None)
            else:
                decision, after[member.id] = handed
                decisions.append(decision)
        plain = {str(id_): elite.plain() for id_, elite in sorted(after.items())}
        return Proposal(decisions=decisions, retirements=retirements, memory={"elites": plain, "ranges": ranges})

    def retain(self, view: View) -> set[StateRef]:
        """The elites' states, and the members' current states, which may become elites."""
        standing = {member.state for member in view.members if member.state is not None}
        return standing | {elite.state for elite in _remembered(view).values()}

    def _ranges(self, view: View) -> list[float]:
        """The interquartile ranges of the scores of the last rounds, including this one."""
        ranges = list(view.memory.get("ranges", ()))
        if len(view.ranking) >= self.quorum:
            first, _, third = quantiles([member.score for member in view.ranking], method="inclusive")
            ranges.append(third - first)
        return ranges[-RANGES:]

    def _lost(self, view: View, elites: Elites, ranges: Sequence[float]) -> set[int]:
        """Members that return to their elite. If patience is exhausted, the current state becomes the elite instead."""
        if not ranges:
            return set()
        # The median, because a round in which most of the population breaks down has an extreme range.
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
        """The decision on a member, and the next elite of its lineage; None for a failed member without a donor."""
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
                f"Backtracking: expected exploit to copy the donor's current state {donor.state}, got {choice.state}; "
                "use an exploit rule that copies no earlier states"
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
        decision = self._explored(member, own.of(member), stand, view, "failed, returns to its elite")
        # The state is its own and the values are the donor's, so the donor is recorded.
        return decision._replace(donor=donor.id), replace(own, restored=own.restored + 1)

    def _explored(self, member: Member, source: Member | None, origin: Member | None, view: View, why: str) -> Decision:
        rng = view.rng("decide", member.id, member.round, "explore")
        hparams, draws = explored(self.explore, (origin or member).hparams, member, view, rng)
        return hand_over(member, hparams, source=source, origin=origin, draws=draws, why=why)


def _remembered(view: View) -> Elites:
    return {int(id_): _Elite.from_plain(plain) for id_, plain in view.memory.get("elites", {}).items()}


def _now(member: Member) -> _Elite:
    """The member's current state as an elite."""
    if member.state is None:
        raise UsageError(f"Backtracking: expected the state of member {member.id} to be kept, got none")
    return _Elite(state=member.state, step=member.step, scores=member.scores, hparams=member.hparams)
