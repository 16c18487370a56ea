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
from pbt.errors import ConfigError, CorruptError, DataError, DeviceError, PBTError, RunFormatError
from pbt.mnist import tester
from pbt.mnist.config.record import Config
from pbt.mnist.models import Shape, network
from pbt.mnist.recorded import arguments_in
from pbt.mnist.tester import evaluate, run_test
from pbt.runs.results import Run
from pbt.store.codec import encode
from pbt.store.sqlite import RunStore

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


def test_a_run_without_the_recorded_values_is_refused_in_one_line(configured: Configure, tmp_path: Path) -> None:
    """A run directory that `pbt.run` did not make is an error that names it and what it lacks."""
    with RunStore.create(tmp_path / "runs" / "foreign", {"seed": 1, "space": {}}):
        pass
    with pytest.raises(RunFormatError, match=r"foreign: expected a run with a recorded population, rounds"):
        run_test(configured(train_dir=str(tmp_path / "runs")), "test", "mnist")


def test_a_checkpoint_brings_the_arguments_of_its_run(finished: Run, configured: Configure, ckpts: Path) -> None:
    """A checkpoint in a run directory is tested as the network it is, whatever network the configuration describes."""
    report = finished.tree.reports[StateRef(2, 3)]
    config = asking(configured, ckpts / "latest_2.safetensors", model="conv", n_filters="3", num_val=7)
    assert run_test(config, "test", "mnist").accuracy == report.reported["test_accuracy"]
    found = arguments_in(ckpts.parent, "2")
    assert found is not None
    assert (found.config.train.model, found.config.train.n_hiddens, found.config.test.worker_num) == ("fc", (16,), 2)


def test_data_that_moved_can_be_named(
    trained: Trained, configured: Configure, make_digits: Callable[..., Path], tmp_path: Path
) -> None:
    """A data folder that was asked for wins over the one that a run recorded."""
    data = make_digits(tmp_path / "data")
    config = configured(num_worker_tot=2, num_epochs_tot=1, train_dir=str(tmp_path), data_dir=str(data))
    run = trained(tmp_path / "run", config)
    moved = data.rename(tmp_path / "moved")
    asked = configured(train_dir=str(tmp_path), data_dir=str(moved))
    found = run_test(asked, "test", "mnist", overridden={"data_dir"})
    assert found.accuracy == run.best.reported["test_accuracy"]
    assert "100 images of another data set" in found.note


@pytest.mark.parametrize("section", ["test", "val"])
def test_what_an_evaluation_reads_itself_is_as_asked(
    configured: Configure, make_digits: Callable[..., Path], ckpts: Path, tmp_path: Path, section: Any
) -> None:
    """Data, metric and batch of the configuration hold where they are said; at their defaults the recorded ones do."""
    other = make_digits(tmp_path / "other", shuffled_test=True)
    sections = asking(configured, ckpts / "latest_1.safetensors").to_dict()
    sections[section] |= {"data_dir": str(other), "metric": "error", "batch_size": 7}
    found = run_test(Config.from_dict(sections), section, "mnist")
    assert found.data.startswith(f"{other}: ")
    assert (found.metric, found.value) == ("error", pytest.approx(1 - found.accuracy))
    assert found.accuracy < 0.3 or section == "val"
    sections[section] |= {"data_dir": "data", "metric": "accuracy_categ"}
    assert str(other) not in run_test(Config.from_dict(sections), section, "mnist").data


FIXED = {"n_hiddens": "17", "num_val": 7, "model": "conv", "batch_norm": 0, "lr": 0.5, "num_worker_tot": 5}


@pytest.mark.parametrize("key", FIXED)
def test_what_the_checkpoint_fixes_cannot_be_overridden(configured: Configure, ckpts: Path, key: str) -> None:
    """A key of the command line that the checkpoint was trained with otherwise is refused by its name, in one line."""
    config = asking(configured, ckpts / "latest_1.safetensors", **{key: FIXED[key]})
    with pytest.raises(ConfigError, match=f"^{key}: the checkpoint was trained with ") as raised:
        run_test(config, "test", "mnist", overridden={key})
    assert len(str(raised.value).splitlines()) == 1
    same = asking(configured, ckpts / "latest_1.safetensors")
    assert run_test(same, "test", "mnist", overridden={key}).images == 100


