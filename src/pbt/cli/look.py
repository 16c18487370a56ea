"""Looking at runs without touching them: how they stand, and whether they are whole."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.text import Text

from pbt.cli.options import print_json
from pbt.errors import RunFormatError
from pbt.results import Run
from pbt.store.layout import DATABASE
from pbt.store.reader import RunReader
from pbt.store.verify import verify_run
from pbt.terminal.exit import FAILED, OK
from pbt.terminal.outlet import outlet
from pbt.terminal.runs import find_run, resume_command, runs_in, state_of
from pbt.terminal.summary import summary
from pbt.terminal.text import printable, scored, sign_of
from pbt.terminal.views import Column, as_json, grid, rounds_done

RECORDED = ("seed", "population", "rounds", "space")


@contextmanager
def opened(path: Path) -> Iterator[tuple[Run, str]]:
    """A run and its state, for as long as it is looked at.

    Raises:
        RunFormatError: It is not one that `pbt.run` began.
    """
    with RunReader(path) as reader:
        missing = [name for name in RECORDED if name not in reader.meta]
        if missing:
            raise RunFormatError(f"{path}: expected a run with a recorded {', '.join(missing)}, found none")
        run = Run(reader, path)
        yield run, state_of(run, reader)


def print_status(named: str, *, json: bool) -> int:
    """How a run stands, or how those in a folder do."""
    folder = Path(named)
    if not (folder / DATABASE).is_file() and runs_in(folder):
        _print_list(runs_in(folder), json=json)
        return OK
    with opened(find_run(named)) as (run, state):
        if json:
            print_json(as_json(run, state))
            return OK
        console = outlet()
        console.print(Text(_standing(run, state), style="bold"), soft_wrap=True)
        summary(run, console=console)
        if state == "interrupted" and run.path is not None:
            line = resume_command(run.path, run.meta.get("application") or {})
            console.print(Text(f"\nGo on with: {line}"), soft_wrap=True)
    return OK


def _standing(run: Run, state: str) -> str:
    text = f"{printable(run.path)}: {state}, {rounds_done(run)} of {run.meta['rounds']} rounds done"
    return text if state != "lost" else f"{text}; every member failed"


def _print_list(paths: Sequence[Path], *, json: bool) -> None:
    found: list[tuple[Run, str]] = []
    for path in paths:
        with opened(path) as (run, state):
            found.append((run, state))
    if json:
        print_json([as_json(run, state) for run, state in found])
        return
    runs = [run for run, _ in found]
    bests = [sign_of(run.meta) * run.view.best.score if run.view.best else None for run in runs]
    columns = [
        Column(title="run", cells=[printable(path) for path in paths], side="left"),
        Column(title="state", cells=[state for _, state in found], side="left"),
        Column(title="rounds", cells=[f"{rounds_done(run)}/{run.meta['rounds']}" for run in runs]),
        Column(title="members", cells=[str(run.meta["population"]) for run in runs], optional=True),
        Column(title="best", cells=[scored(best) for best in bests]),
    ]
    console = outlet()
    console.print(grid("", columns, console.width))


def print_problems(named: str) -> int:
    """Everything that is wrong with a run; answers the exit code."""
    path = find_run(named)
    problems = verify_run(path)
    console = outlet()
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
    console.print(Text(f"{printable(path)}: sound; {counts} are what was written"), soft_wrap=True)
    return OK
