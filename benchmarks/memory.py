"""Memory of a population as one program, relative to its states.

Measures the peak memory of a process while `VectorizedExecutor` trains, evaluates and stores one round of a population,
minus the peak with one member (program and data). Reference: the bytes of the members' states. Each measurement runs in
its own process.
"""

import functools
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from benchmarks import mlp
from benchmarks.base import Options, Row
from benchmarks.sides import Child
from pbt.executors.base import Report, RoundTask
from pbt.executors.worker import WorkerSpec
from pbt.mnist.config.record import load_config
from pbt.mnist.task import supervised
from pbt.pytorch.supervised import SupervisedTask
from pbt.pytorch.vectorized import VectorizedExecutor
from pbt.space import HParams
from pbt.store.files import StateFiles

STEPS, THREADS = 5, 2
"""Steps per round; memory does not depend on it."""


@dataclass(frozen=True, slots=True)
class Case:
    """Task, number of members and initial values."""

    name: str
    task: Callable[[], SupervisedTask]
    members: int
    hparams: HParams


def fc() -> SupervisedTask:
    """The networks of `config/fc_PBT.json`."""
    return supervised(load_config("config/fc_PBT.json"))


CASES = (
    Case("MLP 64-32-10, 512 members", mlp.task, 512, {"lr": 1e-3}),
    Case("fc_PBT, 10 members", fc, 10, {"lr": 1e-3, "keep_prob": 0.8}),
)


def measure(options: Options) -> Sequence[Row]:
    """Measure a row per case."""
    return [_row(case, options.repeats) for case in CASES]


def _row(case: Case, repeats: int) -> Row:
    found = []
    for _ in range(repeats):
        with Child(_wave, case) as child:
            found.append(child.ready)
    peak, states = (median(of) for of in zip(*found, strict=True))
    return Row(
        work=f"memory of one round, {case.name}, `vectorized`",
        measured=f"{peak / 2**20:.1f} MiB more than for one member",
        against=f"the members' states: {states / 2**20:.1f} MiB",
        value=median(one / two for one, two in found),
        limit=3.0,
        aim=2.0,
        unit=" times",
    )


def _wave(connection: Connection, case: Case) -> None:
    """Send the bytes that the population adds to the peak, and those of its states."""
    with tempfile.TemporaryDirectory() as folder:
        setup = WorkerSpec(task=case.task(), states=StateFiles(Path(folder)), threads=THREADS)
        with VectorizedExecutor(setup) as executor:
            train = functools.partial(_round, executor, case.hparams)
            train(1)
            before = peak_memory()
            reports = train(case.members)
    connection.send((peak_memory() - before, sum(report.stored.size for report in reports)))


def _round(executor: VectorizedExecutor, hparams: HParams, members: int) -> Sequence[Report]:
    """The first round of this many members."""
    tasks = [
        RoundTask(member=i, round=1, start=None, hparams=hparams, first_step=0, steps=STEPS, seed=0)
        for i in range(members)
    ]
    executor.submit(tasks)
    outcomes = executor.wait()
    reports = [outcome for outcome in outcomes if isinstance(outcome, Report)]
    assert len(reports) == members, outcomes
    return reports


def peak_memory() -> int:
    """Peak resident memory of this process in bytes.

    `ru_maxrss` cannot be used on Linux: a process inherits the value of its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
