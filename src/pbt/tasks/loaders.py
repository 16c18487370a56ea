"""Data loaders that continue in the middle of an epoch, with an order of examples keyed by epoch."""

import copy
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from torch import Generator
from torch.utils.data import DataLoader

from pbt.executors.seeding import seeded

_END = object()


class ResumableLoader:
    """A `DataLoader` that a trainer may leave after any batch, and continue with there in another round.

    The order of an epoch depends on its number alone. Beginning an epoch leaves the global generators untouched, so
    that training draws the same numbers whether or not a round ends there.

    Args:
        loader: The user's loader.
        key: The seed of an epoch by its number.
        epoch: The number of the first epoch, read when it begins.
        is_over: Whether the trainer has read the last batch of its epoch, which may come before the loader's last.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        key: Callable[[int], int],
        epoch: Callable[[], int] = int,
        is_over: Callable[[], bool] = bool,
    ) -> None:
        self._loader, self._key, self._first, self._is_over = loader, key, epoch, is_over
        self._epoch: int | None = None
        self._start = self._read = 0

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def state_dict(self) -> dict[str, int]:
        """The position of the next batch."""
        epoch = self._first() if self._epoch is None else self._epoch
        return {"epoch": epoch + 1, "batch": 0} if self._is_over() else {"epoch": epoch, "batch": self._read}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a position."""
        self._epoch, self._start = state["epoch"], state["batch"]
        self._read = self._start

    def __iter__(self) -> Iterator[Any]:
        if self._epoch is None:
            self._epoch = self._first()
        elif self._read > self._start:
            self._epoch, self._start = self._epoch + 1, 0
        self._read = self._start
        return self._batches(self._epoch, self._start)

    def _batches(self, epoch: int, start: int) -> Iterator[Any]:
        loader, key = self._loader, self._key(epoch)
        for generator in (loader.generator, getattr(loader.sampler, "generator", None)):
            if isinstance(generator, Generator):
                generator.manual_seed(key)
        iterator: Iterator[Any]
        with seeded(key):
            if loader.batch_sampler is not None:
                # Skipped batches are not loaded.
                loader = copy.copy(loader)
                object.__setattr__(loader, "batch_sampler", _KeyedOrder(loader.batch_sampler, key, start))
                iterator = iter(loader)
            else:
                iterator = islice(loader, start, None)
                if start:
                    iterator = _primed(iterator)
        for batch in iterator:
            self._read += 1
            yield batch


def _primed(iterator: Iterator[Any]) -> Iterator[Any]:
    """The same items, the first of them drawn at once."""
    first = next(iterator, _END)
    return iter(()) if first is _END else _chained(first, iterator)


def _chained(first: Any, others: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from others


class _KeyedOrder:
    """A batch sampler from one batch on, whose draws are keyed."""

    def __init__(self, sampler: Any, key: int, start: int) -> None:
        self._sampler, self._key, self._start = sampler, key, start

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Any]:
        # Samplers draw the order, or the seed of a generator of their own, with the first batch.
        with seeded(self._key):
            return _primed(islice(self._sampler, self._start, None))


def resumable(loaders: Any, wrap: Callable[[DataLoader[Any]], Any]) -> Any:
    """Wrap every `DataLoader` in a collection; loaders that can continue by themselves stay as they are."""
    if isinstance(loaders, DataLoader):
        return loaders if hasattr(loaders, "load_state_dict") else wrap(loaders)
    if isinstance(loaders, dict):
        return {name: resumable(loader, wrap) for name, loader in loaders.items()}
    if isinstance(loaders, (list, tuple)):
        return [resumable(loader, wrap) for loader in loaders]
    return loaders
