"""`main_PBT.py` as people meet it: real processes, real signals, real exit codes."""

import importlib.util
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pbt.core.population import StateRef
from pbt.errors import ConfigError, RunExistsError
from pbt.mnist import training
from pbt.mnist.checks import overrides_of
from pbt.mnist.commands import check_new, population, resume_line
from pbt.mnist.config.record import Config
from pbt.runs.results import Run
from pbt.store.sqlite import RunStore
from tests.helpers.command import pbt
from tests.mnist.conftest import undrawn

ROOT = Path(__file__).parents[2]
Trained = Callable[..., Run]
Configure = Callable[..., Config]


@dataclass
class Here:
    """`main_PBT.py` in this process: much quicker to start, and no less the command."""

    digits: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, config: str, *words: str, code: int = 0, **keys: object) -> str:
        """Run a shipped configuration made small; answers what was printed, after the exit code was checked."""
        small = {
            "gpus": "",
            "n_hiddens": 8,
            "n_filters": 2,
            "num_val": 100,
            "batch_size": 100,
            "num_worker_tot": 2,
            "num_workers_paral": 1,
            "num_epochs_tot": 2,
            **keys,
        }
        pairs = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
        path = str(ROOT / "config" / config)
        found = population([path, "--data-dir", str(self.digits), *pairs, "--executor", "inline", *words])
        said = self.capsys.readouterr()
        assert found == code, said.out + said.err
        return said.out + said.err


@pytest.fixture
def here(digits: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Here:
    monkeypatch.chdir(tmp_path)
    for name in ("plot_results", "plot_schedule"):
        monkeypatch.setattr(training, name, lambda *_: None)
    return Here(digits, capsys)


# The four files, and what they are run with


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ("fc_PBT.json", {}),
        ("conv_PBT.json", {}),
        ("fc.json", {"PBT_lr": "0.1,0.0001", "num_epochs": 1, "decreasing_lr_epochs": ""}),
        ("conv.json", {"PBT_keep_prob": "0.5,0.99", "num_epochs": 2}),
    ],
)
def test_the_shipped_configurations_train(here: Here, tmp_path: Path, config: str, keys: dict[str, object]) -> None:
    """Each file of `config/`, made small by --set, trains a population in a dated folder that `latest` points to."""
    said = here(config, **keys)
    (run,) = [path for path in (tmp_path / "runs").iterdir() if not path.is_symlink()]
    assert run.name.startswith(f"mnist-{config.partition('.')[0].removesuffix('_PBT')}-")
    assert (tmp_path / "runs" / "latest").resolve() == run.resolve()
    epochs = Config.from_dict(Run.open(run).meta["application"]["config"]).train.num_epochs
    assert len((run / "history.csv").read_text().splitlines()) == 1 + 2 * 2 // epochs
    assert "Best: member" in said
    assert "validation accuracy" in said
    assert "not MNIST" in said


def test_a_single_network_is_sent_to_the_other_program(here: Here, tmp_path: Path) -> None:
    """A configuration without evolving values is not trained as a population, and nothing is begun."""
    assert "a single network is trained by main.py" in here("fc.json", code=2)
    assert not list(tmp_path.iterdir())


def test_training_then_testing_says_the_same(here: Here, tmp_path: Path) -> None:
    """`-m test` and `-m val` say of the best member what its run recorded, to the digits that are printed."""
    here("fc_PBT.json")
    best = Run.open(tmp_path / "runs" / "latest").best
    assert f"accuracy {best.reported['test_accuracy']:.4f}" in here("fc_PBT.json", "-m", "test")
    said = here("fc_PBT.json", "--mode", "val")
    assert f"100 held-out images: loss {best.reported['val_loss']:.4f}, accuracy {best.score:.4f}" in said
    assert f"worker {best.member} of" in said


def test_one_workers_checkpoint_is_tested_with_the_arguments_of_its_run(here: Here, tmp_path: Path) -> None:
    """`-m test` with `load_ckpt` takes network and data from `args_test_<w>.json`, not from the configuration."""
    here("fc_PBT.json")
    run = Run.open(tmp_path / "runs" / "latest")
    for worker in range(2):
        ckpt = tmp_path / "runs" / "latest" / "ckpts" / f"latest_{worker}.safetensors"
        assert (
            population([str(ROOT / "config" / "conv_PBT.json"), "-m", "test", "--set", f"test.load_ckpt={ckpt}"]) == 0
        )
        said = here.capsys.readouterr().out
        (last,) = [e for ref, e in run.tree.reports.items() if ref == (worker, 2)]
        assert f"100 test images: loss {last.reported['test_loss']:.4f}" in said
        assert f"accuracy {last.reported['test_accuracy']:.4f}" in said


