"""The executor in the calling process keeps the contract, and leaves no trace in that process."""

# ruff: noqa: NPY002 (the legacy global generator is what is tested)

import random

import numpy as np
import pytest
from fleet import FailsToOpen

from pbt.executors.base import Executor
from pbt.executors.inline import InlineExecutor
from pbt.executors.worker import Setup
from pbt.store.files import StateFiles
from pbt.testing.executors import ExecutorContract, finish, make_task, walk


class TestInline(ExecutorContract):
    def make_executor(self, setup: Setup) -> Executor:
        return InlineExecutor(setup)


def interrupted(hparams, state, steps, ctx):
    raise KeyboardInterrupt


def test_global_generators_are_left_alone() -> None:
    """A round draws from the global generators, and the caller's go on as if it had not."""
    random.seed(3)
    np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    with InlineExecutor(Setup(task=walk, states=StateFiles(None))) as executor:
        finish(executor, [make_task(0)])
    assert (random.random(), np.random.random()) == expected


def test_an_interrupt_is_no_failure() -> None:
    """Ctrl-C ends the run; it is not written down as the failure of a member."""
    with InlineExecutor(Setup(task=interrupted, states=StateFiles(None))) as executor:
        executor.submit([make_task(0)])
        with pytest.raises(KeyboardInterrupt):
            executor.wait()


def test_a_task_that_cannot_be_opened() -> None:
    """What goes wrong before any round is nobody's failure, and is raised as it is."""
    with InlineExecutor(Setup(task=FailsToOpen(), states=StateFiles(None))) as executor:
        executor.submit([make_task(0)])
        with pytest.raises(FileNotFoundError, match="no data here"):
            executor.wait()
