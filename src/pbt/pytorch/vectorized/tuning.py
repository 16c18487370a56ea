"""The choices of a program that differ between the CPU and an accelerator."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The choices for one kind of device; results differ in rounding and in the bits of dropout.

    Args:
        small: Maximum numbers per member for stepping all members' optimizers at once; None: no limit.
        block: Numbers that an optimizer steps at once, so that intermediate results stay in the cache; None: all.
        grouped_convolutions: Run the convolutions of all members as one grouped convolution, not member by member.
        counter_noise: Draw the bits of dropout from one counter-based generator, not from a generator per member.
        evaluated_together: Examples evaluated at once, over all members, if more than the task's `evaluation_batch`;
            None: 64 per member.
        capture: Whether training steps are captured as a graph and replayed.
    """

    small: int | None
    block: int | None
    grouped_convolutions: bool
    counter_noise: bool
    evaluated_together: int | None
    capture: bool

    @classmethod
    def of(cls, device: str) -> "Tuning":
        """The choices for a device."""
        return CPU if device == "cpu" else ACCELERATOR


CPU = Tuning(
    small=2**14,
    block=2**18,
    grouped_convolutions=False,
    counter_noise=False,
    evaluated_together=None,
    capture=False,
)
"""Above `small`, fused steps member by member are faster. A grouped convolution takes four times as long as separate
convolutions, and SFC64 is faster than a counter-based generator in torch's operations."""

ACCELERATOR = Tuning(
    small=None,
    block=None,
    grouped_convolutions=True,
    counter_noise=True,
    evaluated_together=2**14,
    capture=True,
)
"""Each operation costs a launch, so few large operations are fastest. On an H200 (64 members, 16 to 32 channels, batch
200, forward and backward) a grouped convolution took 9.8 ms, one call per member in a captured graph 54 ms (on four
streams 49 ms), and unfolded patches with a batched product 97 ms."""
