"""The runs on disk: find, open and list them, by the names used on the command line."""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pbt.core.events import FINISHED, LOST
from pbt.core.fold import apply, empty_view
from pbt.core.laws import LogLaws
from pbt.core.population import View
from pbt.errors import PBTError, RunFormatError, nearest
from pbt.runs.folding import fold_log
from pbt.runs.results import Run
from pbt.runs.run_notes import NO_NOTE, Note, read_note
from pbt.store.layout import DATABASE
from pbt.store.reader import RunReader
from pbt.text import printable

RUNS = Path("runs")
COMPARISON = "comparison.json"
"""The results in a folder made by `pbt compare`."""
RECORDED = ("seed", "population", "rounds", "space")
"""Values without which a run cannot be read; `pbt.run` records them all."""
APPLICATIONS: Mapping[str, str] = {
    "mnist": "pbt.mnist.training:resume",
    "mnist-single": "pbt.mnist.training:resume",
}
"""Functions that resume a run, by the origin recorded in it; nothing else recorded in a run directory is ever
imported."""
UNREADABLE = "unreadable"
"""State of a run that cannot be read."""
REPLAY = "replay"
"""Recorded origin of replays."""


def find_run(named: str) -> Path:
    """The run directory for a path or for a name in `runs`.

    Raises:
        RunFormatError: There is none.
    """
    for path in (Path(named), RUNS / named):
        if (path / DATABASE).is_file():
            # A link is resolved now, so that messages name the run itself.
            return path.resolve().relative_to(Path.cwd()) if _inside(path) else path.resolve()
    path = Path(named)
    if path.is_symlink() and not path.exists():
        raise RunFormatError(
            f"{path}: expected a run directory, found a link to {path.readlink()}, which does not exist"
        )
    runs = [run.name for run in runs_in(path if path.is_dir() else path.parent if path.parent.name else RUNS)]
    if path.is_dir():
        inside = f"; runs in it: {', '.join(sorted(runs)[-5:])}" if runs else ""
        raise RunFormatError(f"{path}: expected a run directory with {DATABASE}, found a folder without it{inside}")
    found = "a file" if path.exists() else "nothing"
    hint = nearest(path.name, runs) if runs else "; `pbt status runs` lists runs"
    raise RunFormatError(f"{path}: expected a run directory, found {found}{hint}")


def _inside(path: Path) -> bool:
    return not path.is_absolute() and path.resolve().is_relative_to(Path.cwd())


def runs_in(folder: Path) -> list[Path]:
    """The runs in a folder, by name, without links."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.is_symlink() and (path / DATABASE).is_file())


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPath:
    """A run of a comparison."""

    name: str
    """Its plan and seed, such as `pbt/seed-3`."""
    path: Path


def trials_in(folder: Path) -> list[TrialPath]:
    """The runs of a folder made by `pbt compare`, by name: `PLAN/seed-N`; none in any other folder."""
    if not folder.is_dir() or (folder / DATABASE).is_file():
        return []
    plans = [plan for plan in folder.iterdir() if plan.is_dir() and not plan.is_symlink()]
    found = [
        TrialPath(name=f"{plan.name}/{path.name}", path=path)
        for plan in plans
        if not (plan / DATABASE).is_file()
        for path in runs_in(plan)
        if _TRIAL.fullmatch(path.name)
    ]
    return sorted(found, key=lambda trial: (trial.path.parent.name, int(trial.path.name.partition("-")[2])))


def comparisons_in(folder: Path) -> list[Path]:
    """The folders made by `pbt compare` in a folder, by name, without links and without folders that cannot be read."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.is_symlink() and _has_trials(path))


def _has_trials(folder: Path) -> bool:
    try:
        return bool(trials_in(folder))
    except OSError:
        return False


_TRIAL = re.compile(r"seed-\d{1,9}")


def state_of(view: View, *, writing: bool) -> str:
    """`running`, `finished`, `lost` (every member failed), `stopped` (by a condition) or `interrupted`."""
    if writing:
        return "running"
    if view.ended is None:
        return "interrupted"
    return {FINISHED: "finished", LOST: "lost"}.get(view.ended, "stopped")


@contextmanager
def opened(path: str | Path, reader: RunReader | None = None) -> Iterator[tuple[Run, str]]:
    """A run and its state; the run stays readable afterwards.

    Every run that a user names is opened here. `Run.open` alone is for the process that has just written the run.

    Args:
        path: The run directory.
        reader: A reader of it, used again. Default: a new one.

    Raises:
        RunFormatError: Not a run directory, or not one that `pbt.run` made.
        CorruptError: The database is damaged.
    """
    path = Path(path)
    with reader or RunReader(path) as source:
        # Before the log: a run that ends in between would be taken for an interrupted one.
        writing = source.is_writing()
        run = Run(source, path)
        _check_recorded(run.meta, path)
        yield run, state_of(run.view, writing=writing)


def _check_recorded(meta: Mapping[str, Any], path: Path) -> None:
    missing = [name for name in RECORDED if name not in meta]
    if missing:
        raise RunFormatError(f"{path}: expected a run with a recorded {', '.join(missing)}, found none")


