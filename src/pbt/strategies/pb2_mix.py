"""PB2-Mix, -Mult and -Rand (Parker-Holder, Nguyen, Desai and Roberts 2021, arXiv 2106.15883)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pbt.core.explore import RESAMPLED
from pbt.core.needs import Needs
from pbt.core.population import View
from pbt.core.rng import Rng
from pbt.domains import Choice
from pbt.errors import UsageError
from pbt.space import HParams, Space
from pbt.strategies.bandit import draw, exploration, updated
from pbt.strategies.gains import GainRow, choices, option
from pbt.strategies.pb2 import Bandits, Explored, Wave

if TYPE_CHECKING:
    from pbt.values import Value

PLAYED = "bandit"
"""The entry in `draws` of a value chosen by a bandit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PB2Mix(Bandits):
    """PB2 that also models choices: a bandit draws them first, then a Gaussian process proposes the numbers for them.

    The bandit's arms are the options of a choice. All members play every round; the reward of an option is the mean
    gain of the members that played it, scaled to the range of gains in that round. In a space without choices this is
    `PB2`.

    Use it where PB2 fits and one or two choices (an augmentation, a schedule, an optimizer) matter as much as the
    numbers. Do not use it where a choice has about as many options as the run has rounds, or where a change during
    training destroys what was learned.

    Args:
        interval: Training steps of a round.
        categories: `"mix"`: one process, whose kernel also compares choices. `"mult"`: only rows with equal choices
            count, for many rows and choices that change everything. `"rand"`: the control, which draws a choice anew
            with probability 0.5, without a bandit.
        horizon: The expected number of rounds, which determines how much the bandit explores.
        quantile: As in `PB2`.
        acquisition: As in `PB2`.
        time: As in `PB2`.
        eps_cap: As in `PB2`.
        rows: As in `PB2`.
        refit: As in `PB2`.

    Raises:
        UsageError: An argument is outside its range.
    """

    resizable: ClassVar[bool] = True
    needs: ClassVar[Needs] = Needs(name="PB2Mix", members=2)
    categories: Literal["mix", "mult", "rand"] = "mix"
    horizon: int = 100

    def __post_init__(self) -> None:
        Bandits.__post_init__(self)
        if self.categories not in ("mix", "mult", "rand"):
            raise UsageError(f"PB2Mix: expected categories 'mix', 'mult' or 'rand', got {self.categories!r}")
        if self.horizon < 1:
            raise UsageError(f"PB2Mix: expected a horizon of at least 1 round, got {self.horizon}")

    def learn(self, view: View, fresh: Sequence[GainRow]) -> dict[str, Any]:
        """Update the bandits' weights of all options."""
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
        """Draw every choice, by its bandit or uniformly, including those that another choice activates."""
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
        """All choices with `mix`, none otherwise."""
        return list(choices(space)) if self.categories == "mix" else ()

    def relevant(self, rows: Sequence[GainRow], now: GainRow, space: Space) -> Sequence[GainRow]:
        """The rows with equal choices with `mult`, all rows otherwise."""
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
        # Only proportions matter, and unscaled weights would grow without bound.
        return [weight * len(grown) / sum(grown) for weight in grown]


def _rewards(played: Sequence[tuple[int, float]]) -> dict[int, float]:
    """The mean gain of each played option, scaled to the range of gains; empty if all gains are equal."""
    gains: dict[int, list[float]] = {}
    for arm, gain in played:
        if arm >= 0:
            gains.setdefault(arm, []).append(gain / 4)  # so that the difference of two gains cannot overflow
    low = min((min(group) for group in gains.values()), default=0.0)
    high = max((max(group) for group in gains.values()), default=0.0)
    if not high > low:
        return {}
    return {
        arm: min(max((sum(g / len(group) for g in group) - low) / (high - low), 0.0), 1.0)
        for arm, group in gains.items()
    }
