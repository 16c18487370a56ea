"""The files beside the log: what the original left, derived from the log and never half there."""

import contextlib
import functools
import itertools
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pbt.core.events import Reported
from pbt.core.population import StateRef
from pbt.mnist import files, tables, training
from pbt.mnist.config.record import Config
from pbt.mnist.files import copy_state
from pbt.mnist.tables import percent, write
from pbt.mnist.task import supervised
from pbt.runs.results import Run
from pbt.store.codec import decode, digest_of
from pbt.store.files import file_name
from pbt.store.memory import MemoryStore
from tests.helpers.sampled import sampled

Table = Callable[[Path], list[dict[str, str]]]
Trained = Callable[..., Run]
Configure = Callable[..., Config]
Derived = Callable[[Path], dict[str, bytes]]

WORKERS, EPOCHS, STEPS = 4, 3, 10
NOTE = "600 + 100 images of another data set in MNIST's file format: not MNIST"
HISTORY = [
    "",
    "worker",
    "epoch",
    "iter",
    "test_acc",
    "lr",
    "keep_prob",
    "mutation_lr",
    "mutation_keep_prob",
    "copied_from_w",
]
"""The columns of the original for two evolving hyperparameters; the index has no name."""


def path_of(run: Run) -> Path:
    assert run.path is not None
    return run.path


def reports_of(run: Run) -> dict[StateRef, Reported]:
    return run.tree.reports


def test_a_run_leaves_the_files_of_the_original_and_nothing_else(finished: Run) -> None:
    """A finished run has tables, arguments and checkpoints of every worker, figures, the best network, and no more."""
    expected = {"history.csv", "members.csv", "rounds.csv", "results.png", "lr.png", "keep_prob.png", "run.db", "lock"}
    expected |= {"best/state.safetensors", "best/schedule.json"}
    for worker in range(WORKERS):
        expected |= {f"{name}_{worker}.csv" for name in ("results", "loss_summary")}
        expected |= {f"args_{section}_{worker}.json" for section in ("train", "test")}
        expected |= {f"ckpts/{kind}_{worker}.safetensors" for kind in ("latest", "best")}
    folder = path_of(finished)
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in there if not name.startswith(("states/", "tensorboard/"))} == expected


def test_history_has_the_columns_of_the_original(finished: Run, table: Table) -> None:
    """`history.csv` has an index, every worker once per epoch from 0, cumulative iterations and percentages."""
    rows = table(path_of(finished) / "history.csv")
    assert list(rows[0]) == HISTORY
    assert [(int(r[""]), int(r["worker"]), int(r["epoch"]), int(r["iter"])) for r in rows] == [
        (WORKERS * epoch + worker, worker, epoch, STEPS * (epoch + 1))
        for epoch in range(EPOCHS)
        for worker in range(WORKERS)
    ]
    for row, report in zip(rows, reports_of(finished).values(), strict=True):
        hparams = finished.tree.hparams(report.member, report.round)
        # 100 test images: each is one percent.
        assert float(row["test_acc"]) == round(100 * report.reported["test_accuracy"])
        assert {name: float(row[name]) for name in ("lr", "keep_prob")} == dict(hparams)


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.9457, "94.57"),
        (0.9505000000000001, "95.05"),
        (1.0, "100.0"),
        (0.07, "7.0"),
        (1 / 3, "33.333333333"),
        (None, "-1"),
    ],
)
def test_percentages_have_no_digits_of_arithmetic(share: float | None, shown: str) -> None:
    """A share of 10,000 images is a percentage of two decimals, however it was added up; what is missing is -1."""
    assert str(percent(share)) == shown


def test_history_tells_the_hand_overs(finished: Run, table: Table) -> None:
    """A copied row names its donor, the factors drawn, and values that are the donor's times them; others have -1."""
    rows = table(path_of(finished) / "history.csv")
    by_place = {(int(row["worker"]), int(row["epoch"])): row for row in rows}
    copied = [row for row in rows if row["copied_from_w"] != "-1"]
    assert len(copied) == EPOCHS - 1  # a quarter of four workers, at each of the ready points
    for row in copied:
        donor = by_place[int(row["copied_from_w"]), int(row["epoch"]) - 1]
        for name, (low, high) in {"lr": (0.0001, 0.1), "keep_prob": (0.5, 0.99)}.items():
            factor = float(row[f"mutation_{name}"])
            assert factor in (0.8, 1.2)
            moved = float(donor[name]) * factor
            assert low <= float(row[name]) <= high
            # At a wall a value is reflected or clipped; elsewhere it is the product.
            assert float(row[name]) == pytest.approx(moved) or not low <= moved <= high
    for row in (row for row in rows if row not in copied):
        assert {row["mutation_lr"], row["mutation_keep_prob"]} == {"-1"}


