"""`main.py` as people meet it: its modes, what it says when something ends early, and what it refuses."""

import csv
import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pbt.cli.app import main
from pbt.mnist import training
from pbt.mnist.commands import single
from pbt.mnist.config.record import load_config
from pbt.mnist.data.find import load_mnist
from pbt.mnist.results_table import read_tests
from pbt.mnist.side_tester import SideTester
from pbt.mnist.tables import percent
from pbt.mnist.tester import evaluate, images_of, load_checkpoint
from pbt.mnist.training import prepare, resume
from pbt.pytorch.state import threads_of
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from pbt.store.sqlite import RunStore
from tests.helpers.processes import until

ROOT = Path(__file__).parents[2]
INLINE = Placement(executor="inline", threads=1, device="cpu")
TABLES = {"args_train.json", "args_test.json", "checkpoints.csv", "loss_summary.csv", "ckpts", "tensorboard"}
LOG = {"run.db", "states", "lock"}
KEPT = {"args_train.json", "args_test.json", "ckpts"}
"""What is left beside the log with `--debug`."""


def words(digits: Path, **keys: object) -> list[str]:
    """The words that make a shipped configuration small: 10 steps an epoch, 2 epochs, a checkpoint every 4 steps."""
    small = {
        "gpus": "",
        "n_hiddens": 16,
        "n_filters": 2,
        "num_val": 100,
        "batch_size": 50,
        "num_epochs": 2,
        "num_iters_for_ckpt": 4,
        "threads": 1,
        "sleep_time_sec": 0.1,
        "data_dir": digits,
        **keys,
    }
    return [word for key, value in small.items() for word in ("--set", f"{key}={value}")]


@dataclass
class Here:
    """`main.py` in this process: much quicker to start, and no less the command."""

    digits: Path
    capfd: pytest.CaptureFixture[str]

    def __call__(self, *more: str, config: str = "fc.json", code: int = 0, **keys: object) -> str:
        """Answers what was printed, on both streams, after the exit code was checked."""
        found = single([str(ROOT / "config" / config), *words(self.digits, **keys), *more])
        said = self.capfd.readouterr()
        assert found == code, said.out + said.err
        assert "Traceback" not in said.err
        assert not [child for child in multiprocessing.active_children() if child.is_alive()]
        return said.out + said.err


