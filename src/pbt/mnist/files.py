"""The derived files of a run: arguments, checkpoints and tables, beside the log.

All of them are made from the log. Each is replaced atomically, so that readers never see half a file, and all are
brought up to date when a run starts.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pbt.core.events import Event, Reported
from pbt.core.history import RunHistory
from pbt.core.population import StateRef
from pbt.mnist import tables
from pbt.mnist.config.record import Config
from pbt.mnist.results_table import synchronize
from pbt.mnist.tables import write, write_table
from pbt.runs.engine import Engine, Observer
from pbt.store.base import Store
from pbt.store.durable import replacing, write_durable
from pbt.store.files import file_name


class Recorded(Observer):
    """Updates the record of the application in a resumed run, such as the number of epochs of an extended one.

    Args:
        application: The record.
    """

    def __init__(self, application: Mapping[str, Any]) -> None:
        self._application = dict(application)

    def on_start(self, engine: Engine) -> None:
        """Write the record if it differs."""
        if engine.store.meta["application"] != self._application:
            engine.store.update_meta(application=self._application)


class RunFiles(Observer):
    """Writes the derived files of a population, or of a single network, whose files have no worker in their names.

    Args:
        config: The configuration of the run.
        steps_per_epoch: Training steps of an epoch.
        note: Note on the data; empty for MNIST itself.
        debug: Write only the arguments and the newest checkpoints.
    """

    def __init__(self, config: Config, steps_per_epoch: int, note: str = "", *, debug: bool = False) -> None:
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self._note = note
        self._debug = debug
        self._is_single = not config.evolving
        self._events: list[Event] = []

    def on_start(self, engine: Engine) -> None:
        """Write the arguments, and bring all other files up to date with the log."""
        self._events = engine.history()
        for worker in [None] if self._is_single else range(engine.course.population):
            write_arguments(folder_of(engine), self._config, worker)
        self._update(engine, self._events)

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """Add a round or a checkpoint to all files."""
        self._events += events
        self._update(engine, events)

    def on_end(self, engine: Engine) -> None:
        """Add the last tests of a single network to its journal; copy the best state of a population."""
        if self._debug:
            return
        if self._is_single:
            self._update(engine, ())
            return
        folder = folder_of(engine) / "best"
        folder.mkdir(exist_ok=True)
        if engine.view.best is not None:
            copy_state(engine.store, engine.view.best.state, folder / "state.safetensors")

    def _update(self, engine: Engine, fresh: Sequence[Event]) -> None:
        folder, store = folder_of(engine), engine.store
        trained = {event.member for event in fresh if isinstance(event, Reported)}
        self._copy_checkpoints(store, folder / "ckpts", trained)
        if self._debug:
            return
        if self._is_single:
            synchronize(folder, store, self._events, self._steps_per_epoch, self._note)
        else:
            self._write_tables(engine, folder, trained)

    def _copy_checkpoints(self, store: Store, folder: Path, members: set[int]) -> None:
        """Copy each member's newest state (`latest`), and its own with the highest validation score (`best`)."""
        folder.mkdir(exist_ok=True)
        newest: dict[int, Reported] = {}
        best: dict[int, Reported] = {}
        for report in RunHistory(self._events).reports.values():
            newest[report.member] = report
            if report.member not in best or report.scores[0] > best[report.member].scores[0]:
                best[report.member] = report
        for kind, reports in (("latest", newest), ("best", {} if self._debug else best)):
            for member in members & reports.keys():
                tail = "" if self._is_single else f"_{member}"
                copy_state(store, reports[member].state, folder / f"{kind}{tail}.safetensors")

    def _write_tables(self, engine: Engine, folder: Path, members: set[int]) -> None:
        names, per_epoch, data = list(engine.course.space), self._steps_per_epoch, self._note or tables.MNIST
        found = tables.sessions(self._events, engine.store.journal(), engine.course.strategy.next_ready)
        write_table(folder / "history.csv", tables.history(found, names, per_epoch), indexed=True)
        write_table(folder / "members.csv", tables.members(found, names, per_epoch, data))
        write_table(folder / "rounds.csv", tables.rounds(found, per_epoch, data))
        for worker in sorted(members):
            own = [session for session in found if session.worker == worker]
            write_table(folder / f"results_{worker}.csv", tables.results(own, per_epoch), indexed=True)
            write_table(folder / f"loss_summary_{worker}.csv", tables.losses(own, per_epoch), indexed=True)


def copy_state(store: Store, ref: StateRef, target: Path) -> None:
    """Copy a stored state to a file, as a hard link where possible; a deleted state was copied when it was new."""
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


def write_arguments(folder: Path, config: Config, worker: int | None = None) -> None:
    """Write a configuration as the original's `args_train.json` and `args_test.json`, or as those of a worker."""
    tail = "" if worker is None else f"_{worker}"
    for section in ("train", "test"):
        text = json.dumps(config.to_plain(section, worker=worker), indent=2)
        write(folder / f"args_{section}{tail}.json", text + "\n")


def folder_of(engine: Engine) -> Path:
    """The directory of the run."""
    if engine.store.path is None:
        raise ValueError("files are written beside a log on disk, not in memory")
    return engine.store.path
