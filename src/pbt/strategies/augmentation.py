"""The explore step of Population Based Augmentation (Ho, Liang, Stoica, Abbeel & Chen 2019, arXiv 1905.05393).

It searches policies of data augmentation, which consist of many small whole numbers.
"""

from dataclasses import dataclass, field
from typing import Any

from pbt.core.explore import RESAMPLED, Explore, Explored, Perturb
from pbt.core.population import Member, View
from pbt.core.rng import Rng
from pbt.core.rules import resolved
from pbt.domains import Int
from pbt.errors import UsageError
from pbt.space import HParams
from pbt.values import Value


@dataclass(frozen=True, slots=True)
class AugmentationStep:
    """Draws each `Int` anew with some probability, else moves it by a few units; other values follow another rule.

    A new draw is uniform over the *bounds*, not over the prior: a policy starts with all values at 0 (`prior=(0, 0)`)
    and must be able to leave 0. Unlike a factor, a step has the same effect on small and large numbers, and an amount
    of 0 keeps a value, so that only a part of a large policy changes at a time.

    Use it for augmentation policies, with a probability `Int(0, 10, prior=(0, 0))` and a magnitude
    `Int(0, 9, prior=(0, 0))` per operation, and for other settings counted in small whole numbers. Do not use it for
    numbers that act by their order of magnitude, such as a batch size of 16 to 1024; `perturb` suits those.

    The paper uses 16 members, ready every 3 epochs, and `truncation(0.25)`. The result is the winner's schedule; for
    longer training on all data, stretch it: `pbt.follow(run.best_schedule.stretched(steps))`.

    Args:
        probability: Probability of a new draw, independent for each name, 0 to 1.
        amounts: The possible units of a move, equally likely, in either direction; the result is clipped.
        rule: The explore rule for values that are not `Int`.

    Raises:
        UsageError: The probability is outside 0 to 1, there are no amounts, or one is not a whole number or negative.
    """

    probability: float = 0.2
    amounts: tuple[int, ...] = (0, 1, 2, 3)
    rule: Explore = field(default_factory=Perturb)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", resolved(self.rule, "explore", "augmentation_step"))
        if not 0 <= self.probability <= 1:
            raise UsageError(f"augmentation_step: expected a probability from 0 to 1, got {self.probability!r}")
        if not self.amounts or not all(type(amount) is int and amount >= 0 for amount in self.amounts):
            raise UsageError(
                f"augmentation_step: expected one or more whole amounts, none negative, got {self.amounts!r}"
            )

    def __call__(self, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:
        """Explore all values."""
        moved, draws = self.rule(hparams, member, view, rng)
        whole = {name: domain for name, domain in view.space.items() if isinstance(domain, Int) and name in hparams}
        steps = {name: self._step(hparams[name], domain, rng) for name, domain in whole.items()}
        mixed = {**hparams, **moved, **{name: value for name, (value, _) in steps.items()}}
        return view.space.settle(mixed, rng), {**draws, **{name: draw for name, (_, draw) in steps.items()}}

    def _step(self, value: Any, domain: Int, rng: Rng) -> tuple[int, Value]:
        if rng.random() < self.probability:
            return domain.low + rng.below(domain.high - domain.low + 1), RESAMPLED
        amount = rng.choice((-1, 1)) * rng.choice(self.amounts)
        return domain.clip(value + amount), amount


augmentation_step = AugmentationStep