@pytest.fixture
def here(digits: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Here:
    monkeypatch.chdir(tmp_path)
    return Here(digits, capfd)


def names_in(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def worth(digits: Path, ckpt: Path) -> tuple[float, float]:
    """What a checkpoint of the small network is worth on the test images, evaluated apart from all commands."""
    config = load_config(ROOT / "config" / "fc.json", overrides={"n_hiddens": "16", "num_val": "100"})
    images = images_of(config, load_mnist(digits, num_val=100, download=False), "test")
    with threads_of(1):
        scores = evaluate(config, load_checkpoint(ckpt), images)
    return scores["loss"], scores["accuracy"]


def results_of(path: Path) -> dict[int, tuple[float, float]]:
    """Loss and accuracy by step, which both tables that have tests agree about."""
    found = {step: (scores["loss"], scores["accuracy"]) for step, scores in read_tests(path).items()}
    shown = {int(row["iter"]): (float(row["test_loss"]), float(row["test_acc"])) for row in table_of(path, "results")}
    assert shown == {step: (loss, percent(accuracy)) for step, (loss, accuracy) in found.items()}
    return found


def table_of(path: Path, name: str) -> list[dict[str, str]]:
    with (path / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def losses(path: Path) -> dict[int, str]:
    """The test losses in `loss_summary.csv`, by step."""
    return {int(row["iter"]): row["test_loss"] for row in table_of(path, "loss_summary")}


def losses_of_tests(path: Path) -> dict[int, float]:
    return {step: float(loss) for step, loss in losses(path).items() if loss != "-1"}


# The modes


@pytest.mark.long
def test_without_a_mode_training_and_testing_go_side_by_side(here: Here, digits: Path, tmp_path: Path) -> None:
    """Both end well in a dated directory, the last checkpoint is tested at the end, and every file is there."""
    said = here("--train-dir", "runs")
    (path,) = [path for path in (tmp_path / "runs").iterdir() if not path.is_symlink()]
    assert path.name.startswith("mnist-fc-")
    assert names_in(path) == LOG | TABLES | {"results.csv"}
    assert {entry.name for entry in (path / "tensorboard").iterdir()} == {"train", "test"}
    assert results_of(path)[20] == worth(digits, path / "ckpts" / "latest.safetensors")
    # The losses have what the very last test found, too.
    assert len(losses(path)) == 6
    assert losses_of_tests(path) == {step: loss for step, (loss, _) in results_of(path).items()}
    assert "chosen by validation" in said
    assert f"accuracy {worth(digits, path / 'ckpts' / 'best.safetensors')[1]:.4f}" in said
    assert results_of(path)[chosen(path)] == worth(digits, path / "ckpts" / "best.safetensors")
    assert "not MNIST" in said
    # All of it is on record, also what came after the last checkpoint.
    tables = {name: (path / name).read_bytes() for name in ("results.csv", "loss_summary.csv")}
    for name in ("results.csv", "checkpoints.csv"):
        (path / name).unlink()
    resume(path)
    assert {name: (path / name).read_bytes() for name in tables} == tables


def test_training_only_tests_nothing(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-m train` starts no tester, looks at no test image and leaves no test results."""
    monkeypatch.setattr(SideTester, "__init__", lambda *_, **__: pytest.fail("a tester was made"))
    said = here("-m", "train", "--out", "run")
    assert names_in(Path("run")) == LOG | TABLES
    assert "test images" not in said
    assert set(losses(Path("run")).values()) == {"-1"}


@pytest.mark.parametrize("config", ["fc.json", "conv.json"])
def test_train_then_test(here: Here, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-m traintest` tests what validation chose when training is over, as `-m test` and `-m val` do afterwards."""
    monkeypatch.setattr(SideTester, "__init__", lambda *_, **__: pytest.fail("a tester was made"))
    said = here("-m", "traintest", "--out", "runs/one", config=config, num_epochs=1)
    (line,) = [line for line in said.splitlines() if "100 test images" in line]
    table = Path("runs/one/results.csv").read_bytes()
    assert line in here("-m", "test", config=config)
    assert Path("runs/one/results.csv").read_bytes() == table
    best = Run.open("runs/one").best
    held_out = f"100 held-out images: loss {best.reported['val_loss']:.4f}, accuracy {best.score:.4f}"
    assert held_out in here("-m", "val", config=config)


def test_test_none_tests_nothing(here: Here) -> None:
    """`version: "test_none"` in the test section makes a run without a mode one of training only."""
    said = here("--set", "test.version=test_none", "--out", "run", num_epochs=1)
    assert names_in(Path("run")) == LOG | TABLES
    assert "test images" not in said


def test_a_checkpoint_is_tested_with_the_arguments_of_its_directory(here: Here, digits: Path) -> None:
    """`-m test` with `load_ckpt` takes network and data from that directory, whatever the file says."""
    here("-m", "train", "--out", "run", num_epochs=1)
    for name in ("latest", "best"):
        ckpt = Path("run") / "ckpts" / f"{name}.safetensors"
        loss, right = worth(digits, ckpt)
        words = ["-m", "test", "--set", f"test.load_ckpt={ckpt}"]
        assert single([str(ROOT / "config" / "conv.json"), *words]) == 0
        assert f"100 test images: loss {loss:.4f}, accuracy {right:.4f}" in here.capfd.readouterr().out
        assert "n_hiddens: the checkpoint was trained with 16, got 99" in here(*words, n_hiddens=99, code=2)


def chosen(path: Path) -> int:
    """The step of what validation chose."""
    return Run.open(path).best.step


def test_training_then_testing_adds_a_row(here: Here, digits: Path) -> None:
    """`-m traintest` leaves the tested checkpoint in `results.csv` and its loss in `loss_summary.csv`."""
    said = here("-m", "traintest", "--out", "run")
    run = Path("run")
    assert "results.csv" in said
    assert results_of(run) == {chosen(run): worth(digits, run / "ckpts" / "best.safetensors")}
    assert losses_of_tests(run) == {chosen(run): results_of(run)[chosen(run)][0]}


def test_testing_adds_a_row_for_the_checkpoint_that_it_tested(here: Here, digits: Path) -> None:
    """`-m test` puts each checkpoint under its own epoch and step, beside the rows that are there; `-m val` none."""
    here("-m", "train", "--out", "runs/one")
    run = Path("runs/one")
    here("-m", "val")
    assert not (run / "results.csv").exists()
    expected = {}
    for name, step in (("latest", 20), ("best", chosen(run))):
        ckpt = run / "ckpts" / f"{name}.safetensors"
        here("-m", "test", load_ckpt=ckpt)
        expected[step] = worth(digits, ckpt)
        assert results_of(run) == expected
    here("-m", "test")
    assert results_of(run) == expected
    assert losses_of_tests(run).keys() == expected.keys()


def test_testing_with_debug_writes_nothing(here: Here) -> None:
    """`--debug` keeps every file as it was in the modes that test, too."""
    here("-m", "train", "--out", "runs/one", num_epochs=1)
    before = {path: path.read_bytes() for path in Path("runs/one").rglob("*") if path.is_file()}
    assert "100 test images" in here("-m", "test", "--debug")
    assert {path: path.read_bytes() for path in Path("runs/one").rglob("*") if path.is_file()} == before
    here("-m", "traintest", "--debug", "--out", "runs/two", num_epochs=1)
    assert names_in(Path("runs/two")) == LOG | KEPT


def test_a_copied_checkpoint_is_tested_without_a_row(here: Here, tmp_path: Path) -> None:
    """A checkpoint that lies in no training directory has no table; one that the run does not know gets no row."""
    here("-m", "train", "--out", "run", num_epochs=1)
    here("-m", "train", "--out", "other", num_epochs=1, seed=5)
    blob = Path("other/ckpts/latest.safetensors").read_bytes()
    for name in ("network.safetensors", "run/ckpts/other.safetensors"):
        Path(name).write_bytes(blob)
        assert "100 test images" in here("-m", "test", load_ckpt=name)
    assert not list(tmp_path.rglob("results.csv"))


@pytest.mark.usefixtures("warm")
def test_the_named_metric_is_in_table_and_line(here: Here) -> None:
    """In every mode that tests, a metric that is neither loss nor accuracy is printed and has a column."""
    keys = {"test.metric": "error"}
    for mode in (["-m", "traintest"], []):
        said = here(*mode, "--out", f"run{len(mode)}", num_epochs=1, **keys)
        run = Path(f"run{len(mode)}")
        scores = read_tests(run)[chosen(run)]
        assert scores["error"] == pytest.approx(1 - scores["accuracy"])
        assert f"accuracy {scores['accuracy']:.4f}, error {scores['error']:.4f}" in said


def test_without_load_ckpt_the_newest_directory_is_tested(here: Here) -> None:
    """`-m test` tests the training directory that was written last, and says which."""
    for seed, name in ((1, "b"), (2, "a")):
        here("-m", "train", "--out", f"runs/{name}", seed=seed, num_epochs=1)
    os.utime("runs/b/run.db", (1, 1))
    assert "runs/a, chosen by validation" in here("-m", "test")


@pytest.mark.parametrize("mode", ["test", "val"])
def test_without_a_training_directory_the_error_says_so(here: Here, tmp_path: Path, mode: str) -> None:
    """Nothing to test is an error with what to do, and leaves nothing behind."""
    said = here("-m", mode, code=2)
    assert said.startswith("main.py: error: expected a training directory in")
    assert "train first, or set load_ckpt" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("warm")
def test_debug_leaves_arguments_and_the_newest_checkpoint(here: Here) -> None:
    """`--debug` trains and tests, and writes no table, no scalar and no best checkpoint."""
    said = here("--debug", "--out", "run", num_epochs=1)
    assert names_in(Path("run")) == LOG | KEPT
    assert names_in(Path("run/ckpts")) == {"latest.safetensors"}
    assert "100 test images" in said


def test_the_start_says_how_large_the_network_is(here: Here) -> None:
    """The first lines name the network with its parameters, and the data."""
    said = here("-m", "train", "--out", "run", num_epochs=1)
    assert "network: fc 16, 12,762 parameters" in said
    assert "data: " in said


def test_devices_of_the_file_that_are_not_there_are_a_notice(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    """`gpus` that nobody has train on the CPU with one notice; none named is the CPU without one."""
    with caplog.at_level("INFO", "pbt"):
        here("-m", "train", "--out", "none", num_epochs=1)
        assert "gpus" not in caplog.text
        here("-m", "train", "--out", "some", num_epochs=1, gpus="1000,1001")
    assert "none exists, using the CPU" in caplog.text
    assert [Run.open(name).meta["place"]["device"] for name in ("none", "some")] == ["cpu", "cpu"]


UNUSED = [("--out", "x"), ("--max-disk", "2G"), ("--address", "auto"), ("--executor", "ray")]


@pytest.mark.parametrize("option", UNUSED)
@pytest.mark.parametrize("mode", ["test", "val"])
def test_options_that_testing_has_no_use_for_are_refused(here: Here, mode: str, option: tuple[str, str]) -> None:
    """An option of training is not passed over in silence by a mode that trains nothing."""
    assert f"{option[0]}: has no effect with -m {mode}" in here("-m", mode, *option, code=2)


def test_evaluation_of_the_held_out_images_has_a_table_of_its_own(here: Here) -> None:
    """`-m val` adds a row to `results<val>.csv`: the epoch from 0, steps since the start, accuracy in percent."""
    here("-m", "train", "--out", "runs/one")
    for name in ("latest", "best", "latest"):
        here("-m", "val", load_ckpt=f"runs/one/ckpts/{name}.safetensors")
    assert sorted(path.name for path in Path("runs/one").glob("results*")) == ["results_val.csv"]
    head, *rows = [line.split(",") for line in Path("runs/one/results_val.csv").read_text().splitlines()]
    assert head == ["", "epoch", "iter", "val_loss", "val_acc"]
    run = Run.open("runs/one")
    found = {int(row[2]): (int(row[1]), float(row[4])) for row in rows}
    for report in (run.tree.reports[run.best.state], list(run.tree.reports.values())[-1]):
        assert found[report.step] == ((report.step - 1) // 10, pytest.approx(100 * report.scores[0]))
    assert [row[0] for row in rows] == [str(index) for index in range(len(rows))]
    here("-m", "val", "--set", "val.val=.held-out")
    assert Path("runs/one/results.held-out.csv").is_file()
    assert "100 held-out images" in here("-m", "val", "--debug", "--set", "val.val=_none")
    assert not Path("runs/one/results_none.csv").exists()


@pytest.mark.parametrize("executor", ["processes", "vectorized"])
def test_an_executor_of_populations_is_refused(here: Here, executor: str) -> None:
    """The key `executor` is obeyed by a single network where it can be, and else refused."""
    assert f"executor: expected auto, inline or ray for a single network, got {executor}" in here(
        executor=executor, code=2
    )


# Going on


@pytest.mark.usefixtures("warm")
def test_load_ckpt_goes_on_with_more_epochs(here: Here, digits: Path) -> None:
    """Training goes on in the directory of the checkpoint, with the data where they are now, to the bits of one run."""
    here("-m", "train", "--out", "whole")
    here("--out", "run", num_epochs=1)
    before = results_of(Path("run"))
    moved = digits_moved(digits)
    here("--data-dir", str(moved), load_ckpt="run/ckpts/latest.safetensors")
    one, two = (Run.open(name).tree.reports for name in ("run", "whole"))
    assert [report.digest for report in one.values()] == [report.digest for report in two.values()]
    assert before.items() <= results_of(Path("run")).items()
    assert results_of(Path("run"))[20] == worth(digits, Path("run/ckpts/latest.safetensors"))
    assert json.loads(Path("run/args_train.json").read_text())["num_epochs"] == 2


def digits_moved(digits: Path) -> Path:
    """The same images in another folder."""
    moved = Path("moved").absolute()
    moved.symlink_to(digits)
    return moved


def test_the_test_at_the_end_takes_the_data_where_they_are_now(
    here: Here, make_digits: Callable[..., Path], digits: Path, tmp_path: Path
) -> None:
    """Where the recorded data folder is gone, the final test takes the one that was named, not some other images."""
    old = make_digits(tmp_path / "old")
    here("-m", "train", "--out", "run", num_epochs=1, data_dir=old)
    old.rename(tmp_path / "new")
    said = here("-m", "traintest", load_ckpt="run/ckpts/latest.safetensors", data_dir=tmp_path / "new")
    loss, right = worth(digits, Path("run/ckpts/best.safetensors"))
    assert f"100 test images: loss {loss:.4f}, accuracy {right:.4f}" in said


WORDS = {"member", "members", "population", "founder", "founders", "round", "rounds", "hand", "worker", "workers"}
"""What a single network has none of."""


@pytest.mark.parametrize("num_val", [100, 0])
def test_a_single_network_speaks_of_epochs_and_checkpoints(here: Here, num_val: int) -> None:
    """No message of training, testing, status and resume has a population's words, or claims a validation in vain."""
    said = here("-m", "traintest", "--out", "run", num_val=num_val)
    for words in (["status", "run"], ["resume", "run"]):
        assert main(words) == 0
        shown = here.capfd.readouterr()
        said += shown.out + shown.err
    assert not WORDS & set(re.findall(r"[a-z]+", said))
    assert ("validation" in said) is (num_val > 0)
    assert f"epoch {0.4 if num_val else 0.33}, step 4 · training loss" in said
    assert "6 of 6 checkpoints done" in said
    assert ("Best checkpoint: after epoch" if num_val else "Newest checkpoint: after epoch 2") in said


# What ends early


@pytest.mark.long
def test_training_that_diverges_is_told(here: Here) -> None:
    """A loss that is no number ends command and tester: exit code 1, one message, no process left."""
    said = here("--out", "run", code=1, lr=10, batch_norm=0, keep_prob=1, n_hiddens=",".join(["16"] * 40))
    last = said.splitlines()[-1]
    assert last.startswith("main.py: error: training failed after epoch ")
    assert not WORDS & set(re.findall(r"[a-z]+", said))
    assert "not a finite number" in last
    assert not Path("run/results.csv").exists()


def test_training_that_dies_is_told(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in training, whatever it is, ends the command with exit code 1 and its message."""

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("no luck")

    whole = training.supervised

    class Broken:
        def __init__(self, task: Any) -> None:
            self.check = task.check

        def trainer(self, device: str, threads: int) -> Any:
            return broken

    monkeypatch.setattr(training, "supervised", lambda config, **how: Broken(whole(config, **how)))
    said = here("--out", "run", code=1)
    assert "ZeroDivisionError: no luck" in said.splitlines()[-1]


@pytest.mark.parametrize("mode", [[], ["-m", "traintest"]])
def test_test_images_that_cannot_be_read_are_told_before_training(
    here: Here, make_digits: Callable[..., Path], tmp_path: Path, mode: list[str]
) -> None:
    """A data folder of the test section is looked at before anything is trained; `-m train` has no need of it."""
    damaged = make_digits(tmp_path / "damaged")
    (damaged / "t10k-labels-idx1-ubyte").write_bytes(b"not labels")
    words = ["--set", f"test.data_dir={damaged}", "--out", "run"]
    said = here(*words, *mode, code=2)
    assert said.startswith("main.py: error: ")
    assert "t10k-labels-idx1-ubyte: expected IDX magic" in said
    assert not Path("run").exists()
    here(*words, "-m", "train", num_epochs=1)


@pytest.mark.parametrize("words", [["--device", "cuda:1000"], ["--set", "crop=1"], ["--out", "taken"]])
def test_what_is_refused_is_refused_before_a_tester_starts(
    here: Here, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Without a mode, what cannot be trained starts no second process."""
    Path("taken").mkdir()
    Path("taken/thesis.txt").write_text("the only copy")
    monkeypatch.setattr(SideTester, "__enter__", lambda *_: pytest.fail("a tester was started"))
    here(*words, code=2)


def test_a_run_that_is_being_trained_is_refused_before_a_tester_starts(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even what training itself refuses at its very start, here a run that another process writes, starts none."""
    here("-m", "train", "--out", "run", num_epochs=1)
    monkeypatch.setattr(SideTester, "__enter__", lambda *_: pytest.fail("a tester was started"))
    with RunStore.open("run"):
        assert "expected no other writer" in here(load_ckpt="run/ckpts/latest.safetensors", code=2)


@pytest.mark.usefixtures("warm")
def test_testing_that_fails_is_told(
    here: Here, make_digits: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training comes to its end without the tester; the command then says why there are no tests, and exits with 1."""
    damaged = make_digits(tmp_path / "damaged")
    enter = SideTester.__enter__

    def damage(tester: SideTester) -> SideTester:
        (damaged / "t10k-labels-idx1-ubyte").write_bytes(b"not labels")
        return enter(tester)

    monkeypatch.setattr(SideTester, "__enter__", damage)
    said = here("--set", f"test.data_dir={damaged}", "--out", "run", code=1)
    assert said.splitlines()[-1].startswith("main.py: error: testing beside training failed: ")
    assert "t10k-labels-idx1-ubyte: expected IDX magic" in said
    assert len(Run.open("run").tree.reports) == 6


def alive_in_group(group: int) -> list[int]:
    """The processes of a group that run; where there is no /proc, whether there is any."""
    if not Path("/proc/self/stat").exists():
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return []
        return [group]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, pgrp, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(entry.name))
    return found


def wait_until(what: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Wait until this is true, or the process has ended."""
    until(lambda: what() or process.poll() is not None)
    assert process.poll() is None, process.communicate()


def rows(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.slow
def test_when_training_is_killed_the_tester_ends(program: Any, digits: Path, tmp_path: Path) -> None:
    """After SIGKILL to the training process alone, nothing of it is left."""
    process = program.begin(
        str(ROOT / "config" / "fc.json"), *words(digits, num_epochs=100_000), "--out", "run", script="main.py"
    )
    wait_until((tmp_path / "run" / "results.csv").exists, process)
    assert len(alive_in_group(process.pid)) > 1
    process.kill()
    process.wait()
    until(lambda: not alive_in_group(process.pid))
    process.communicate()


@pytest.mark.slow
def test_a_killed_training_is_resumed_to_the_bits_of_an_undisturbed_one(
    program: Any, digits: Path, derived: Callable[[Path], dict[str, bytes]], tmp_path: Path
) -> None:
    """After SIGKILL in the middle, `pbt resume` leaves the log, tables and checkpoints of one that never was."""
    more = words(digits, num_epochs=14)
    config = str(ROOT / "config" / "fc.json")
    process = program.begin(config, *more, "-m", "train", "--out", "run", script="main.py")
    wait_until(lambda: rows(tmp_path / "run" / "loss_summary.csv") > 12, process)
    process.kill()
    process.communicate()
    stopped = len(Run.open(tmp_path / "run").tree.reports)
    run = resume(tmp_path / "run")
    overrides = dict(word.split("=", 1) for word in more[1::2])
    whole = prepare(load_config(config, overrides=overrides), INLINE).train(tmp_path / "whole", resume=False)
    assert 10 < stopped < 42 == len(run.tree.reports)
    assert run.events == whole.events
    assert derived(tmp_path / "run") == derived(tmp_path / "whole")


@pytest.mark.slow
def test_ctrl_c_keeps_everything_and_prints_the_line_that_goes_on(program: Any, digits: Path, tmp_path: Path) -> None:
    """SIGINT to the whole group ends training and tester in good order, with 130 and the line that goes on."""
    process = program.begin(
        str(ROOT / "config" / "fc.json"), *words(digits, num_epochs=100_000), "--out", "a run", script="main.py"
    )
    # Early, while the tester is still being started.
    wait_until(lambda: rows(tmp_path / "a run" / "loss_summary.csv") > 4, process)
    os.killpg(process.pid, signal.SIGINT)
    # After PATIENCE seconds the end would be forced.
    _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err, err
    assert err.splitlines()[-1] == "main.py: stopped; state kept; resume with: pbt resume 'a run'"
    until(lambda: not alive_in_group(process.pid))
    assert len(Run.open(tmp_path / "a run").tree.reports) >= 3


# What is refused


@dataclass(frozen=True)
class Wrong:
    words: tuple[str, ...]
    said: str


WRONG = {
    "evolving": Wrong(("--set", "PBT_keep_prob=0.5,0.9"), "a population is trained by main_PBT.py"),
    "unknown key": Wrong(("--set", "learning_rate=1"), "learning_rate: unknown key"),
    "unknown mode": Wrong(("-m", "tset"), "tset"),
    "crop without a shift": Wrong(("--set", "crop=1"), "crop: expected crop_shift"),
    "absent device": Wrong(("--device", "cuda:1000"), "device 'cuda:1000' does not exist"),
    "directory that is taken": Wrong(("--out", "taken"), "taken: expected a new or empty directory, found one"),
    "no checkpoint": Wrong(("--set", "load_ckpt=nowhere/ckpts/latest.safetensors"), "cannot read nowhere"),
    "no checkpoint to test": Wrong(("-m", "test", "--set", "test.load_ckpt=nowhere"), "cannot read nowhere"),
    "pickle to test": Wrong(("-m", "test", "--set", "test.load_ckpt=pickle"), "expected a safetensors checkpoint"),
    "unlabeled PNG": Wrong(("--set", "data_dir=pngs"), "one.png: expected the label behind the last underscore"),
    "data in a file": Wrong(("--set", "data_dir=pickle"), "pickle: expected a folder with MNIST's four files"),
    "more held out than there is": Wrong(("--set", "num_val=600"), "num_val: expected 0 to 599 of 600 images"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_error_and_nothing_begun(here: Here, tmp_path: Path, name: str) -> None:
    """What is wrong is said in one or two lines, the exit code is 2, and no file is made or changed."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("the only copy")
    (tmp_path / "pickle").write_bytes(pickle.dumps({"model": {}}))
    for split in ("train", "test"):
        (tmp_path / "pngs" / split).mkdir(parents=True)
        Image.fromarray(np.zeros((28, 28), dtype=np.uint8)).save(tmp_path / "pngs" / split / "00000_1.png")
    (tmp_path / "pngs" / "train" / "one.png").write_bytes((tmp_path / "pngs" / "train" / "00000_1.png").read_bytes())
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    said = here(*WRONG[name].words, code=2)
    assert said.startswith("main.py: error: ")
    assert WRONG[name].said in said
    assert len(said.splitlines()) <= 2
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_a_directory_of_ones_own_is_refused_with_load_ckpt(here: Here) -> None:
    """`--out` cannot move training that goes on, and is not passed over in silence."""
    here("-m", "train", "--out", "run", num_epochs=1)
    assert "--out: expected none" in here("--out", "other", load_ckpt="run/ckpts/latest.safetensors", code=2)
    assert not Path("other").exists()


def test_a_checkpoint_of_another_network_is_refused(here: Here) -> None:
    """Going on with another network is one error that names what changed, and leaves the run as it was."""
    here("-m", "train", "--out", "run", num_epochs=1)
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    said = here(load_ckpt="run/ckpts/latest.safetensors", n_hiddens=17, code=2)
    assert "n_hiddens ('16' -> '17')" in said
    assert len(said.splitlines()) == 1
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"general": {"model": "fc"}, "test": {}}', "expected a section 'train', found general, test"),
        ('{"train": {}}', "train.model: expected 'fc' or 'conv', found none"),
        ("{", "expected JSON, found a mistake"),
    ],
)
def test_a_wrong_configuration_file_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, content: str, said: str
) -> None:
    """A file without a `train` section, or without a network, or that is no JSON, is told in one line."""
    monkeypatch.chdir(tmp_path)
    Path("c.json").write_text(content)
    assert single(["c.json"]) == 2
    err = capfd.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_help_names_every_option(capfd: Any) -> None:
    """`--help` exits with 0 and names all options and modes."""
    assert single(["--help"]) == 0
    said = capfd.readouterr().out
    for option in ("--mode", "--debug", "--device", "--data-dir", "--train-dir", "--out", "--set", "traintest"):
        assert option in said


@pytest.mark.slow
@pytest.mark.needs("ray")
@pytest.mark.xdist_group("ray")
def test_on_ray_the_same_network_comes_out(here: Here, digits: Path, tmp_path: Path) -> None:
    """One worker on a Ray of its own, and this process: the same weights, the same tables."""
    here("-m", "train", "--executor", "inline", "--out", "inline", num_epochs=1)
    command = [sys.executable, str(ROOT / "main.py"), str(ROOT / "config" / "fc.json"), "-m", "train", "--no-progress"]
    flags = ["--executor", "ray", "--out", "ray", *words(digits, num_epochs=1)]
    subprocess.run([*command, *flags], check=True, cwd=tmp_path)
    inline, ray = Run.open(tmp_path / "inline"), Run.open(tmp_path / "ray")
    assert ray.meta["place"]["executor"] == "ray"
    assert ray.events == inline.events
    tables = [(tmp_path / name / "loss_summary.csv").read_bytes() for name in ("inline", "ray")]
    assert tables[0] == tables[1]
