"""Map-style data sets as splits: examples are read by index, in this process or in worker processes."""

import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pickle import PicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torch.utils.data import default_collate as torch_collate

from pbt.core.rng import seed_of
from pbt.errors import ExampleError, TaskError, WorkerError
from pbt.pytorch.sources import Batch, ExampleSource, Request, Stream, evaluation_keys

Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """An example that cannot be read, as a value: workers of torch would add their traceback to the message."""

    message: str


class Examples:
    """A map-style data set as a split of `Data`; each example is read when its batch needs it.

    Random numbers drawn from the global generators of Python, numpy and torch, as in random transforms, depend only on
    the run's seed, the epoch and the index (and the member with `order="member"`), in every executor and with any
    number of workers. In evaluation they depend on the index.

    Args:
        dataset: An object with `__len__` and `__getitem__(index) -> (input, target)`; the input may be a tuple
            of several. If it has `__getitems__(indices)`, that reads a batch, and random numbers depend on the first
            index.
        collate: Joins a list of examples to `(inputs, targets)`: tensors with the examples in front, or a tuple of
            tensors for several inputs. None: `torch.utils.data.default_collate`; all examples then have the same shape
            and type.
        num_workers: Number of processes that read batches ahead of training; 0: batches are read between the steps.
        prefetch_factor: Batches that each of them reads ahead; None: 2.
        multiprocessing_context: Start method of these processes; None: the default of `DataLoader`.

    Raises:
        TaskError: The data set has no index or no length.
    """

    streamed = True
    labels = None
    device = "cpu"

    def __init__(
        self,
        dataset: Any,
        *,
        collate: Collate | None = None,
        num_workers: int = 0,
        prefetch_factor: int | None = None,
        multiprocessing_context: Any = None,
    ) -> None:
        check_indexed(dataset)
        if num_workers < 0:
            raise TaskError(f"expected num_workers to be at least 0, got {num_workers}")
        self.dataset = dataset
        self.loader: DataLoader[Any] | None = None
        """The `DataLoader` that was given in place of the data set."""
        self._length = len(dataset)
        self._reader = _Reader(dataset, collate)
        self._workers = num_workers
        self._settings = {"prefetch_factor": prefetch_factor, "multiprocessing_context": multiprocessing_context}
        self._requests = _Requests()
        self._running: DataLoader[Any] | None = None

    def __len__(self) -> int:
        return self._length

    def __getstate__(self) -> dict[str, Any]:
        # Another process starts workers of its own.
        return {**self.__dict__, "_running": None, "_requests": _Requests(), "loader": None}

    def to(self, device: str) -> ExampleSource:
        """The same examples with batches on a device."""
        return Stream(self, device)

    def take(self, index: Tensor | slice) -> Batch:
        """The inputs and targets at these indices, as in evaluation; read in this process."""
        rows = torch.arange(len(self))[index] if isinstance(index, slice) else index
        self._reader.expect_first()
        inputs, targets = _read(self._reader.read_here(Request(rows, evaluation_keys())))
        return inputs, targets

    def feed(self, requests: Iterable[Request], *, pinned: bool) -> Iterator[Batch]:
        """The batches of these requests, in order.

        Raises:
            ExampleError: An example cannot be read, or differs in shape or type from the first one.
            TaskError: The data set cannot be sent to worker processes.
            WorkerError: A worker process ended.
        """
        self._reader.expect_first()
        for read in self._read_ahead(requests) if self._workers else map(self._reader.read_here, requests):
            inputs, targets = _read(read)
            yield (tuple(x.pin_memory() for x in inputs), targets.pin_memory()) if pinned else (inputs, targets)

    def _read_ahead(self, requests: Iterable[Request]) -> Iterator[Any]:
        """Read in worker processes."""
        self._requests.current = requests
        if self._running is None:
            self._running = self._loader()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Got pickle error")
                started = iter(self._running)
        except (AttributeError, TypeError, PicklingError) as error:
            self._running = None
            raise TaskError(
                f"{_name(self.dataset)} cannot be sent to its num_workers={self._workers} processes ({error}); define "
                "its class and functions at the top level of a module, open files in __getitem__, or use num_workers=0"
            ) from error
        try:
            yield from started
        except RuntimeError as error:
            self._running = None
            if "DataLoader worker" not in str(error):
                raise
            raise WorkerError(f"a worker process of {_name(self.dataset)} ended: {error}") from error

    def _loader(self) -> "DataLoader[Any]":
        # Torch passes an item of a batch sampler on to `__getitems__`, whatever it is.
        requests: Any = self._requests
        return DataLoader(
            self._reader,
            batch_sampler=requests,
            collate_fn=_unchanged,
            num_workers=self._workers,
            persistent_workers=True,
            # The default is torch's global generator, which training draws from.
            generator=torch.Generator(),
            **self._settings,
        )


class _Requests:
    """The requests of the round, as the batch sampler of a `DataLoader` whose workers outlive it."""

    def __init__(self) -> None:
        self.current: Iterable[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.current)


def _read(found: Any) -> Any:
    """What was read.

    Raises:
        ExampleError: It is unreadable.
    """
    if isinstance(found, _Unreadable):
        raise ExampleError(found.message)
    return found


def _unchanged(batch: Any) -> Any:
    return batch


