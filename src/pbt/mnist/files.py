"""The files of the original beside the log: tables, arguments and checkpoints of every worker.

All of them are derived from the log. Each is written whole under a temporary name and then renamed, so that nobody
reads half a file, and all are brought level whenever a run starts.
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pbt.core.events import Event, Failed, Reported
from pbt.core.lineage import Lineage
from pbt.core.population import StateRef
from pbt.mnist.config.record import Config
from pbt.mnist.metrics import beside
from pbt.runs.engine import Engine, Observer
from pbt.store.base import Store
from pbt.store.files import file_name, replacing, write_durable

Row = Sequence[Any]


class Recorded(Observer):
    """Makes what a run goes on with what it is known by: an extended run is one of more epochs from then on.

    Args:
        application: What the run says of itself.
    """

    def __init__(self, application: Mapping[str, Any]) -> None:
        self._application = dict(application)

    def on_start(self, engine: Engine) -> None:
        """Record it, where something else is recorded."""
        if engine.store.meta["application"] != self._application:
            engine.store.update_meta(application=self._application)


class RunFiles(Observer):
    """Writes the derived files of a population run.

    Args:
        config: The configuration that the run is trained by.
        steps_per_epoch: Training steps of an epoch.
        note: A line at the head of every table, if the data is not MNIST itself.
        debug: Only the arguments and the newest checkpoint of every worker.
    """

    def __init__(self, config: Config, steps_per_epoch: int, note: str = "", *, debug: bool = False) -> None:
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self._note = note
        self._debug = debug
        self._metrics = beside(config.test.metric)
        self._events: list[Event] = []

    def on_start(self, engine: Engine) -> None:
        """Write the arguments of every worker, and bring everything else level with the log."""
        self._events = engine.store.events()
        for worker in range(engine.course.population):
            write_arguments(folder_of(engine), self._config, worker)
        self._level(engine, self._events)

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """Take a round into all files."""
        self._events += events
        self._level(engine, events)

    def on_end(self, engine: Engine) -> None:
        """The state that validation chose, under a name of its own."""
        if self._debug:
            return
        folder = folder_of(engine) / "best"
        folder.mkdir(exist_ok=True)
        if engine.view.best is not None:
            copy_state(engine.store, engine.view.best.state, folder / "state.safetensors")

    def _level(self, engine: Engine, fresh: Sequence[Event]) -> None:
        folder, tree = folder_of(engine), Lineage(self._events)
        _checkpoints(engine.store, folder / "ckpts", tree, fresh, ("latest",) if self._debug else ("latest", "best"))
        if self._debug:
            return
        reports = list(tree.reports.values())
        write_table(folder / "history.csv", *self._history(engine, tree), self._note)
        for worker in sorted({event.member for event in fresh if isinstance(event, Reported)}):
            own = [report for report in reports if report.member == worker]
            write_table(folder / f"results_{worker}.csv", *self._results(own), self._note)
            write_table(folder / f"loss_summary_{worker}.csv", *self._losses(own), self._note)

    def _history(self, engine: Engine, tree: Lineage) -> tuple[Row, list[Row]]:
        """Every worker after every session, also after one that failed: no scores then, but what it was tried with."""
        names = list(engine.course.space)
        head = ["worker", "epoch", "iter", "test_acc", *names, *(f"mutation_{name}" for name in names)]
        head += ["copied_from_w", "val_acc", "val_loss", "test_loss", "train_loss", "event", "status"]
        rows: list[Row] = []
        for event in (event for event in self._events if isinstance(event, Reported | Failed)):
            hparams = tree.hparams(event.member, event.round)
            decision = tree.decisions.get((event.member, event.round))
            draws = decision.draws if decision is not None else {}
            donor = decision.donor if decision is not None else None
            if isinstance(event, Reported):
                step, status = event.step, "trained"
                said = {"score": event.scores[0], **event.reported}
            else:
                # Where the session would have ended.
                step, status = engine.course.strategy.next_ready(decision.step if decision is not None else 0), "failed"
                said = {}
            rows.append(
                [
                    event.member,
                    *place_of(step, self._steps_per_epoch),
                    said.get("test_accuracy", ""),
                    *(hparams[name] for name in names),
                    *(draws.get(name, -1) for name in names),
                    -1 if donor is None else donor,
                    *(said.get(name, "") for name in ("score", "val_loss", "test_loss", "train_loss")),
                    decision.kind if decision is not None else "born",
                    status,
                ]
            )
        return head, rows

    def _results(self, own: Sequence[Reported]) -> tuple[Row, list[Row]]:
        names = ["test_loss", "test_accuracy", *(f"test_{name}" for name in self._metrics)]
        head = ["epoch", "iter", "test_loss", "test_acc", *names[2:]]
        # What was reported before the metric was named has no number of it.
        return head, [[*self._place(report), *(report.reported.get(name, "") for name in names)] for report in own]

    def _place(self, report: Reported) -> tuple[int, int]:
        return place_of(report.step, self._steps_per_epoch)

    def _losses(self, own: Sequence[Reported]) -> tuple[Row, list[Row]]:
        rows: list[Row] = []
        for report in own:
            for step, loss, _ in report.reported.get("rows", ()):
                # The test loss belongs to the end of the round, the only moment that is tested.
                tested = report.reported["test_loss"] if step == report.step else ""
                rows.append([*place_of(int(step), self._steps_per_epoch), loss, tested])
        return ["epoch", "iter", "train_loss", "test_loss"], rows


def place_of(step: int, steps_per_epoch: int) -> tuple[int, int]:
    """The epoch, from 1, that so many steps end in, and the steps done of it: an epoch's last step belongs to it."""
    epoch, place = divmod(step - 1, steps_per_epoch)
    return epoch + 1, place + 1


