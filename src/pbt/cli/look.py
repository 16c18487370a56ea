"""Inspect runs read-only: status, failures, lists and verification."""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pbt.cli.options import print_json
from pbt.errors import RunError, RunFormatError, UsageError
from pbt.runs.catalog import UNREADABLE, find_run, resume_command, runs_in, state_of
from pbt.runs.results import Run
from pbt.store.layout import DATABASE
from pbt.store.reader import RunReader
from pbt.store.repair import repair_run
from pbt.store.verify import verify_run
from pbt.terminal.console import can_redraw, console_for
from pbt.terminal.exit import FAILED, OK, print_error
from pbt.terminal.single import SINGLE
from pbt.terminal.summary import summary
from pbt.terminal.tables import Column, as_json, grid, rounds_done
from pbt.text import NONE, printable, scored

PACE = 1.0
"""Seconds between two reads of a watched run."""
RECORDED = ("seed", "population", "rounds", "space")


@contextmanager
def opened(path: Path) -> Iterator[tuple[Run, str]]:
    """Open a run for reading, with its state.

    Raises:
        RunFormatError: It is not a run of `pbt.run`.
    """
    with RunReader(path) as reader:
        missing = [name for name in RECORDED if name not in reader.meta]
        if missing:
            raise RunFormatError(f"{path}: expected a run with a recorded {', '.join(missing)}, found none")
        run = Run(reader, path)
        yield run, state_of(run.view, writing=reader.is_writing())


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
    except RunError as error:
        print_error(f"warning: {error}")
        return {"run": str(path), "state": UNREADABLE, "error": str(error)}


def _show(run: Run, state: str, console: Console) -> None:
    console.print(Text(_standing(run, state), style="bold"), soft_wrap=True)
    summary(run, console=console)
    if state == "interrupted" and run.path is not None:
        line = resume_command(run.path, run.meta.get("application") or {})
        console.print(Text(f"\nResume with: {line}"), soft_wrap=True)


def _standing(run: Run, state: str) -> str:
    single = SINGLE in (run.meta.get("application") or {})
    unit = "checkpoints" if single else "rounds"
    text = f"{printable(run.path)}: {state}, {rounds_done(run)} of {run.meta['rounds']} {unit} done"
    return text if state != "lost" else f"{text}; {'training failed' if single else 'every member failed'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRun:
    """One line of a list of runs."""

    path: Path
    run: Run | None = None
    """None: it cannot be read."""
    state: str = UNREADABLE
    times: tuple[float, ...] = ()
    """When something was added, in seconds since 1970."""

    @property
    def best(self) -> float | None:
        """The best score, as the task returned it."""
        return self.run.best.score if self.run and self.run.view.best else None


def print_runs(folder: Path, *, json: bool) -> int:
    """Print the runs in a folder, the newest change last."""
    paths = runs_in(folder)
    if not paths:
        found = "a run itself; `pbt status` shows it" if (folder / DATABASE).is_file() else "none"
        there = found if folder.is_dir() else "a file" if folder.exists() else "nothing there"
        raise UsageError(f"{folder}: expected a folder with runs in it, found {there}")
    listed = sorted(map(_listed, paths), key=lambda item: (item.times[-1:], item.path.name))
    if json:
        print_json([_plain(item) for item in listed])
    else:
        _print_list(listed)
    return OK


def _listed(path: Path) -> ListedRun:
    """A row of the list; the reason for an unreadable run is printed on stderr."""
    try:
        with opened(path) as (run, state), RunReader(path) as reader:
            times = tuple(row.clock for row in reader.rows())
            return ListedRun(path=path, run=run, state=state, times=times)
    except RunError as error:
        print_error(f"warning: {error}")
        return ListedRun(path=path)


def _print_list(listed: Sequence[ListedRun]) -> None:
    runs = [(item, item.run) for item in listed]
    columns = [
        Column(title="run", cells=[printable(item.path) for item in listed], side="left"),
        Column(title="state", cells=[item.state for item in listed], side="left"),
        Column(title="rounds", cells=[f"{rounds_done(run)}/{run.meta['rounds']}" if run else NONE for _, run in runs]),
        Column(title="members", cells=[str(run.meta["population"]) if run else NONE for _, run in runs], optional=True),
        Column(title="best", cells=[scored(item.best) for item in listed]),
        Column(title="changed", cells=[_when(item.times, "%Y-%m-%d %H:%M") for item in listed], optional=True),
    ]
    console = console_for()
    console.print(grid("", columns, console.width))


def _plain(item: ListedRun) -> dict[str, Any]:
    run, best = item.run, item.best
    return {
        "run": str(item.path),
        "state": item.state,
        "rounds": run.meta["rounds"] if run else None,
        "rounds_done": rounds_done(run) if run else None,
        "population": run.meta["population"] if run else None,
        "best": best if best is not None and math.isfinite(best) else None,
        "began": item.times[0] if item.times else None,
        "changed": item.times[-1] if item.times else None,
    }


def _when(times: Sequence[float], form: str) -> str:
    return time.strftime(form, time.localtime(times[-1])) if times else NONE


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
            with console.capture() as shown:
                _show(run, state, console)
            live.update(Text.from_ansi(shown.get()), refresh=True)


def _changes(path: Path) -> Iterator[tuple[Run, str]]:
    """Yield the run now and after every change of its log or state; end when it is no longer written."""
    seen: tuple[int, str] | None = None
    while True:
        with opened(path) as (run, state):
            now = len(run.events), state
            if now != seen:
                yield run, state
        seen = now
        if state != "running":
            return
        time.sleep(PACE)


def repair_damage(path: Path) -> None:
    """Restore the newest intact round of a damaged run, and print what was dropped."""
    repaired = repair_run(path)
    print_error(f"{path}: intact, nothing to repair" if repaired is None else f"{path}: repaired: {repaired}")


def print_problems(named: str) -> int:
    """Print all problems of a run, and return the exit code."""
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