def test_debug_leaves_arguments_and_newest_checkpoints(here: Here, tmp_path: Path) -> None:
    """`--debug` writes no CSV, no scalars, no best checkpoint and no figure, and names none; the rest can be tested."""
    said = here("fc_PBT.json", "--debug", "--out", "run")
    args = {f"args_{section}_{worker}.json" for section in ("train", "test") for worker in range(2)}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.db", "states", "lock", "ckpts"} | args
    ckpts = [f"latest_{worker}.safetensors" for worker in range(2)]
    assert sorted(path.name for path in (tmp_path / "run" / "ckpts").iterdir()) == ckpts
    assert "history.csv" not in said
    assert "results.png" not in said
    last = Run.open(tmp_path / "run").tree.reports[StateRef(1, 2)].reported
    tested = here("fc_PBT.json", "-m", "test", **{"test.load_ckpt": tmp_path / "run" / "ckpts" / ckpts[1]})
    assert f"accuracy {last['test_accuracy']:.4f}" in tested


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ("fc_PBT.json", "network: fc 8, 6,386 parameters"),
        ("conv_PBT.json", "network: conv 2, 15,714 parameters"),
    ],
)
def test_the_start_says_how_large_the_network_is(here: Here, config: str, line: str) -> None:
    """The first lines name the network with its parameters, and the data."""
    said = here(config, num_epochs_tot=1)
    assert line in said
    assert "data: " in said


def test_the_named_metric_is_printed(here: Here) -> None:
    """`-m test` prints loss, accuracy, and the metric of the configuration where it is neither."""
    keys = {"test.metric": "error", "val.metric": "accuracy_onehot"}
    here("fc_PBT.json", **keys)
    (line,) = [line for line in here("fc_PBT.json", "-m", "test").splitlines() if "test images" in line]
    accuracy, error = (float(line.partition(f"{name} ")[2].split(",")[0]) for name in ("accuracy", "error"))
    assert error == pytest.approx(1 - accuracy)
    assert ", accuracy_onehot " in here("fc_PBT.json", "-m", "val")


def test_each_worker_has_a_table_of_its_evaluations(here: Here, tmp_path: Path) -> None:
    """`-m val` adds to `results<val>_<w>.csv` of the worker whose checkpoint it evaluates."""
    here("fc_PBT.json")
    best = Run.open(tmp_path / "runs" / "latest").best
    here("fc_PBT.json", "-m", "val")
    (path,) = (tmp_path / "runs" / "latest").glob("results_val*")
    assert path.name == f"results_val_{best.member}.csv"
    head, row = path.read_text().splitlines()
    assert head == ",epoch,iter,val_loss,val_acc"
    assert float(row.rpartition(",")[2]) == pytest.approx(100 * best.score)


def test_fewer_at_a_time_than_workers(here: Here, tmp_path: Path) -> None:
    """`num_workers_paral` below `num_worker_tot` trains everybody, in groups."""
    here("fc_PBT.json", "--out", "run", num_worker_tot=5, num_workers_paral=2, num_epochs_tot=1)
    assert [report.member for report in Run.open(tmp_path / "run").tree.reports.values()] == [0, 1, 2, 3, 4]


