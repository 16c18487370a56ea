"""`pbt status`, `pbt ls` and `pbt verify`: inspect runs, read-only."""

import contextlib
import io
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.live import Live
from rich.text import Text

from pbt.cli.options import Flag, print_json
from pbt.errors import UsageError
from pbt.runs.catalog import (
    RUNS,
    UNREADABLE,
    CatalogEntry,
    comparisons_in,
    find_run,
    list_runs,
    opened,
    resume_command,
    runs_in,
    trials_in,
    unreadable,
)
from pbt.runs.results import Run
from pbt.store.layout import DATABASE
from pbt.store.reader import RunReader
from pbt.terminal.console import can_redraw, captured, console_for
from pbt.terminal.exit import FAILED, OK, print_error
from pbt.terminal.plain import as_json
from pbt.terminal.single import SINGLE
from pbt.terminal.summary import summary
from pbt.terminal.tables import Column, grid
from pbt.text import NONE, printable, scored

NOTE = 48
"""The most characters of a note in a list."""
PACE = 1.0
"""Seconds between two reads of a watched run."""


def status(
    named: Annotated[str, Parameter(name="RUN")],
    /,
    *,
    watching: Annotated[Flag, Parameter(name=["--watch", "-w"])] = False,
    errors: Flag = False,
    as_json: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Show the progress and results of a run, or list the runs in a folder.

    Works during training; the run is only read.

    Example: pbt status runs/latest --watch

    Args:
        named: Run directory, or a folder of run directories.
        watching: Update the output until the run ends or Ctrl-C is pressed.
        errors: Print only the failed rounds, with their tracebacks.
        as_json: Print JSON; with --watch one line per update. Scores are those that the task returned.
    """
    if errors:
        if watching:
            raise UsageError("--errors cannot be combined with --watch; leave out one of them")
        return print_errors(named, json=as_json)
    return watch(named, json=as_json) if watching else print_status(named, json=as_json)


def ls(
    folder: Annotated[Path, Parameter(name="FOLDER")] = RUNS,
    /,
    *,
    as_json: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """List the runs in a folder, the last changed at the end.

    Example: pbt ls runs

    Args:
        folder: Folder of run directories.
        as_json: Print JSON. Scores are those that the task returned.
    """
    return print_runs(folder, json=as_json)


def verify(named: Annotated[str, Parameter(name="RUN")], /) -> int:
    """Check every byte of a run against its checksums; exit code 1 if it is damaged.

    Example: pbt verify runs/latest

    Args:
        named: Run directory.
    """
    return print_problems(named)


def print_status(named: str, *, json: bool) -> int:
    """Print the status of a run, or of the runs in a folder."""
    folder = Path(named)
    if not (folder / DATABASE).is_file() and runs_in(folder):
        if not json:
            return print_runs(folder, json=False)
        print_json([_status(path) for path in runs_in(folder)])
        return OK
    with opened(find_run(named)) as (run, state):
        if json:
            print_json(as_json(run, state))
            return OK
        _show(run, state, console_for())
    return OK


def print_errors(named: str, *, json: bool) -> int:
    """Print the failed rounds of a run with their tracebacks."""
    with opened(find_run(named)) as (run, _):
        failures = run.failures()
    if json:
        print_json([asdict(failure) for failure in failures])
        return OK
    console = console_for()
    for i, failure in enumerate(failures):
        title = f"member {failure.member}, round {failure.round}: {printable(failure.message)}"
        console.print(Text(("\n" if i else "") + title, style="bold"), soft_wrap=True)
        details = f"cause: {printable(failure.cause)}, attempt {failure.attempt}"
        if failure.file:
            details += f", at {printable(failure.file)}:{failure.line}"
        console.print(Text(details, style="dim"), soft_wrap=True)
        for line in failure.traceback.splitlines():
            console.print(Text(printable(line)), soft_wrap=True)
    if not failures:
        console.print(Text("no round failed"))
    return OK


def _status(path: Path) -> dict[str, Any]:
    """The status of one run of a folder; of an unreadable run, the reason."""
    try:
        with opened(path) as (run, state):
            return as_json(run, state)
    except Exception as error:  # noqa: BLE001 (the folder is untrusted; the other runs must still be shown)
        problem = unreadable(path, error)
        print_error(f"warning: {problem}")
        return {"run": str(path), "state": UNREADABLE, "error": problem}


def _show(run: Run, state: str, console: Console) -> None:
    console.print(Text(_standing(run, state), style="bold"), soft_wrap=True)
    summary(run, console=console)
    if state in ("interrupted", "stopped") and run.path is not None:
        line = resume_command(run.path, run.meta.get("application") or {})
        console.print(Text(f"\nResume with: {line}"), soft_wrap=True)


def _standing(run: Run, state: str) -> str:
    single = SINGLE in (run.meta.get("application") or {})
    unit = "checkpoints" if single else "rounds"
    shown = printable(run.view.ended) if state == "stopped" else state
    text = f"{printable(run.path)}: {shown}, {run.view.rounds_done} of {run.meta['rounds']} {unit} done"
    return text if state != "lost" else f"{text}; {'training failed' if single else 'every member failed'}"


def print_runs(folder: Path, *, json: bool) -> int:
    """Print the runs in a folder, the newest change last."""
    compared = comparisons_in(folder)
    if not runs_in(folder) and not trials_in(folder) and not compared:
        found = "a run itself; `pbt status` shows it" if (folder / DATABASE).is_file() else "none"
        actual = found if folder.is_dir() else "a file" if folder.exists() else "nothing there"
        raise UsageError(f"{folder}: expected a folder with runs in it, found {actual}")
    listed = list_runs(folder)
    for entry in listed:
        if entry.problem:
            print_error(f"warning: {entry.problem}")
    if json:
        print_json([_plain(entry) for entry in listed])
        return OK
    if listed:
        _print_list(listed)
    for path in compared:
        line = f"comparison {printable(path)}: {len(trials_in(path))} runs, listed by: pbt ls {shlex.quote(str(path))}"
        console_for().print(Text(line), soft_wrap=True)
    return OK


def _print_list(listed: Sequence[CatalogEntry]) -> None:
    rounds = [NONE if entry.problem else f"{entry.rounds_done}/{entry.rounds}" for entry in listed]
    members = [NONE if entry.population is None else str(entry.population) for entry in listed]
    columns = [
        Column(title="run", cells=[printable(entry.path) for entry in listed], side="left"),
        Column(title="state", cells=[entry.state for entry in listed], side="left"),
        Column(title="rounds", cells=rounds),
        Column(title="members", cells=members, optional=True),
        Column(title="best", cells=[scored(entry.best) for entry in listed]),
        Column(title="changed", cells=[_when(entry.changed) for entry in listed], optional=True),
    ]
    if any(entry.note for entry in listed):
        notes = [
            entry.note.line if len(entry.note.line) <= NOTE else f"{entry.note.line[: NOTE - 1]}…" for entry in listed
        ]
        columns.append(Column(title="note", cells=notes, side="left", optional=True))
    console = console_for()
    console.print(grid("", columns, console.width))


def _plain(entry: CatalogEntry) -> dict[str, Any]:
    return {
        "run": str(entry.path),
        "state": entry.state,
        "rounds": entry.rounds,
        "rounds_done": entry.rounds_done,
        "population": entry.population,
        "best": entry.best,
        "began": entry.began,
        "changed": entry.changed,
        "note": entry.note.text,
        "tags": list(entry.note.tags),
    }


def _when(seconds: float | None) -> str:
    return NONE if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def watch(named: str, *, json: bool) -> int:
    """Print the status of a run after every change, until it ends or Ctrl-C stops watching."""
    path = find_run(named)
    with contextlib.suppress(KeyboardInterrupt):
        if json:
            for run, state in _changes(path):
                print_json(as_json(run, state), indent=None)
        elif can_redraw(console_for()):
            _watch_live(path)
        else:
            for run, state in _changes(path):
                score = f", best {scored(run.best.score)}" if run.view.best else ""
                console_for().print(Text(f"{_standing(run, state)}{score}"), soft_wrap=True)
    return OK


def _watch_live(path: Path) -> None:
    console = console_for()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for run, state in _changes(path):
            # A console of its own: what a live console prints contains the movements of its cursor.
            frame = io.StringIO()
            _show(run, state, captured(frame, console))
            live.update(Text.from_ansi(frame.getvalue().rstrip()), refresh=True)


def _changes(path: Path) -> Iterator[tuple[Run, str]]:
    """Yield the run now and after every change of its log or state; end when it is no longer written."""
    seen: tuple[int, str] | None = None
    while True:
        with opened(path) as (run, state):
            now = run.num_events, state
            if now != seen:
                yield run, state
        seen = now
        if state != "running":
            return
        time.sleep(PACE)


def repair_damage(path: Path) -> None:
    """Restore the newest intact round of a damaged run, and print what was dropped."""
    from pbt.store.repair import repair_run

    repaired = repair_run(path)
    print_error(f"{path}: intact, nothing to repair" if repaired is None else f"{path}: repaired: {repaired}")


def print_problems(named: str) -> int:
    """Print all problems of a run, and return the exit code."""
    from pbt.store.verify import verify_run

    path = find_run(named)
    problems = verify_run(path)
    console = console_for()
    for problem in problems:
        kind, style = ("harmless", "dim") if problem.harmless else ("damaged", "red")
        line = f"{kind}  {printable(problem.what)}: {printable(problem.message)}"
        console.print(Text(line, style=style), soft_wrap=True)
    damaged = sum(not problem.harmless for problem in problems)
    if damaged:
        console.print(Text(f"{printable(path)}: {damaged} problem{'s' * (damaged > 1)}"), soft_wrap=True)
        return FAILED
    with RunReader(path) as reader:
        counts = f"{len(reader.rows()):,} events and {len(reader.refs()):,} states"
    console.print(Text(f"{printable(path)}: intact; verified {counts}"), soft_wrap=True)
    return OK
