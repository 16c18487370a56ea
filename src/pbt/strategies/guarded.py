"""Exploit rules that copy only where the gap is larger than noise, for `Plan(exploit=...)`.

`guarded` is how Sample Factory does it (Petrenko et al. 2020, arXiv 2006.11751), `trimmed_deviation` how robots are
trained with Isaac Lab (its documentation, "Population Based Training") and, with outliers trimmed, in DexPBT
(Petrenko et al. 2023, arXiv 2305.12127). The lower-case names are for writing plans.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pbt.core.exploit import Copy, Exploit, Mutate, Stay, Truncation
from pbt.core.population import Member, View
from pbt.core.rng import Rng
from pbt.core.rules import is_number, resolved, whole
from pbt.errors import UsageError

Otherwise = Literal["stay", "mutate"]


@dataclass(frozen=True, slots=True)
class Guarded:
    """Another rule, but a member copies only a donor that is better by more than noise.

    Use it with scores that vary from one evaluation to the next, as in reinforcement learning, where most of what
    truncation copies is luck. Not with scores whose zero means nothing, or that come close together where it matters:
    between accuracies of 0.97 and 0.99 there are 2 %, so set `relative=0` there and choose `absolute`.

    Args:
        rule: Who would copy whom.
        relative: The donor must be better by more than this share of the member's score, taken without its sign.
        absolute: And by more than this.
        otherwise: `"stay"`: whoever may not copy goes on unchanged; `"mutate"`: it explores its own values.

    Raises:
        UsageError: A negative gap, or otherwise is neither.
    """

    rule: Exploit = field(default_factory=Truncation)
    relative: float = 0.1
    absolute: float = 1e-6
    otherwise: Otherwise = "stay"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", resolved(self.rule, "exploit", "guarded"))
        if not all(is_number(gap) and gap >= 0 for gap in (self.relative, self.absolute)):
            raise UsageError(
                f"guarded: expected gaps that are not negative, got relative {self.relative!r}, "
                f"absolute {self.absolute!r}"
            )
        _check_otherwise("guarded", self.otherwise)

    def __call__(self, member: Member, view: View, rng: Rng) -> Copy | Mutate | Stay:
        """Copy if the rule says so and the gap is large enough."""
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
    """Members far below the mean copy one far above it, drawn uniformly; in between nobody is touched.

    Far is measured in standard deviations of the population without its extremes, so that a single diverged or lucky
    member does not move the cuts. Unlike truncation this replaces nobody while all do alike, and many when many fall
    behind. Use it in populations of 8 or more with scores that mean the same throughout training (a success rate).
    Not in smaller ones, where a deviation is itself noise, nor where a steady pressure is wanted.

    Isaac Lab's rule is `trimmed_deviation(0.1, trim=0.0)`, with an `absolute` that depends on the task.

    Args:
        deviations: How many standard deviations below and above the mean the two cuts are.
        absolute: How far from the mean they are at least, in scores.
        trim: Share of the population that is left out at each end, rounded down, for mean and deviation alone.
        otherwise: For a member below its cut while nobody is above the other: `"mutate"` or `"stay"`.

    Raises:
        UsageError: A negative number of deviations or absolute distance, trim outside 0 up to 0.5, or otherwise is
            neither.
    """

    deviations: float = 1.0
    absolute: float = 0.0
    trim: float = 0.1
    otherwise: Otherwise = "mutate"

    def __post_init__(self) -> None:
        if not all(is_number(distance) and distance >= 0 for distance in (self.deviations, self.absolute)):
            raise UsageError(
                f"trimmed_deviation: expected distances that are not negative, got {self.deviations!r} deviations, "
                f"absolute {self.absolute!r}"
            )
        if not (is_number(self.trim) and 0 <= self.trim < 0.5):
            raise UsageError(f"trimmed_deviation: expected a trim from 0 up to, not including, 0.5, got {self.trim!r}")
        _check_otherwise("trimmed_deviation", self.otherwise)

    def __call__(self, member: Member, view: View, rng: Rng) -> Copy | Mutate | Stay:
        """Copy if this one is below the lower cut and somebody is above the upper one."""
        mean, deviation = _mean_and_deviation(_trimmed([m.score for m in view.ranking], self.trim))
        distance = max(self.deviations * deviation, self.absolute)
        if not member.score < mean - distance:
            return Stay(why=f"not below {mean:.4g} - {distance:.3g}")
        leaders = [m for m in view.ranking if m.score > mean + distance]
        if leaders:
            return Copy(donor=rng.choice(leaders).id, why=f"below {mean:.4g} - {distance:.3g}")
        why = f"below {mean:.4g} - {distance:.3g}, but nobody is above {mean:.4g} + {distance:.3g}"
        return Mutate(why=why) if self.otherwise == "mutate" else Stay(why=why)


@dataclass(frozen=True, slots=True)
class SinceCopy:
    """Another rule, but a member that has just copied is left alone for a while.

    Use it where the score of a copy says little at first: statistics that have to settle, episodes that began under
    the old weights, hyperparameters whose effect comes late. A member that fails is replaced all the same.

    Args:
        rule: Who would do what.
        steps: Training steps that must have passed since the member's last copy.

    Raises:
        UsageError: Less than one step.
    """

    rule: Exploit
    steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", resolved(self.rule, "exploit", "since_copy"))
        if (whole(self.steps) or 0) < 1:
            raise UsageError(f"since_copy: expected at least 1 step, got {self.steps!r}")

    def __call__(self, member: Member, view: View, rng: Rng) -> Copy | Mutate | Stay:
        """What the rule says, or stay."""
        if member.copied_at is not None and member.step - member.copied_at < self.steps:
            return Stay(why=f"copied {member.step - member.copied_at} steps ago, less than {self.steps}")
        return self.rule(member, view, rng)


def _copied_score(copy: Copy, view: View) -> float:
    """What the state scored that would be copied: the donor's, or an earlier one that the plan's lookback shows."""
    donor = view.member(copy.donor)
    if copy.state is None or copy.state == donor.state:
        return donor.score
    past = view.history.get(copy.state.member, ())
    return next((then.score for then in past if then.state == copy.state), donor.score)


def _trimmed(scores: Sequence[float], share: float) -> Sequence[float]:
    # The ranking need not be by score, and 0.29 * 100 is 28.999...: the user meant 29.
    ordered, out = sorted(scores), int(share * len(scores) + 1e-9)
    return ordered[out : len(ordered) - out]


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of a whole population, no sample of it."""
    # From the first value on, and in units of the largest distance, so that equal values have a deviation of exactly
    # zero and no square overflows.
    off = [value - values[0] for value in values]
    unit = max(map(abs, off)) or 1.0
    shares = [value / unit for value in off]
    mean = math.fsum(shares) / len(shares)
    deviation = math.sqrt(math.fsum((share - mean) ** 2 for share in shares) / len(shares))
    return values[0] + mean * unit, deviation * unit


def _check_otherwise(rule: str, otherwise: str) -> None:
    if otherwise not in ("stay", "mutate"):
        raise UsageError(f"{rule}: expected otherwise 'stay' or 'mutate', got {otherwise!r}")


guarded = Guarded
trimmed_deviation = TrimmedDeviation
since_copy = SinceCopy