def test_absent_devices_of_a_file_are_a_notice(here: Here, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`gpus` that nobody has train on what is there, with a notice."""
    with caplog.at_level("INFO", "pbt"):
        here("fc_PBT.json", "--out", "run", gpus="1000,1001", num_epochs_tot=1)
    assert "gpus is 1000,1001: none exists, using the CPU" in caplog.text
    assert Run.open(tmp_path / "run").meta["place"]["device"] == "cpu"


def test_a_run_with_failed_workers_exits_with_3(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that finished without some of its workers says so by its exit code."""
    whole = training.supervised

    class Failing:
        def __init__(self, task: Any) -> None:
            self.task, self.check = task, task.check

        def trainer(self, device: str, threads: int) -> Any:
            train = self.task.trainer(device, threads)

            def some(hparams: Any, state: Any, steps: int, ctx: Any) -> Any:
                if (ctx.member, ctx.round) == (1, 2):
                    raise ValueError("no luck")
                return train(hparams, state, steps, ctx)

            return some

    monkeypatch.setattr(training, "supervised", lambda config: Failing(whole(config)))
    assert "failed" in here("fc_PBT.json", code=3)


# Asked for in a wrong way


@dataclass(frozen=True)
class Wrong:
    words: Sequence[str]
    said: str


WRONG = {
    "unknown key": Wrong(["--set", "learning_rate=1"], "learning_rate: unknown key"),
    "unknown evolving name": Wrong(["--set", "PBT_lrr=1,2"], "cannot evolve; did you mean 'lr'?"),
    "wrong type": Wrong(["--set", "lr=fast"], "lr: expected a number above 0 up to 10, found 'fast'"),
    "range of one value": Wrong(["--set", "PBT_lr=0.1"], "PBT_lr: expected two different numbers"),
    "more at a time than there are": Wrong(["--set", "num_workers_paral=9"], "expected at most num_worker_tot = 4"),
    "crop without a shift": Wrong(["--set", "crop=1"], "crop: expected crop_shift of at least 1 pixel"),
    "checkpoint to go on from": Wrong(["--set", "load_ckpt=x"], "load_ckpt: expected none to train a population"),
    "one worker's file": Wrong(["--set", "worker_num=2"], "worker_num: expected 0 to train, got 2"),
    "option of training": Wrong(["-m", "test", "--out", "x"], "--out: has no effect with -m test"),
    "nobody": Wrong(["--set", "num_worker_tot=0"], "num_worker_tot: expected a whole number from 1"),
    "no pair": Wrong(["--set", "lr"], "--set: expected key=value"),
    "unknown option": Wrong(["--learn"], "--learn"),
    "unknown mode": Wrong(["-m", "trian"], "trian"),
    "absent device": Wrong(["--device", "cuda:1000"], "device 'cuda:1000' does not exist"),
    "directory that is taken": Wrong(["--out", "taken"], "taken: expected a new or empty directory, found one"),
    "file in the way": Wrong(["--out", "file"], "file: expected a new or empty directory, found a file"),
    "truncated images": Wrong(["--set", "data_dir=cut"], "train-images-idx3-ubyte: expected 470,400 bytes of data"),
    "corrupt labels": Wrong(["--set", "data_dir=other"], "t10k-labels-idx1-ubyte: expected IDX magic"),
    "missing file": Wrong(["--set", "data_dir=three"], "expected the four MNIST files, found only 3"),
    "data in a file": Wrong(["--set", "data_dir=file"], "file: expected a folder with MNIST's four files"),
    "no checkpoint": Wrong(["-m", "test", "--set", "test.load_ckpt=nowhere"], "cannot read nowhere"),
    "no run": Wrong(["-m", "test", "--train-dir", "nowhere"], "train first, or set load_ckpt"),
}


def prepare_folder(folder: Path, digits: Path) -> None:
    """What the wrong commands stumble over."""
    for name in ("cut", "other", "three"):
        shutil.copytree(digits, folder / name)
    images = folder / "cut" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:1000])
    (folder / "other" / "t10k-labels-idx1-ubyte").write_bytes(b"not labels at all")
    (folder / "three" / "train-labels-idx1-ubyte").unlink()
    (folder / "taken").mkdir()
    (folder / "taken" / "thesis.txt").write_text("the only copy")
    (folder / "file").write_text("a file")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


