"""Train the runs of a comparison in worker processes of one thread each.

Every run is durable round by round, so stopping means killing the workers; the same command resumes their runs.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path

from pbt.compare.design import Design, Trial, next_trial
from pbt.compare.trials import Trained, is_done, train
from pbt.errors import WorkerError
from pbt.executors.process_tree import end, environment, interrupts_blocked
from pbt.runs.experiment import Experiment

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""The limits that libraries of the workers read when they are loaded."""

OnTrial = Callable[[Trial, bool], None]
"""Called for every finished trial, with True if it had finished before."""


def train_all(
    design: Design, experiment: Experiment, workers: int, on_trial: OnTrial = lambda _trial, _before: None
) -> None:
    """Train every run that has not finished.

    Args:
        design: The comparison.
        experiment: The result of `design.experiment()`.
        workers: The most worker processes, at least 1.
        on_trial: Called for each finished run.

    Raises:
        UsageError: A run cannot be trained as designed, or its directory has another run.
        DiskError: The disk is full or failing.
        WorkerError: A worker died.
    """
    waiting = design.trials()
    finished = _finished(design, experiment, waiting)
    for trial in [trial for trial in waiting if trial.path in finished]:
        waiting.remove(trial)
        on_trial(trial, True)
    if not waiting:
        return
    with _workers(min(workers, len(waiting))) as pool:
        running: dict[Future[Trained], Trial] = {}
        while waiting or running:
            while len(running) < workers and (ready := next_trial(waiting, finished)) is not None:
                waiting.remove(ready)
                running[_submit(pool, design, ready)] = ready
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                trial = running.pop(future)
                _take(future, trial)
                finished.add(trial.path)
                on_trial(trial, False)


def _finished(design: Design, experiment: Experiment, trials: Sequence[Trial]) -> set[Path]:
    done: set[Path] = set()
    for trial in trials:
        # A trial whose source has not finished cannot have finished either.
        ready = trial.source is None or trial.source in done
        if ready and is_done(design, experiment, trial):
            done.add(trial.path)
    return done


def _take(future: Future[Trained], trial: Trial) -> None:
    try:
        trained = future.result()
    except BrokenProcessPool as error:
        raise WorkerError(
            f"plan {trial.plan}, seed {trial.seed}: a worker died, perhaps out of memory; repeat the command with "
            "fewer --workers to resume"
        ) from error
    if trained.error is not None:
        raise trained.error(trained.message)


@contextlib.contextmanager
def _workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """A process pool; no worker outlives the context."""
    before = multiprocessing.active_children()
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        with environment(_ONE_THREAD):
            yield pool
    except BaseException:
        # Killed at once: a worker would respond only after its run, which may take hours.
        end([child for child in multiprocessing.active_children() if child not in before], patience=0.0)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, design: Design, trial: Trial) -> "Future[Trained]":
    """Submit a trial. This may start a worker, which inherits a blocked SIGINT until `_begin` ignores it."""
    with interrupts_blocked():
        return pool.submit(train, design, trial)


def _begin() -> None:
    """Initialize a worker: ignore Ctrl-C, which the parent handles, and exit when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Warnings about a single run are in its report.
    logging.getLogger("pbt").setLevel(logging.ERROR)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
