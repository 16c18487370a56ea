"""PB2-Mix, -Mult and -Rand (Parker-Holder, Nguyen, Desai and Roberts 2021, arXiv 2106.15883)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pbt.core.explore import RESAMPLED
from pbt.core.population import View
from pbt.core.rng import Rng
from pbt.errors import UsageError
from pbt.space import Choice, HParams, Space, Value
from pbt.strategies.bandit import draw, exploration, updated
from pbt.strategies.gains import GainRow, choices, option
from pbt.strategies.pb2 import Bandits, Explored, Wave

PLAYED = "bandit"
"""What `draws` says of a value that the bandit chose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PB2Mix(Bandits):
    """PB2 that learns its choices as well: first a bandit draws them, then a Gaussian process the numbers beside them.

    An arm of the bandit is an option. All members play every round; an option's reward is the mean gain of those that
    played it, between the least and the highest gain of that round. In a space without choices this is `PB2`.

    Use it where PB2 would be used and one or two choices (an augmentation, a schedule, an optimizer) matter as much as
    the numbers. Not where a choice has about as many options as the run has rounds, or where a change in the middle of
    training breaks what was learned.

    Args:
        interval: Training steps of a round.
        categories: `"mix"`: one process, whose kernel also compares choices. `"mult"`: only the rows with the same
            choices count, for many rows and choices that change everything. `"rand"`: the control, in which a choice is
            drawn anew with probability 0.5 and no bandit learns.
        horizon: How many rounds the run is expected to take; sets how much the bandit explores.
        quantile: As in `PB2`.
        acquisition: As in `PB2`.
        time: As in `PB2`.
        eps_cap: As in `PB2`.
        rows: As in `PB2`.

    Raises:
        UsageError: A value outside these.
    """

    categories: Literal["mix", "mult", "rand"] = "mix"
    horizon: int = 100

    def __post_init__(self) -> None:
        Bandits.__post_init__(self)
        if self.categories not in ("mix", "mult", "rand"):
            raise UsageError(f"PB2Mix: expected categories 'mix', 'mult' or 'rand', got {self.categories!r}")
        if self.horizon < 1:
            raise UsageError(f"PB2Mix: expected a horizon of at least 1 round, got {self.horizon}")

    def learn(self, view: View, fresh: Sequence[GainRow]) -> dict[str, Any]:
        """The weights of every choice's options."""
        named = choices(view.space)
        if not named or self.categories == "rand":
            return {}
        weights = {**view.memory.get("weights", {})}
        order = list(view.space)
        for name, domain in named.items():
            before = weights.get(name, [1.0] * len(domain.options))
            rewards = _rewards([(option(domain, row.values[order.index(name)]), row.gain) for row in fresh])
            weights[name] = self._after(before, rewards, len(view.population)) if rewards else before
        return {"weights": weights}

    def choose(self, hparams: HParams, wave: Wave, rng: Rng) -> Explored:
        """Every choice drawn, by its bandit or blindly; one that becomes active through another is drawn as well."""
        values = dict(hparams)
        draws: dict[str, Value] = {}
        batch = len(wave.view.population)
        for name, domain in choices(wave.view.space).items():
            if domain.when is not None and values.get(domain.when[0]) != domain.when[1]:
                continue
            if self.categories != "rand":
                weights = wave.notes["weights"][name]
                values[name] = domain.options[draw(weights, batch, self._share(domain, batch), rng)]
                draws[name] = PLAYED
            elif rng.random() < 0.5:
                values[name], draws[name] = domain.sample(rng), RESAMPLED
        return values, draws

    def compared(self, space: Space) -> Sequence[str]:
        """All choices, under `mix`."""
        return list(choices(space)) if self.categories == "mix" else ()

    def telling(self, rows: Sequence[GainRow], now: GainRow, space: Space) -> Sequence[GainRow]:
        """Those with the same choices, under `mult`; else all."""
        if self.categories != "mult":
            return rows
        same = [(i, domain) for i, domain in enumerate(space.values()) if isinstance(domain, Choice)]
        kinds = [option(domain, now.values[i]) for i, domain in same]
        return [row for row in rows if [option(domain, row.values[i]) for i, domain in same] == kinds]

    def _share(self, domain: Choice, batch: int) -> float:
        return exploration(len(domain.options), batch, self.horizon)

    def _after(self, weights: Sequence[float], rewards: dict[int, float], batch: int) -> list[float]:
        share = exploration(len(weights), batch, self.horizon)
        grown = updated(weights, rewards, batch, share, self.horizon)
        # Only their proportions count, and they would grow for ever.
        return [weight * len(grown) / sum(grown) for weight in grown]


def _rewards(played: Sequence[tuple[int, float]]) -> dict[int, float]:
    """The mean gain of each option that was played, between the least and the highest gain; nothing if none differ."""
    gains: dict[int, list[float]] = {}
    for arm, gain in played:
        if arm >= 0:
            gains.setdefault(arm, []).append(gain / 4)  # the distance of two gains may be more than a float can hold
    low = min((min(group) for group in gains.values()), default=0.0)
    high = max((max(group) for group in gains.values()), default=0.0)
    if not high > low:
        return {}
    return {
        arm: min(max((sum(g / len(group) for g in group) - low) / (high - low), 0.0), 1.0)
        for arm, group in gains.items()
    }
