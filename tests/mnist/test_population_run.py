"""Population runs from a configuration: what is selected by what, what a resume does, what may evolve."""

import json
import logging
import math
import os
import signal
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pbt.core.events import Born, Decided, Ended, Event, Reported
from pbt.core.exploit import number_replaced
from pbt.core.population import StateRef
from pbt.errors import ConfigError, DeviceError, RunFormatError, UsageError
from pbt.mnist import training
from pbt.mnist.checks import check_program
from pbt.mnist.config.record import Config
from pbt.mnist.placement import gpu_of, gpus_of, placement_of
from pbt.mnist.recorded import POPULATION
from pbt.mnist.schedules import copied_share
from pbt.mnist.task import supervised
from pbt.mnist.training import prepare, resume
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from pbt.store.codec import digest_of

Trained = Callable[..., Run]
Configure = Callable[..., Config]
Derived = Callable[[Path], dict[str, bytes]]
INLINE = Placement(executor="inline", threads=1, device="cpu")
NO_GPU = "1000,1001"


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are most of the time of a small run."""
    for name in ("plot_results", "plot_schedule"):
        monkeypatch.setattr(training, name, lambda *_: None)


def path_of(run: Run) -> Path:
    assert run.path is not None
    return run.path


# What a configuration means


def test_a_session_is_so_many_epochs_of_so_many_steps(configured: Configure) -> None:
    """Images that do not fill a batch are left out of an epoch; the last session counts although it is shorter."""
    prepared = prepare(configured(batch_size=60, num_epochs=2, num_epochs_tot=5), INLINE)
    assert (prepared.steps_per_epoch, prepared.rounds) == (8, 3)
    assert prepared.experiment().plan.next_ready(0) == 16


def test_the_experiment_is_the_configuration(configured: Configure) -> None:
    """Population, rounds, seed, share of copies and factors are those of the file."""
    config = configured(seed=5, exploit_fraction=0.4, mutation="0.5,2", num_worker_tot=7, num_epochs_tot=6)
    experiment = prepare(config, INLINE).experiment()
    assert (experiment.population, experiment.rounds, experiment.seed) == (7, 6, 5)
    plan = json.dumps(experiment.plan.describe())
    assert str(3 / 7) in plan
    assert "[0.5, 2.0]" in plan


@pytest.mark.parametrize("workers", [*range(1, 41), 1000])
def test_the_number_of_copies_is_the_originals(workers: int) -> None:
    """A fifth of the workers, rounded up, is replaced: of 7 two, of 12 three; a worker is never its own donor."""
    copies = number_replaced(copied_share(0.2, workers), workers)
    assert copies == min(math.ceil(workers / 5), workers // 2)
    assert number_replaced(copied_share(0.5, workers), workers) == workers // 2
    assert copied_share(0, workers) == 0


def test_a_run_without_evolving_values_is_refused(configured: Configure) -> None:
    """A configuration of a single network is told which program trains it."""
    with pytest.raises(ConfigError, match=r"at least one PBT_<name> key.*main\.py"):
        check_program(configured(PBT_lr=None, PBT_keep_prob=None), single=False)


def test_a_run_without_held_out_images_is_refused(configured: Configure) -> None:
    """With nothing held out nothing could select but the test set, which never does."""
    with pytest.raises(ConfigError, match="the test set never selects"):
        prepare(configured(num_val=0), INLINE)


def test_without_a_test_a_population_trains_the_same(
    trained: Trained, finished: Run, configured: Configure, tmp_path: Path
) -> None:
    """`test.version: test_none` reports no test result, changes no decision, and leaves -1 in the chosen's card."""
    sections = configured().to_dict()
    sections["test"]["version"] = "test_none"
    run = trained(tmp_path / "run", Config.from_dict(sections))
    assert outcome(run.events) == outcome(finished.events)
    assert not {name for e in run.events if isinstance(e, Reported) for name in e.reported if "test" in name}
    assert json.loads((path_of(run) / "best" / "schedule.json").read_text())["test_acc"] == -1


