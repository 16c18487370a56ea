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

from pbt.core.events import Event, Reported
from pbt.core.history import RunHistory
from pbt.core.population import StateRef
from pbt.mnist import tables
from pbt.mnist.config.record import Config
from pbt.runs.engine import Engine, Observer
from pbt.store.base import Store
from pbt.store.files import file_name, replacing, write_durable


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
        note: What the data is, if it is not MNIST itself.
        debug: Only the arguments and the newest checkpoint of every worker.
    """

    def __init__(self, config: Config, steps_per_epoch: int, note: str = "", *, debug: bool = False) -> None:
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self._data = note or tables.MNIST
        self._debug = debug
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
        folder, store = folder_of(engine), engine.store
        kinds = ("latest",) if self._debug else ("latest", "best")
        _checkpoints(store, folder / "ckpts", RunHistory(self._events), fresh, kinds)
        if self._debug:
            return
        names, per_epoch = list(engine.course.space), self._steps_per_epoch
        found = tables.sessions(self._events, store.journal(), engine.course.strategy.next_ready)
        write_table(folder / "history.csv", tables.history(found, names, per_epoch), indexed=True)
        write_table(folder / "members.csv", tables.members(found, names, per_epoch, self._data))
        write_table(folder / "rounds.csv", tables.rounds(found, per_epoch, self._data))
        for worker in sorted({event.member for event in fresh if isinstance(event, Reported)}):
            own = [session for session in found if session.worker == worker]
            write_table(folder / f"results_{worker}.csv", tables.results(own, per_epoch), indexed=True)
            write_table(folder / f"loss_summary_{worker}.csv", tables.losses(own, per_epoch), indexed=True)


def _checkpoints(store: Store, folder: Path, tree: RunHistory, fresh: Iterable[Event], kinds: Sequence[str]) -> None:
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


def write_table(path: Path, table: tables.Table, *, indexed: bool = False) -> None:
    """Replace a CSV file.

    Args:
        path: The file.
        table: Its columns and rows.
        indexed: Number the rows from 0 in a first column without a name, as pandas does.
    """
    write(path, table_text(table, indexed=indexed))


def table_text(table: tables.Table, *, indexed: bool = False) -> str:
    """What `write_table` writes."""
    head, rows = table
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *head] if indexed else head)
    writer.writerows([number, *row] if indexed else row for number, row in enumerate(rows))
    return text.getvalue()


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
