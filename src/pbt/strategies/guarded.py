"""Exploit rules that copy only if the gap in score exceeds noise, for `Plan(exploit=...)`.

`guarded` is the rule of Sample Factory (Petrenko et al. 2020, arXiv 2006.11751), `trimmed_deviation` that of Isaac Lab
(its documentation, "Population Based Training") and, with outliers trimmed, of DexPBT (Petrenko et al. 2023, arXiv
2305.12127). The lower-case names are for writing plans.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pbt.core.exploit import Copy, Exploit, Mutate, Stay, Truncation
from pbt.core.needs import Needs
from pbt.core.population import Member, View
from pbt.core.rng import Rng
from pbt.core.rules import is_number, resolved, whole
from pbt.errors import UsageError

Otherwise = Literal["stay", "mutate"]


@dataclass(frozen=True, slots=True)
class Guarded:
    """Another rule, restricted to donors that are better by more than noise.

    Use it with scores that vary from one evaluation to the next, as in reinforcement learning, where truncation mostly
    copies luck. Do not use a relative gap with scores whose zero is arbitrary, or whose relevant values are close
    together: accuracies of 0.97 and 0.99 differ by 2 %, so set `relative=0` and choose `absolute` for them.

    Args:
        rule: The exploit rule.
        relative: The donor must be better by more than this share of the absolute value of the member's score.
        absolute: The donor must also be better by more than this.
        otherwise: `"stay"`: a member that may not copy continues unchanged; `"mutate"`: it explores its own values.

    Raises:
        UsageError: A gap is negative, or `otherwise` is neither value.
    """

    rule: Exploit = field(default_factory=Truncation)
    relative: float = 0.1
    absolute: float = 1e-6
    otherwise: Otherwise = "stay"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", resolved(self.rule, "exploit", "guarded"))
        if not all(is_number(gap) and gap >= 0 for gap in (self.relative, self.absolute)):
            raise UsageError(
                f"guarded: expected gaps of at least 0, got relative {self.relative!r}, absolute {self.absolute!r}"
            )
        _check_otherwise("guarded", self.otherwise)

    def __call__(self, member: Member, view: View, rng: Rng) -> Copy | Mutate | Stay:
        """Copy if the rule copies and the gap is large enough."""
        choice = self.rule(member, view, rng)
        if not isinstance(choice, Copy):
            return choice
        gap = _copied_score(choice, view) - member.score
        needed = max(self.absolute, self.relative * abs(member.score))
        if gap > needed:
            return choice
        why = f"{choice.donor} is better by {gap:.3g}, not by more than {needed:.3g}"
        return Mutate(why=why) if self.otherwise == "mutate" else Stay(why=why)


@dataclass(frozen=True, slots=True)
class TrimmedDeviation:
    """A member far below the mean copies one far above it, drawn uniformly; the others continue unchanged.

    Distances are measured in standard deviations of the population without its extremes, so that a single diverged or
    lucky member does not move the limits. Unlike truncation, this replaces no member while all perform alike, and many
    when many fall behind. Use it in populations of 8 or more with scores on a fixed scale throughout training (a
    success rate). Do not use it in smaller ones, where the deviation itself is noise, or where constant selection
    pressure is needed.

    Isaac Lab's rule is `trimmed_deviation(0.1, trim=0.0)`, with an `absolute` that depends on the task.

    Args:
        deviations: Distance of both limits from the mean, in standard deviations.
        absolute: The smallest distance of the limits from the mean, in units of the score.
        trim: Share of the population, rounded down, that is left out at each end to compute mean and deviation.
        otherwise: For a member below the lower limit while none is above the upper one: `"mutate"` or `"stay"`.

    Raises:
        UsageError: `deviations` or `absolute` is negative, `trim` is not from 0 to below 0.5, or `otherwise` is neither
            value.
    """

    needs: ClassVar[Needs] = Needs(name="trimmed_deviation", members=2)
    deviations: float = 1.0
    absolute: float = 0.0
    trim: float = 0.1
    otherwise: Otherwise = "mutate"

    def __post_init__(self) -> None:
        if not all(is_number(distance) and distance >= 0 for distance in (self.deviations, self.absolute)):
            raise UsageError(
                f"trimmed_deviation: expected distances of at least 0, got {self.deviations!r} deviations, "
                f"absolute {self.absolute!r}"
            )
        if not (is_number(self.trim) and 0 <= self.trim < 0.5):
            raise UsageError(f"trimmed_deviation: expected a trim from 0 to below 0.5, got {self.trim!r}")
        _check_otherwise("trimmed_deviation", self.otherwise)

    def __call__(self, member: Member, view: View, rng: Rng) -> Copy | Mutate | Stay:
        """Copy if the member is below the lower limit and another one above the upper limit."""
        mean, deviation = _mean_and_deviation(_trimmed([m.score for m in view.ranking], self.trim))
        distance = max(self.deviations * deviation, self.absolute)
        if not member.score < mean - distance:
            return Stay(why=f"not below {mean:.4g} - {distance:.3g}")
        leaders = [m for m in view.ranking if m.score > mean + distance]
        if leaders:
            return Copy(donor=rng.choice(leaders).id, why=f"below {mean:.4g} - {distance:.3g}")
        why = f"below {mean:.4g} - {distance:.3g}, but no member is above {mean:.4g} + {distance:.3g}"
        return Mutate(why=why) if self.otherwise == "mutate" else Stay(why=why)


@dataclass(frozen=True, slots=True)
class SinceCopy:
    """Another rule, suspended for a member that has recently copied.

    Use it where the first scores after a copy are uninformative: statistics that must settle, episodes that started
    under the old weights, hyperparameters with a delayed effect. A failed member is still replaced.

    Args:
        rule: The exploit rule.
        steps: Training steps since the member's last copy before the rule applies again.

    Raises:
        UsageError: `steps` is not a whole number of at least 1.
    """

    rule: Exploit
    steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", resolved(self.rule, "exploit", "since_copy"))
        if (whole(self.steps) or 0) < 1:
            raise UsageError(f"since_copy: expected at least 1 step, got {self.steps!r}")

    def __call__(self, member: Member, view: View, rng: Rng) -> Copy | Mutate | Stay:
        """Apply the rule, or stay after a recent copy."""
        if member.copied_at is not None and member.step - member.copied_at < self.steps:
            return Stay(why=f"copied {member.step - member.copied_at} steps ago, less than {self.steps}")
        return self.rule(member, view, rng)


def _copied_score(copy: Copy, view: View) -> float:
    """The score of the state to copy: the donor's current one, or an earlier one within the plan's lookback."""
    donor = view.member(copy.donor)
    if copy.state is None or copy.state == donor.state:
        return donor.score
    past = view.history.get(copy.state.member, ())
    return next((then.score for then in past if then.state == copy.state), donor.score)


def _trimmed(scores: Sequence[float], share: float) -> Sequence[float]:
    # Sorted, because the ranking need not be by score; 1e-9, because 0.29 * 100 is 28.999...
    ordered, out = sorted(scores), int(share * len(scores) + 1e-9)
    return ordered[out : len(ordered) - out]


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of the values as a whole population, not as a sample."""
    # Relative to the first value and in units of the largest distance, so that equal values have a deviation of exactly
    # zero and no square overflows.
    off = [value - values[0] for value in values]
    unit = max(map(abs, off)) or 1.0
    shares = [value / unit for value in off]
    mean = math.fsum(shares) / len(shares)
    deviation = math.sqrt(math.fsum((share - mean) ** 2 for share in shares) / len(shares))
    return values[0] + mean * unit, deviation * unit


def _check_otherwise(rule: str, otherwise: str) -> None:
    if otherwise not in ("stay", "mutate"):
        raise UsageError(f"{rule}: expected otherwise to be 'stay' or 'mutate', got {otherwise!r}")


guarded = Guarded
trimmed_deviation = TrimmedDeviation
since_copy = SinceCopy
