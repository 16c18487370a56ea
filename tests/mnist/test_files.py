"""The files beside the log: what the original left, derived from the log and never half there."""

import contextlib
import itertools
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pbt.core.events import Reported
from pbt.core.population import StateRef
from pbt.mnist import files
from pbt.mnist.config.record import Config
from pbt.mnist.files import copy_state, place_of, write, write_table
from pbt.runs.results import Run
from pbt.store.codec import decode, digest_of
from pbt.store.files import file_name
from pbt.store.memory import MemoryStore

Table = Callable[[Path], tuple[list[str], list[dict[str, str]]]]
Trained = Callable[..., Run]
Configure = Callable[..., Config]
Derived = Callable[[Path], dict[str, bytes]]

WORKERS, EPOCHS, STEPS = 4, 3, 10
NOTE = "# 600 + 100 images of another data set in MNIST's file format: not MNIST"
HISTORY = [
    "worker",
    "epoch",
    "iter",
    "test_acc",
    "lr",
    "keep_prob",
    "mutation_lr",
    "mutation_keep_prob",
    "copied_from_w",
    "val_acc",
    "val_loss",
    "test_loss",
    "train_loss",
    "event",
    "status",
]


def path_of(run: Run) -> Path:
    assert run.path is not None
    return run.path


def reports_of(run: Run) -> dict[StateRef, Reported]:
    return run.tree.reports


def test_a_run_leaves_the_files_of_the_original_and_nothing_else(finished: Run) -> None:
    """A finished run has tables, arguments and checkpoints of every worker, figures, the best network, and no more."""
    expected = {"history.csv", "results.png", "lr.png", "keep_prob.png", "run.db", "lock"}
    expected |= {"best/state.safetensors", "best/schedule.json"}
    for worker in range(WORKERS):
        expected |= {f"{name}_{worker}.csv" for name in ("results", "loss_summary")}
        expected |= {f"args_{section}_{worker}.json" for section in ("train", "test")}
        expected |= {f"ckpts/{kind}_{worker}.safetensors" for kind in ("latest", "best")}
    folder = path_of(finished)
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in there if not name.startswith(("states/", "tensorboard/"))} == expected


def test_every_table_begins_with_what_the_data_is(finished: Run, table: Table) -> None:
    """Where the data is not MNIST itself, the first line of every table says so, and it is the only comment."""
    tables = sorted(path_of(finished).glob("*.csv"))
    assert len(tables) == 1 + 2 * WORKERS
    assert {path.name: table(path)[0] for path in tables} == {path.name: [NOTE] for path in tables}


def test_a_table_of_mnist_itself_begins_with_its_columns(tmp_path: Path) -> None:
    """Without a note there is no comment line."""
    write_table(tmp_path / "t.csv", ["a", "b"], [[1, 0.5], [2, ""]])
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,0.5\n2,\n"


def test_history_has_a_row_per_worker_and_epoch(finished: Run, table: Table) -> None:
    """`history.csv` has the original's columns first, and every worker once per epoch, in order."""
    _, rows = table(path_of(finished) / "history.csv")
    assert list(rows[0]) == HISTORY
    assert [(int(r["worker"]), int(r["epoch"]), int(r["iter"])) for r in rows] == [
        (worker, epoch, STEPS) for epoch in range(1, EPOCHS + 1) for worker in range(WORKERS)
    ]


def test_history_is_the_log_to_the_last_digit(finished: Run, table: Table) -> None:
    """Scores, accuracies and hyperparameters in `history.csv` are the numbers of the log, not rounded ones."""
    _, rows = table(path_of(finished) / "history.csv")
    for row, report in zip(rows, reports_of(finished).values(), strict=True):
        said = report.reported
        hparams = finished.tree.hparams(report.member, report.round)
        assert float(row["val_acc"]) == report.scores[0]
        assert float(row["test_acc"]) == said["test_accuracy"]
        assert [float(row[name]) for name in ("val_loss", "test_loss", "train_loss")] == [
            said["val_loss"],
            said["test_loss"],
            said["train_loss"],
        ]
        assert {name: float(row[name]) for name in ("lr", "keep_prob")} == dict(hparams)


def test_history_tells_the_hand_overs(finished: Run, table: Table) -> None:
    """A copied row names its donor, the factors drawn, and values that are the donor's times them; others have -1."""
    _, rows = table(path_of(finished) / "history.csv")
    by_place = {(int(row["worker"]), int(row["epoch"])): row for row in rows}
    copied = [row for row in rows if row["event"] == "exploit"]
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
    for row in rows:
        if row["event"] in ("born", "continue"):
            assert {row["mutation_lr"], row["mutation_keep_prob"], row["copied_from_w"]} == {"-1"}


def test_selection_in_history_follows_validation(finished: Run, table: Table) -> None:
    """The donor of every copy is the best worker of the epoch before by `val_acc`, the copier is the worst."""
    _, rows = table(path_of(finished) / "history.csv")
    for row in (row for row in rows if row["event"] == "exploit"):
        before = [r for r in rows if int(r["epoch"]) == int(row["epoch"]) - 1]
        scores = {r["worker"]: float(r["val_acc"]) for r in before}
        assert scores[row["copied_from_w"]] == max(scores.values())
        assert scores[row["worker"]] == min(scores.values())


