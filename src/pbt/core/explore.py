"""How hyperparameters change. Each rule is a frozen record that is called as `(hparams, member, view, rng)`.

It returns the new values and what was drawn for each changed name. Geometry is the domains' own (`pbt.space`):
whatever a rule does, values stay inside their bounds. The lower-case names are for writing plans.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pbt.core.lineage import Schedule
from pbt.core.population import Member, View
from pbt.core.rng import Rng
from pbt.core.rules import checked_factors, is_number, resolved, rule_name
from pbt.errors import UsageError
from pbt.space import HParams, Value

Explored = tuple[HParams, Mapping[str, Value]]
Explore = Callable[[HParams, Member, View, Rng], Explored]
"""A rule: new values, and what was drawn per changed name. Pure; draws only from rng."""


def explored(rule: Explore, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:
    """The rule's answer, after it was checked.

    Raises:
        UsageError: It is no pair of mappings.
        SpaceError: The values are outside the space.
    """
    answer: Any = rule(hparams, member, view, rng)
    if not (isinstance(answer, tuple) and len(answer) == 2 and all(isinstance(part, Mapping) for part in answer)):
        raise UsageError(
            f"{rule_name(rule)}: expected an explore rule to return (hparams, draws), two mappings, got {answer!r:.80}"
        )
    return view.space.check(answer[0], f"explored hyperparameters of member {member.id}"), answer[1]


RESAMPLED = "resample"
"""What `draws` says of a value that was drawn anew."""


@dataclass(frozen=True, slots=True)
class Perturb:
    """Each value times a factor, drawn for each name alone; ordered choices move to a neighbor.

    Args:
        factors: The factors, each equally likely. (0.8, 1.2) is the paper's; it drifts downwards by 2 % a
            perturbation in the logarithm, which the reciprocal pair (0.8, 1.25) does not.

    Raises:
        UsageError: No factors, or one that is not positive.
    """

    factors: tuple[float, ...] = (0.8, 1.2)

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", checked_factors("perturb", self.factors))

    def __call__(self, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:  # noqa: ARG002
        """All values perturbed."""
        draws = {name: rng.choice(self.factors) for name in hparams}
        moved = {name: view.space[name].perturb(value, draws[name], rng) for name, value in hparams.items()}
        return view.space.settle(moved, rng), draws


@dataclass(frozen=True, slots=True)
class Resample:
    """Each value drawn anew from its prior with some probability.

    Args:
        probability: For each name alone, 0 to 1.

    Raises:
        UsageError: Probability is outside 0 to 1.
    """

    probability: float = 1.0

    def __post_init__(self) -> None:
        _check_probability("resample", self.probability)

    def __call__(self, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:  # noqa: ARG002
        """Some values new, the others as they were."""
        draws = {name: RESAMPLED for name in hparams if rng.random() < self.probability}
        moved = {name: view.space[name].sample(rng) if name in draws else value for name, value in hparams.items()}
        return view.space.settle(moved, rng), draws


@dataclass(frozen=True, slots=True)
class PerturbOrResample:
    """Each value drawn anew with some probability, else perturbed.

    Args:
        factors: As in `perturb`.
        probability: Of a new draw, for each name alone; 0.25 is Ray Tune's default, the paper gives none.

    Raises:
        UsageError: Factors or probability are outside their ranges.
    """

    factors: tuple[float, ...] = (0.8, 1.2)
    probability: float = 0.25

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", checked_factors("perturb_or_resample", self.factors))
        _check_probability("perturb_or_resample", self.probability)

    def __call__(self, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:
        """Every value moved, one way or the other."""
        resampled = [name for name in hparams if rng.random() < self.probability]
        moved, draws = Perturb(self.factors)(hparams, member, view, rng)
        fresh = {name: view.space[name].sample(rng) for name in resampled}
        return view.space.settle({**moved, **fresh}, rng), {**draws, **dict.fromkeys(resampled, RESAMPLED)}


@dataclass(frozen=True, slots=True)
class Jitter:
    """Each value shifted by a normal draw, measured in its scale as a share of its range.

    Unlike a factor this moves away from zero, and breaks the tie of members that start alike.

    Args:
        deviation: Standard deviation, as a share of the range.

    Raises:
        UsageError: Deviation is not positive.
    """

    deviation: float = 0.1

    def __post_init__(self) -> None:
        if not (is_number(self.deviation) and self.deviation > 0):
            raise UsageError(f"jitter: expected a positive deviation, got {self.deviation!r}")

    def __call__(self, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:  # noqa: ARG002
        """All values shifted."""
        draws = {name: self.deviation * rng.normal() for name in hparams}
        moved = {name: view.space[name].shift(value, draws[name], rng) for name, value in hparams.items()}
        return view.space.settle(moved, rng), draws


@dataclass(frozen=True, slots=True)
class RandomSubset:
    """Another rule, applied to a random part of the names; the others keep their values.

    Args:
        rule: The rule to apply.
        probability: For each name alone, that it is in the part; 0 to 1.

    Raises:
        UsageError: Probability is outside 0 to 1.
    """

    rule: Explore = field(default_factory=Perturb)
    probability: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", resolved(self.rule, "explore", "random_subset"))
        _check_probability("random_subset", self.probability)

    def __call__(self, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:
        """Some values changed by the rule."""
        chosen = {name for name in hparams if rng.random() < self.probability}
        moved, draws = self.rule(hparams, member, view, rng)
        mixed = {name: moved[name] if name in chosen and name in moved else old for name, old in hparams.items()}
        return view.space.settle(mixed, rng), {name: draw for name, draw in draws.items() if name in chosen}


@dataclass(frozen=True, slots=True)
class Follow:
    """The values that a schedule prescribes from the member's step on: vanilla training and replay.

    Args:
        schedule: The schedule, as `run.best_schedule` gives it.

    Raises:
        UsageError: It is no schedule.
    """

    schedule: Schedule

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, Schedule):
            raise UsageError(
                f"follow: expected a pbt.Schedule, as follow(run.best_schedule), got {self.schedule!r:.80}"
            )

    def __call__(self, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:  # noqa: ARG002
        """The schedule's values at the member's step."""
        return self.schedule.at(member.step), {}


@dataclass(frozen=True, slots=True)
class Keep:
    """Nothing changes: with `never` no evolution at all, with any other exploit selection alone."""

    def __call__(self, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:  # noqa: ARG002
        """The same values."""
        return hparams, {}


def _check_probability(rule: str, probability: float) -> None:
    if not (is_number(probability) and 0 <= probability <= 1):
        raise UsageError(f"{rule}: expected a probability from 0 to 1, got {probability!r}")


perturb = Perturb
resample = Resample
perturb_or_resample = PerturbOrResample
jitter = Jitter
random_subset = RandomSubset
follow = Follow
keep = Keep
