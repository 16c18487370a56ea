"""PyTorch tasks: their forms, the capture of their state, and the bindings of their hyperparameters."""

from pbt.pytorch.bind import (
    Binding,
    accumulate,
    argument,
    attribute,
    augment,
    batch_size,
    clip_norm,
    dropout,
    ema,
    loss,
    optimizer,
)
from pbt.pytorch.data import Data, Split
from pbt.pytorch.evaluation import accuracy
from pbt.pytorch.examples import Examples
from pbt.pytorch.live import Live
from pbt.pytorch.modules import Buildable, ModuleTask
from pbt.pytorch.noise import KeyedDropout, Noise, key_dropout
from pbt.pytorch.schedules import ScheduleLR, apply_schedule
from pbt.pytorch.state import capture, restore
from pbt.pytorch.supervised import SupervisedTask
from pbt.pytorch.tokens import Tokens, token_accuracy, token_cross_entropy

__all__ = [
    "Binding",
    "Buildable",
    "Data",
    "Examples",
    "KeyedDropout",
    "Live",
    "ModuleTask",
    "Noise",
    "ScheduleLR",
    "Split",
    "SupervisedTask",
    "Tokens",
    "accumulate",
    "accuracy",
    "apply_schedule",
    "argument",
    "attribute",
    "augment",
    "batch_size",
    "capture",
    "clip_norm",
    "dropout",
    "ema",
    "key_dropout",
    "loss",
    "optimizer",
    "restore",
    "token_accuracy",
    "token_cross_entropy",
]