def test_the_readers_of_the_original_read_a_run(finished: Run) -> None:
    """What its plotting function, its test and its driver ask of the tables, by pandas, is there and right.

    The plot takes every column of `history.csv` that it does not know for a hyperparameter, adds it as a number, and
    expects each session to begin with worker 0 and to have a row for every worker.
    """
    history = pd.read_csv(path_of(finished) / "history.csv", index_col=0)
    known = {"worker", "epoch", "iter", "test_acc", "copied_from_w"}
    names = [name for name in history if name not in known and not name.startswith("mutation_")]
    assert names == ["lr", "keep_prob"]
    assert len(history) == WORKERS * EPOCHS
    plane, session = np.zeros((WORKERS, EPOCHS, 3)), -1
    for number in range(len(history)):
        row = history.iloc[number]
        session += int(row["worker"]) == 0
        plane[int(row["worker"]), session] = [row["lr"], row["keep_prob"], row["test_acc"]]
    log = finished.history()
    for report in range(len(history)):
        worker, at = log["member"][report], log["round"][report] - 1
        shown = [log["lr"][report], log["keep_prob"][report], 100 * log["test_accuracy"][report]]
        assert plane[worker, at].tolist() == pytest.approx(shown)
    for worker in range(WORKERS):
        results = pd.read_csv(path_of(finished) / f"results_{worker}.csv", index_col=0)
        # Its driver ranks by the last row; its tests look for a checkpoint by its iteration.
        assert results.iloc[len(results) - 1]["test_acc"] == plane[worker, -1, 2]
        assert list(results) == ["epoch", "iter", "test_loss", "test_acc"]
        losses = pd.read_csv(path_of(finished) / f"loss_summary_{worker}.csv", index_col=0)
        assert list(losses) == ["epoch", "iter", "train_loss", "test_loss"]
        for table in (results, losses):
            assert table["iter"].tolist() == [10, 20, 30]
            assert table["epoch"].tolist() == [0, 1, 2]
            assert not table.isna().any().any()
        assert losses["test_loss"].tolist() == results["test_loss"].tolist()


def test_results_of_a_worker_are_its_tests(finished: Run, table: Table) -> None:
    """`results_<w>.csv` has the test loss and accuracy after every epoch, as the log has them, and no more columns."""
    for worker in range(WORKERS):
        rows = table(path_of(finished) / f"results_{worker}.csv")
        own = [report for ref, report in reports_of(finished).items() if ref.member == worker]
        assert [list(row.values()) for row in rows] == [
            [
                str(epoch),
                str(epoch),
                str(STEPS * (epoch + 1)),
                str(report.reported["test_loss"]),
                str(percent(report.reported["test_accuracy"])),
            ]
            for epoch, report in enumerate(own)
        ]
        assert list(rows[0]) == ["", "epoch", "iter", "test_loss", "test_acc"]


def test_loss_summary_has_a_row_per_epoch(finished: Run, table: Table) -> None:
    """`loss_summary_<w>.csv` has one row per epoch with the losses of the log, however often losses are recorded."""
    for worker in range(WORKERS):
        rows = table(path_of(finished) / f"loss_summary_{worker}.csv")
        assert list(rows[0]) == ["", "epoch", "iter", "train_loss", "test_loss"]
        assert [(row[""], row["epoch"], row["iter"]) for row in rows] == [
            (str(epoch), str(epoch), str(STEPS * (epoch + 1))) for epoch in range(EPOCHS)
        ]
        for epoch, row in enumerate(rows):
            said = reports_of(finished)[StateRef(worker, epoch + 1)].reported
            assert (float(row["train_loss"]), float(row["test_loss"])) == (said["train_loss"], said["test_loss"])