def test_arguments_of_a_test_are_enough(configured: Configure, ckpts: Path, tmp_path: Path) -> None:
    """A training directory with `args_test.json` alone says what network its checkpoint is of, and how it is tested."""
    (tmp_path / "ckpts").mkdir()
    shutil.copy(ckpts / "latest_1.safetensors", tmp_path / "ckpts" / "model.safetensors")
    args = json.loads((ckpts.parent / "args_test_1.json").read_text())
    (tmp_path / "args_test.json").write_text(json.dumps({**args, "metric": "error"}))
    config = asking(configured, tmp_path / "ckpts" / "model.safetensors", n_hiddens="17", model="conv")
    found = run_test(config, "test", "mnist")
    assert (found.metric, found.images) == ("error", 100)
    with pytest.raises(ConfigError, match="n_hiddens: the checkpoint was trained with 16, got 17"):
        run_test(config, "test", "mnist", overridden={"n_hiddens", "lr"})


def test_the_arguments_of_the_newest_run_are_read(trained: Trained, configured: Configure, tmp_path: Path) -> None:
    """Without `load_ckpt` the `args_test_<w>.json` of the newest run's best worker says how it is tested."""
    config = configured(num_worker_tot=2, num_epochs_tot=1, train_dir=str(tmp_path))
    run = trained(tmp_path / "run", config)
    path = tmp_path / "run" / f"args_test_{run.best.member}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "metric": "error"}))
    assert run_test(config, "test", "mnist").metric == "error"


def test_a_model_is_tested_on_a_set_of_any_size(configured: Configure, tmp_path: Path) -> None:
    """A model trained with more held-out images than the set at hand has is tested all the same."""
    config = configured(num_val=5000)
    state = {"model": network(Shape.of(config.train)).state_dict(), "config": config.to_dict()}
    path = tmp_path / "model.safetensors"
    path.write_bytes(encode(state))
    assert run_test(asking(configured, path), "test", "mnist").images == 100
    with pytest.raises(DataError, match="num_val"):
        run_test(asking(configured, path), "val", "mnist")


def test_no_test_is_not_a_test(configured: Configure, ckpts: Path) -> None:
    """`test_none` in the section of the mode is refused, and not tested all the same."""
    sections = asking(configured, ckpts / "latest_1.safetensors").to_dict()
    sections["test"]["version"] = "test_none"
    with pytest.raises(ConfigError, match="got test_none, which asks for no test"):
        run_test(Config.from_dict(sections), "test", "mnist")


def test_the_device_of_an_evaluation_is_the_one_that_was_asked_for(
    configured: Configure, ckpts: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The command line's device wins and must be there; else the section's own GPU is used, with a notice if absent."""
    sections = asking(configured, ckpts / "latest_1.safetensors").to_dict()
    sections["val"]["gpus"] = "1000"
    devices: list[str] = []

    def noted(*words: Any, device: str, batch: int) -> Any:
        devices.append(device)
        return evaluate(*words, batch=batch)

    monkeypatch.setattr(tester, "evaluate", noted)
    with caplog.at_level("INFO", "pbt"):
        run_test(Config.from_dict(sections), "test", "mnist")
        assert not caplog.text
        run_test(Config.from_dict(sections), "val", "mnist")
    assert "gpus is 1000: none exists, using the CPU" in caplog.text
    with pytest.raises(DeviceError, match="cuda:1000"):
        run_test(Config.from_dict(sections), "test", "mnist", device="cuda:1000")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    sections["test"]["gpus"] = "1"
    run_test(Config.from_dict(sections), "test", "mnist")
    run_test(Config.from_dict(sections), "test", "mnist", device="cuda:0")
    assert devices == ["cpu", "cpu", "cuda:1", "cuda:0"]


@pytest.mark.parametrize("name", ["model_ckpt_best.pth.tar", "m.pth", "m.pt"])
def test_a_checkpoint_of_the_original_is_answered_with_the_command(
    configured: Configure, tmp_path: Path, name: str
) -> None:
    """A PyTorch file is not read by `load_ckpt`; the error names the command that makes a model file of it."""
    torch.save({"state_dict": {}}, tmp_path / name)
    with pytest.raises(CorruptError, match=r"pbt mnist import .* --i-trust-this-file") as raised:
        run_test(asking(configured, tmp_path / name), "test", "mnist")
    assert len(str(raised.value).splitlines()) == 1


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
