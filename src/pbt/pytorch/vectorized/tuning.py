"""The choices of a program that differ between the CPU and an accelerator."""

from dataclasses import dataclass, replace

from pbt.executors.base import Convolutions


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The choices for one kind of device; results differ in rounding and in the bits of dropout.

    Args:
        small: Maximum numbers per member for stepping all members' optimizers at once; None: no limit.
        block: Numbers that an optimizer steps at once, so that intermediate results stay in the cache; None: all.
        convolutions: How the convolutions of all members run, unless it was measured or given.
        wide_norms: Run batch normalization of any inputs with members as channels, not only of few dimensions.
        counter_noise: Draw the bits of dropout from one counter-based generator, not from a generator per member.
        evaluated_together: Examples evaluated at once, over all members, if more than the task's `evaluation_batch`;
            None: 64 per member.
        capture: Whether training steps are captured as a graph and replayed.
    """

    small: int | None
    block: int | None
    convolutions: Convolutions
    wide_norms: bool
    counter_noise: bool
    evaluated_together: int | None
    capture: bool

    @classmethod
    def of(cls, device: str) -> "Tuning":
        """The choices for a device."""
        return CPU if device == "cpu" else ACCELERATOR

    def convolving(self, way: Convolutions | None) -> "Tuning":
        """These choices with another way for convolutions, if there are several here and one is given."""
        return replace(self, convolutions=way) if way is not None and self.has_ways else self

    @property
    def has_ways(self) -> bool:
        """Whether convolutions have several ways; on the CPU one call per member is always fastest."""
        return self.wide_norms


CPU = Tuning(
    small=2**14,
    block=2**18,
    convolutions="separate",
    wide_norms=False,
    counter_noise=False,
    evaluated_together=None,
    capture=False,
)
"""Above `small`, fused steps member by member are faster. A grouped convolution takes four times as long as separate
convolutions, and SFC64 is faster than a counter-based generator in torch's operations."""

ACCELERATOR = Tuning(
    small=None,
    block=None,
    convolutions="grouped",
    wide_norms=True,
    counter_noise=True,
    evaluated_together=2**14,
    capture=True,
)
"""Each operation costs a launch, so few large operations are fastest. On an H200 (64 members, 16 to 32 channels, batch
200, forward and backward) a grouped convolution took 9.8 ms, one call per member in a captured graph 54 ms (on four
streams 49 ms), and unfolded patches with a batched product 97 ms. Other cards and shapes differ, so `autotune` times
all three before a run."""