def is_told(err: str, said: str) -> None:
    """Not more than two lines, that say what is wrong, and no traceback."""
    assert said in err
    assert err.startswith("main_PBT.py: error: ")
    assert len(err.splitlines()) <= 2, err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_an_error_of_two_lines_and_nothing_begun(
    name: str, program: Any, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """What is wrong is said in one or two lines, the exit code is 2, and no file is made or changed."""
    prepare_folder(tmp_path, digits)
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert population([*program.small(), *WRONG[name].words]) == 2
    is_told(capfd.readouterr().err, WRONG[name].said)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    [
        "wrong type",
        pytest.param("directory that is taken", marks=pytest.mark.slow),
        pytest.param("truncated images", marks=pytest.mark.slow),
    ],
)
def test_wrong_input_ends_the_program_the_same_way(name: str, program: Any, digits: Path, tmp_path: Path) -> None:
    """The same for the program as a process of its own: two lines on stderr, nothing on stdout, exit code 2."""
    prepare_folder(tmp_path, digits)
    before = contents(tmp_path)
    done = program(*program.small(), *WRONG[name].words, code=2)
    is_told(done.stderr, WRONG[name].said)
    assert not done.stdout
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "expected JSON, found a mistake"),
        ("[1]", "expected an object with sections"),
        ('{"general": {}}', "expected a section 'train'"),
        ('{"train": {"model": "fcc"}}', "train.model"),
        (None, "expected a JSON file, found none"),
    ],
)
def test_a_wrong_configuration_file_is_an_error_of_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, content: str | None, said: str
) -> None:
    """A file that is no configuration, or none at all, is named with what is wrong in it."""
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("c.json").write_text(content)
    assert population(["c.json"]) == 2
    is_told(capfd.readouterr().err, said)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_cuda_that_is_absent_is_an_error(here: Here, tmp_path: Path) -> None:
    """`--device cuda` where there is none is refused, and not trained on the CPU."""
    assert "device 'cuda' does not exist" in here("fc_PBT.json", "--device", "cuda", code=2)
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_format_is_not_resumed_by_the_command(
    program: Any, trained: Trained, configured: Configure, tmp_path: Path
) -> None:
    """`pbt resume` of a run that another version wrote says so in two lines, exits with 2 and changes nothing."""
    trained(tmp_path / "run", configured(num_worker_tot=2, num_epochs_tot=1))
    connection = sqlite3.connect(tmp_path / "run" / "run.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = contents(tmp_path)
    done = program("resume", "run", script="pbt", code=2)
    assert "newer format 99" in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert contents(tmp_path) == before


# Interrupted


@pytest.mark.long
def test_ctrl_c_keeps_everything_and_prints_the_line_that_goes_on(
    program: Any, trained: Trained, derived: Any, until_rows: Any, tmp_path: Path
) -> None:
    """SIGINT ends a run in good order with exit code 130, and the line that it prints finishes the run."""
    keys = {"num_epochs_tot": 8, "batch_size": 25}
    process = program.begin(*program.small(**keys), "--out", "a run")
    until_rows(tmp_path / "a run" / "history.csv", 4, process)
    os.killpg(process.pid, signal.SIGINT)
    # After PATIENCE seconds the end would be forced, and say so.
    _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    said, _, line = err.splitlines()[-1].rpartition(": ")
    assert (said, line) == ("main_PBT.py: stopped; state kept; resume with", "pbt resume 'a run'")
    rows = len((tmp_path / "a run" / "history.csv").read_text().splitlines())
    with undrawn():
        pbt(tmp_path, *shlex.split(line)[1:])
    whole = trained(tmp_path / "whole", program.config(**keys))
    assert len((tmp_path / "a run" / "history.csv").read_text().splitlines()) > rows
    assert Run.open(tmp_path / "a run").events == whole.events
    assert derived(tmp_path / "a run") == derived(tmp_path / "whole")


def test_before_a_run_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    """The resume line is only given for a run directory that is there, quoted for a shell."""
    assert resume_line([]) is None
    assert resume_line([tmp_path]) is None
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "run.db").touch()  # its creation was interrupted
    assert resume_line([tmp_path / "a b"]) is None
    check_new(tmp_path / "a b")
    RunStore.create(tmp_path / "a b", {}).close()
    assert resume_line([tmp_path / "a b"]) == f"pbt resume '{tmp_path}/a b'"
    with pytest.raises(RunExistsError, match=f"resume it with: pbt resume '{tmp_path}/a b'"):
        check_new(tmp_path / "a b")


# Small things


def test_overrides_are_pairs() -> None:
    """--set splits at the first equals sign; named options that were not given are not there."""
    assert overrides_of(["a=1", "b=c=d"], data_dir=None, train_dir=Path("x")) == {
        "a": "1",
        "b": "c=d",
        "train_dir": "x",
    }
    with pytest.raises(ConfigError, match="expected key=value, got 'a'"):
        overrides_of(["a"])


def test_an_empty_directory_is_as_good_as_none(tmp_path: Path) -> None:
    """A run may be begun in an empty directory, and nowhere where something is."""
    check_new(tmp_path)
    check_new(tmp_path / "new")
    (tmp_path / "x").touch()
    with pytest.raises(RunExistsError, match="pbt resume"):
        check_new(tmp_path)


@pytest.mark.parametrize("script", ["main_PBT.py", "main.py"])
def test_without_the_package_a_script_says_what_to_install(script: str, tmp_path: Path) -> None:
    """An interpreter that does not have the package gets one line that helps, and exit code 1."""
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / script), str(ROOT / "config" / "fc_PBT.json")],
        cwd=tmp_path,
        env=bare,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "No module named 'pbt'" in line
    assert "pip install" in line


def test_the_script_only_runs_when_it_is_run() -> None:
    """Importing main_PBT.py, as worker processes do, starts nothing."""
    spec = importlib.util.spec_from_file_location("main_PBT", ROOT / "main_PBT.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not hasattr(module, "population")


def test_help_names_every_option(capfd: Any) -> None:
    """`--help` exits with 0 and names all options."""
    assert population(["--help"]) == 0
    said = capfd.readouterr().out
    for option in ("--mode", "--debug", "--device", "--executor", "--data-dir", "--train-dir", "--out", "--set"):
        assert option in said