def _checkpoints(store: Store, folder: Path, tree: Lineage, fresh: Iterable[Event], kinds: Sequence[str]) -> None:
    """Each worker's newest state (`latest`), and the one of its own that validation liked best (`best`)."""
    folder.mkdir(exist_ok=True)
    newest: dict[int, Reported] = {}
    best: dict[int, Reported] = {}
    for report in tree.reports.values():
        newest[report.member] = report
        if report.member not in best or report.scores[0] > best[report.member].scores[0]:
            best[report.member] = report
    touched = {event.member for event in fresh if isinstance(event, Reported)}
    for kind, reports in (("latest", newest), ("best", best)):
        for member in touched & reports.keys() if kind in kinds else ():
            copy_state(store, reports[member].state, folder / f"{kind}_{member}.safetensors")


def copy_state(store: Store, ref: StateRef, target: Path) -> None:
    """Give a stored state a second name; one that was swept meanwhile was copied when it was new."""
    try:
        stored = store.stored(ref)
    except KeyError:
        return
    if stored.blob is not None:
        write_durable(target, stored.blob)
        return
    temporary = target.with_name(f".{target.name}.tmp")
    folder = store.states.folder
    if folder is None:
        raise ValueError("a state without bytes in its record has a file")
    source = folder / file_name(ref)
    if target.exists() and target.samefile(source):
        return  # renaming one name of a file to another of its names does nothing, and would leave both
    with replacing(target, temporary):
        try:
            # States never change, so a second name for the same bytes is as good as a copy.
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary, follow_symlinks=False)


def write(path: Path, text: str) -> None:
    """Replace a text file; readers see the old one or the new one."""
    # One name for all: what a killed run leaves half-written is overwritten by the next, not left for ever.
    temporary = path.with_name(f".{path.name}.tmp")
    with replacing(path, temporary), temporary.open("x", encoding="utf-8") as file:
        file.write(text)


def write_table(path: Path, head: Row, rows: Iterable[Row], note: str = "") -> None:
    """Replace a CSV file; a note becomes a comment line at its head."""
    text = io.StringIO()
    if note:
        text.write(f"# {note}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write(path, text.getvalue())


def write_arguments(folder: Path, config: Config, worker: int | None = None) -> None:
    """Write a configuration as the original's `args_train.json` and `args_test.json`, or as those of a worker."""
    tail = "" if worker is None else f"_{worker}"
    for section in ("train", "test"):
        text = json.dumps(config.to_plain(section, worker=worker), indent=2)
        write(folder / f"args_{section}{tail}.json", text + "\n")


def folder_of(engine: Engine) -> Path:
    """The run directory of what is trained."""
    if engine.store.path is None:
        raise ValueError("files are written beside a log on disk, not in memory")
    return engine.store.path