@pytest.mark.usefixtures("_undrawn")
@pytest.mark.parametrize("executor", ["inline", "vectorized"])
def test_the_rate_of_a_population_is_halved_where_it_does_not_evolve(
    configured: Configure, tmp_path: Path, executor: str
) -> None:
    """`decreasing_lr_epochs` halves the learning rate of every worker at the end of each named epoch."""
    config = configured(PBT_lr=None, lr=0.08, decreasing_lr_epochs="2,1", num_epochs_tot=3)
    prepared = replace(prepare(config, INLINE), placement=replace(INLINE, executor=executor, workers=1))
    run = prepared.train(tmp_path / "run", resume=False)
    for worker in range(4):
        (group,) = run.load_state(StateRef(worker, 3))["optimizer"]["param_groups"]
        assert group["lr"] == pytest.approx(0.02)


def test_train_metric_is_reported_of_the_held_out_images(
    trained: Trained, configured: Configure, tmp_path: Path
) -> None:
    """`train.metric` adds `val_<metric>` to what every session reports, where it is neither loss nor accuracy."""
    run = trained(tmp_path / "run", configured(num_worker_tot=2, num_epochs_tot=1, metric="error"))
    for report in run.tree.reports.values():
        assert report.reported["val_error"] == pytest.approx(1 - report.scores[0])


# Where it is trained


def test_fewer_slots_than_workers_are_a_notice(configured: Configure, caplog: pytest.LogCaptureFixture) -> None:
    """`num_workers_paral` is an upper bound; where there is less room a notice says how many train at a time."""
    with caplog.at_level(logging.INFO, "pbt"):
        found = placement_of(configured(num_worker_tot=1000, num_workers_paral=900), executor="processes")
    assert found.workers is not None
    assert found.workers < 900
    assert f"num_workers_paral is 900: {found.workers} of them train at a time, on cpu" in caplog.text


def test_num_workers_paral_limits_the_workers(configured: Configure) -> None:
    """Never more members at a time than `num_workers_paral`: neither workers, nor members of one program."""
    for executor in ("auto", "processes", "vectorized"):
        found = placement_of(configured(num_workers_paral=1), executor=executor)
        assert (found.workers, found.members_per_program, found.executor) == (1, 1, executor)


def test_workers_on_ray_share_the_gpus(configured: Configure) -> None:
    """`gpus` says how many GPUs there are for `num_workers_paral` workers, wherever the cluster has them."""
    for gpus, workers, share in (("0,1", 4, 0.5), ("0,1", 2, 1.0), ("0", 3, 0.3333), ("", 4, 0.0)):
        config = configured(num_worker_tot=4, num_workers_paral=workers, gpus=gpus)
        found = placement_of(config, executor="ray", address="head:6379")
        assert (found.workers, found.cluster.gpus) == (workers, share)
        assert placement_of(config, executor="ray", address="head:6379", device="cpu").cluster.gpus == 0
        # On a Ray of this machine: those that are here.
        assert placement_of(config, executor="ray").cluster.gpus == 0