class _Reader(Dataset[Any]):
    """Reads the batches of requests; the data set that workers get."""

    def __init__(self, dataset: Any, collate: Collate | None) -> None:
        self._dataset = dataset
        self._collate = collate
        self._first: Any = None
        """The form of the first example; all must have it unless `collate` is given."""

    def expect_first(self) -> None:
        """Read the first example, if its form is needed and not known.

        Raises:
            ExampleError: It cannot be read.
        """
        if self._collate is None and self._first is None:
            with _kept_generators():
                (item,) = self._items([0], seed_of("data", "first"))
            self._first = _form(_read(item))
            if len(self._first) != 2 or not isinstance(item, (tuple, list)):
                raise TaskError(
                    f"{_name(self._dataset)}[0]: expected (input, target), got {_shown(self._first)}; return "
                    "((first, second), target) for several inputs, or give Examples(dataset, collate=...)"
                )

    def read_here(self, request: Request) -> Any:
        """Read a batch in this process, whose global generators stay as they are."""
        with _kept_generators():
            return self.__getitems__(request)

    def __getitems__(self, request: Any) -> Any:
        """The batch of a request, or its unreadable example."""
        rows = request.index if request.index.dim() == 2 else [request.index]
        read = [self._batch([int(i) for i in row], key) for row, key in zip(rows, request.keys, strict=True)]
        if bad := [batch for batch in read if isinstance(batch, _Unreadable)]:
            return bad[0]
        if len(read) == 1:
            return read[0]
        try:
            inputs = tuple(torch.stack(same) for same in zip(*(own for own, _ in read), strict=True))
            return inputs, torch.stack([targets for _, targets in read])
        except (RuntimeError, ValueError) as error:
            return _Unreadable(
                f"{_name(self._dataset)}: the members' batches have different shapes ({error}), and one program trains "
                "them together; use order='shared', or the executor 'processes'"
            )

    def _batch(self, index: Sequence[int], key: int) -> Any:
        items = self._items(index, key)
        for i, item in zip(index, items, strict=False):
            if isinstance(item, _Unreadable):
                return item
            if self._collate is None and _form(item) != self._first:
                return _Unreadable(
                    f"{_name(self._dataset)}[{i}]: expected {_shown(self._first)} as [0], got {_shown(_form(item))}; "
                    "give all examples one shape and type, or Examples(dataset, collate=...)"
                )
        try:
            return _checked((self._collate or torch_collate)(list(items)), len(index))
        except Exception as error:  # noqa: BLE001 (the user's function)
            return _Unreadable(
                f"{_name(self._dataset)}: the examples {_few(index)} cannot be joined to a batch "
                f"({type(error).__name__}: {error}); Examples(dataset, collate=...) takes a function that joins them"
            )

    def _items(self, index: Sequence[int], key: int) -> Sequence[Any]:
        many = getattr(self._dataset, "__getitems__", None)
        try:
            if many is not None:
                _seed(seed_of(key, index[0]))
                items: Sequence[Any] = many(list(index))
                if len(items) == len(index):
                    return items
                return [_Unreadable(
                    f"{_name(self._dataset)}: expected {len(index)} examples of __getitems__, got {len(items)}"
                )]  # fmt: skip
        except Exception as error:  # noqa: BLE001 (the user's data set)
            return [_unreadable(self._dataset, _few(index), error)]
        return [self._item(i, key) for i in index]

    def _item(self, i: int, key: int) -> Any:
        _seed(seed_of(key, i))
        try:
            return self._dataset[i]
        except Exception as error:  # noqa: BLE001 (the user's data set)
            return _unreadable(self._dataset, f"[{i}]", error)


def _unreadable(dataset: Any, place: str, error: Exception) -> _Unreadable:
    text = " ".join(str(error).split())
    return _Unreadable(
        f"{_name(dataset)}{place} of {len(dataset):,} examples cannot be read ({type(error).__name__}: {text}); repair "
        "it, or leave it out in a new run"
    )


def _checked(batch: Any, count: int) -> Batch:
    """The batch that a collate function returned, as inputs and targets.

    Raises:
        TypeError: It has another form.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TypeError(f"expected (inputs, targets), got {type(batch).__name__}")
    inputs, targets = batch
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    for x in (*inputs, targets):
        if not isinstance(x, Tensor) or x.dim() == 0 or len(x) != count:
            found = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"expected tensors with {count} examples in front, got {found}")
    return inputs, targets


def _form(item: Any) -> Any:
    """The shapes and types of an example, with its tuples."""
    if isinstance(item, (tuple, list)):
        return tuple(map(_form, item))
    if isinstance(item, (Tensor, np.ndarray)):
        return f"{str(item.dtype).removeprefix('torch.')} {tuple(item.shape)}"
    return type(item).__name__


def _shown(form: Any) -> str:
    return f"({', '.join(map(_shown, form))})" if isinstance(form, tuple) else str(form)


def _few(index: Sequence[int]) -> str:
    return f"[{', '.join(map(str, index[:5]))}{', ...' if len(index) > 5 else ''}]"


def _seed(key: int) -> None:
    random.seed(key)
    np.random.seed(key % 2**32)  # noqa: NPY002 (the generator that transforms draw from)
    torch.default_generator.manual_seed(key)


@contextmanager
def _kept_generators() -> Iterator[None]:
    """Restore the global generators of the CPU afterwards."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 (as above)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002 (as above)
        torch.set_rng_state(before[2])


def _name(dataset: Any) -> str:
    return type(dataset).__name__


def check_indexed(dataset: Any) -> None:
    """Raise TaskError for a data set without an index or a length."""
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise TaskError(
            f"expected a map-style data set, with __getitem__ and __len__, got {_name(dataset)}, which has no index: "
            "the order of examples could not be keyed, nor a round start in its middle; give it __getitem__, or write "
            "its examples to an array and use Split, or Tokens for text"
        )
    if not hasattr(dataset, "__len__"):
        raise TaskError(f"expected a data set with __len__, got {_name(dataset)}; define the number of its examples")
