"""Population Based Training for PyTorch: a trained network and the hyperparameter schedule that made it."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pbt.core.exploit import Copy, Mutate, Stay, at_random, binary_tournament, never, t_test, truncation
    from pbt.core.explore import follow, jitter, keep, perturb, perturb_or_resample, random_subset, resample
    from pbt.core.schedule import Schedule
    from pbt.core.strategy import Plan, Proposal, Strategy
    from pbt.domains import Choice, Float, Int
    from pbt.errors import PBTError
    from pbt.executors.base import scratch
    from pbt.executors.cluster_data import cluster_data
    from pbt.executors.ray.cluster import Cluster
    from pbt.executors.retry import Limits
    from pbt.executors.worker import Context
    from pbt.pytorch import SupervisedTask
    from pbt.runs.callbacks import Callback
    from pbt.runs.experiment import Experiment, run
    from pbt.runs.placement import Placement
    from pbt.runs.replay import replay
    from pbt.runs.results import Run
    from pbt.runs.schedule_io import read_schedule
    from pbt.runs.stopping import Stop
    from pbt.space import HParams, Space
    from pbt.store.folder import Folder
    from pbt.store.pytrees import restore
    from pbt.tasks.command import Command

    __version__: str

__all__ = [
    "Callback",
    "Choice",
    "Cluster",
    "Command",
    "Context",
    "Copy",
    "Experiment",
    "Float",
    "Folder",
    "HParams",
    "Int",
    "Limits",
    "Mutate",
    "PBTError",
    "Placement",
    "Plan",
    "Proposal",
    "Run",
    "Schedule",
    "Space",
    "Stay",
    "Stop",
    "Strategy",
    "SupervisedTask",
    "__version__",
    "at_random",
    "binary_tournament",
    "cluster_data",
    "follow",
    "jitter",
    "keep",
    "never",
    "perturb",
    "perturb_or_resample",
    "random_subset",
    "read_schedule",
    "replay",
    "resample",
    "restore",
    "run",
    "scratch",
    "t_test",
    "truncation",
]

_NAMES = {
    "core.exploit": "Copy Mutate Stay at_random binary_tournament never t_test truncation",
    "core.explore": "follow jitter keep perturb perturb_or_resample random_subset resample",
    "core.schedule": "Schedule",
    "core.strategy": "Plan Proposal Strategy",
    "domains": "Choice Float Int",
    "errors": "PBTError",
    "executors.base": "scratch",
    "executors.cluster_data": "cluster_data",
    "executors.ray.cluster": "Cluster",
    "executors.retry": "Limits",
    "executors.worker": "Context",
    "pytorch": "SupervisedTask",
    "runs.callbacks": "Callback",
    "runs.experiment": "Experiment run",
    "runs.placement": "Placement",
    "runs.replay": "replay",
    "runs.results": "Run",
    "runs.schedule_io": "read_schedule",
    "runs.stopping": "Stop",
    "space": "HParams Space",
    "store.folder": "Folder",
    "store.pytrees": "restore",
    "tasks.command": "Command",
}
"""The public names by the module that defines them. A name is imported at its first use: a command that prints a
status starts without what training needs, and a task without torch runs where torch is missing."""
_MODULES = {name: f"pbt.{module}" for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from pbt.executors.machine import version_of
        from pbt.installed import DISTRIBUTION

        return version_of(DISTRIBUTION) or "not installed"
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))