def test_sessions_of_several_epochs_have_the_epoch_that_they_begin_with(
    trained: Trained, configured: Configure, table: Table, tmp_path: Path
) -> None:
    """With `num_epochs` 2 history and results name the epochs 0 and 2; the losses have all four, the last tested."""
    run = trained(tmp_path / "run", configured(num_epochs=2, num_epochs_tot=4, num_worker_tot=2))
    rows = table(path_of(run) / "history.csv")
    assert [(row["epoch"], row["iter"]) for row in rows] == [("0", "20")] * 2 + [("2", "40")] * 2
    assert [row["epoch"] for row in table(path_of(run) / "results_0.csv")] == ["0", "2"]
    losses = table(path_of(run) / "loss_summary_0.csv")
    assert [(row["epoch"], row["iter"]) for row in losses] == [("0", "10"), ("1", "20"), ("2", "30"), ("3", "40")]
    assert [row["test_loss"] != "-1" for row in losses] == [False, True, False, True]
    for round_ in (1, 2):
        said = reports_of(run)[StateRef(0, round_)].reported
        both = [float(row["train_loss"]) for row in losses[2 * round_ - 2 : 2 * round_]]
        assert sum(both) / 2 == pytest.approx(said["train_loss"])
        assert len(said["rows"]) == 6


def test_members_has_everything_that_was_measured(finished: Run, table: Table) -> None:
    """`members.csv` has the log's numbers of every worker and round to the last digit, its state and its data."""
    rows = table(path_of(finished) / "members.csv")
    for row, report in zip(rows, reports_of(finished).values(), strict=True):
        assert (int(row["worker"]), int(row["round"])) == (report.member, report.round)
        assert float(row["val_accuracy"]) == report.scores[0]
        numbers = {name: value for name, value in report.reported.items() if name != "rows"}
        assert {name: float(row[name]) for name in numbers} == numbers
        assert {name: float(row[name]) for name in ("lr", "keep_prob")} == dict(
            finished.tree.hparams(report.member, report.round)
        )
        decision = finished.tree.decisions.get((report.member, report.round))
        assert row["event"] == ("born" if decision is None else decision.kind)
        assert row["copied_from_w"] == ("" if decision is None or decision.donor is None else str(decision.donor))
        assert (row["status"], row["digest"], row["data"]) == ("trained", report.digest, NOTE)
        assert float(row["seconds"]) > 0


def test_rounds_is_the_population_after_each(finished: Run, table: Table) -> None:
    """`rounds.csv` has the best worker by validation, its test accuracy, and the spread of every round."""
    rows, there = table(path_of(finished) / "rounds.csv"), table(path_of(finished) / "members.csv")
    assert [(row["round"], row["epoch"], row["iter"]) for row in rows] == [
        (str(round_), str(round_ - 1), str(STEPS * round_)) for round_ in range(1, EPOCHS + 1)
    ]
    for row in rows:
        own = [member for member in there if member["round"] == row["round"]]
        scores = sorted(float(member["val_accuracy"]) for member in own)
        best = next(member for member in own if float(member["val_accuracy"]) == scores[-1])
        assert (row["best_worker"], row["test_accuracy_of_best"]) == (best["worker"], best["test_accuracy"])
        assert [float(row[f"val_accuracy_{name}"]) for name in ("of_worst", "median", "of_best")] == [
            scores[0],
            (scores[1] + scores[2]) / 2,
            scores[-1],
        ]
        assert (row["trained"], row["failed"], row["data"]) == (str(WORKERS), "0", NOTE)
        assert row["copied"] == str(sum(member["event"] == "exploit" for member in own))
        assert float(row["seconds"]) == pytest.approx(sum(float(member["seconds"]) for member in own), abs=0.01)


def test_selection_follows_validation(finished: Run, table: Table) -> None:
    """The donor of every copy is the best worker of the round before by validation, the copier is the worst."""
    rows = table(path_of(finished) / "members.csv")
    for row in (row for row in rows if row["event"] == "exploit"):
        before = [r for r in rows if int(r["round"]) == int(row["round"]) - 1]
        scores = {r["worker"]: float(r["val_accuracy"]) for r in before}
        assert scores[row["copied_from_w"]] == max(scores.values())
        assert scores[row["worker"]] == min(scores.values())


