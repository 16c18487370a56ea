"""Splits of a data set, and the batches of training steps."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor

from pbt.core.rng import seed_of
from pbt.errors import TaskError
from pbt.pytorch.loaders import source_of
from pbt.pytorch.mapped import FilePlace, MemoryMap, is_mapped, tensor_of
from pbt.pytorch.sources import Batch, ExampleSource, Inputs, Request, Stream, read_ahead

Order = Literal["shared", "member", "stored"]
_Tag = tuple[int, int, tuple[int, ...], int]
"""Step, seed, members (none if all share the batch), and size of a batch."""


@dataclass(frozen=True, slots=True)
class Split:
    """Examples in arrays: inputs (n, ...), one array or several; targets (n, ...).

    Args:
        inputs: A tensor or a numpy array, or a tuple of them. Numpy arrays become tensors that share their memory.
        targets: A tensor or a numpy array.
        stream: True: the arrays stay where they are, and each batch is copied to the device; False: all examples are
            copied to the device at the start. None: True for memory maps, which are then never read as a whole, else
            False. The batches and the results are the same.

    Raises:
        TaskError: They are no arrays, or have different lengths.
    """

    inputs: Any
    targets: Any
    stream: bool | None = None
    _mappings: tuple[MemoryMap | None, ...] = field(default=(), init=False, repr=False, compare=False)
    """The mappings of the inputs and of the targets."""

    def __post_init__(self) -> None:
        several = isinstance(self.inputs, tuple)
        inputs = self.inputs if several else (self.inputs,)
        tensors, mappings = zip(*(tensor_of(x, name) for x, name in self._named(inputs)), strict=True)
        lengths = [len(tensor) if tensor.dim() else 0 for tensor in tensors]
        if len(set(lengths)) > 1:
            counts = " and ".join(map(str, lengths[:-1]))
            raise TaskError(
                f"expected as many inputs as targets in a Split, got {counts} inputs, {lengths[-1]} targets"
            )
        object.__setattr__(self, "inputs", tensors[:-1] if several else tensors[0])
        object.__setattr__(self, "targets", tensors[-1])
        object.__setattr__(self, "_mappings", mappings)

    def _named(self, inputs: Sequence[Any]) -> list[tuple[Any, str]]:
        return [*((x, "the inputs of a Split") for x in inputs), (self.targets, "the targets of a Split")]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs, and the targets at the end."""
        return (*(self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)), self.targets)

    @property
    def streamed(self) -> bool:
        """Whether the examples are read batch by batch."""
        if self.stream is not None:
            return self.stream
        return any(self._mappings) or any(map(is_mapped, self.tensors))

    @property
    def device(self) -> str:
        """The device of the examples."""
        return str(self.targets.device)

    @property
    def labels(self) -> Tensor:
        """All targets."""
        return cast("Tensor", self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the files again.
        stored = [tensor if of is None else of.place for tensor, of in zip(self.tensors, self._mappings, strict=True)]
        return _opened, (stored, isinstance(self.inputs, tuple), self.stream)

    def to(self, device: str) -> "ExampleSource":
        """The same examples on a device."""
        if self.streamed:
            return Stream(self, device)
        *inputs, targets = (x.to(device) for x in self.tensors)
        return Split(tuple(inputs) if isinstance(self.inputs, tuple) else inputs[0], targets)

    def take(self, index: Tensor | slice) -> Batch:
        """Copies of the inputs and targets at these indices; the caller may change them in place."""
        # Indexing by a tensor copies, by a slice it does not.
        taken = [x[index].clone() if isinstance(index, slice) else x[index] for x in self.tensors]
        for part, mapping in zip(taken, self._mappings, strict=True):
            if mapping is not None:
                mapping.count(len(part) if isinstance(index, slice) else index.numel(), part.nbytes)
        return tuple(taken[:-1]), taken[-1]

    def feed(self, requests: Iterable[Request], *, pinned: bool) -> Iterator[Batch]:
        """The batches of these requests, in order, the next ones read ahead."""
        return read_ahead(self.take, requests, pinned=pinned)


def _opened(stored: Sequence[Any], several: bool, stream: bool | None) -> Split:
    """A split whose mapped arrays are mapped again."""
    *inputs, targets = (part.open() if isinstance(part, FilePlace) else part for part in stored)
    return Split(tuple(inputs) if several else inputs[0], targets, stream)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A data set in three splits: `train`, `validation` for the selection, and an optional `test`, which is reported.

    A split is a `Split` of arrays, `Tokens`, `Examples`, a map-style `torch.utils.data.Dataset`, or a `DataLoader`; the
    last two become `Examples`.

    `validation` may be empty if a single network is trained: its newest state counts as the best.

    Raises:
        TaskError: A `Dataset` or a `DataLoader` cannot be used; see `Examples`.
    """

    train: Any
    validation: Any
    test: Any = None

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            object.__setattr__(self, name, source_of(getattr(self, name), name))


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
        train: ExampleSource,
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
        self._stream = self._train if isinstance(self._train, Stream) else None
        self._index_device = device if self._stream is None else "cpu"
        self._last: tuple[Any, Batch] | None = None
        """The last batch read that members share, and its tag."""
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
            return torch.arange(batch.start, min(batch.stop, len(self._train)), device=self._index_device).unsqueeze(0)
        own = members if self._order == "member" else [None]
        return torch.stack([self._permutation(seed, member, epoch)[batch] for member in own])

    def take(self, index: Tensor) -> tuple[Inputs, Tensor]:
        """The prepared inputs and the targets at these indices, (n,) or (members, n)."""
        inputs, targets = self._train.take(index)
        return self.prepared(inputs, shared=index.dim() == 1), targets

    def prepared(self, inputs: Inputs, *, shared: bool) -> Inputs:
        """The network's inputs for stored ones, (n, ...) if members share them, else (members, n, ...)."""
        if shared or self._prepare is None:
            return self._prepared(inputs)
        return tuple(self._prepared_each(x) for x in inputs)

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
        inputs, targets = self._stored(step, seed, member, size or self._size)
        if self._augment is not None:
            self._generator.manual_seed(seed_of(key, "augment"))
            inputs = tuple(self._augment(x, self._generator, **(settings or {})) for x in inputs)
        return self._prepared(inputs), targets

    def _stored(self, step: int, seed: int, member: int, size: int) -> Batch:
        """The stored inputs and targets of a step of one member."""
        if self._stream is None:
            (index,) = self.indices(step, seed, [member], size)
            return self._train.take(index)
        tag = self._tag(step, seed, [member], size)
        if self._members == 1 or self._order == "member":
            return self._stream.batch(tag, self._request)
        # Members take turns with the same batch, which augmentation may change in place.
        if self._last is None or self._last[0] != tag:
            self._last = tag, self._stream.batch(tag, self._request)
        inputs, targets = self._last[1]
        return tuple(x.clone() for x in inputs), targets.clone()

    @property
    def streamed(self) -> bool:
        """Whether batches are read from a source that is not on the device."""
        return self._stream is not None

    def plan(self, steps: range, seed: int, members: Sequence[int], size: int, *, joint: bool = False) -> None:
        """Read the batches of these steps ahead, if they are read at all.

        Args:
            steps: The steps, in their order of use.
            seed: The run's seed.
            members: The members, in their order of use.
            size: Examples per step.
            joint: The batches of all members are one batch (`joint`), else one after another (`at`).
        """
        if self._stream is None:
            return
        each = [members] if joint or self._order != "member" else [[member] for member in members]
        self._stream.plan((self._tag(step, seed, own, size) for step in steps for own in each), self._request)

    def joint(self, step: int, seed: int, members: Sequence[int], size: int) -> Batch:
        """The stored inputs and targets of a step, read: (n, ...) if members share them, else (members, n, ...)."""
        assert self._stream is not None  # noqa: S101 (called only then)
        return self._stream.batch(self._tag(step, seed, members, size), self._request)

    def count(self, step: int, size: int) -> int:
        """The number of examples of a step."""
        return min(size, len(self._train) - step % self.per_epoch(size) * size)

    def _tag(self, step: int, seed: int, members: Sequence[int], size: int) -> "_Tag":
        return step, seed, tuple(members) if self._order == "member" else (), size

    def _request(self, tag: "_Tag") -> Request:
        step, seed, members, size = tag
        index = self.indices(step, seed, members, size)
        epoch = step // self.per_epoch(size)
        keys = [seed_of(seed, "data", member, epoch) for member in members] or [seed_of(seed, "data", epoch)]
        return Request(index[0] if len(index) == 1 else index, keys)

    def _permutation(self, seed: int, member: int | None, epoch: int) -> Tensor:
        """The order of an epoch, drawn on the CPU so that it is the same on every device."""
        drawn = seed_of(seed, "order", *(() if member is None else (member,)), epoch)
        if drawn not in self._drawn:
            while len(self._drawn) >= self._members:
                del self._drawn[next(iter(self._drawn))]
            generator = torch.Generator().manual_seed(drawn)
            self._drawn[drawn] = torch.randperm(len(self._train), generator=generator).to(self._index_device)
        return self._drawn[drawn]