def test_results_of_a_worker_are_its_tests(finished: Run, table: Table) -> None:
    """`results_<w>.csv` has epoch, iter, test loss and accuracy of every epoch, as the log has them."""
    for worker in range(WORKERS):
        _, rows = table(path_of(finished) / f"results_{worker}.csv")
        assert [list(row.values()) for row in rows] == [
            [str(epoch), str(STEPS), str(r.reported["test_loss"]), str(r.reported["test_accuracy"])]
            for epoch, r in enumerate((r for ref, r in reports_of(finished).items() if ref.member == worker), 1)
        ]
        assert list(rows[0]) == ["epoch", "iter", "test_loss", "test_acc"]


@pytest.mark.parametrize("metric", ["error", "accuracy_onehot"])
def test_a_named_metric_is_a_column_of_the_results(
    trained: Trained, configured: Configure, table: Table, tmp_path: Path, metric: str
) -> None:
    """A metric that is neither loss nor accuracy stands behind the original's columns of `results_<w>.csv`."""
    stored = configured(num_worker_tot=2, num_epochs_tot=2).to_dict()
    run = trained(tmp_path / "run", Config.from_dict({**stored, "test": {**stored["test"], "metric": metric}}))
    for worker in range(2):
        _, rows = table(path_of(run) / f"results_{worker}.csv")
        assert list(rows[0]) == ["epoch", "iter", "test_loss", "test_acc", f"test_{metric}"]
        for row in rows:
            right = float(row["test_acc"])
            assert float(row[f"test_{metric}"]) == pytest.approx(1 - right if metric == "error" else right)


def test_loss_summary_has_a_row_every_few_iterations(finished: Run, table: Table) -> None:
    """`loss_summary_<w>.csv` has the mean training loss every `num_iters_for_ckpt` steps of an epoch and at its end."""
    reports = reports_of(finished)
    for worker in range(WORKERS):
        _, rows = table(path_of(finished) / f"loss_summary_{worker}.csv")
        assert list(rows[0]) == ["epoch", "iter", "train_loss", "test_loss"]
        steps = [(int(row["epoch"]) - 1) * STEPS + int(row["iter"]) for row in rows]
        assert steps == [4, 8, 10, 14, 18, 20, 24, 28, 30]
        assert [step for step, row in zip(steps, rows, strict=True) if row["test_loss"]] == [10, 20, 30]
        widths = [step - before for before, step in zip([0, *steps], steps, strict=False)]
        for round_ in range(1, EPOCHS + 1):
            own = slice(3 * round_ - 3, 3 * round_)
            total = sum(w * float(row["train_loss"]) for w, row in zip(widths[own], rows[own], strict=True))
            said = reports[StateRef(worker, round_)].reported
            assert total / STEPS == pytest.approx(said["train_loss"])
            assert float(rows[3 * round_ - 1]["test_loss"]) == said["test_loss"]


def test_sessions_of_several_epochs_are_placed_at_their_last(
    trained: Trained, configured: Configure, table: Table, tmp_path: Path
) -> None:
    """With `num_epochs` 2 the rows of the history are those of the epochs 2 and 4, the losses those of all four."""
    run = trained(tmp_path / "run", configured(num_epochs=2, num_epochs_tot=4, num_worker_tot=2))
    _, rows = table(path_of(run) / "history.csv")
    assert [(row["epoch"], row["iter"]) for row in rows] == [("2", "10")] * 2 + [("4", "10")] * 2
    _, losses = table(path_of(run) / "loss_summary_0.csv")
    assert [row["epoch"] for row in losses if row["iter"] == "10"] == ["1", "2", "3", "4"]
    assert [row["epoch"] for row in losses if row["test_loss"]] == ["2", "4"]


@pytest.mark.parametrize(
    ("step", "place"), [(1, (1, 1)), (9, (1, 9)), (10, (1, 10)), (11, (2, 1)), (20, (2, 10)), (21, (3, 1))]
)
def test_the_last_step_of_an_epoch_belongs_to_it(step: int, place: tuple[int, int]) -> None:
    """Epochs and iterations count from 1, and an epoch's last step is not the next one's."""
    assert place_of(step, 10) == place


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
    assert f"# {card['data']}" == NOTE


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
    assert {(len(content.splitlines()) - 2) % WORKERS for content in seen} == {0}


class Death(BaseException):
    """The end of a process, as far as a test in the same process can have it."""


@pytest.mark.parametrize("write_number", [1, 9, 10, 14, 19, 24, 31, 37, 46, 52])
def test_whichever_file_a_run_dies_at_its_resume_brings_all_level(
    write_number: int,
    finished: Run,
    trained: Trained,
    derived: Derived,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that ends before any one of its writes has, once resumed, every file of an undisturbed run, byte by byte.

    Eight arguments at the start; then seventeen or eighteen files an epoch, checkpoints first.
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
        for name in ("write", "copy_state"):
            patch.setattr(files, name, counted(getattr(files, name)))
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