@pytest.mark.parametrize("metric", ["error", "accuracy_onehot"])
def test_a_named_metric_is_a_column_of_the_members(
    trained: Trained, configured: Configure, table: Table, tmp_path: Path, metric: str
) -> None:
    """A metric that is neither loss nor accuracy has a column in `members.csv`, and none in the original's tables."""
    stored = configured(num_worker_tot=2, num_epochs_tot=2).to_dict()
    run = trained(tmp_path / "run", Config.from_dict({**stored, "test": {**stored["test"], "metric": metric}}))
    for row in table(path_of(run) / "members.csv"):
        right = float(row["test_accuracy"])
        assert float(row[f"test_{metric}"]) == pytest.approx(1 - right if metric == "error" else right)
    assert list(table(path_of(run) / "results_0.csv")[0]) == ["", "epoch", "iter", "test_loss", "test_acc"]


def test_a_population_that_is_not_tested_has_minus_one(
    trained: Trained, configured: Configure, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the test images are left out the original's columns are there with -1, and ours are empty."""
    monkeypatch.setattr(training, "supervised", functools.partial(supervised, test=False))
    monkeypatch.setattr(training, "_card", lambda *_: {})
    run = trained(tmp_path / "run", configured(num_worker_tot=2, num_epochs_tot=1))
    assert [row["test_acc"] for row in table(path_of(run) / "history.csv")] == ["-1", "-1"]
    assert [(row["test_loss"], row["test_acc"]) for row in table(path_of(run) / "results_1.csv")] == [("-1", "-1")]
    assert [row["test_loss"] for row in table(path_of(run) / "loss_summary_1.csv")] == ["-1"]
    assert [row["test_accuracy"] for row in table(path_of(run) / "members.csv")] == ["", ""]
    assert [row["test_accuracy_of_best"] for row in table(path_of(run) / "rounds.csv")] == [""]


def test_the_arguments_of_each_worker_are_the_configuration(finished: Run, configured: Configure) -> None:
    """`args_train_<w>.json` and `args_test_<w>.json` are the resolved sections, for the worker in their name."""
    config = configured()
    for worker in range(WORKERS):
        found = {
            section: json.loads((path_of(finished) / f"args_{section}_{worker}.json").read_text())
            for section in ("train", "test")
        }
        assert found["train"]["worker_num"] == found["test"]["worker_num"] == worker
        again = Config.from_dict(found)
        assert again.to_plain("train", worker=0) == config.to_plain("train", worker=0)
        assert again.evolving == config.evolving


def test_latest_and_best_checkpoints_are_the_states_of_the_log(finished: Run) -> None:
    """`latest_<w>` is a worker's last state, `best_<w>` the first of its own with its highest validation accuracy."""
    for worker in range(WORKERS):
        own = [report for ref, report in reports_of(finished).items() if ref.member == worker]
        top = max(report.scores[0] for report in own)
        best = next(report for report in own if report.scores[0] == top)
        for kind, report in (("latest", own[-1]), ("best", best)):
            blob = (path_of(finished) / "ckpts" / f"{kind}_{worker}.safetensors").read_bytes()
            assert digest_of(blob) == report.digest, f"{kind}_{worker}"


def test_the_best_network_is_the_one_that_validation_chose(finished: Run) -> None:
    """`best/` has the state of the run's best member, and a card with its schedule and both accuracies."""
    best = finished.best
    folder = path_of(finished) / "best"
    assert digest_of((folder / "state.safetensors").read_bytes()) == reports_of(finished)[best.state].digest
    assert best.score == max(report.scores[0] for report in reports_of(finished).values())
    card = json.loads((folder / "schedule.json").read_text())
    assert (card["worker"], card["val_acc"], card["test_acc"]) == (
        best.member,
        best.score,
        best.reported["test_accuracy"],
    )
    assert card["epoch"] * card["steps_per_epoch"] == best.step
    assert card["segments"] == json.loads(json.dumps(finished.best_schedule.to_dict()["segments"]))
    assert card["data"] == NOTE


def test_states_that_live_in_the_database_get_files_too(
    trained: Trained, configured: Configure, tmp_path: Path
) -> None:
    """The checkpoints of a network small enough for the database are the same as those of a large one."""
    run = trained(tmp_path / "run", configured(n_hiddens="1", num_worker_tot=2, num_epochs_tot=2))
    assert not list((path_of(run) / "states").iterdir())
    for worker in range(2):
        blob = (path_of(run) / "ckpts" / f"latest_{worker}.safetensors").read_bytes()
        assert digest_of(blob) == reports_of(run)[StateRef(worker, 2)].digest
        assert decode(blob)["model"]["1.weight"].shape == (1, 784)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that dies before it is done leaves the old content, and nothing behind once another was done."""
    path = tmp_path / "history.csv"
    write(path, "old\n")

    def die(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            write(path, "new\n")
    assert path.read_text() == "old\n"
    write(path, "newer\n")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("history.csv", "newer\n")]


@contextlib.contextmanager
def watching(path: Path, found: set[bytes]) -> Iterator[None]:
    """Reads a file over and over, as a dashboard would."""
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                found.add(path.read_bytes())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_whoever_reads_during_a_run_reads_whole_tables(trained: Trained, tmp_path: Path) -> None:
    """Every content that `history.csv` ever has is a table of whole epochs, and each extends the one before."""
    found: set[bytes] = set()
    with watching(tmp_path / "run" / "history.csv", found):
        run = trained(tmp_path / "run")
    found.add((path_of(run) / "history.csv").read_bytes())
    seen = sorted(found, key=len)
    assert len(seen) >= 3
    assert all(b.startswith(a) for a, b in itertools.pairwise(seen))
    assert {(len(content.splitlines()) - 1) % WORKERS for content in seen} == {0}


class Death(BaseException):
    """The end of a process, as far as a test in the same process can have it."""


@pytest.mark.parametrize("write_number", sampled([1, 9, 10, 14, 19, 24, 31, 37, 46, 52, 60], (9, 24, 46)))
def test_whichever_file_a_run_dies_at_its_resume_brings_all_level(
    write_number: int,
    finished: Run,
    trained: Trained,
    derived: Derived,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that ends before any one of its writes has, once resumed, every file of an undisturbed run, byte by byte.

    Eight arguments and three tables at the start; then nineteen or twenty files an epoch, checkpoints first.
    """
    written = []

    def counted(of: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            written.append(args)
            if len(written) == write_number:
                raise Death
            return of(*args)

        return call

    with monkeypatch.context() as patch:
        for module, name in ((files, "write"), (tables, "write"), (files, "copy_state")):
            patch.setattr(module, name, counted(getattr(module, name)))
        with pytest.raises(Death):
            trained(tmp_path / "run")
    run = trained(tmp_path / "run", resume=True)
    assert run.events == finished.events
    assert derived(path_of(run)) == derived(path_of(finished))


def test_deleted_files_come_back_on_the_next_start(
    finished: Run, trained: Trained, derived: Derived, tmp_path: Path
) -> None:
    """Resuming a finished run writes what was deleted, but for checkpoints whose states were swept from it."""
    path = tmp_path / "run"
    shutil.copytree(path_of(finished), path)
    before = derived(path)
    for name in before:
        (path / name).unlink()
    trained(path, resume=True)
    kept = {digest_of(state.read_bytes()) for state in (path / "states").iterdir()}
    gone = {name for name, blob in before.items() if name.startswith("ckpts/best") and digest_of(blob) not in kept}
    assert derived(path) == {name: blob for name, blob in before.items() if name not in gone}
    assert not any(name.startswith("ckpts/latest") for name in gone)


def test_a_best_checkpoint_outlives_its_state(trained: Trained, configured: Configure, tmp_path: Path) -> None:
    """The best checkpoint of a worker that got worse is kept when the state that it came from is swept."""
    path = path_of(trained(tmp_path / "run", configured(PBT_lr="9,10", num_worker_tot=3, num_epochs_tot=8)))
    run = Run.open(path)
    swept = 0
    for worker in range(3):
        own = [report for ref, report in reports_of(run).items() if ref.member == worker]
        best = max(own, key=lambda report: (report.scores[0], -report.round))
        swept += not (path / "states" / file_name(best.state)).exists()
        assert digest_of((path / "ckpts" / f"best_{worker}.safetensors").read_bytes()) == best.digest
    assert swept


def test_a_state_that_is_gone_leaves_the_copy_that_was_made_of_it(tmp_path: Path) -> None:
    """Copying a state that was swept changes nothing."""
    store = MemoryStore({})
    target = tmp_path / "best_0.safetensors"
    target.write_bytes(b"the copy")
    copy_state(store, StateRef(0, 1), target)
    assert target.read_bytes() == b"the copy"
