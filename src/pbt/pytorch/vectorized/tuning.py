"""How a program computes on a kind of device, where the CPU and an accelerator want different ways."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The choices for one kind of device; results differ by rounding, and in the bits of dropout.

    Args:
        small: Numbers per member up to which all members' optimizers are stepped at once; None: always.
        block: Numbers that an optimizer steps at once, so that intermediate results stay in the cache; None: all.
        grouped_convolutions: Convolutions of all members as one grouped convolution, not one member after the other.
        counter_noise: Dropout's bits from one counter-based generator for all members, not from a generator for each.
        evaluated_together: Examples evaluated at once, over all members, if that is more than the task's
            `evaluation_batch`; None: 64 for each member.
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
"""Beyond `small`, fused steps of one member after another are faster. A grouped convolution of many members takes four
times as long as one after another, and SFC64 less time than a counter-based generator in torch's operations."""

ACCELERATOR = Tuning(
    small=None,
    block=None,
    grouped_convolutions=True,
    counter_noise=True,
    evaluated_together=2**14,
    capture=True,
)
"""Each operation costs a launch, so few large ones are best. A grouped convolution was the fastest of three ways on an
H200 (64 members, 16 to 32 channels, batch 200, forward and backward): 9.8 ms, one call per member in a captured graph
54 ms (on four streams 49 ms), unfolded patches with a batched product 97 ms."""
