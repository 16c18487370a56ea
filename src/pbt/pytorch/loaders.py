"""Data sets and loaders of torch that are given in place of a split."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from pbt.errors import TaskError
from pbt.pytorch.examples import Examples, check_indexed
from pbt.pytorch.sources import ExampleSource


def source_of(given: Any, name: str) -> Any:
    """A split of `Data` as a source; what cannot be one is returned as it is.

    Raises:
        TaskError: A `Dataset` or a `DataLoader` cannot be used.
    """
    if isinstance(given, DataLoader):
        return _of_loader(given, name)
    if type(given) is TensorDataset:
        from pbt.pytorch.data import Split

        *inputs, targets = given.tensors
        return Split(tuple(inputs) if len(inputs) != 1 else inputs[0], targets)
    arrays = (ExampleSource, tuple, list, str, Mapping, Tensor, np.ndarray)
    if isinstance(given, Dataset) or (hasattr(given, "__getitem__") and not isinstance(given, arrays)):
        return Examples(given)
    return given


def _of_loader(loader: "DataLoader[Any]", name: str) -> Examples:
    """The data set of a loader; its batches are made anew, in the order of the run."""
    plain = type(loader.sampler) in (RandomSampler, SequentialSampler)
    sampler: Any = loader.sampler
    if isinstance(loader.dataset, IterableDataset):
        check_indexed(loader.dataset)
    if loader.batch_size is None:
        raise TaskError(
            f"the {name} data is a DataLoader with batch_sampler={type(loader.batch_sampler).__name__}, which is not "
            "used: the order is that of SupervisedTask(order=...); give its dataset"
        )
    if not plain or getattr(sampler, "replacement", False) or len(sampler) != len(loader.dataset):  # type: ignore[arg-type]
        raise TaskError(
            f"the {name} data is a DataLoader with sampler={type(sampler).__name__}, which is not used: the order is "
            "that of SupervisedTask(order=...), once through all examples; give its dataset, or Examples(dataset)"
        )
    if loader.worker_init_fn is not None:
        raise TaskError(
            f"the {name} data is a DataLoader with worker_init_fn, which is not used: random numbers are keyed by "
            "example; leave it out"
        )
    examples = Examples(
        loader.dataset,
        collate=None if loader.collate_fn is default_collate else loader.collate_fn,
        num_workers=loader.num_workers,
        prefetch_factor=loader.prefetch_factor if loader.num_workers else None,
        multiprocessing_context=loader.multiprocessing_context if loader.num_workers else None,
    )
    examples.loader = loader
    return examples


def check_loader(source: Any, name: str, *, batch_size: int, drop_last: bool, shuffled: bool) -> None:
    """Raise TaskError if a split was given as a `DataLoader` that makes other training batches than the task."""
    loader = getattr(source, "loader", None)
    if loader is None:
        return
    found = {
        "batch_size": (loader.batch_size, batch_size),
        "drop_last": (loader.drop_last, drop_last),
        "shuffle": (isinstance(loader.sampler, RandomSampler), shuffled),
    }
    for field, (own, tasks) in found.items():
        if own != tasks:
            other = "order='shared' or order='member'" if tasks else "order='stored'"
            whose = f"SupervisedTask has {other if field == 'shuffle' else f'{field}={tasks}'}"
            raise TaskError(f"the {name} data is a DataLoader with {field}={own}, and {whose}; make them equal")