def test_configured_devices_that_are_absent_are_a_notice(
    configured: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    """`gpus` that are not there fall back to what is, and the notice names them."""
    with caplog.at_level(logging.INFO, "pbt"):
        found = placement_of(configured(gpus=NO_GPU))
    assert found.device == "cpu"
    assert f"gpus is {NO_GPU}: none exists, using the CPU" in caplog.text


@pytest.mark.parametrize(
    ("gpus", "there", "all_of_them", "one"),
    [
        ((), 2, "cpu", "cpu"),
        ((0, 1), 2, "cuda:0,cuda:1", "cuda:0"),
        ((1, 0), 2, "cuda:1,cuda:0", "cuda:1"),
        ((1,), 1, "cuda:0", "cuda:0"),
        ((0, 1), 1, "cuda:0", "cuda:0"),
        ((5, 6), 3, "cuda:0,cuda:1", "cuda:0"),
        ((0,), 0, "cpu", "cpu"),
    ],
)
def test_gpus_come_to_devices_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gpus: tuple[int, ...],
    there: int,
    all_of_them: str,
    one: str,
) -> None:
    """The named GPUs that exist, else others, else the CPU; a notice says so, and why one network takes one device."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with caplog.at_level(logging.INFO, "pbt"):
        assert gpus_of(gpus) == all_of_them
        assert bool(caplog.messages) is (all_of_them != ",".join(f"cuda:{gpu}" for gpu in gpus) and bool(gpus))
        caplog.clear()
        assert gpu_of(gpus) == one
    assert ("faster on one device" in caplog.text) is ("," in all_of_them)


def test_no_configured_device_is_the_cpu(configured: Configure, caplog: pytest.LogCaptureFixture) -> None:
    """Empty `gpus` means the CPU, also where there are others, and needs no notice."""
    with caplog.at_level(logging.INFO, "pbt"):
        assert placement_of(configured(num_workers_paral=1)).device == "cpu"
    assert "gpus" not in caplog.text


def test_a_device_of_the_command_line_must_be_there(configured: Configure) -> None:
    """A device that was asked for by name and is absent is an error, not a fallback."""
    with pytest.raises(DeviceError, match="cuda:1000"):
        placement_of(configured(), device="cuda:1000")


# Training


def outcome(events: Sequence[Event]) -> list[Any]:
    """The log without the numbers that are for people only."""
    return [replace(event, reported={}) if isinstance(event, Reported) else event for event in events]


def test_selection_never_sees_the_test_set(
    finished: Run, trained: Trained, configured: Configure, make_digits: Callable[..., Path], tmp_path: Path
) -> None:
    """With shuffled test labels every birth, score, decision and trained bit is the same; only test numbers differ."""
    data = make_digits(tmp_path / "data", shuffled_test=True)
    run = trained(tmp_path / "run", configured(data_dir=str(data)))
    assert outcome(run.events) == outcome(finished.events)
    assert [e.digest for e in run.events if isinstance(e, Reported)] == [
        e.digest for e in finished.events if isinstance(e, Reported)
    ]
    assert run.best.state == finished.best.state
    assert max(run.history()["test_accuracy"]) < min(finished.history()["test_accuracy"])


def test_weights_are_inherited(finished: Run) -> None:
    """A copy starts from its donor's state of that round, and goes on with its step count."""
    copies = [e.decision for e in finished.events if isinstance(e, Decided) and e.decision.kind == "exploit"]
    assert copies
    for copy in copies:
        assert copy.donor is not None
        assert copy.start == StateRef(copy.donor, copy.round - 1)
        own = finished.tree.reports[StateRef(copy.member, copy.round)]
        assert own.step == 10 * copy.round


def test_the_optimizer_goes_with_the_weights(finished: Run) -> None:
    """A checkpoint holds Adam's moments and its step count, so that a hand-over does not begin it anew."""
    state = finished.load_state(finished.best.state)
    (steps,) = {int(entry["step"]) for entry in state["optimizer"]["state"].values()}
    assert steps == finished.best.step
    assert all(entry["exp_avg_sq"].any() for entry in state["optimizer"]["state"].values())


@pytest.mark.parametrize("seed", [117, 118])
def test_a_run_is_its_seed(finished: Run, trained: Trained, configured: Configure, tmp_path: Path, seed: int) -> None:
    """The same seed gives the same log, another seed another."""
    run = trained(tmp_path / "run", configured(seed=seed))
    assert (run.events == finished.events) is (seed == 117)


