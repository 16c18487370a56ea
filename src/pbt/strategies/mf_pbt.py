"""Populations that evolve at several speeds, against greed.

Doulazmi et al. 2025, "Multiple-Frequencies Population-Based Training", arXiv 2506.03225.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pbt.core.events import Decision, Retired
from pbt.core.exploit import number_replaced
from pbt.core.explore import Explore, Perturb, explored
from pbt.core.population import Member, View
from pbt.core.strategy import Proposal, births, hand_over, replacement
from pbt.errors import UsageError
from pbt.space import HParams
from pbt.strategies.base import Rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taking:
    """What a member takes over from others."""

    source: Member
    """Whose state."""
    origin: Member | None
    """Whose hyperparameters; None: its own stay."""
    explored: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleFrequencies(Rounds):
    """MF-PBT: sub-populations that evolve at different speeds, and exchange weights but not the greed of the fast ones.

    Each sub-population is truncated on its own, every so many rounds: its worst quarter copies its best quarter, worst
    first to last against best first to last, and explores. The quarter above the worst may take the weights of better
    members of other sub-populations. A fast one takes the slow one's hyperparameters along; a slow one takes those of
    its own best member instead, which have proved themselves over its longer time; neither explores them. Equal scores
    copy nobody. A failed member is replaced at once, whatever the speed: by one of the better half of its own
    sub-population, while that has anybody healthy.

    Use it where a choice that pays now costs later (learning rates, regularization, exploration), which plain PBT
    gets wrong, and where 16 members or more can be afforded over many rounds: the slowest sub-population should
    evolve a few times at least. Do not use it for small populations, nor where the greedy choice is the right one.

    Two controls belong to it. Selection alone, which shows what lucky weights are worth: the same with
    `explore=keep()`, and with equal `initial` values for all members where the hyperparameters shall be constants. No
    evolution: the same population under `Plan(exploit=never(), explore=keep())`.

    Args:
        frequencies: After every how many rounds each sub-population evolves. The population is split evenly among
            them, member i into sub-population i modulo their number; with more than one, a share must be divisible
            by 4. One frequency alone is truncation of a quarter, without migration.
        explore: How copied values change; migrated ones do not.
        interval: Training steps of a round.

    Raises:
        UsageError: No frequencies, or one below 1; at the start, a population that cannot be split so.
    """

    frequencies: Sequence[int] = (1, 10, 25, 50)
    explore: Explore = field(default_factory=lambda: Perturb((0.8, 1.25)))

    def __post_init__(self) -> None:
        Rounds.__post_init__(self)
        if not self.frequencies or any(type(rounds) is not int or rounds < 1 for rounds in self.frequencies):
            raise UsageError(
                f"MultipleFrequencies: expected one or more whole frequencies of at least 1 round, "
                f"got {self.frequencies!r}"
            )

    def begin(self, view: View, population: int, initial: Sequence[HParams]) -> Proposal:
        """The first members; those with given values are spread over the sub-populations like all others."""
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
        """One decision for each ready member, all read from the population before any of them."""
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
                    retirements.append(Retired(member=member.id, round=member.round, why="failed, and nobody is left"))
                    continue
                taking: _Taking | None = _Taking(source=donor, origin=donor, explored=True, why="failed")
            else:
                taking = takings.get(member.id)
            decisions.append(self._decision(member, taking, view))
        return Proposal(decisions=decisions, retirements=retirements)

    def _migration(self, group: int, order: Sequence[Member], view: View) -> dict[int, _Taking]:
        """What the quarter above the worst takes from better members of other sub-populations, each taken once."""
        quarter = number_replaced(0.25, len(order))
        bracket = [m for m in order[len(order) - 2 * quarter : len(order) - quarter] if m.healthy]
        migrants = [m for m in view.ranking if m.group != group]
        takings: dict[int, _Taking] = {}
        for member in bracket:
            if not migrants or not _better(migrants[0], member, view):
                continue  # a member further down may still be worse than this migrant
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
        # Failed members are last: where a loser is healthy, so is everybody before it.
        if order[place].healthy and order[place].score != donor.score
    }


def _better(migrant: Member, member: Member, view: View) -> bool:
    return view.position[migrant.id] < view.position[member.id] and migrant.score != member.score


def _renewal(member: Member, order: Sequence[Member], view: View) -> Member | None:
    """A donor for a failed member: of its own sub-population, so that no greedy values leak into a slow one."""
    return replacement(member, replace(view, members=tuple(order))) or replacement(member, view)
