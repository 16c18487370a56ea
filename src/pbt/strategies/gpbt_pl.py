"""GPBT-PL: pairwise learning between a loser and a winner (Bai and Cheng 2024, arXiv 2404.08233)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pbt.core.events import Decision, Retired
from pbt.core.explore import RESAMPLED, toward
from pbt.core.needs import Needs
from pbt.core.population import Member, View
from pbt.core.rng import Rng
from pbt.core.strategy import Proposal, hand_over, replacement
from pbt.domains import Choice
from pbt.errors import UsageError
from pbt.space import HParams
from pbt.strategies.base import NO_DONOR, Rounds
from pbt.strategies.gains import share
from pbt.values import Value

Velocity = Mapping[str, float]
"""By name, as a share of the range in the scale of the domain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairwiseLearning(Rounds):
    """The worst members copy the weights of the best, and move their own hyperparameters towards the winner's.

    Each member has a velocity per number, which starts at 0: v becomes r1 v + r2 (winner's - own), with r1 and r2 drawn
    from 0 .. 1 for each name, and the value moves by v within its bounds. Differences are measured in the scale of the
    domain, so a log domain moves by factors. With some probability a value is drawn anew instead, and the winner's
    velocity is copied. A choice moves to a neighbor of the winner's option; unordered ones are drawn anew.

    Use it for many hyperparameters in small populations, where copying the winner's values would discard the losers'
    search. Do not use it with a badly centered prior: except for new draws, values stay within the range that the
    members span.

    Args:
        interval: Training steps of a round.
        quantile: Share of the population that learns, 0 to 0.5; rounded up, at most half.
        resample: Probability that a value is drawn anew, independent for each name.

    Raises:
        UsageError: An argument is outside its range.
    """

    resizable: ClassVar[bool] = True
    needs: ClassVar[Needs] = Needs(name="PairwiseLearning", members=2)
    quantile: float = 0.25
    resample: float = 0.25

    def __post_init__(self) -> None:
        Rounds.__post_init__(self)
        if not 0 <= self.quantile <= 0.5:
            raise UsageError(f"PairwiseLearning: expected a quantile from 0 to 0.5, got {self.quantile!r}")
        if not 0 <= self.resample <= 1:
            raise UsageError(f"PairwiseLearning: expected a resample probability from 0 to 1, got {self.resample!r}")

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """Assign a winner to each loser; the others continue unchanged."""
        decisions: list[Decision] = []
        retirements: list[Retired] = []
        velocities = {**view.memory.get("velocities", {})}
        known: Mapping[str, Velocity] = view.memory.get("velocities", {})
        for member in sorted(ready, key=lambda member: member.id):
            winner, why = self._winner(member, view)
            if winner is None and member.status == "failed":
                retirements.append(Retired(member=member.id, round=member.round, why=NO_DONOR))
                velocities.pop(str(member.id), None)
            elif winner is None:
                decisions.append(hand_over(member, member.hparams, why=why))
            else:
                # A failed member keeps neither its values nor its velocity.
                own = winner if member.status == "failed" else member
                pair = (own.hparams, known.get(str(own.id), {})), (winner.hparams, known.get(str(winner.id), {}))
                hparams, velocity, draws = self._learn(*pair, view, _rng(view, member, "explore"))
                velocities[str(member.id)] = velocity
                origin = winner if own is winner else None
                decisions.append(hand_over(member, hparams, source=winner, origin=origin, draws=draws, why=why))
        return Proposal(decisions=decisions, retirements=retirements, memory={"velocities": velocities})

    def _winner(self, member: Member, view: View) -> tuple[Member | None, str]:
        """A random one of the best for one of the worst, None for the others; and the reason."""
        if member.status == "failed":
            return replacement(member, view), "failed"
        healthy = len(view.ranking)
        n = min(number_of_losers(self.quantile, len(view.population)), healthy // 2)
        place = view.position[member.id]
        if place < healthy - n:
            return None, f"rank {place + 1} of {healthy}"
        winner = view.ranking[_rng(view, member, "exploit").below(n)]
        if winner.score == member.score:
            return None, f"as good as the drawn winner {winner.id}"
        return winner, f"rank {place + 1} of {healthy}, winner {view.position[winner.id] + 1}"

    def _learn(
        self, own: tuple[HParams, Velocity], winner: tuple[HParams, Velocity], view: View, rng: Rng
    ) -> tuple[HParams, dict[str, float], dict[str, Value]]:
        """The loser's values moved towards the winner's, its velocity, and the draws."""
        values, velocity = dict(own[0]), dict(own[1])
        draws: dict[str, Value] = {}
        for name, theirs in winner[0].items():
            domain = view.space[name]
            anew = rng.random() < self.resample
            if anew:
                values[name], draws[name] = domain.sample(rng), RESAMPLED
            elif isinstance(domain, Choice):
                draws[name] = by = rng.choice((-1, 1))
                values[name] = domain.shift(theirs, by, rng)
            elif name not in values:
                values[name] = theirs
            else:
                gap = share(domain, theirs) - share(domain, values[name])
                move = rng.random() * velocity.get(name, 0.0) + rng.random() * gap
                values[name], draws[name] = domain.shift(values[name], move, rng), move
                velocity[name] = move
            if not isinstance(domain, Choice) and (anew or name not in own[0]):
                velocity[name] = winner[1].get(name, 0.0)
        return toward(view.space, winner[0], view.space.settle(values, rng)), velocity, draws


def number_of_losers(quantile: float, population: int) -> int:
    """The number of members that learn: as in Ray Tune, the share of the population rounded up, at most half."""
    return min(math.ceil(quantile * population - 1e-9), population // 2)


def _rng(view: View, member: Member, purpose: str) -> Rng:
    return view.rng("decide", member.id, member.round, purpose)
