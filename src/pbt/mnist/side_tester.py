"""Test beside training: a process that tests the newest checkpoint at intervals, and once more at the end.

It reads the run directory like any other reader. The log names a checkpoint only when it is complete, so a half-written
one is never tested. The process ends with the training, also if the training is killed.
"""

import contextlib
import multiprocessing
import shutil
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pbt.core.events import Reported
from pbt.errors import MissingExtraError, PBTError
from pbt.executors.process_tree import interrupts_blocked
from pbt.mnist.config.record import Config
from pbt.mnist.placement import gpu_of
from pbt.mnist.results_table import Tests, measured, read_tests, record_test
from pbt.mnist.tables import percent
from pbt.mnist.task import evaluation_batch, find_data
from pbt.mnist.tester import evaluate, images_of
from pbt.runs.callbacks.tensorboard import FOLDER, writer_maker
from pbt.runs.engine import Engine, Observer
from pbt.store.layout import DATABASE
from pbt.store.reader import RunReader

PATIENCE = 120.0
"""Seconds that the last test may take."""
_SHORTEST = 0.1
"""Shortest pause between tests, in seconds."""


class SideTester:
    """Context manager around the training of a network, which another process tests.

    Afterwards `failure` is the reason why testing failed, or empty.

    Args:
        config: The configuration.
        path: The run directory, which may not exist yet.
        steps_per_epoch: Training steps of an epoch.
        debug: Test, but write nothing.
        device: Device given on the command line. Default: the first of the test section's `gpus`.
    """

    def __init__(
        self, config: Config, path: Path, steps_per_epoch: int, *, debug: bool = False, device: str | None = None
    ) -> None:
        self.failure = ""
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, config.to_dict(), path, steps_per_epoch, debug, device)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._theirs = theirs

    def __enter__(self) -> Self:
        with interrupts_blocked():  # only the parent handles Ctrl-C
            self._process.start()
        self._theirs.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last test if training finished, else stop the tester."""
        try:
            if kind is None:
                # A tester that failed has ended, but its message is still in the pipe.
                with contextlib.suppress(OSError):
                    self._connection.send("end")
                self.failure = self._connection.recv() if self._connection.poll(PATIENCE) else "it did not end in time"
        except (OSError, EOFError):
            self.failure = "its process died"
        finally:
            self._connection.close()
            self._process.join(2.0)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()


class StartTester(Observer):
    """Starts a tester with the training, after all checks.

    Args:
        tester: The tester.
        stack: Stops the tester when it is closed.
    """

    def __init__(self, tester: SideTester, stack: contextlib.ExitStack) -> None:
        self._tester, self._stack = tester, stack

    def on_start(self, engine: Engine) -> None:  # noqa: ARG002 (one signature for all observers)
        """Start the tester."""
        self._stack.enter_context(self._tester)


def _work(
    connection: Connection,
    stored: Mapping[str, Any],
    path: Path,
    steps_per_epoch: int,
    debug: bool,
    device: str | None,
) -> None:
    config = Config.from_dict(stored)
    failure, ending = "", False
    try:
        with contextlib.closing(_CheckpointTester(config, path, steps_per_epoch, debug=debug, device=device)) as tester:
            while not ending:
                ending = _is_ending(connection, max(config.test.sleep_time_sec, _SHORTEST))
                tester.test_newest()
    except EOFError:
        return
    except PBTError as error:
        failure = str(error)
    connection.send(failure)


def _is_ending(connection: Connection, seconds: float) -> bool:
    """Wait, at most until training finishes; returns whether it has. EOFError: the training process died."""
    if connection.poll(seconds):
        connection.recv()
        return True
    return False


class _CheckpointTester:
    """Tests the newest checkpoint, once each."""

    def __init__(
        self, config: Config, path: Path, steps_per_epoch: int, *, debug: bool, device: str | None = None
    ) -> None:
        self._config = config
        self._device = device or gpu_of(config.test.gpus)
        self._debug = debug
        self._metrics = measured(config.test.metric)
        self._tested: set[int] = set()
        self._writer: Any = None
        self._path = path
        self._steps_per_epoch = steps_per_epoch
        data = find_data(config.test, held_out=False)
        self._note = data.note
        self._images = images_of(config, data, "test")
        # Training should not be slowed down by testing.
        import torch

        torch.set_num_threads(1)

    def test_newest(self) -> None:
        """Test the newest checkpoint, unless it has been tested, and add it to the tables."""
        if not (self._path / DATABASE).is_file():
            return
        with RunReader(self._path) as reader:
            found = self._newest(reader)
        if found is None:
            return
        report, state = found
        there = read_tests(self._path).get(report.step, {})
        if report.step in self._tested or there.keys() >= {*self._metrics}:
            return
        scores = evaluate(
            self._config,
            state,
            self._images,
            self._metrics,
            device=self._device,
            batch=evaluation_batch(self._config.test.batch_size),
        )
        self._tested.add(report.step)
        if not self._debug:
            tests = record_test(self._path, report.step, scores, self._steps_per_epoch, self._note)
            self._show(tests, report.step)

    def close(self) -> None:
        """Close the file of the scalars."""
        if self._writer is not None:
            self._writer.close()

    def _show(self, tests: Tests, step: int) -> None:
        """Write the tests as scalars: with the first new one also all earlier ones."""
        new = list(tests) if self._writer is None else [step]
        if self._writer is None:
            folder = self._path / FOLDER / "test"
            shutil.rmtree(folder, ignore_errors=True)
            try:
                self._writer = writer_maker()(str(folder))
            except MissingExtraError:
                return
        for at in new:
            for name, value in tests[at].items():
                self._writer.add_scalar(f"test_{'acc' if name == 'accuracy' else name}", value, at)
            # The original's tags.
            self._writer.add_scalar("test_loss_test", tests[at]["loss"], at)
            self._writer.add_scalar("test_acc_test", percent(tests[at]["accuracy"]), at)

    def _newest(self, reader: RunReader) -> tuple[Reported, Mapping[str, Any]] | None:
        """The newest report and its state; a state deleted between the two reads has a successor."""
        for _ in range(5):
            reports = [event for event in reader.events() if isinstance(event, Reported)]
            if not reports:
                return None
            try:
                return reports[-1], reader.load_state(reports[-1].state)
            except KeyError:
                time.sleep(0.1)
        return None
