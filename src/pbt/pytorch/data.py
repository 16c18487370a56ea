"""Examples in memory, and the batches of training steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pbt.core.rng import seed_of
from pbt.errors import TaskError

Order = Literal["shared", "member", "stored"]
Inputs = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """Examples in memory: inputs (n, ...), one tensor or several; targets (n, ...)."""

    inputs: Tensor | tuple[Tensor, ...]
    targets: Tensor

    def __post_init__(self) -> None:
        inputs = self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)
        for tensor in (*inputs, self.targets):
            if not isinstance(tensor, Tensor):
                raise TaskError(
                    f"expected a Split of tensors, got a {type(tensor).__name__}; use torch.as_tensor, and a tuple of "
                    "tensors for several inputs"
                )
        lengths = [len(tensor) if tensor.dim() else 0 for tensor in inputs]
        if any(length != len(self.targets) for length in lengths):
            counts = " and ".join(map(str, lengths))
            raise TaskError(
                f"expected as many inputs as targets in a Split, got {counts} inputs, {len(self.targets)} targets"
            )

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: str) -> "Split":
        """The same examples on a device."""
        inputs = self.inputs
        moved = tuple(x.to(device) for x in inputs) if isinstance(inputs, tuple) else inputs.to(device)
        return Split(moved, self.targets.to(device))

    def take(self, index: Tensor | slice) -> tuple[tuple[Tensor, ...], Tensor]:
        """Copies of the inputs and targets at these indices; the caller may change them in place."""
        inputs = self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)
        if isinstance(index, slice):
            # Indexing by a tensor copies, by a slice it does not.
            return tuple(x[index].clone() for x in inputs), self.targets[index].clone()
        return tuple(x[index] for x in inputs), self.targets[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A data set in three splits: `train`, `validation` for the selection, and an optional `test`, which is reported.

    `validation` may be empty if a single network is trained: its newest state counts as the best.
    """

    train: Split
    validation: Split
    test: Split | None = None


def too_few(count: int, size: int) -> str:
    """The error message if `drop_last` leaves no step of an epoch."""
    return (
        f"expected at least as many training examples as a step takes, {size:,}, got {count:,}: with drop_last=True "
        "an epoch has no steps; choose a smaller batch_size"
    )


class Batches:
    """The training batches of a task on one device; a step's batch depends only on its position in the run.

    Args:
        train: All training examples.
        device: The device of the batches.
        size: Default number of examples per step; the last step of an epoch may have fewer.
        drop_last: Leave out the last step of an epoch if it would have fewer.
        order: As in `SupervisedTask`.
        augment: `(inputs, generator) -> inputs`, or None.
        prepare: Converts stored inputs to the network's inputs, or None.
        members: Number of members that take turns from step to step, and of cached orders.

    Raises:
        TaskError: The training split is empty.
    """

    def __init__(
        self,
        train: Split,
        device: str,
        size: int,
        *,
        order: Order,
        augment: Callable[..., Tensor] | None,
        prepare: Callable[[Tensor], Tensor] | None,
        drop_last: bool = False,
        members: int = 1,
    ) -> None:
        if not len(train):
            raise TaskError("expected examples to train on, found none")
        self._train = train.to(device)
        self._device = device
        self._size = size
        self._order = order
        self._augment = augment
        self._prepare = prepare
        self._loops = False
        """Whether `prepare` runs member by member, because `vmap` cannot run it."""
        self._drop_last = drop_last
        self._generator = torch.Generator(device=device)
        self._drawn: dict[int, Tensor] = {}
        self._members = members
        self.shared = order != "member" and augment is None
        """Whether all members see the same batch at the same step."""

    def per_epoch(self, size: int | None = None) -> int:
        """Number of steps of an epoch.

        Args:
            size: Examples per step; None: the default size.

        Raises:
            TaskError: With `drop_last` the examples do not fill one step.
        """
        count, size = len(self._train), size or self._size
        if not self._drop_last:
            return -(-count // size)
        if count < size:
            raise TaskError(too_few(count, size))
        return count // size

    @property
    def gathers(self) -> bool:
        """Whether a batch only gathers and prepares examples, without augmentation."""
        return self._augment is None

    def indices(self, step: int, seed: int, members: Sequence[int], size: int) -> Tensor:
        """The indices of the examples of a step: (1, n) if all members share them, else (members, n).

        Args:
            step: Number of the step from the start of training, as if all steps had this size.
            seed: The run's seed.
            members: All members.
            size: Examples per step.
        """
        epoch, place = divmod(step, self.per_epoch(size))
        batch = slice(place * size, (place + 1) * size)
        if self._order == "stored":
            return torch.arange(batch.start, min(batch.stop, len(self._train)), device=self._device).unsqueeze(0)
        own = members if self._order == "member" else [None]
        return torch.stack([self._permutation(seed, member, epoch)[batch] for member in own])

    def take(self, index: Tensor) -> tuple[Inputs, Tensor]:
        """The prepared inputs and the targets at these indices, (n,) or (members, n)."""
        inputs, targets = self._train.take(index)
        if index.dim() == 1 or self._prepare is None:
            return self._prepared(inputs), targets
        return tuple(self._prepared_each(x) for x in inputs), targets

    def _prepared_each(self, inputs: Tensor) -> Tensor:
        """The batches prepared member by member, because `prepare` may depend on the whole batch."""
        assert self._prepare is not None  # noqa: S101 (checked by the caller)
        if not self._loops:
            try:
                return torch.func.vmap(self._prepare)(inputs)
            except Exception:  # noqa: BLE001 (the loop below succeeds or raises the user's error)
                self._loops = True
        return torch.stack([self._prepare(own) for own in inputs])

    def _prepared(self, inputs: Inputs) -> Inputs:
        return inputs if self._prepare is None else tuple(self._prepare(x) for x in inputs)

    def at(
        self,
        step: int,
        seed: int,
        member: int,
        key: int,
        size: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> tuple[Inputs, Tensor]:
        """The inputs and targets of a step.

        Args:
            step: Number of the step from the start of training, as if all steps had this size.
            seed: The run's seed.
            member: The member.
            key: The key of the augmentation's draws.
            size: Examples of the step; None: the default size.
            settings: Keyword arguments of the augmentation.
        """
        (index,) = self.indices(step, seed, [member], size or self._size)
        inputs, targets = self._train.take(index)
        if self._augment is not None:
            self._generator.manual_seed(seed_of(key, "augment"))
            inputs = tuple(self._augment(x, self._generator, **(settings or {})) for x in inputs)
        return self._prepared(inputs), targets

    def _permutation(self, seed: int, member: int | None, epoch: int) -> Tensor:
        """The order of an epoch, drawn on the CPU so that it is the same on every device."""
        drawn = seed_of(seed, "order", *(() if member is None else (member,)), epoch)
        if drawn not in self._drawn:
            while len(self._drawn) >= self._members:
                del self._drawn[next(iter(self._drawn))]
            generator = torch.Generator().manual_seed(drawn)
            self._drawn[drawn] = torch.randperm(len(self._train), generator=generator).to(self._device)
        return self._drawn[drawn]