@pytest.mark.parametrize(
    "keys",
    [
        {"PBT_weight_decay": "0.1,0.0001", "PBT_label_smoothing": "0,0.3"},
        {"PBT_beta1": "0.5,0.95", "PBT_beta2": "0.9,0.999"},
        {"PBT_lr": "0.1,0.05,0.02,0.01,0.001", "mutation": "0.5,2"},
        {"PBT_lr": "0.1,0.01", "PBT_lr_bounds": "1,0.001", "PBT_lr_scale": "log"},
        {"model": "conv", "n_filters": "2,3", "PBT_keep_prob": "0.9,1"},
        {"data_order": "member", "PBT_lr": "0.01,0.1"},
    ],
    ids=["decay", "betas", "choices", "bounds", "conv", "order"],
)
def test_any_named_value_evolves(
    trained: Trained, configured: Configure, table: Any, tmp_path: Path, keys: dict[str, str]
) -> None:
    """Each `PBT_<name>` has its two columns, stays inside its bounds or among its choices, and moves when explored."""
    config = configured(**{"PBT_lr": None, "PBT_keep_prob": None, "num_worker_tot": 3, "exploit_fraction": 0.5, **keys})
    run = trained(tmp_path / "run", config)
    rows = table(path_of(run) / "history.csv")
    names = list(config.evolving)
    assert list(rows[0])[5:-1] == [*names, *(f"mutation_{name}" for name in names)]
    explored = [row for row in rows if row["copied_from_w"] != "-1"]
    assert explored
    for name, entry in config.evolving.items():
        low, high = entry.bounds
        assert all(low <= float(row[name]) <= high for row in rows)
        assert {float(row[f"mutation_{name}"]) for row in explored} <= set(config.train.mutation)
        if entry.kind == "choice":
            assert {float(row[name]) for row in rows} <= set(entry.values)
    assert any(link.decision is not None for link in run.lineage())


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_two_processes_leave_what_one_leaves(
    trained: Trained, configured: Configure, derived: Derived, tmp_path: Path
) -> None:
    """Two worker processes for four workers, in groups, leave byte by byte what this process alone leaves."""
    config = configured(num_workers_paral=2, num_epochs_tot=2)
    here = trained(tmp_path / "here", config)
    there = replace(prepare(config, INLINE), placement=replace(INLINE, executor="processes", workers=2))
    there.train(tmp_path / "there", resume=False)
    assert derived(tmp_path / "there") == derived(path_of(here))


ARGS = {f"args_{section}_{worker}.json" for section in ("train", "test") for worker in range(4)}


def test_debug_leaves_arguments_and_the_newest_checkpoints(
    finished: Run, trained: Trained, derived: Derived, tmp_path: Path
) -> None:
    """`--debug` writes arguments and newest checkpoints, no table, figure, scalar or best one, and trains the same."""
    run = trained(tmp_path / "run", debug=True, figures=True)
    assert {entry.name for entry in path_of(run).iterdir()} == {"run.db", "states", "lock", "ckpts"} | ARGS
    kept = {*ARGS, *(f"ckpts/latest_{worker}.safetensors" for worker in range(4))}
    assert derived(path_of(run)) == {name: blob for name, blob in derived(path_of(finished)).items() if name in kept}
    assert run.events == finished.events


# Failures


class Diverging:
    """A task in which some workers have no finite loss in one round."""

    def __init__(self, task: Any, members: set[int], round_: int) -> None:
        self.task, self.members, self.round = task, members, round_

    def check(self, hparams: Any) -> None:
        self.task.check(hparams)

    def trainer(self, device: str, threads: int) -> Any:
        train = self.task.trainer(device, threads)

        def train_or_diverge(hparams: Any, state: Any, steps: int, ctx: Any) -> Any:
            state, metrics = train(hparams, state, steps, ctx)
            lost = ctx.member in self.members and ctx.round == self.round
            return state, {**metrics, "score": float("nan")} if lost else metrics

        return train_or_diverge


@pytest.mark.parametrize("round_", [1, 2])
def test_a_worker_whose_loss_is_not_finite_is_replaced(
    trained: Trained, table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, round_: int
) -> None:
    """Workers that diverge have rows without scores that say so, are replaced by a good one, and the run goes on."""
    monkeypatch.setattr(training, "supervised", lambda config: Diverging(supervised(config), {1, 3}, round_))
    run = trained(tmp_path / "run")
    there = {(int(row["worker"]), int(row["round"])): row for row in table(path_of(run) / "members.csv")}
    assert list(there) == [(w, e) for e in (1, 2, 3) for w in range(4)]
    failed = {(1, round_), (3, round_)}
    assert {place for place, row in there.items() if row["status"] == "failed"} == failed
    assert {row["status"] for place, row in there.items() if place not in failed} == {"trained"}
    for place, row in there.items():
        scores = [row[name] for name in ("test_accuracy", "val_accuracy", "val_loss", "test_loss", "train_loss")]
        assert all(scores) is (place not in failed)
        assert any(scores) is (place not in failed)
        assert row["iter"] == str(10 * place[1])
        hparams = run.tree.hparams(*place)
        assert [float(row[name]) for name in ("lr", "keep_prob")] == [hparams["lr"], hparams["keep_prob"]]
    for worker in (1, 3):
        renewed = there[worker, round_ + 1]
        assert renewed["event"] == "replace"
        assert int(renewed["copied_from_w"]) in {0, 2}
    history = table(path_of(run) / "history.csv")
    assert [(int(row["worker"]), int(row["epoch"]) + 1) for row in history] == list(there)
    lost = {(int(row["worker"]), int(row["epoch"]) + 1) for row in history if row["test_acc"] == "-1"}
    assert lost == failed
    counts = [(row["trained"], row["failed"], row["copied"]) for row in table(path_of(run) / "rounds.csv")]
    assert counts[round_ - 1][:2] == ("2", "2")
    assert int(counts[round_][2]) == sum(
        row["copied_from_w"] != "" for place, row in there.items() if place[1] == round_ + 1
    )


