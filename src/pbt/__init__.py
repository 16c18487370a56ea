"""Population Based Training for PyTorch: a trained network and the hyperparameter schedule that made it."""

from pbt.core.exploit import Copy, Mutate, Stay, at_random, binary_tournament, never, t_test, truncation
from pbt.core.explore import follow, jitter, keep, perturb, perturb_or_resample, random_subset, resample
from pbt.core.schedule import Schedule, Segment
from pbt.core.strategy import Plan, Proposal, Strategy
from pbt.errors import PBTError
from pbt.executors.base import scratch
from pbt.executors.ray import Cluster
from pbt.executors.worker import Context
from pbt.runs.callbacks import Callback
from pbt.runs.engine import Engine, Observer, RunSpec
from pbt.runs.experiment import Experiment, run
from pbt.runs.placement import Placement
from pbt.runs.replay import replay
from pbt.runs.results import Run
from pbt.runs.schedule_io import read_schedule
from pbt.space import Choice, Float, Int, Space

__all__ = [
    "Callback",
    "Choice",
    "Cluster",
    "Context",
    "Copy",
    "Engine",
    "Experiment",
    "Float",
    "Int",
    "Mutate",
    "Observer",
    "PBTError",
    "Placement",
    "Plan",
    "Proposal",
    "Run",
    "RunSpec",
    "Schedule",
    "Segment",
    "Space",
    "Stay",
    "Strategy",
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
    "run",
    "scratch",
    "t_test",
    "truncation",
]
