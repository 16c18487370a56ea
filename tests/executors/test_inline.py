"""The executor in the calling process keeps the contract, and leaves no trace in that process."""

# ruff: noqa: NPY002 (the legacy global generator is what is tested)

import contextlib
import functools
import json
import multiprocessing
import random
import signal
import subprocess
import sys
import threading
import time
from typing import ClassVar

import numpy as np
import pytest
import torch

import pbt
from pbt.executors.base import Executor
from pbt.executors.inline import InlineExecutor
from pbt.executors.worker import WorkerSpec
from pbt.pytorch import argument
from pbt.pytorch.modules import ModuleTask
from pbt.store.files import StateFiles
from pbt.testing.executors import ExecutorContract, finish, make_task, walk
from tests.executors.fleet import FailsToOpen


class TestInline(ExecutorContract):
    def make_executor(self, setup: WorkerSpec) -> Executor:
        return InlineExecutor(setup)


def interrupted(hparams, state, steps, ctx):
    raise KeyboardInterrupt


def stops_gracefully(hparams, state, steps, ctx):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        sys.exit(1)


def hides_it(hparams, state, steps, ctx):
    try:
        stops_gracefully(hparams, state, steps, ctx)
    except SystemExit:
        raise RuntimeError("the trainer stopped") from None


def swallows_it(hparams, state, steps, ctx):
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    return state, 1.0


def exits_as_interrupted(hparams, state, steps, ctx):
    sys.exit(130)


def breaks_down(hparams, state, steps, ctx):
    raise ValueError("half\na line")


def test_global_generators_are_left_alone() -> None:
    """A round draws from the global generators, and the caller's go on as if it had not."""
    random.seed(3)
    np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    with InlineExecutor(WorkerSpec(task=walk, states=StateFiles(None))) as executor:
        finish(executor, [make_task(0)])
    assert (random.random(), np.random.random()) == expected


@pytest.mark.parametrize("task", [interrupted, stops_gracefully, hides_it, swallows_it, exits_as_interrupted])
def test_an_interrupt_is_no_failure(task) -> None:
    """Ctrl-C ends the run, whatever the task makes of it: no round is reported, and no member has failed."""
    handler = signal.getsignal(signal.SIGINT)
    with InlineExecutor(WorkerSpec(task=task, states=StateFiles(None))) as executor:
        executor.submit([make_task(0)])
        with pytest.raises(KeyboardInterrupt):
            executor.wait()
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_failure_names_the_line_of_the_users_code() -> None:
    """The message is one line that ends with the place; file and line stand beside it, and the traceback."""
    with InlineExecutor(WorkerSpec(task=breaks_down, states=StateFiles(None))) as executor:
        outcome = finish(executor, [make_task(0)])[0, 1]
    line = breaks_down.__code__.co_firstlineno + 1
    assert outcome.message == f"ValueError: half a line (test_inline.py:{line} in breaks_down)"
    assert (outcome.file, outcome.line) == (__file__, line)
    assert "half\na line" in outcome.traceback


def calls_a_library(hparams, state, steps, ctx):
    json.loads("no json")


def returns_nothing(hparams, state, steps, ctx):
    return {"place": object()}, 1.0


class ByClass:
    bind: ClassVar = {"x": argument()}

    def build(self, hparams, ctx):
        return {"model": torch.nn.Linear(1, 1)}

    def train(self, parts, hparams, steps, ctx):
        pass

    def evaluate(self, parts, ctx):
        return None


@pytest.mark.parametrize(
    ("task", "code"),
    [
        (calls_a_library, calls_a_library.__code__),
        (returns_nothing, returns_nothing.__code__),
        (functools.partial(returns_nothing), returns_nothing.__code__),
        (ModuleTask(ByClass()), ByClass.evaluate.__code__),
    ],
    ids=["library", "state", "partial", "class"],
)
def test_the_place_is_the_users(task, code) -> None:
    """The place is the user's own line, not the library's or the package's; without a traceback, the function's."""
    with InlineExecutor(WorkerSpec(task=task, states=StateFiles(None))) as executor:
        outcome = finish(executor, [make_task(0, hparams={"x": 1.0})])[0, 1]
    assert outcome.file == __file__
    assert outcome.line - code.co_firstlineno in (0, 1)
    assert outcome.message.endswith(f"(test_inline.py:{outcome.line} in {code.co_name})")


def test_a_task_that_cannot_be_opened() -> None:
    """What goes wrong before any round is nobody's failure, and is raised as it is."""
    with InlineExecutor(WorkerSpec(task=FailsToOpen(), states=StateFiles(None))) as executor:
        executor.submit([make_task(0)])
        with pytest.raises(FileNotFoundError, match="no data here"):
            executor.wait()


def test_what_a_task_leaves_running_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """A thread, a forked process and a program that outlive the run are named; a daemon and an ended one are not."""
    release, started = threading.Event(), []

    def leaves(hparams, state, steps, ctx):
        if ctx.member == 1:
            threads = [threading.Thread(target=release.wait, name=name) for name in ("daemon", "loader")]
            threads[0].daemon = True
            for thread in threads:
                thread.start()
            started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]))
            started.append(multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,)))
            started[-1].start()
            subprocess.run([sys.executable, "-c", ""], check=True)
        return {}, 1.0

    try:
        with caplog.at_level("WARNING", "pbt"):
            pbt.run(leaves, {"lr": pbt.Float(0.1, 1.0)}, population=2, rounds=1)
        (text,) = [record.getMessage() for record in caplog.records if "running" in record.getMessage()]
        program, forked = (process.pid for process in started)
        assert "the thread 'loader'" in text
        assert "daemon" not in text
        assert f"the process {program} ({sys.executable} -c import time"[:60] in text
        assert f"the process {forked} (forked)" in text
        assert text.count("the process") == 2
        assert "executor='processes'" in text
    finally:
        release.set()
        for process in started:
            process.kill()
            (process.wait if isinstance(process, subprocess.Popen) else process.join)()
