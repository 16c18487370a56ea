"""Testing checkpoints: what is found is what the log says, and nothing but a checkpoint is read."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pbt.core.population import StateRef
from pbt.errors import ConfigError, CorruptError, PBTError
from pbt.mnist.config.record import Config
from pbt.mnist.tester import arguments_of, run_test
from pbt.runs.results import Run
from pbt.store.codec import encode

Trained = Callable[..., Run]
Configure = Callable[..., Config]


def asking(configured: Configure, ckpt: Path | str, **train: Any) -> Config:
    """A configuration whose test and val sections name a checkpoint."""
    sections = configured(**train).to_dict()
    for section in ("test", "val"):
        sections[section]["load_ckpt"] = str(ckpt)
    return Config.from_dict(sections)


@pytest.fixture
def ckpts(finished: Run) -> Path:
    assert finished.path is not None
    return finished.path / "ckpts"


@pytest.mark.parametrize("worker", range(4))
def test_a_checkpoint_tests_as_its_row_in_the_history(
    finished: Run, configured: Configure, ckpts: Path, worker: int
) -> None:
    """Test accuracy and loss of `latest_<w>` are those in the history's last row of the worker; so are the held-out."""
    config = asking(configured, ckpts / f"latest_{worker}.safetensors")
    report = finished.tree.reports[StateRef(worker, 3)]
    said = report.reported
    on_test, on_val = (run_test(config, section, "mnist") for section in ("test", "val"))
    assert (on_test.accuracy, on_val.accuracy) == (said["test_accuracy"], report.scores[0])
    assert (on_test.loss, on_val.loss) == (pytest.approx(said["test_loss"]), pytest.approx(said["val_loss"]))
    assert (on_test.images, on_val.images) == (100, 100)
    assert "not MNIST" in on_test.note


def test_without_a_checkpoint_the_best_member_of_the_newest_run_is_tested(
    trained: Trained, configured: Configure, tmp_path: Path
) -> None:
    """An empty `load_ckpt` tests what validation chose in the run that was written last, whatever its name."""
    config = configured(num_worker_tot=2, num_epochs_tot=2, train_dir=str(tmp_path))
    newest = trained(tmp_path / "a", config)
    trained(tmp_path / "b", config)
    os.utime(tmp_path / "b" / "run.db", (1, 1))
    for link in ("0-latest", "latest"):
        (tmp_path / link).symlink_to("a")
    found = run_test(config, "test", "mnist")
    assert f"{tmp_path / 'a'}, " in found.what  # the run itself, not a link to it
    assert f"worker {newest.best.member} " in found.what
    assert found.accuracy == newest.best.reported["test_accuracy"]
    assert run_test(config, "val", "mnist").accuracy == newest.best.score


def test_a_run_of_another_application_is_not_tested(finished: Run, configured: Configure, tmp_path: Path) -> None:
    """Where no run of the population application is, there is a clear error, not a test of something else."""
    assert finished.path is not None
    shutil.copytree(finished.path, tmp_path / "runs" / "one")
    config = configured(train_dir=str(tmp_path / "runs"))
    assert run_test(config, "test", "mnist").images == 100
    with pytest.raises(ConfigError, match="train first, or set load_ckpt"):
        run_test(config, "test", "mnist-single")


@pytest.mark.parametrize("folder", ["nothing", "empty"])
def test_without_any_run_the_error_says_what_to_do(configured: Configure, tmp_path: Path, folder: str) -> None:
    """No runs, or no folder for them, is an error that names the folder and the remedy."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=f"{folder}.*train first, or set load_ckpt"):
        run_test(configured(train_dir=str(tmp_path / folder)), "test", "mnist")


def test_a_checkpoint_brings_the_arguments_of_its_run(finished: Run, configured: Configure, ckpts: Path) -> None:
    """A checkpoint in a run directory is tested as the network it is, whatever network the configuration describes."""
    report = finished.tree.reports[StateRef(2, 3)]
    config = asking(configured, ckpts / "latest_2.safetensors", model="conv", n_filters="3", num_val=7)
    assert run_test(config, "test", "mnist").accuracy == report.reported["test_accuracy"]
    found = arguments_of(ckpts / "latest_2.safetensors")
    assert found is not None
    assert (found.train.model, found.train.n_hiddens, found.test.worker_num) == ("fc", (16,), 2)


def test_data_that_moved_can_be_named(
    trained: Trained, configured: Configure, make_digits: Callable[..., Path], tmp_path: Path
) -> None:
    """A data folder that was asked for wins over the one that a run recorded."""
    data = make_digits(tmp_path / "data")
    config = configured(num_worker_tot=2, num_epochs_tot=1, train_dir=str(tmp_path), data_dir=str(data))
    run = trained(tmp_path / "run", config)
    moved = data.rename(tmp_path / "moved")
    found = run_test(config, "test", "mnist", moved)
    assert found.accuracy == run.best.reported["test_accuracy"]
    assert "100 images of another data set" in found.note


def test_a_checkpoint_outside_of_a_run_is_tested_as_configured(
    finished: Run, configured: Configure, ckpts: Path, tmp_path: Path
) -> None:
    """A checkpoint by itself has no arguments: the configuration's hold."""
    copy = tmp_path / "network.safetensors"
    shutil.copy(ckpts / "latest_1.safetensors", copy)
    report = finished.tree.reports[StateRef(1, 3)]
    assert run_test(asking(configured, copy), "test", "mnist").accuracy == report.reported["test_accuracy"]


