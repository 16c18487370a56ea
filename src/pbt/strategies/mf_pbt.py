"""MF-PBT: sub-populations that evolve at different frequencies, against greedy selection.

Doulazmi et al. 2025, "Multiple-Frequencies Population-Based Training", arXiv 2506.03225.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pbt.core.events import Decision, Retired
from pbt.core.exploit import number_replaced
from pbt.core.explore import Explore, Perturb, explored
from pbt.core.needs import Needs
from pbt.core.population import Member, View
from pbt.core.strategy import Proposal, births, hand_over, replacement
from pbt.errors import UsageError
from pbt.space import HParams
from pbt.strategies.base import NO_DONOR, Rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taking:
    """The parts that a member takes over from others."""

    source: Member
    """The member whose state is taken."""
    origin: Member | None
    """The member whose hyperparameters are taken; None to keep the own ones."""
    explored: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleFrequencies(Rounds):
    """MF-PBT: sub-populations evolve at different frequencies and exchange weights, but not greedy hyperparameters.

    Each sub-population is truncated separately, at its own number of rounds: its worst quarter copies its best quarter,
    paired in order of rank, and explores. The quarter above the worst may take the weights of better members of other
    sub-populations. A member of a fast sub-population takes a slow donor's hyperparameters along; a member of a slow
    one takes those of the best member of its own sub-population instead, which have proved themselves over its longer
    period; neither explores them. A member does not copy an equal score. A failed member is replaced at once, at any
    frequency, by one of the better half of its own sub-population, or of the whole population if no member of its own
    is healthy.

    Use it where a value that pays now costs later (learning rates, regularization, exploration), which misleads plain
    PBT, and where 16 members or more can train for many rounds: the slowest sub-population should evolve at least a few
    times. Do not use it for small populations, or where the greedy choice is right.

    Two controls belong to it. Selection alone, which shows the value of lucky weights: the same strategy with
    `explore=keep()`, and with equal `initial` values for all members if the hyperparameters are to be constants. No
    evolution: the same population under `Plan(exploit=never(), explore=keep())`.

    Args:
        frequencies: The number of rounds between two evolutions, for each sub-population. The population is split
            evenly among them, member i into sub-population i modulo their number; with more than one, each must have a
            size divisible by 4. A single frequency is truncation of a quarter, without migration.
        explore: How copied values change; migrated values do not change.
        interval: Training steps of a round.

    Raises:
        UsageError: There are no frequencies, or one is below 1; at the start, the population cannot be split like this.
    """

    needs: ClassVar[Needs] = Needs(name="MultipleFrequencies", members=2)
    frequencies: Sequence[int] = (1, 10, 25, 50)
    explore: Explore = field(default_factory=lambda: Perturb((0.8, 1.25)))

    def __post_init__(self) -> None:
        Rounds.__post_init__(self)
        if not self.frequencies or any(type(rounds) is not int or rounds < 1 for rounds in self.frequencies):
            raise UsageError(
                "MultipleFrequencies: expected one or more frequencies, each a whole number of at least 1 round, "
                f"got {self.frequencies!r}"
            )

    def begin(self, view: View, population: int, initial: Sequence[HParams]) -> Proposal:
        """The initial members; those with given values are spread over the sub-populations like the others."""
        groups = len(self.frequencies)
        if groups > 1 and population % (4 * groups):
            raise UsageError(
                f"MultipleFrequencies: expected a population that splits into {groups} sub-populations of equal size, "
                f"each divisible by 4, got {population}; take a multiple of {4 * groups}, or fewer frequencies"
            )
        return Proposal(
            starts=[replace(born, group=born.member % groups) for born in births(view, population, initial)]
        )

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """One decision for each ready member, all based on the population before any decision."""
        orders = _orders(view)
        takings: dict[int, _Taking] = {}
        for group, order in orders.items():
            if view.round % self.frequencies[group] == 0:
                takings |= _internal(order) | self._migration(group, order, view)
        decisions, retirements = [], []
        for member in ready:
            if member.status == "failed":
                donor = _renewal(member, orders[member.group], view)
                if donor is None:
                    retirements.append(Retired(member=member.id, round=member.round, why=NO_DONOR))
                    continue
                taking: _Taking | None = _Taking(source=donor, origin=donor, explored=True, why="failed")
            else:
                taking = takings.get(member.id)
            decisions.append(self._decision(member, taking, view))
        return Proposal(decisions=decisions, retirements=retirements)

    def _migration(self, group: int, order: Sequence[Member], view: View) -> dict[int, _Taking]:
        """What the quarter above the worst takes from better members of other sub-populations, each a donor once."""
        quarter = number_replaced(0.25, len(order))
        bracket = [m for m in order[len(order) - 2 * quarter : len(order) - quarter] if m.healthy]
        migrants = [m for m in view.ranking if m.group != group]
        takings: dict[int, _Taking] = {}
        for member in bracket:
            if not migrants or not _better(migrants[0], member, view):
                continue  # a member of lower rank may still be worse than this migrant
            migrant = migrants.pop(0)
            own, other = self.frequencies[group], self.frequencies[migrant.group]
            origin = migrant if own < other else order[0] if own > other else None
            why = f"migration from sub-population {migrant.group}, every {other} rounds, to {group}, every {own}"
            takings[member.id] = _Taking(source=migrant, origin=origin, explored=False, why=why)
        return takings

    def _decision(self, member: Member, taking: _Taking | None, view: View) -> Decision:
        if taking is None:
            return hand_over(member, member.hparams)
        hparams = (taking.origin or member).hparams
        if not taking.explored:
            return hand_over(member, hparams, source=taking.source, origin=taking.origin, why=taking.why)
        rng = view.rng("decide", member.id, member.round, "explore")
        hparams, draws = explored(self.explore, hparams, member, view, rng)
        return hand_over(member, hparams, source=taking.source, origin=taking.origin, draws=draws, why=taking.why)


def _orders(view: View) -> dict[int, list[Member]]:
    """Each sub-population, best first, failed members last."""
    orders: dict[int, list[Member]] = {}
    for member in (*view.ranking, *(m for m in view.population if not m.healthy)):
        orders.setdefault(member.group, []).append(member)
    return orders


def _internal(order: Sequence[Member]) -> dict[int, _Taking]:
    """What the worst quarter takes from the best, paired by rank."""
    quarter = number_replaced(0.25, len(order))
    places = range(len(order) - quarter, len(order))
    return {
        order[place].id: _Taking(source=donor, origin=donor, explored=True, why=f"rank {place + 1} of {len(order)}")
        for donor, place in zip(order, places, strict=False)
        # Failed members are last, so if a member is healthy, all before it are.
        if order[place].healthy and order[place].score != donor.score
    }


def _better(migrant: Member, member: Member, view: View) -> bool:
    return view.position[migrant.id] < view.position[member.id] and migrant.score != member.score


def _renewal(member: Member, order: Sequence[Member], view: View) -> Member | None:
    """A donor for a failed member, preferably of its own sub-population: a slow one must not receive greedy values."""
    return replacement(member, replace(view, members=tuple(order))) or replacement(member, view)
