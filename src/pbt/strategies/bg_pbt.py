"""BG-PBT without architecture search (Wan et al. 2022, arXiv 2207.09405): PB2 in a trust region over mixed spaces."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, ClassVar

from pbt.core.explore import toward
from pbt.core.needs import Needs
from pbt.core.population import Member, View
from pbt.core.rng import Rng
from pbt.space import HParams, Space
from pbt.strategies.gains import GainRow, at_share, choices, numbers, observed, points, row_of
from pbt.strategies.pb2 import MODELED, Bandits, Explored, Wave
from pbt.strategies.surrogate import Acquisition, Points, Worth, acquired, fit, joined, one_thread
from pbt.strategies.trust_region import Region, search
from pbt.values import Value

WEIGHT = 1.96
"""The weight of the standard deviation (BG-PBT)."""
SEARCHES = 3
"""Starting points of a search: the center, and draws from the region (BG-PBT: three, near the copied values)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BGPBT(Bandits):
    """BG-PBT without its architecture search: a Gaussian process proposes numbers and choices near the donor's values.

    As in PB2 the worst members copy the best, and the gains of rounds are the observations. The kernel compares numbers
    and choices, and a proposal lies in a trust region around the donor's values: 0.4 of the range of each number at
    first, 0.15 to 1 later; and any of the choices at first, at least one later. The region grows 1.5-fold after three
    successful rounds in a row, shrinks after ten that were not, and starts again where it would shrink below the least.
    A round is successful if the greatest gain is that of a member whose values were proposed at its beginning.

    Use it in place of PB2-Mix for spaces with several choices, some of which may not matter. In a space of numbers it
    is PB2 that moves less far.

    Args:
        interval: Training steps of a round.
        quantile: As in `PB2`; BG-PBT has 0.125 with 8 members.
        acquisition: As in `PB2`; BG-PBT has the standard deviation, with a weight of 1.96.
        time: As in `PB2`.
        eps_cap: As in `PB2`.
        rows: As in `PB2`.
        refit: As in `PB2`; BG-PBT gives pending rows the mean of the process, so that it is off.

    Raises:
        UsageError: An argument is outside its range.
    """

    resizable: ClassVar[bool] = True
    needs: ClassVar[Needs] = Needs(name="BGPBT", members=2)
    acquisition: Acquisition = "std"
    rows: int = 100
    refit: bool = False

    def learn(self, view: View, fresh: Sequence[GainRow]) -> dict[str, Any]:
        """Update the size of the region by the round that ended."""
        region = Region(**view.memory.get("region", {}))
        proposed = view.memory.get("proposed", [])
        opened = view.memory.get("opened", {})
        gains = {m.id: row.gain for m in view.population if (row := observed(m, opened, view.space)) is not None}
        if fresh and gains.keys() & set(proposed):
            region = region.after(max(gains, key=lambda member: gains[member]) in proposed)
        return {"region": asdict(region), "proposed": []}

    def choose(self, hparams: HParams, wave: Wave, rng: Rng) -> Explored:  # noqa: ARG002 (the form of the base)
        """Keep the choices: they are proposed together with the numbers."""
        return dict(hparams), {}

    def compared(self, space: Space) -> Sequence[str]:
        """All choices."""
        return list(choices(space))

    def relevant(self, rows: Sequence[GainRow], now: GainRow, space: Space) -> Sequence[GainRow]:  # noqa: ARG002
        """All rows."""
        return rows

    def _explore(self, member: Member, donor: Member, wave: Wave) -> tuple[HParams, dict[str, Value], str]:
        """The donor's values, moved to the best point of the trust region around them."""
        space, rows = wave.view.space, tuple(wave.rows)
        if len(rows) < 2:
            return donor.hparams, {}, f"values kept, {len(rows)} rows to model"
        rng = wave.view.rng("decide", member.id, member.round, "explore")
        now = row_of(member.round, donor.score, donor.hparams, space)
        kinds = self.compared(space)
        seen, pending, here = (
            points(part, space, kinds, wave.times, wave.scores) for part in (rows, wave.pending, [now])
        )
        gains = normal_scores([row.gain for row in rows])
        if rows not in wave.kernels:
            wave.kernels[rows] = fit(seen, gains, eps=min(0.1, self.eps_cap), eps_cap=self.eps_cap)
        region = Region(**wave.notes["region"])
        with one_thread():
            kernel, unsure = wave.kernels[rows], wave.kernels[rows]
            if self.refit:
                unsure = fit(joined(seen, pending), [*gains, *[0.0] * len(wave.pending)], eps_cap=self.eps_cap)
            worth = acquired((kernel, unsure), seen, gains, pending, self.acquisition, WEIGHT)
            moved = _best(space, donor.hparams, here, region, worth, rng)
        proposed = toward(space, donor.hparams, space.settle({**donor.hparams, **moved}, rng))
        wave.notes["proposed"].append(member.id)
        why = f"{len(rows)} rows, region {region.numbers:.2g} of numbers, {region.choices:.2g} of choices"
        return proposed, dict.fromkeys(moved, MODELED), why


def _best(space: Space, center: HParams, here: Points, region: Region, worth: Worth, rng: Rng) -> dict[str, Value]:
    """The best values of the region, for the names that are active in its center."""
    columns = {name: 1 + i for i, name in enumerate(numbers(space)) if name in center}
    intervals = {column: region.interval(here.places[0][column]) for column in columns.values()}
    # Without options a choice stays as it is.
    options = [len(domain.options) if name in center else 0 for name, domain in choices(space).items()]
    middle = [(here.places[0][c] - low) / (high - low) for c, (low, high) in intervals.items()]
    starts = [middle, *([rng.random() for _ in intervals] for _ in range(SEARCHES - 1))]
    found, chosen = search(worth, here, intervals, options, region.radius(len(options)), starts)
    moved: dict[str, Value] = {name: at_share(numbers(space)[name], found[column]) for name, column in columns.items()}
    picked = zip(choices(space).items(), chosen, strict=True)
    return moved | {name: domain.options[kind] for (name, domain), kind in picked if name in center}


def normal_scores(values: Sequence[float]) -> list[float]:
    """The quantiles of the normal distribution at the ranks of the values; equal ones have the greatest rank.

    Unlike units of the standard deviation, ranks do not let one failed round hide the differences between the others.
    """
    ordered = sorted(values)
    return [NormalDist().inv_cdf(bisect_right(ordered, value) / (len(values) + 1)) for value in values]