def unreadable(path: Path, error: Exception) -> str:
    """Why a run cannot be read, as one line. A folder of runs is untrusted, so any exception may occur."""
    if isinstance(error, PBTError):
        return str(error) if str(path) in str(error) else f"{path}: {error}"
    if isinstance(error, FileNotFoundError):
        return f"{path}: was removed"
    if isinstance(error, OSError):
        return f"{path}: cannot be read ({error.strerror or error})"
    return f"{path}: expected a run of this package, found something else ({type(error).__name__})"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """A run in a list of runs."""

    path: Path
    state: str = UNREADABLE
    rounds: int | None = None
    """Rounds per member for which the run was started."""
    rounds_done: int | None = None
    """Rounds finished by every member."""
    population: int | None = None
    best: float | None = None
    """The best score, as the task returned it; None before the first."""
    score: str = "score"
    """The display name of the score."""
    began: float | None = None
    """Time of the first event, in seconds since 1970."""
    changed: float | None = None
    """Time of the last event, in seconds since 1970."""
    problem: str = ""
    """Why the run cannot be read; empty if it can."""
    note: Note = NO_NOTE
    """Notes and tags."""


class RunFollower:
    """Reads a run again and again, from its checkpoint on; later only the new part of its log is read and folded.

    Args:
        path: The run directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = 0
        """Id of the last event read."""
        self._reader: RunReader | None = None
        self._meta: dict[str, Any] = {}
        self._view: View | None = None
        self._laws: LogLaws | None = None
        self._began: float | None = None
        self._changed: float | None = None
        self._was_writing = False

    def forget(self) -> None:
        """Start over with the next read, as for a run that was replaced by another one."""
        if self._reader is not None:
            self._reader.close()
        self._reader = self._view = self._laws = self._began = self._changed = None
        self.last = 0

    def is_writing(self) -> bool:
        """Whether a writer holds the run at this moment."""
        return self._open().is_writing()

    def _open(self) -> RunReader:
        if self._reader is None:
            self._reader = RunReader(self.path)
        return self._reader

    def read(self) -> CatalogEntry:
        """The entry of the run at this moment.

        Raises:
            PBTError: It cannot be read.
            OSError: Its directory cannot be read.
        """
        reader = self._open()
        writing = reader.is_writing()
        last = reader.last()
        if self._view is None or last != self.last or writing != self._was_writing:
            self._meta = reader.meta  # extending a run changes its rounds
        _check_recorded(self._meta, self.path)
        if self._view is None or self._laws is None:
            folded = fold_log(reader, empty_view(self._meta), last)
            self._view, self._laws = folded.view, LogLaws(folded.view.space, folded)
        elif last != self.last:
            events = reader.events(self.last, last)
            self._laws.check(events)
            self._view = apply(self._view, events)
        if last != self.last:
            self.last, self._changed = last, reader.clock(last)
            self._began = reader.clock(1) if self._began is None else self._began
        self._was_writing = writing
        return self._entry(self._view, writing=writing)

    def _entry(self, view: View, *, writing: bool) -> CatalogEntry:
        return CatalogEntry(
            path=self.path,
            state=state_of(view, writing=writing),
            rounds=_whole(self._meta["rounds"]),
            rounds_done=view.rounds_done,
            population=_whole(self._meta["population"]),
            best=None if view.best is None else view.sign * view.best.score,
            score=printable((self._meta.get("application") or {}).get("score") or "score"),
            began=self._began,
            changed=self._changed,
        )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def list_runs(folder: Path) -> list[CatalogEntry]:
    """The runs in a folder, the last changed one at the end; one that cannot be read is an entry with the reason.

    A folder made by `pbt compare` has those of all plans.
    """
    paths = runs_in(folder) or [trial.path for trial in trials_in(folder)]
    return sorted(map(_listed, paths), key=lambda entry: (entry.changed or 0.0, entry.path.name))


def _listed(path: Path) -> CatalogEntry:
    follower = RunFollower(path)
    try:
        return replace(follower.read(), note=read_note(path))
    except Exception as error:  # noqa: BLE001 (the folder is untrusted; the other runs must still be listed)
        return CatalogEntry(path=path, problem=unreadable(path, error))
    finally:
        follower.forget()


def resume_command(path: Path, application: Mapping[str, Any]) -> str:
    """The command that resumes a run; it names the user's file, unless an application started the run."""
    if application.get("name") == REPLAY:
        given = {name: printable(value) for name, value in application.items() if value is not None}
        words = [given[name] for name in ("of", "object") if name in given]
        words += [f"--{name}={given[name]}" for name in ("seed", "member") if name in given]
        return " ".join([own_command(), *map(shlex.quote, ["replay", *words, "--out", str(path), "--resume"])])
    if application.get("name") in APPLICATIONS:
        return f"{own_command()} resume {shlex.quote(str(path))}"
    if application.get("command"):
        command = shlex.quote(printable(application["command"]))
        return f"{own_command()} resume {shlex.quote(str(path))} --command {command}"
    named = printable(application.get("object") or "FILE.py:object")
    return f"{own_command()} resume {shlex.quote(str(path))} {shlex.quote(named)}"


def own_command() -> str:
    """The command that starts this installation's `pbt`, ready to be pasted.

    `pbt` if the shell finds this installation (or no path is known), else its path.
    """
    own, on_path = Path(sys.executable).with_name("pbt"), shutil.which("pbt")
    if not own.is_file() or (on_path is not None and Path(on_path).resolve() == own.resolve()):
        return "pbt"
    shown = own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own
    return shlex.quote(str(shown))