@pytest.mark.parametrize("other", [{"n_hiddens": "17"}, {"n_hiddens": "16,16"}, {"batch_norm": 0}, {"model": "conv"}])
def test_a_checkpoint_of_another_network_is_refused_in_one_line(
    configured: Configure, ckpts: Path, tmp_path: Path, other: dict[str, Any]
) -> None:
    """A checkpoint that does not fit the configured network is an error of one line, never a half-loaded network."""
    copy = tmp_path / "network.safetensors"
    shutil.copy(ckpts / "latest_1.safetensors", copy)
    with pytest.raises(ConfigError, match="as configured, found another") as raised:
        run_test(asking(configured, copy, **other), "test", "mnist")
    assert len(str(raised.value).splitlines()) == 1


class Trap:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_is_refused_and_never_executed(configured: Configure, tmp_path: Path, kind: str) -> None:
    """What a pickle would do at loading is not done, whether it is a bare one or one that torch saved."""
    sprung = tmp_path / "sprung"
    path = tmp_path / "ckpt.safetensors"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"model": Trap(sprung)}))
    else:
        torch.save({"model": Trap(sprung)}, path)
    with pytest.raises(CorruptError, match="expected a safetensors checkpoint"):
        run_test(asking(configured, path), "test", "mnist")
    assert not sprung.exists()
    # The trap is one: loading it does what it says.
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(configured: Configure, ckpts: Path, tmp_path: Path, share: float) -> None:
    """A checkpoint that was cut anywhere, in its header or in its numbers, is an error that names the file."""
    blob = (ckpts / "latest_0.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(blob[: int(share * len(blob))])
    with pytest.raises(CorruptError, match=r"cut\.safetensors"):
        run_test(asking(configured, path), "test", "mnist")


@pytest.mark.parametrize("content", [{"weights": 1}, {"model": 3}, {"model": [1, 2]}, {"model": {"1.weight": 2.0}}])
def test_a_state_that_is_no_network_is_refused(configured: Configure, tmp_path: Path, content: Any) -> None:
    """A well-formed file that holds something else than a network is an error of ours."""
    path = tmp_path / "other.safetensors"
    path.write_bytes(encode(content))
    with pytest.raises(PBTError, match="load_ckpt: expected"):
        run_test(asking(configured, path), "test", "mnist")


@pytest.mark.parametrize("name", ["", "nothing.safetensors"])
def test_a_checkpoint_that_is_not_there_is_an_error(configured: Configure, tmp_path: Path, name: str) -> None:
    """A folder, or no file at all, is never a fresh start."""
    with pytest.raises(ConfigError, match="load_ckpt: expected a checkpoint, cannot read"):
        run_test(asking(configured, tmp_path / name), "test", "mnist")


def test_damaged_arguments_beside_a_checkpoint_are_an_error(
    finished: Run, configured: Configure, tmp_path: Path
) -> None:
    """Arguments that somebody cut short are named, and not replaced by the configuration's."""
    assert finished.path is not None
    shutil.copytree(finished.path, tmp_path / "run")
    path = tmp_path / "run" / "args_test_0.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(ConfigError, match=r"args_test_0\.json"):
        run_test(asking(configured, tmp_path / "run" / "ckpts" / "best_0.safetensors"), "test", "mnist")


def test_nothing_held_out_cannot_be_evaluated(configured: Configure, ckpts: Path, tmp_path: Path) -> None:
    """`-m val` with no image held out is an error that names the key."""
    copy = tmp_path / "network.safetensors"
    shutil.copy(ckpts / "latest_1.safetensors", copy)
    with pytest.raises(ConfigError, match="num_val must be above 0"):
        run_test(asking(configured, copy, num_val=0), "val", "mnist")


def test_testing_writes_nothing(finished: Run, configured: Configure, tmp_path: Path) -> None:
    """A test leaves the run directory as it was, to the byte."""
    assert finished.path is not None
    run = tmp_path / "run"
    shutil.copytree(finished.path, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    args = json.loads((run / "args_test_0.json").read_text())
    run_test(asking(configured, run / "ckpts" / "best_0.safetensors"), "test", "mnist")
    run_test(configured(train_dir=str(tmp_path)), "val", "mnist")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert args["worker_num"] == 0