def test_a_run_whose_workers_failed_at_the_end_has_all_its_files(
    trained: Trained, configured: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that never finished an epoch is in no figure and no table of its own, and stops none of them."""
    monkeypatch.setattr(training, "supervised", lambda config: Diverging(supervised(config), {1, 3}, 1))
    run = trained(tmp_path / "run", configured(num_epochs_tot=1), figures=True)
    assert [member.status for member in run.view.population] == ["live", "failed", "live", "failed"]
    assert (path_of(run) / "lr.png").stat().st_size > 0
    assert (path_of(run) / "best" / "schedule.json").exists()
    assert {path.name for path in path_of(run).glob("results_*.csv")} == {"results_0.csv", "results_2.csv"}


# Resume


@pytest.mark.usefixtures("_undrawn")
@pytest.mark.parametrize("rounds", [1, 2])
def test_a_resumed_run_is_an_undisturbed_one(
    interrupted: Any, finished: Run, derived: Derived, tmp_path: Path, rounds: int
) -> None:
    """Whatever epoch it stopped after, a resumed run has the events and the files of one that never stopped."""
    interrupted(tmp_path / "run", rounds=rounds)
    run = resume(tmp_path / "run")
    assert run.events == finished.events
    assert derived(path_of(run)) == derived(path_of(finished))


@pytest.mark.long
def test_a_killed_run_is_resumed_to_the_byte(
    program: Any, trained: Trained, derived: Derived, until_rows: Any, tmp_path: Path
) -> None:
    """After SIGKILL in the middle, every derived file is level with an undisturbed run's, byte by byte."""
    keys = {"num_epochs_tot": 8, "batch_size": 25}
    whole = trained(tmp_path / "whole", program.config(**keys))
    process = program.begin(*program.small(**keys), "--out", "run")
    history = tmp_path / "run" / "history.csv"
    until_rows(history, 4, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(history.read_bytes()) < len((tmp_path / "whole" / "history.csv").read_bytes())
    run = resume(tmp_path / "run")
    assert run.events == whole.events
    assert derived(path_of(run)) == derived(path_of(whole))
    assert (tmp_path / "run" / "results.png").stat().st_size > 0


@pytest.mark.usefixtures("_undrawn")
def test_a_finished_run_is_extended_to_the_bits_of_a_longer_one(
    trained: Trained, configured: Configure, finished: Run, derived: Derived, tmp_path: Path
) -> None:
    """Two epochs and one more are the same as three: in the log, in every file, in what is recorded of the run."""
    path = tmp_path / "run"
    trained(path, configured(num_epochs_tot=2))
    run = resume(path, rounds=3, placement=INLINE)
    same = [e for e in run.events if not isinstance(e, Ended)]
    assert same == [e for e in finished.events if not isinstance(e, Ended)]
    assert derived(path) == derived(path_of(finished))
    for name in ("application", "rounds"):
        assert run.meta[name] == finished.meta[name]
    assert derived(path_of(resume(path))) == derived(path_of(finished))


@pytest.mark.usefixtures("_undrawn")
def test_an_extension_that_the_configuration_cannot_hold_is_refused(
    trained: Trained, configured: Configure, tmp_path: Path
) -> None:
    """More epochs than a configuration may have are an error before anything is recorded of them."""
    run = trained(tmp_path / "run", configured(num_worker_tot=2, num_epochs_tot=1))
    with pytest.raises(ConfigError, match="num_epochs_tot: expected a whole number from 1 to 1000000"):
        resume(tmp_path / "run", rounds=1_000_001)
    assert Run.open(tmp_path / "run").meta == run.meta


@pytest.mark.usefixtures("_undrawn")
def test_the_last_session_may_be_cut_short_by_the_configuration(
    trained: Trained, configured: Configure, tmp_path: Path
) -> None:
    """Epochs that are no multiple of a session stay what was configured when a run is resumed as it is."""
    config = configured(num_worker_tot=2, num_epochs=2, num_epochs_tot=3)
    trained(tmp_path / "run", config)
    run = resume(tmp_path / "run")
    assert Config.from_dict(run.meta["application"]["config"]) == config
    run = resume(tmp_path / "run", rounds=3)
    assert run.meta["application"]["config"]["train"]["num_epochs_tot"] == 6


@pytest.mark.usefixtures("_undrawn")
def test_resume_goes_on_where_the_run_was_begun(
    interrupted: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Executor, threads and device of a resumed run are those that were recorded, so that nothing has changed."""
    interrupted(tmp_path / "run")
    with caplog.at_level(logging.WARNING, "pbt"):
        run = resume(tmp_path / "run")
    assert run.meta["place"]["executor"] == "inline"
    assert "resumed with another placement" not in caplog.text


def test_a_debug_run_is_resumed_as_one(trained: Trained, tmp_path: Path) -> None:
    """What was begun without tables goes on without them."""
    trained(tmp_path / "run", debug=True)
    resume(tmp_path / "run", rounds=4)
    assert {entry.name for entry in (tmp_path / "run").iterdir()} == {"run.db", "states", "lock", "ckpts"} | ARGS


def test_a_run_of_another_format_is_not_resumed(trained: Trained, configured: Configure, tmp_path: Path) -> None:
    """A run directory of another version is an error that says which, and stays as it was."""
    path = path_of(trained(tmp_path / "run", configured(num_worker_tot=2, num_epochs_tot=1)))
    with sqlite3.connect(path / "run.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = (path / "run.db").read_bytes()
    with pytest.raises(RunFormatError, match="99"):
        resume(path)
    assert (path / "run.db").read_bytes() == before


def test_another_configuration_cannot_take_over_a_run(
    trained: Trained, configured: Configure, interrupted: Any, derived: Derived, tmp_path: Path
) -> None:
    """Going on with other bounds is refused, and no file of the run is touched."""
    interrupted(tmp_path / "run")
    before = derived(tmp_path / "run")
    with pytest.raises(UsageError, match="started with space"):
        trained(tmp_path / "run", configured(PBT_lr="0.2,0.0001"), resume=True)
    assert derived(tmp_path / "run") == before


def test_no_figures_are_a_warning_where_matplotlib_is_missing(
    trained: Trained, configured: Configure, tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Without matplotlib a run ends well, with everything but its figures."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    run = trained(tmp_path / "run", configured(num_worker_tot=2, num_epochs_tot=1), figures=True)
    assert "no figures" in caplog.text
    assert not list(path_of(run).glob("*.png"))
    assert (path_of(run) / "best" / "schedule.json").exists()


def test_members_are_born_with_noise_of_their_own_and_data_in_common(finished: Run) -> None:
    """Workers start from different weights and values, and see the images in the same order."""
    births = [event for event in finished.events if isinstance(event, Born)]
    assert len({tuple(birth.hparams.values()) for birth in births}) == len(births) == 4
    first = [torch.as_tensor(finished.tree.reports[StateRef(m, 1)].reported["train_loss"]) for m in range(4)]
    assert len({float(loss) for loss in first}) == 4
    assert finished.meta["application"]["name"] == POPULATION
    assert (
        len({digest_of((path_of(finished) / "ckpts" / f"latest_{m}.safetensors").read_bytes()) for m in range(4)}) == 4
    )
