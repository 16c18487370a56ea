"""The interface of the data sets of a task, and reading of those that do not fit into memory, ahead of training."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import tee
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from pbt.core.rng import seed_of

Inputs = tuple[Tensor, ...]
Batch = tuple[Inputs, Tensor]
"""The inputs and the targets of a batch."""

_AHEAD = 2
"""Number of batches that are read ahead."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A batch to be read."""

    index: Tensor
    """The indices of its examples, (n,), or (members, n) for a batch of each member, on the CPU."""
    keys: Sequence[int]
    """The keys of random numbers drawn inside the data set, one for each row of the index."""


@runtime_checkable
class ExampleSource(Protocol):
    """The examples of a split on a device: all in its memory, or read batch by batch."""

    @property
    def streamed(self) -> bool:
        """Whether the examples are read batch by batch."""

    @property
    def device(self) -> str:
        """The device of its batches."""

    @property
    def labels(self) -> Tensor | None:
        """All targets if they are in memory, else None."""

    def __len__(self) -> int: ...

    def to(self, device: str) -> "ExampleSource":
        """The same examples with batches on a device."""

    def take(self, index: Tensor | slice) -> Batch:
        """Copies of the inputs and targets at these indices; the caller may change them in place."""


class StreamedSource(ExampleSource, Protocol):
    """A source whose examples are read batch by batch on the CPU."""

    def feed(self, requests: Iterable[Request], *, pinned: bool) -> Iterator[Batch]:
        """The batches of these requests, in order, the next ones read ahead; in page-locked memory if `pinned`."""


class Stream:
    """A source on the CPU, with batches on a device.

    Args:
        source: The source.
        device: The device of the batches.
    """

    streamed = True
    labels = None

    def __init__(self, source: StreamedSource, device: str) -> None:
        self._source = source
        self.device = device
        self._pinned = device.startswith("cuda")
        self._planned: Iterator[Batch] = iter(())
        self._expected: Iterator[Any] = iter(())
        """The tags of the planned batches, in order."""

    def __len__(self) -> int:
        return len(self._source)

    def to(self, device: str) -> ExampleSource:
        """The same examples with batches on a device."""
        return self if device == self.device else self._source.to(device)

    def take(self, index: Tensor | slice) -> Batch:
        """The inputs and targets at these indices, as in evaluation."""
        rows = torch.arange(len(self))[index] if isinstance(index, slice) else index
        return self._moved(self._source.take(rows))

    def plan(self, tags: Iterable[Any], request_of: Callable[[Any], Request]) -> None:
        """Read the batches of these tags ahead; `batch` must ask for them in this order."""
        expected, begun = tee(tags)
        self._expected = expected
        self._planned = self._feed(map(request_of, begun))

    def batch(self, tag: Any, request_of: Callable[[Any], Request]) -> Batch:
        """The batch of a tag; if it is not the next planned one, it is read now and the plan is dropped."""
        if next(self._expected, None) != tag:
            self.plan([tag], request_of)
            next(self._expected)
        return self._moved(next(self._planned))

    def each(self, size: int) -> Iterator[Batch]:
        """All examples in order, in batches of `size`; random numbers inside the data set are the same in each call."""
        keys = evaluation_keys()
        index = torch.arange(len(self))
        requests = (Request(index[start : start + size], keys) for start in range(0, len(self), size))
        return map(self._moved, self._feed(requests))

    def _feed(self, requests: Iterable[Request]) -> Iterator[Batch]:
        return self._source.feed(requests, pinned=self._pinned)

    def _moved(self, batch: Batch) -> Batch:
        inputs, targets = batch
        moved = [x.to(self.device, non_blocking=self._pinned) for x in (*inputs, targets)]
        return tuple(moved[:-1]), moved[-1]


def evaluation_keys() -> Sequence[int]:
    """The key of random numbers drawn inside a data set in evaluation."""
    return [seed_of("data", "evaluation")]


def batches_of(source: ExampleSource, size: int) -> Iterator[Batch]:
    """All examples in order, in batches of `size`; copies, which may be changed in place."""
    if isinstance(source, Stream):
        yield from source.each(size)
        return
    for start in range(0, len(source), size):
        yield source.take(slice(start, start + size))


def read_ahead(read: Callable[[Tensor], Batch], requests: Iterable[Request], *, pinned: bool) -> Iterator[Batch]:
    """Read the batches of these requests in a thread, some of them ahead; for sources that draw no random numbers."""

    def ready(request: Request) -> Batch:
        inputs, targets = read(request.index)
        return (tuple(x.pin_memory() for x in inputs), targets.pin_memory()) if pinned else (inputs, targets)

    with ThreadPoolExecutor(1, "pbt-data") as pool:
        pending: deque[Future[Batch]] = deque()
        try:
            for request in requests:
                pending.append(pool.submit(ready, request))
                if len(pending) > _AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
