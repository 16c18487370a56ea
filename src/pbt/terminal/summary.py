"""The summary of a run: its population, best member, schedule and files, printed on stdout."""

import re
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pbt.core.events import Reported
from pbt.core.history import schedule_of
from pbt.runs.results import Run
from pbt.terminal.console import console_for
from pbt.terminal.single import SINGLE, checkpoints_table, chosen
from pbt.terminal.tables import population_table, rows_of, schedule_table
from pbt.text import cell, printable, scored

ROWS = 40
"""The most members in the table, whatever the height of the terminal."""
OTHERS = 12
"""The most files listed without a description."""


def summary(
    run: Run,
    notes: Iterable[str] = (),
    files: Iterable[tuple[str, str]] = (),
    *,
    score: str | None = None,
    delivered: Reported | None = None,
    console: Console | None = None,
) -> None:
    """Print the population, the best member, its schedule, and the files of a run.

    Args:
        run: The run.
        notes: Notes for the titles of the tables, such as the data set. Default: the note recorded with the run.
        files: Pairs of name in the run directory and description, besides the files of every run. Default: those
            recorded with the run.
        score: Display name of the score. Default: the one recorded with the run.
        delivered: Report of the member of the last round whose schedule is shown, with the best ever beside it.
            Default: the best ever.
        console: The console. Default: stdout.
    """
    console = console or console_for()
    application = run.meta.get("application") or {}
    score = score or printable(application.get("score") or "score")
    notes = tuple(notes) or tuple(filter(None, [application.get("note")]))
    tail = "".join(f" · {printable(note)}" for note in notes)
    single = application.get(SINGLE)
    if single is not None:
        title = f"Checkpoints{tail}"
        table = checkpoints_table(run, single, score=score, title=title, width=console.width, limit=ROWS)
        console.print(table)
        if run.view.best is not None:
            console.print(Text(f"\n{chosen(run, single, score)}", style="bold green"))
    else:
        _print_population(console, run, score, tail, delivered)
    if run.path is not None:
        logged = "every round, score and decision" if single is None else "every checkpoint and its scores"
        described = tuple(files) or _recorded(run.path, application.get("files"))
        _print_files(console, run.path, described, logged)


def _print_population(console: Console, run: Run, score: str, tail: str, delivered: Reported | None) -> None:
    title = f"Population after round {run.view.round}{tail}"
    console.print(
        population_table(rows_of(run, ROWS), run.space, title=title, width=console.width, limit=ROWS, score=score)
    )
    if run.view.best is not None:
        best = run.reports([run.view.best.state])[run.view.best.state]
        title = "Best" if delivered is None else "Best of the last round"
        console.print(Text(f"\n{_winner(title, delivered or best, score)}", style="bold green"))
        if delivered is not None:
            console.print(Text(_winner("Best ever", best, score)))
        schedule = schedule_of(run.ancestry((delivered or best).state))
        title = f"Schedule of the {'best' if delivered is None else 'delivered'} member{tail}"
        console.print()
        console.print(schedule_table(schedule, run.space, title=title, width=console.width))


def _winner(title: str, best: Reported, score: str) -> str:
    text = f"{title}: member {best.member} after round {best.round} (step {best.step:,}): "
    # The score that selected the member, never a test result.
    text += f"{score if 'val' in score else f'validation {score}'} {scored(best.scores[0])}"
    if "test_accuracy" in best.reported:
        text += f", test accuracy {cell(best.reported['test_accuracy'], 'accuracy')}"
    return text


def _recorded(path: Path, files: object) -> list[tuple[str, str]]:
    """The files recorded by the application that exist."""
    if not isinstance(files, dict):
        return []
    return [(str(name), str(what)) for name, what in files.items() if (path / str(name)).exists()]


def _print_files(console: Console, path: Path, files: Iterable[tuple[str, str]], logged: str) -> None:
    named = {
        "run.db": f"{logged} (SQLite)",
        "states/": "the saved states",
        **dict(files),
    }
    table = Table.grid(padding=(0, 3))
    table.add_column(no_wrap=True)
    for name, what in named.items():
        table.add_row(Text(f"  {printable(name)}"), Text(printable(what)))
    top = {name.split("/")[0] for name in named} | {"lock", "run.db-journal"}
    # Numbers become *, so that the files of all members are one entry.
    rest = {re.sub(r"\d+", "*", entry.name) + "/" * entry.is_dir() for entry in path.iterdir() if entry.name not in top}
    if rest:
        names = ", ".join(sorted(rest)[:OTHERS]) + ", …" * (len(rest) > OTHERS)
        table.add_row(Text("  others"), Text(printable(names)))
    console.print(Text(f"\nFiles in {printable(path)}", style="bold"), soft_wrap=True)
    console.print(table)
