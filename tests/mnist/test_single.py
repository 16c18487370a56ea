"""One network: when checkpoints are due, the learning rate, what a run leaves, and going on as if never stopped."""

import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pbt.core.events import Ended, Event, Reported
from pbt.core.population import StateRef
from pbt.errors import ConfigError, CorruptError, PopulationLostError, UsageError
from pbt.mnist import training
from pbt.mnist.beginning import Beginning, beginning
from pbt.mnist.checks import check_program
from pbt.mnist.config.record import Config
from pbt.mnist.models import Shape, network
from pbt.mnist.recorded import FREE
from pbt.mnist.results_table import read_tests, record_test
from pbt.mnist.schedules import Checkpoints, lr_schedule
from pbt.mnist.tester import load_checkpoint
from pbt.mnist.training import prepare, resume
from pbt.runs.engine import Engine, Observer
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from pbt.store.codec import digest_of, encode
from pbt.store.sqlite import RunStore
from pbt.store.verify import verify_run

Configure = Callable[..., Config]
Table = Callable[[Path], list[dict[str, str]]]
Derived = Callable[[Path], dict[str, bytes]]
INLINE = Placement(executor="inline", threads=1, device="cpu")
PLACES = [(epoch, 10 * epoch + step) for epoch in (0, 1, 2) for step in (4, 8, 10)]
"""Epoch and iteration of the checkpoints of three epochs of ten steps, one every four steps of an epoch."""


@pytest.fixture(scope="session")
def one(configured: Configure) -> Configure:
    """A small configuration of one network: 10 steps an epoch, 3 epochs, a checkpoint every 4 steps."""

    def configure(**train: object) -> Config:
        return configured(**{"PBT_lr": None, "PBT_keep_prob": None, "num_epochs": 3, **train})

    return configure


class Interrupt(Observer):
    """Ends a run after some checkpoints."""

    def __init__(self, checkpoints: int) -> None:
        self._left = checkpoints

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


def trained(path: Path, config: Config, *, stop_after: int | None = None, resume: bool = False, **how: Any) -> Run:
    """Train in this process; with `stop_after`, end after so many checkpoints as Ctrl-C would."""
    prepared = prepare(config, INLINE, **how)
    if stop_after is None:
        return prepared.train(path, resume=resume)
    with pytest.raises(KeyboardInterrupt):
        prepared.train(path, resume=resume, observers=[Interrupt(stop_after)])
    return Run.open(path)


