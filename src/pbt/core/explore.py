"""Explore rules: changes of hyperparameters. Each rule is a frozen record called as `(hparams, member, view, rng)`.

A rule returns the new values and the draw for each changed name. The domains (`pbt.domains`) move the values, so these
stay within their bounds under every rule. Plans are written with the lower-case names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pbt.core.population import Member, View
from pbt.core.rng import Rng
from pbt.core.rules import EVERY, Factors, checked_factors, factors_of, is_number, resolved, rule_name
from pbt.core.schedule import Schedule
from pbt.domains import Choice
from pbt.errors import UsageError, nearest
from pbt.space import HParams, Space
from pbt.values import Value, plain

Explored = tuple[HParams, Mapping[str, Value]]
Explore = Callable[[HParams, Member, View, Rng], Explored]
"""An explore rule: returns new values and the draw per changed name. Pure; draws only from `rng`."""


TRIES = 100
"""The most times that a rule is applied until its values satisfy the constraint of the space."""


def explored(rule: Explore, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:
    """Apply a rule and validate its result; a rule whose values the constraint refuses draws again.

    After `TRIES` refusals the given values stay, or, if the constraint refuses them too, a fresh sample.

    Raises:
        UsageError: The result is not a pair of mappings.
        SpaceError: The values are outside the space.
    """
    for _ in range(TRIES):
        moved, draws = _explored(rule, hparams, member, view, rng)
        if view.space.allows(moved):
            return moved, draws
    if view.space.allows(hparams):
        return hparams, {}
    return view.space.sample(rng), dict.fromkeys(hparams, RESAMPLED)


def _explored(rule: Explore, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:
    answer: Any = rule(hparams, member, view, rng)
    if not (isinstance(answer, tuple) and len(answer) == 2 and _are_mappings(*answer)):
        raise UsageError(
            f"{rule_name(rule)}: expected an explore rule to return (hparams, draws), two mappings, got {answer!r:.80}"
        )
    draws = {name: plain(draw) for name, draw in answer[1].items()}
    return view.space.check(answer[0], f"explored hyperparameters of member {member.id}"), draws


def _are_mappings(hparams: Any, draws: Any) -> bool:
    return isinstance(hparams, Mapping) and isinstance(draws, Mapping)


def toward(space: Space, start: HParams, goal: HParams) -> HParams:
    """The goal, or the farthest of some points on the way to it that the constraint of the space allows.

    Numbers are halved towards the start up to eight times; choices are those of the goal, and at last of the start.
    """
    if space.allows(goal):
        return goal
    for halvings in range(1, 9):
        part = 0.5**halvings
        between = {
            name: space[name].clip(start[name] + part * (value - start[name]))
            if name in start and is_number(value) and not isinstance(space[name], Choice)
            else value
            for name, value in goal.items()
        }
        if space.contains(between) and space.allows(between):
            return between
    return start


RESAMPLED = "resample"
"""The entry in `draws` for a value sampled anew."""


@dataclass(frozen=True, slots=True)
class Perturb:
    """Multiply each value by a factor, drawn independently per name; ordered choices move to an adjacent option.

    Args:
        factors: Equally likely factors. The paper's (0.8, 1.2) drifts downwards by 2 % per perturbation in the
            logarithm; the reciprocal pair (0.8, 1.25) does not. A mapping gives the factors by name, and those of all
            other names as `"*"`, as in `{"lr": (0.5, 2.0), "*": (0.8, 1.25)}`; a name without any keeps its value.

    Raises:
        UsageError: No factors, or a factor that is not positive.
    """

    factors: Factors = (0.8, 1.2)

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", checked_factors("perturb", self.factors))

    def __call__(self, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:  # noqa: ARG002
        """Perturb all values."""
        if isinstance(self.factors, dict):
            for name in self.factors.keys() - {EVERY}:
                if name not in view.space:
                    raise UsageError(f"perturb: no hyperparameter is named '{name}'{nearest(name, view.space)}")
        draws = {name: rng.choice(own) for name in hparams if (own := factors_of(self.factors, name))}
        moved = {
            name: view.space[name].perturb(value, draws[name], rng) if name in draws else value
            for name, value in hparams.items()
        }
        return view.space.settle(moved, rng), draws


@dataclass(frozen=True, slots=True)
class Resample:
    """Sample each value anew from its prior with a given probability.

    Args:
        probability: Applied to each name independently, 0 to 1.

    Raises:
        UsageError: `probability` is outside 0 to 1.
    """

    probability: float = 1.0

    def __post_init__(self) -> None:
        _check_probability("resample", self.probability)

    def __call__(self, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:  # noqa: ARG002
        """Resample some values and keep the others."""
        draws = {name: RESAMPLED for name in hparams if rng.random() < self.probability}
        moved = {name: view.space[name].sample(rng) if name in draws else value for name, value in hparams.items()}
        return view.space.settle(moved, rng), draws


@dataclass(frozen=True, slots=True)
class PerturbOrResample:
    """Sample each value anew with a given probability, else perturb it.

    Args:
        factors: As in `perturb`.
        probability: Of sampling anew, per name; 0.25 is Ray Tune's default, the paper gives none.

    Raises:
        UsageError: `factors` or `probability` is invalid.
    """

    factors: Factors = (0.8, 1.2)
    probability: float = 0.25

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", checked_factors("perturb_or_resample", self.factors))
        _check_probability("perturb_or_resample", self.probability)

    def __call__(self, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:
        """Move every value, one way or the other."""
        resampled = [name for name in hparams if rng.random() < self.probability]
        moved, draws = Perturb(self.factors)(hparams, member, view, rng)
        fresh = {name: view.space[name].sample(rng) for name in resampled}
        return view.space.settle({**moved, **fresh}, rng), {**draws, **dict.fromkeys(resampled, RESAMPLED)}


@dataclass(frozen=True, slots=True)
class Jitter:
    """Shift each value by a normal draw, measured in its scale as a fraction of its range.

    Unlike a factor, this moves away from zero, and it separates members that start alike.

    Args:
        deviation: Standard deviation, as a fraction of the range.

    Raises:
        UsageError: `deviation` is not positive.
    """

    deviation: float = 0.1

    def __post_init__(self) -> None:
        if not (is_number(self.deviation) and self.deviation > 0):
            raise UsageError(f"jitter: expected a positive deviation, got {self.deviation!r}")

    def __call__(self, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:  # noqa: ARG002
        """Shift all values."""
        draws = {name: self.deviation * rng.normal() for name in hparams}
        moved = {name: view.space[name].shift(value, draws[name], rng) for name, value in hparams.items()}
        return view.space.settle(moved, rng), draws


@dataclass(frozen=True, slots=True)
class RandomSubset:
    """Apply another rule to a random subset of the names; the others keep their values.

    Args:
        rule: The rule to apply.
        probability: Of a name to be in the subset, 0 to 1.

    Raises:
        UsageError: `probability` is outside 0 to 1.
    """

    rule: Explore = field(default_factory=Perturb)
    probability: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", resolved(self.rule, "explore", "random_subset"))
        _check_probability("random_subset", self.probability)

    def __call__(self, hparams: HParams, member: Member, view: View, rng: Rng) -> Explored:
        """Change some values by the rule."""
        chosen = {name for name in hparams if rng.random() < self.probability}
        moved, draws = self.rule(hparams, member, view, rng)
        mixed = {name: moved[name] if name in chosen and name in moved else old for name, old in hparams.items()}
        return view.space.settle(mixed, rng), {name: draw for name, draw in draws.items() if name in chosen}


@dataclass(frozen=True, slots=True)
class Follow:
    """Follow a schedule: the values prescribed at the member's step. For plain training and replays.

    Args:
        schedule: A schedule such as `run.best_schedule`.

    Raises:
        UsageError: It is not a schedule.
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
    """No change: with `never` no evolution at all, with any other exploit rule selection alone."""

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
