"""Testing beside training: each row is the evaluation of that very checkpoint, and the tester ends with training."""

import csv
import multiprocessing
import os
import signal
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboardX.proto.event_pb2 import Event as Written

from pbt.core.events import Event, Reported
from pbt.errors import RunError
from pbt.mnist.config.record import Config
from pbt.mnist.data.find import load_mnist
from pbt.mnist.results_table import read_tests
from pbt.mnist.side_tester import SideTester, _CheckpointTester
from pbt.mnist.tables import percent
from pbt.mnist.tester import evaluate, images_of
from pbt.mnist.training import prepare
from pbt.runs.engine import Engine, Observer
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from pbt.store.reader import RunReader
from tests.helpers.processes import until

Configure = Callable[..., Config]
INLINE = Placement(executor="inline", threads=1, device="cpu")
STEPS = 10
DUE = [4, 8, 10, 14, 18, 20]
"""The steps with a checkpoint."""


@pytest.fixture
def one(configured: Configure) -> Configure:
    """One small network: 2 epochs of 10 steps, a checkpoint every 4; keys of `test` by a dotted name."""

    def configure(**keys: object) -> Config:
        train = {key: value for key, value in keys.items() if not key.startswith("test.")}
        stored = configured(**{"PBT_lr": None, "PBT_keep_prob": None, "num_epochs": 2, **train}).to_dict()
        stored["test"] |= {key.removeprefix("test."): keys[key] for key in keys.keys() - train.keys()}
        return Config.from_dict(stored)

    return configure


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A tester in this process takes one thread for good."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Each(Observer):
    """Calls something after each checkpoint, and keeps what every checkpoint is worth on the test images."""

    def __init__(self, config: Config, then: Callable[[int], object] = lambda _: None) -> None:
        self.worth: dict[int, tuple[float, float]] = {}
        self._config, self._then = config, then
        data = load_mnist(config.test.data_dir, num_val=config.test.num_val, download=False)
        self._images = images_of(config, data, "test")

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        (report,) = [event for event in events if isinstance(event, Reported)]
        scores = evaluate(self._config, engine.store.load_state(report.state), self._images)
        self.worth[report.step] = scores["loss"], scores["accuracy"]
        self._then(report.step)


def trained(path: Path, config: Config, *observers: Observer, resume: bool = False) -> Run:
    return prepare(config, INLINE).train(path, resume=resume, observers=observers)


