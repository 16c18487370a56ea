"""Population Based Training for PyTorch: a trained network and the hyperparameter schedule that made it."""

from typing import TYPE_CHECKING, Any

from pbt.core.exploit import Copy, Mutate, Stay, at_random, binary_tournament, never, t_test, truncation
from pbt.core.explore import follow, jitter, keep, perturb, perturb_or_resample, random_subset, resample
from pbt.core.schedule import Schedule
from pbt.core.strategy import Plan, Proposal, Strategy
from pbt.errors import PBTError
from pbt.executors.base import scratch
from pbt.executors.ray import Cluster
from pbt.executors.retry import Limits
from pbt.executors.worker import Context
from pbt.runs.callbacks import Callback
from pbt.runs.experiment import Experiment, run
from pbt.runs.placement import Placement
from pbt.runs.replay import replay
from pbt.runs.results import Run
from pbt.runs.schedule_io import read_schedule
from pbt.space import Choice, Float, HParams, Int, Space
from pbt.store.folder import Folder
from pbt.store.pytrees import restore
from pbt.tasks.command import Command

if TYPE_CHECKING:
    from pbt.pytorch import SupervisedTask

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
    "Strategy",
    "SupervisedTask",
    "__version__",
    "at_random",
    "binary_tournament",
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


def __getattr__(name: str) -> Any:
    """Load on first use what `import pbt` leaves out: torch, and the metadata of the installed distribution."""
    if name == "SupervisedTask":
        from pbt.pytorch import SupervisedTask

        return SupervisedTask
    if name == "__version__":
        from pbt.executors.machine import DISTRIBUTION, version_of

        return version_of(DISTRIBUTION) or "not installed"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