@pytest.fixture(scope="module")
def whole(one: Configure, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was never stopped, to be looked at only."""
    return trained(tmp_path_factory.mktemp("whole") / "run", one())


def path_of(run: Run) -> Path:
    assert run.path is not None
    return run.path


def reports_of(run: Run) -> list[Reported]:
    return list(run.tree.reports.values())


def going_on(one: Configure, path: Path, **keys: object) -> Config:
    return one(load_ckpt=str(path / "ckpts" / "latest.safetensors"), **keys)


# When a checkpoint is due


@pytest.mark.parametrize(("every", "per_epoch"), [(4, 10), (5, 10), (10, 10), (11, 10), (1, 7), (100, 275), (3, 1)])
def test_checkpoints_are_every_so_many_steps_of_an_epoch_and_at_its_end(every: int, per_epoch: int) -> None:
    """From any step the next ready one is the first that is a multiple inside its epoch or the epoch's last."""
    due = [s for s in range(1, 5 * per_epoch + 1) if s % per_epoch == 0 or s % per_epoch % every == 0]
    ready = Checkpoints(every, per_epoch)
    for step in range(4 * per_epoch):
        assert ready(step) == next(s for s in due if s > step)
    for epochs in (1, 3):
        assert ready.count(epochs) == sum(s <= epochs * per_epoch for s in due)


def test_a_checkpoint_is_logged_wherever_one_is_due(whole: Run) -> None:
    """The log has a report at every ready step, the last step of each epoch among them, and at no other."""
    assert [report.step for report in reports_of(whole)] == [step for _, step in PLACES]


def test_an_interval_longer_than_an_epoch_still_leaves_checkpoints(one: Configure, tmp_path: Path) -> None:
    """`num_iters_for_ckpt` above the steps of an epoch gives one checkpoint an epoch."""
    run = trained(tmp_path / "run", one(num_iters_for_ckpt=1000))
    assert [report.step for report in reports_of(run)] == [10, 20, 30]
    assert (tmp_path / "run" / "ckpts" / "latest.safetensors").exists()


def test_where_training_is_cut_does_not_change_what_is_computed(whole: Run, one: Configure, tmp_path: Path) -> None:
    """The network after each epoch has the same bits whatever the interval of checkpoints."""
    run = trained(tmp_path / "run", one(num_iters_for_ckpt=7))
    at_ends = [{r.step: r.digest for r in reports_of(found) if r.step % 10 == 0} for found in (run, whole)]
    assert at_ends[0] == at_ends[1]
    assert len(at_ends[0]) == 3


# The learning rate


@pytest.mark.parametrize("epochs", ["", "1", "2,1", "1,2,5", "30"])
def test_the_learning_rate_is_halved_at_the_end_of_each_named_epoch(one: Configure, epochs: str) -> None:
    """At any step it is the configured one, halved for each named epoch that is over, and it stays so."""
    named = [int(epoch) for epoch in epochs.split(",") if epoch]
    for num_epochs in (3, 40):
        config = one(decreasing_lr_epochs=epochs, lr=0.08, num_epochs=num_epochs)
        schedule = lr_schedule(config, 10)
        for step in range(400):
            assert schedule.at(step) == {"lr": 0.08 / 2 ** sum(step // 10 >= epoch for epoch in named)}


def test_the_halving_reaches_the_optimizer(whole: Run, one: Configure, tmp_path: Path) -> None:
    """`decreasing_lr_epochs` changes the rate that the optimizer trains with, and so the network, from there on."""
    run = trained(tmp_path / "run", one(decreasing_lr_epochs="1,2"))
    rates = [run.tree.hparams(0, report.round)["lr"] for report in reports_of(run)]
    assert rates == [0.01 / 2**epoch for epoch, _ in PLACES]
    same = [a.digest == b.digest for a, b in zip(reports_of(run), reports_of(whole), strict=True)]
    assert same == [True] * 3 + [False] * 6
    state = load_checkpoint(tmp_path / "run" / "ckpts" / "latest.safetensors")
    assert state["optimizer"]["param_groups"][0]["lr"] == 0.0025


def test_batch_norm_can_be_left_out(whole: Run, one: Configure, tmp_path: Path) -> None:
    """`batch_norm: 0` trains a network without running means, for both kinds of network."""
    assert any("running_mean" in name for name in whole.load_state()["model"])
    for model in ("fc", "conv"):
        run = trained(tmp_path / model, one(batch_norm=0, model=model, num_epochs=1, num_iters_for_ckpt=10))
        assert not any("running_mean" in name for name in run.load_state()["model"])


# What a run leaves


def test_the_losses_are_those_of_the_log(whole: Run, table: Table) -> None:
    """`loss_summary.csv` has the original's columns and a row per checkpoint; one that was not tested has -1."""
    rows = table(path_of(whole) / "loss_summary.csv")
    assert list(rows[0]) == ["", "epoch", "iter", "train_loss", "test_loss"]
    assert [(int(row["epoch"]), int(row["iter"])) for row in rows] == PLACES
    for number, (row, report) in enumerate(zip(rows, reports_of(whole), strict=True)):
        assert float(row["train_loss"]) == report.reported["train_loss"]
        assert (row[""], row["test_loss"]) == (str(number), "-1")


def test_checkpoints_has_everything_that_was_measured(whole: Run, table: Table) -> None:
    """`checkpoints.csv` has the log's numbers of every checkpoint, its rate, its state and its data."""
    rows = table(path_of(whole) / "checkpoints.csv")
    assert [(int(row["epoch"]), int(row["iter"])) for row in rows] == PLACES
    for row, report in zip(rows, reports_of(whole), strict=True):
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert float(row[name]) == report.reported[name]
        assert float(row["lr"]) == whole.tree.hparams(0, report.round)["lr"]
        assert (row["test_loss"], row["test_accuracy"], row["digest"]) == ("", "", report.digest)
        assert float(row["seconds"]) > 0
        assert "not MNIST" in row["data"]


def test_tested_checkpoints_have_their_test_loss(whole: Run, tmp_path: Path, table: Table) -> None:
    """A test is in the rows of its checkpoint, and in no other; a metric that only some have leaves empty cells."""
    path = Path(shutil.copytree(path_of(whole), tmp_path / "run"))
    record_test(path, 10, {"loss": 0.5, "accuracy": 0.9}, 10, "")
    record_test(path, 24, {"loss": 0.25, "accuracy": 0.95, "error": 0.05}, 10, "")
    losses = {(int(row["epoch"]), int(row["iter"])): row["test_loss"] for row in table(path / "loss_summary.csv")}
    assert losses == {place: {(0, 10): "0.5", (2, 24): "0.25"}.get(place, "-1") for place in PLACES}
    assert (path / "results.csv").read_text() == (",epoch,iter,test_loss,test_acc\n0,0,10,0.5,90.0\n1,2,24,0.25,95.0\n")
    errors = {int(row["iter"]): row["test_error"] for row in table(path / "checkpoints.csv")}
    assert errors == {step: "0.05" if step == 24 else "" for _, step in PLACES}
    assert read_tests(tmp_path / "nowhere") == {}


def test_the_arguments_are_the_configurations(whole: Run, one: Configure) -> None:
    """`args_train.json` and `args_test.json` are the sections as the original wrote them, without a worker."""
    for section in ("train", "test"):
        args = json.loads((path_of(whole) / f"args_{section}.json").read_text())
        assert args == one().to_plain(section)  # type: ignore[arg-type]
    assert not list(path_of(whole).glob("args_*_0.json"))


def test_the_checkpoints_are_the_newest_and_the_one_that_validation_chose(whole: Run) -> None:
    """`latest` is the last state of the log; `best` the first with the highest validation accuracy."""
    ckpts, reports = path_of(whole) / "ckpts", reports_of(whole)
    best = max(reports, key=lambda report: report.scores[0])
    assert {path.name for path in ckpts.iterdir()} == {"latest.safetensors", "best.safetensors"}
    assert digest_of((ckpts / "latest.safetensors").read_bytes()) == reports[-1].digest
    assert digest_of((ckpts / "best.safetensors").read_bytes()) == best.digest
    assert [report.scores[0] for report in reports] == [report.reported["val_accuracy"] for report in reports]
    assert len({report.scores[0] for report in reports}) > 1


def test_with_nothing_held_out_the_best_is_the_last(one: Configure, tmp_path: Path, table: Table) -> None:
    """`num_val: 0` trains on everything; after every checkpoint the best one is the newest."""
    prepared = prepare(one(num_val=0), INLINE)
    assert prepared.steps_per_epoch == 12
    seen: list[tuple[Any, Any]] = []

    class Watch(Observer):
        def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
            newest = [event for event in events if isinstance(event, Reported)][-1]
            assert engine.view.best is not None
            seen.append((engine.view.best.state, newest.state))

    prepared.train(tmp_path / "run", resume=False, observers=[Watch()])
    assert len(seen) == 9
    assert all(best == newest for best, newest in seen)
    latest, best = (tmp_path / "run" / "ckpts" / f"{name}.safetensors" for name in ("latest", "best"))
    assert latest.read_bytes() == best.read_bytes()
    assert {row["val_loss"] for row in table(tmp_path / "run" / "checkpoints.csv")} == {""}


def test_debug_leaves_arguments_and_the_newest_checkpoint(one: Configure, whole: Run, tmp_path: Path) -> None:
    """`--debug` writes no table, no scalar and no best checkpoint, and trains the same network, resumed or not."""
    left = {"run.db", "states", "lock", "ckpts", "args_train.json", "args_test.json"}
    trained(tmp_path / "run", one(), stop_after=4, debug=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} == left
    run = resume(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == left
    assert [path.name for path in (tmp_path / "run" / "ckpts").iterdir()] == ["latest.safetensors"]
    latest = (tmp_path / "run" / "ckpts" / "latest.safetensors").read_bytes()
    assert digest_of(latest) == reports_of(whole)[-1].digest
    assert run.events == whole.events


def test_the_test_images_have_no_part_in_training(
    one: Configure, whole: Run, make_digits: Callable[..., Path], tmp_path: Path
) -> None:
    """With shuffled test labels every score and every trained bit is the same."""
    data = make_digits(tmp_path / "data", shuffled_test=True)
    assert trained(tmp_path / "run", one(data_dir=str(data))).events == whole.events


def test_a_run_is_its_seed(one: Configure, whole: Run, tmp_path: Path) -> None:
    """The same seed trains the same network to the bit, another seed another one."""
    again, other = (trained(tmp_path / str(seed), one(num_epochs=1, seed=seed)) for seed in (117, 118))
    first = [report.digest for report in reports_of(whole)][:3]
    assert [report.digest for report in reports_of(again)] == first
    assert not {report.digest for report in reports_of(other)} & set(first)


def test_evolving_values_take_the_other_program(configured: Configure) -> None:
    """A configuration of a population is told which program trains it."""
    with pytest.raises(ConfigError, match=r"found PBT_lr, PBT_keep_prob; .* main_PBT\.py"):
        check_program(configured(), single=True)


def test_a_loss_that_is_not_finite_ends_the_run(
    one: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that diverged is never a checkpoint: the run ends with an error, and the last good state is kept."""

    class Diverging:
        def __init__(self, task: Any) -> None:
            self.task, self.check = task, task.check

        def trainer(self, device: str, threads: int) -> Any:
            train = self.task.trainer(device, threads)

            def some(hparams: Any, state: Any, steps: int, ctx: Any) -> Any:
                state, metrics = train(hparams, state, steps, ctx)
                return state, {**metrics, "score": np.nan if ctx.round == 5 else metrics["score"]}

            return some

    whole = training.supervised
    monkeypatch.setattr(training, "supervised", lambda config, **how: Diverging(whole(config, **how)))
    with pytest.raises(PopulationLostError, match=r"after epoch 1.4 \(step 14\): .*the score is not a finite"):
        trained(tmp_path / "run", one())
    run = Run.open(tmp_path / "run")
    assert [report.round for report in reports_of(run)] == [1, 2, 3, 4]
    latest = (tmp_path / "run" / "ckpts" / "latest.safetensors").read_bytes()
    assert digest_of(latest) == reports_of(run)[-1].digest


# Going on


@pytest.mark.parametrize("checkpoints", [1, 3, 5, 8])
def test_a_resumed_run_is_an_undisturbed_one(
    one: Configure, whole: Run, derived: Derived, tmp_path: Path, checkpoints: int
) -> None:
    """Whatever checkpoint it stopped after, a resumed run has the log and the files of one that never stopped."""
    trained(tmp_path / "run", one(), stop_after=checkpoints)
    run = resume(tmp_path / "run")
    assert run.events == whole.events
    assert derived(tmp_path / "run") == derived(path_of(whole))


def test_load_ckpt_goes_on_in_the_same_directory(one: Configure, whole: Run, derived: Derived, tmp_path: Path) -> None:
    """`load_ckpt` goes on with optimizer, epoch and step of the directory it names, to the bits of one run."""
    trained(tmp_path / "run", one(), stop_after=4)
    wanted = going_on(one, tmp_path / "run")
    assert beginning(wanted) == Beginning(path=tmp_path / "run")
    run = trained(tmp_path / "run", wanted, resume=True)
    assert run.events == whole.events
    expected = derived(path_of(whole))
    different = {name for name, blob in derived(tmp_path / "run").items() if expected.pop(name) != blob}
    assert different == {"args_train.json"}  # which says where it was loaded from
    assert not expected


def test_the_optimizer_is_in_a_checkpoint(whole: Run) -> None:
    """A checkpoint holds Adam's moments and its step count, so that going on does not begin it anew."""
    optimizer = load_checkpoint(path_of(whole) / "ckpts" / "latest.safetensors")["optimizer"]
    slots = optimizer["state"].values()
    assert {float(slot["step"]) for slot in slots} == {30.0}
    assert all(slot["exp_avg"].abs().sum() > 0 for slot in slots)


def test_more_epochs_are_a_longer_run(one: Configure, whole: Run, derived: Derived, tmp_path: Path) -> None:
    """A finished run that is given more epochs ends with the log and the files of one that had them at once."""
    trained(tmp_path / "run", one(num_epochs=1))
    run = trained(tmp_path / "run", going_on(one, tmp_path / "run"), resume=True)
    logs = [[event for event in found.events if not isinstance(event, Ended)] for found in (run, whole)]
    assert logs[0] == logs[1]
    found, expected = derived(tmp_path / "run"), derived(path_of(whole))
    assert found.keys() == expected.keys()
    assert {name for name in expected if found[name] != expected[name]} == {"args_train.json"}


def test_an_extended_run_that_was_stopped_is_resumed_to_its_new_end(one: Configure, whole: Run, tmp_path: Path) -> None:
    """`pbt resume` of an extended run trains all epochs that were asked for last, and its record says how many."""
    trained(tmp_path / "run", one(num_epochs=1))
    wanted = going_on(one, tmp_path / "run")
    trained(tmp_path / "run", wanted, stop_after=2, resume=True)
    run = resume(tmp_path / "run")
    assert [report.digest for report in reports_of(run)] == [report.digest for report in reports_of(whole)]
    assert Config.from_dict(run.meta["application"]["config"]) == wanted
    assert json.loads((tmp_path / "run" / "args_train.json").read_text()) == wanted.to_plain("train")
    with pytest.raises(ConfigError, match="begun for 3 epochs"):
        beginning(going_on(one, tmp_path / "run", num_epochs=2))


def test_an_extension_that_died_before_it_was_recorded_is_mended(one: Configure, tmp_path: Path) -> None:
    """Where the log has the checkpoints of more epochs than the configuration, a resume makes the two one."""
    trained(tmp_path / "run", one(num_epochs=1))
    with RunStore.open(tmp_path / "run") as store:
        store.update_meta(rounds=6)
    run = resume(tmp_path / "run")
    assert len(reports_of(run)) == 6
    assert Config.from_dict(run.meta["application"]["config"]) == one(num_epochs=2)
    assert json.loads((tmp_path / "run" / "args_train.json").read_text())["num_epochs"] == 2


CHANGES: dict[str, object] = {
    "lr": 0.02,
    "batch_size": 25,
    "n_hiddens": "17",
    "model": "conv",
    "batch_norm": 0,
    "seed": 118,
    "num_iters_for_ckpt": 5,
    "decreasing_lr_epochs": "2",
    "keep_prob": 0.5,
    "weight_decay": 0.1,
    "num_val": 99,
    "shuffle": 0,
    "hflip": 1,
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_key_is_refused_by_its_name(one: Configure, whole: Run, key: str) -> None:
    """What would have made another network cannot change when training goes on: the error says from what to what."""
    before = one().to_plain("train")[key]
    wanted = going_on(one, path_of(whole), **{key: CHANGES[key]})
    with pytest.raises(ConfigError, match="cannot continue with another") as raised:
        beginning(wanted)
    assert f"{key} ({before!r} -> {wanted.to_plain('train')[key]!r})" in str(raised.value)


def test_fewer_epochs_are_refused(one: Configure, whole: Run) -> None:
    """Training that was begun for more epochs cannot go on for fewer: what is trained stays trained."""
    begun = one().train.num_epochs
    with pytest.raises(ConfigError, match=f"begun for {begun} epochs, expected at least as many, got {begun - 1}"):
        beginning(going_on(one, path_of(whole), num_epochs=begun - 1))


def test_several_changed_keys_are_all_named(one: Configure, whole: Run) -> None:
    """One error names every key that changed, and the ones that may."""
    with pytest.raises(ConfigError) as raised:
        beginning(going_on(one, path_of(whole), lr=0.02, seed=118))
    said = str(raised.value)
    assert "lr (0.01 -> 0.02), seed (117 -> 118)" in said
    assert all(key in said.partition("may change")[2] for key in FREE)


def test_what_has_no_part_in_the_network_may_change(one: Configure, whole: Run, tmp_path: Path) -> None:
    """More epochs, other devices, threads and folders are no other training."""
    free = {"num_epochs": 9, "gpus": "", "threads": 2, "train_dir": str(tmp_path), "data_dir": str(tmp_path)}
    wanted = going_on(one, path_of(whole), **free)
    assert beginning(wanted) == Beginning(path=path_of(whole))


def test_without_load_ckpt_a_run_is_new(one: Configure) -> None:
    """An empty `load_ckpt` asks for nothing to go on with."""
    assert beginning(one()) == Beginning()


@pytest.mark.parametrize("name", ["best", "earlier"])
def test_an_earlier_checkpoint_continues_in_a_new_directory(
    one: Configure, whole: Run, derived: Derived, tmp_path: Path, name: str
) -> None:
    """From the best or a kept checkpoint, a new run has the log before it and trains on to the bits of the old one."""
    source = tmp_path / "source"
    trained(source, one(), stop_after=4)
    kept = tmp_path / "kept.safetensors" if name == "best" else source / "ckpts" / "epoch_2.safetensors"
    shutil.copy(source / "ckpts" / "latest.safetensors", kept)
    resume(source)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    wanted = one(load_ckpt=str(kept if name == "earlier" else source / "ckpts" / "best.safetensors"))
    start = beginning(wanted)
    assert start.branch is not None
    place = 4 if name == "earlier" else whole.best.round
    assert start.branch.report == reports_of(whole)[place - 1]
    start.branch.write(tmp_path / "new", 9, 10)
    assert Run.open(tmp_path / "new").events == whole.events[: whole.events.index(reports_of(whole)[place - 1]) + 1]
    run = trained(tmp_path / "new", wanted, resume=True)
    assert run.events == whole.events
    found, expected = derived(tmp_path / "new"), derived(path_of(whole))
    assert {name for name in expected if found.get(name) != expected[name]} <= {"args_train.json"}
    assert not [problem for problem in verify_run(tmp_path / "new") if not problem.harmless]
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    with pytest.raises(ConfigError, match="with 10 steps an epoch, found 20"):
        start.branch.write(tmp_path / "other", 9, 20)
    with pytest.raises(ConfigError, match="num_epochs"):
        beginning(one(load_ckpt=wanted.train.load_ckpt, num_epochs=1))


def model_file(path: Path, config: Config, **changed: object) -> Path:
    """A model file of a network that is initialized by a seed of its own."""
    torch.manual_seed(5)
    weights = network(Shape.of(config.train)).state_dict()
    path.write_bytes(encode({"model": weights, "config": config.changed(**changed).to_dict()}))
    return path


def test_a_model_file_is_fine_tuned(one: Configure, whole: Run, tmp_path: Path) -> None:
    """Training with a model's weights begins at epoch 0 where the model stands; a resume needs the file no more."""
    path = model_file(tmp_path / "model.safetensors", one())
    weights = beginning(one(load_ckpt=str(path))).weights
    assert weights is not None
    started = prepare(one(num_iters_for_ckpt=1, lr=1e-7), INLINE, weights=weights)
    with pytest.raises(KeyboardInterrupt):
        started.train(tmp_path / "run", resume=False, observers=[Interrupt(1)])
    first = load_checkpoint(tmp_path / "run" / "ckpts" / "latest.safetensors")["model"]
    for name, tensor in weights.items():
        if "weight" in name:
            assert torch.allclose(tensor, first[name], atol=1e-6)
    path.unlink()
    run = resume(tmp_path / "run")
    assert [report.step for report in reports_of(run)] == list(range(1, 31))
    again = beginning(one(num_iters_for_ckpt=1, lr=1e-7, load_ckpt=str(tmp_path / "run/ckpts/latest.safetensors")))
    assert again.weights is not None
    assert all(torch.equal(again.weights[name], weights[name]) for name in weights)


def test_fine_tuning_that_stopped_before_a_checkpoint_begins_with_the_same_weights(
    one: Configure, tmp_path: Path
) -> None:
    """What stops before the first checkpoint is resumed to the bits of what never stopped."""
    weights = beginning(one(load_ckpt=str(model_file(tmp_path / "model.safetensors", one())))).weights

    class Stop(Observer):
        def on_start(self, engine: Engine) -> None:
            raise KeyboardInterrupt

    prepared = prepare(one(num_epochs=1), INLINE, weights=weights)
    with pytest.raises(KeyboardInterrupt):
        prepared.train(tmp_path / "stopped", resume=False, observers=[Stop()])
    assert resume(tmp_path / "stopped").events == prepared.train(tmp_path / "whole", resume=False).events


def test_a_workers_checkpoint_is_fine_tuned(one: Configure, finished: Run) -> None:
    """A checkpoint of a population gives its weights to a new run."""
    path = path_of(finished) / "ckpts" / "latest_0.safetensors"
    weights = beginning(one(load_ckpt=str(path))).weights
    assert weights is not None
    assert all(torch.equal(weights[name], tensor) for name, tensor in load_checkpoint(path)["model"].items())


@pytest.mark.parametrize(
    ("keys", "said"), [({"n_hiddens": "17"}, "found another"), ({"pixels": "original"}, "pixels: ")]
)
def test_weights_of_another_network_are_refused(
    one: Configure, tmp_path: Path, keys: dict[str, object], said: str
) -> None:
    """Fine-tuning takes the configured network and its scale of pixels, and says which key differs."""
    path = model_file(tmp_path / "model.safetensors", one())
    with pytest.raises(ConfigError, match=said):
        beginning(one(load_ckpt=str(path), **keys))


def test_a_file_that_is_no_checkpoint_is_refused(one: Configure, tmp_path: Path) -> None:
    """An empty file is not taken for a network, and nothing is begun anew instead."""
    (tmp_path / "ckpts").mkdir()
    (tmp_path / "ckpts" / "latest.safetensors").touch()
    with pytest.raises(CorruptError, match="expected a safetensors checkpoint"):
        beginning(going_on(one, tmp_path))


def test_a_home_folder_is_expanded(one: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` in `load_ckpt` is the user's home, in every section."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = model_file(tmp_path / "model.safetensors", one())
    config = one(load_ckpt="~/model.safetensors")
    assert config.train.load_ckpt == str(path)
    assert beginning(config).weights is not None


def test_a_checkpoint_that_is_not_there_is_refused(one: Configure, whole: Run) -> None:
    """A wrong name in the right directory is an error, not a silent start from somewhere else."""
    with pytest.raises(ConfigError, match=r"cannot read .*latest_7\.safetensors"):
        beginning(one(load_ckpt=str(path_of(whole) / "ckpts" / "latest_7.safetensors")))


class Trap:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("save", [lambda x, path: path.write_bytes(pickle.dumps(x)), torch.save], ids=["bare", "torch"])
def test_a_pickle_is_not_gone_on_with(one: Configure, tmp_path: Path, save: Callable[[Any, Path], object]) -> None:
    """A checkpoint that was replaced by a pickle is refused, and what it would do is not done."""
    trained(tmp_path / "run", one(num_epochs=1))
    save({"model": Trap(tmp_path / "sprung")}, tmp_path / "run" / "ckpts" / "latest.safetensors")
    with pytest.raises(CorruptError, match="expected a safetensors checkpoint"):
        beginning(going_on(one, tmp_path / "run"))
    assert not (tmp_path / "sprung").exists()


def test_other_data_cannot_be_gone_on_with(one: Configure, tmp_path: Path) -> None:
    """Data of another size make another number of steps an epoch: going on with them is refused, the log stays."""
    path = tmp_path / "run"
    run = trained(path, one(), stop_after=2)
    with pytest.raises(UsageError, match="this run was started with plan"):
        trained(path, one(num_val=400), resume=True)
    assert Run.open(path).events == run.events


def test_a_single_network_is_extended_by_epochs(whole: Run) -> None:
    """`pbt resume --rounds` is refused with what to do instead."""
    with pytest.raises(ConfigError, match="set num_epochs and load_ckpt"):
        resume(path_of(whole), rounds=20)


def test_the_best_state_of_a_finished_run_is_there(whole: Run) -> None:
    """The state that validation chose is kept to the end, whichever checkpoint it was."""
    state = whole.load_state(whole.best.state)
    assert whole.best.state in {StateRef(0, report.round) for report in reports_of(whole)}
    assert set(state) == {"model", "optimizer"}