def rows_of(path: Path) -> dict[int, tuple[float, float]]:
    """Test loss and accuracy by step, which `results.csv` and `checkpoints.csv` agree about."""
    with (path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["", "epoch", "iter", "test_loss", "test_acc"]
    assert [int(row[""]) for row in rows] == list(range(len(rows)))
    assert [int(row["epoch"]) for row in rows] == [(int(row["iter"]) - 1) // STEPS for row in rows]
    found = {step: (scores["loss"], scores["accuracy"]) for step, scores in read_tests(path).items()}
    shown = {int(row["iter"]): (float(row["test_loss"]), float(row["test_acc"])) for row in rows}
    assert shown == {step: (loss, percent(accuracy)) for step, (loss, accuracy) in found.items()}
    assert len(shown) == len(rows)
    return found


def points_in(folder: Path) -> Counter[tuple[str, int, float]]:
    """Every scalar in the event files of a folder."""
    found: Counter[tuple[str, int, float]] = Counter()
    for path in folder.iterdir():
        blob, at = path.read_bytes(), 0
        while at < len(blob):
            (length,) = struct.unpack_from("<Q", blob, at)
            event = Written.FromString(blob[at + 12 : at + 12 + length])
            found.update((value.tag, event.step, value.simple_value) for value in event.summary.value)
            at += 16 + length
    return found


def as_points(rows: dict[int, tuple[float, float]]) -> Counter[tuple[str, int, float]]:
    """The scalars that these tests are shown as: shares under our tags, percentages under the original's."""
    found: Counter[tuple[str, int, float]] = Counter()
    for step, (loss, right) in rows.items():
        tags = {"test_loss": loss, "test_acc": right, "test_loss_test": loss, "test_acc_test": percent(right)}
        for tag, value in tags.items():
            found[tag, step, struct.unpack("<f", struct.pack("<f", value))[0]] += 1
    return found


# The tester's work, in this process


def test_each_row_is_the_evaluation_of_that_checkpoint(one: Configure, tmp_path: Path) -> None:
    """Tested after each checkpoint, every row is what exactly that network is worth on the test images."""
    path, config = tmp_path / "run", one()
    with closing(_CheckpointTester(config, path, STEPS, debug=False)) as bench:
        each = Each(config, lambda _: bench.test_newest())
        trained(path, config, each)
    assert list(rows_of(path)) == DUE
    assert rows_of(path) == each.worth
    assert len(set(each.worth.values())) == len(DUE)


def test_the_newest_checkpoint_is_tested_and_none_twice(
    one: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tester that comes seldom tests the newest only; what was tested already is not tested again."""
    path, config = tmp_path / "run", one()
    tested: list[Any] = []

    def counted(*words: Any, **how: Any) -> Any:
        tested.append(words)
        return evaluate(*words, **how)

    monkeypatch.setattr("pbt.mnist.side_tester.evaluate", counted)
    with closing(_CheckpointTester(config, path, STEPS, debug=False)) as bench:
        each = Each(config, lambda step: step in {8, 20} and (bench.test_newest(), bench.test_newest()))
        trained(path, config, each)
    assert rows_of(path) == {step: each.worth[step] for step in (8, 20)}
    assert len(tested) == 2


def test_a_tester_that_comes_anew_keeps_the_rows_of_before(one: Configure, tmp_path: Path) -> None:
    """After a resume nothing that was tested is lost or tested again, in the table and in the scalars."""
    path, longer = tmp_path / "run", one(num_epochs=2)
    worth: dict[int, tuple[float, float]] = {}
    for config, resume in ((one(num_epochs=1), False), (longer, True)):
        with closing(_CheckpointTester(config, path, STEPS, debug=False)) as bench:
            bench.test_newest()
            each = Each(config, lambda _, bench=bench: bench.test_newest())
            trained(path, config, each, resume=resume)
            bench.test_newest()
        worth |= each.worth
        if not resume:
            for file in (path / "tensorboard" / "test").iterdir():
                file.rename(file.with_name("events.out.tfevents.1.earlier"))  # names have a second's resolution
    assert rows_of(path) == worth
    assert list(worth) == DUE
    assert points_in(path / "tensorboard" / "test") == as_points(worth)


def test_before_there_is_a_checkpoint_nothing_is_tested(one: Configure, tmp_path: Path) -> None:
    """No directory, and a log without a report, are waited for."""
    path, config = tmp_path / "run", one()

    class Early(Observer):
        def on_start(self, engine: Engine) -> None:
            bench.test_newest()
            assert not (path / "results.csv").exists()
            raise KeyboardInterrupt

    with closing(_CheckpointTester(config, path, STEPS, debug=False)) as bench:
        bench.test_newest()
        assert not path.exists()
        with pytest.raises(KeyboardInterrupt):
            trained(path, config, Early())


def test_a_checkpoint_that_is_swept_meanwhile_gives_way_to_a_newer_one(
    one: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a state is gone between reading the log and the state, the newest one of then is tested."""
    path, config = tmp_path / "run", one()
    each = Each(config)
    trained(path, config, each)
    events, load = RunReader.events, RunReader.load_state
    asked: list[int] = []

    def swept_once(reader: RunReader, ref: Any) -> Any:
        asked.append(ref.round)
        if len(asked) == 1:
            raise KeyError(ref)
        return load(reader, ref)

    monkeypatch.setattr(RunReader, "events", lambda *of: events(*of)[: None if asked else -3])
    monkeypatch.setattr(RunReader, "load_state", swept_once)
    with closing(_CheckpointTester(config, path, STEPS, debug=False)) as bench:
        bench.test_newest()
    assert asked[0] < asked[1] == 6
    assert rows_of(path) == {20: each.worth[20]}


def test_debug_tests_and_writes_nothing(one: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--debug` checkpoints are evaluated, each once, but no table and no scalar is written."""
    path, config = tmp_path / "run", one(num_epochs=1)
    tested: list[Any] = []
    monkeypatch.setattr(
        "pbt.mnist.side_tester.evaluate", lambda *words, **how: tested.append(words) or evaluate(*words, **how)
    )
    with closing(_CheckpointTester(config, path, STEPS, debug=True)) as bench:
        each = Each(config, lambda _: (bench.test_newest(), bench.test_newest()))
        prepare(config, INLINE, debug=True).train(path, resume=False, observers=[each])
    assert len(tested) == 3
    left = {"run.db", "states", "lock", "ckpts", "args_train.json", "args_test.json"}
    assert {entry.name for entry in path.iterdir()} == left


@pytest.mark.parametrize("metric", ["error", "accuracy_onehot"])
def test_a_named_metric_is_a_column_and_a_scalar(one: Configure, tmp_path: Path, metric: str) -> None:
    """A metric that is neither loss nor accuracy has a column in `checkpoints.csv` only, and is shown."""
    path, config = tmp_path / "run", one(**{"test.metric": metric})
    with closing(_CheckpointTester(config, path, STEPS, debug=False)) as bench:
        each = Each(config, lambda _: bench.test_newest())
        trained(path, config, each)
    assert rows_of(path) == each.worth
    named = {step: scores[metric] for step, scores in read_tests(path).items()}
    right = {step: 1 - share if metric == "error" else share for step, (_, share) in each.worth.items()}
    assert named == pytest.approx(right)
    shown = {step: value for tag, step, value in points_in(path / "tensorboard" / "test") if tag == f"test_{metric}"}
    assert shown == pytest.approx(right)


def test_a_metric_that_is_named_later_is_measured_of_the_newest(one: Configure, tmp_path: Path) -> None:
    """Rows from before have no number of a metric that was not named then; one that lacks it is tested anew."""
    path = tmp_path / "run"
    with closing(_CheckpointTester(one(num_epochs=1), path, STEPS, debug=False)) as bench:
        each = Each(one(), lambda _: bench.test_newest())
        trained(path, one(num_epochs=1), each)
    config = one(**{"num_epochs": 1, "test.metric": "error"})
    trained(path, config, resume=True)
    with closing(_CheckpointTester(config, path, STEPS, debug=False)) as bench:
        bench.test_newest()
    assert rows_of(path) == each.worth
    assert {step for step, scores in read_tests(path).items() if "error" in scores} == {10}


def test_the_scalars_of_training_and_testing_are_the_tables(one: Configure, tmp_path: Path) -> None:
    """TensorBoard shows the training losses of the log, the epochs' rates, and the rows of `results.csv`."""
    path, config = tmp_path / "run", one(decreasing_lr_epochs="1", lr=0.5)
    with closing(_CheckpointTester(config, path, STEPS, debug=False)) as bench:
        each = Each(config, lambda _: bench.test_newest())
        run = trained(path, config, each)
    assert points_in(path / "tensorboard" / "test") == as_points(each.worth)
    shown = points_in(path / "tensorboard" / "train")
    assert set(shown.values()) == {1}
    assert {(tag, step): value for tag, step, value in shown if tag == "epoch_lr"} == {
        ("epoch_lr", 1): 0.5,
        ("epoch_lr", 2): 0.25,
    }
    reports = run.tree.reports.values()
    for tag, column in (("train_loss", 1), ("train_acc", 2)):
        logged = {int(row[0]): row[column] for report in reports for row in report.reported["rows"]}
        assert {step: value for name, step, value in shown if name == tag} == pytest.approx(logged)
    held_out = {report.step: report.scores[0] for report in reports}
    assert {step: value for name, step, value in shown if name == "val_acc"} == pytest.approx(held_out)


def test_without_tensorboardx_testing_writes_its_table(
    one: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where tensorboardX is not installed there are no scalars, and everything else is there."""
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    path, config = tmp_path / "run", one(num_epochs=1)
    with closing(_CheckpointTester(config, path, STEPS, debug=False)) as bench:
        each = Each(config, lambda _: bench.test_newest())
        trained(path, config, each)
    assert rows_of(path) == each.worth
    assert len((path / "loss_summary.csv").read_text().splitlines()) == 4
    assert not (path / "tensorboard").exists()


# The tester as a process


def children() -> list[Any]:
    return [child for child in multiprocessing.active_children() if child.is_alive()]


@pytest.mark.usefixtures("warm")
def test_checkpoints_are_tested_while_training_runs(one: Configure, tmp_path: Path) -> None:
    """The process tests the newest checkpoint every `sleep_time_sec`, and is gone when training is over."""
    path, config = tmp_path / "run", one(**{"test.sleep_time_sec": 0.1})

    def wait_for_row(step: int) -> None:
        until(lambda: step in read_tests(path))

    each = Each(config, wait_for_row)
    with SideTester(config, path, STEPS) as beside:
        assert len(children()) == 1
        trained(path, config, each)
    assert not beside.failure
    assert not children()
    assert list(rows_of(path)) == DUE
    assert rows_of(path) == each.worth
    assert points_in(path / "tensorboard" / "test") == as_points(each.worth)


@pytest.mark.slow
def test_a_long_pause_leaves_the_last_test(one: Configure, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Training that is over before the pause is waits for no pause: the last checkpoint is tested at once.

    Ctrl-C, which reaches a whole process group, is the parent's affair from the tester's first moment.
    """
    path, config = tmp_path / "run", one(**{"test.sleep_time_sec": 1000})
    each = Each(config)
    with SideTester(config, path, STEPS) as beside:
        (child,) = children()
        os.kill(child.pid, signal.SIGINT)
        trained(path, config, each)
    assert not beside.failure
    assert rows_of(path) == {20: each.worth[20]}
    assert "Traceback" not in capfd.readouterr().err
    # Only the child is deaf.
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.usefixtures("warm")
def test_why_testing_failed_is_told(one: Configure, make_digits: Callable[..., Path], tmp_path: Path) -> None:
    """What stops the tester, here damaged test images, is told when training is over, and stops no training."""
    damaged = make_digits(tmp_path / "damaged")
    (damaged / "t10k-images-idx3-ubyte").write_bytes(b"not images")
    path, config = tmp_path / "run", one(**{"test.data_dir": str(damaged), "test.sleep_time_sec": 0})
    with SideTester(config, path, STEPS) as beside:
        (child,) = children()
        trained(path, config)
        child.join(30)  # it failed long before it is asked for the last test
    assert "t10k-images-idx3-ubyte: expected" in beside.failure
    assert len(Run.open(path).tree.reports) == 6
    assert not children()


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tester that is waited for without a reason is waited for beyond the time of the test."""
    monkeypatch.setattr("pbt.mnist.side_tester.PATIENCE", 3600.0)


@pytest.mark.usefixtures("_patient")
def test_a_tester_that_was_killed_is_told(one: Configure, tmp_path: Path) -> None:
    """A tester that somebody killed is a failure of testing, not a hang."""
    with SideTester(one(), tmp_path / "run", STEPS) as beside:
        (child,) = children()
        child.kill()
        child.join()
    assert beside.failure == "its process died"


@pytest.mark.long
@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("error", [KeyboardInterrupt, RunError])
def test_the_tester_ends_when_training_does_not_come_to_its_end(
    one: Configure, tmp_path: Path, error: type[BaseException]
) -> None:
    """Whatever ends training early ends the tester, which is not waited for, and is what is told."""
    beside = SideTester(one(), tmp_path / "run", STEPS)

    def fail() -> None:
        with beside:
            assert children()
            raise error

    with pytest.raises(error):
        fail()
    assert not children()
    assert not beside.failure
