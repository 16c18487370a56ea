"""`pbt compare`: several plans on common seeds with the same budget."""

import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

from cyclopts import Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from pbt.cli.options import print_json
from pbt.cli.train_options import OutputOptions
from pbt.compare.design import Design, Trial
from pbt.errors import UsageError
from pbt.executors.machine import cores_here
from pbt.runs.catalog import RUNS, own_command
from pbt.store.layout import DATABASE
from pbt.terminal.console import can_redraw, console_for
from pbt.terminal.exit import OK, exit_code_of
from pbt.text import clock, printable

if TYPE_CHECKING:
    from pbt.compare.results import Comparison


def compare(  # noqa: PLR0913 (a flag each)
    task: Annotated[str, Parameter(name="TASK")],
    /,
    *,
    plans: str = "pbt,no-evolution",
    seeds: int = 10,
    first_seed: int = 0,
    out: Path | None = None,
    workers: int | None = None,
    population: int | None = None,
    rounds: int | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Train several plans on common seeds with the same budget, and test the differences.

    All runs are kept; the same command trains only the missing ones. The first
    plan is the reference. docs/comparing.md explains plans and statistics.

    Plans: own, pbt, tournament, t-test, guarded, mf-pbt, ipbt, pb2, pb2-mix,
    fire, backtracking, gpbt-pl. Controls: no-evolution, selection-only,
    explore-only, constant, replay, final.

    Example: pbt compare nqm --plans pbt,no-evolution,replay --seeds 10

    Args:
        task: FILE.py:object, or a built-in problem (nqm, toy-deceptive, digits, cartpole, ...).
        plans: Names of plans, joined by commas; the first is the reference.
        seeds: Number of seeds; each plan trains one population per seed.
        first_seed: First seed.
        out: Directory of all runs and results. Default: runs/compare-TASK.
        workers: Number of runs at a time, one thread each. Default: the number of CPU cores.
        population: Number of members. Default: the experiment's.
        rounds: Rounds per member. Default: the experiment's.
        output: Output on the terminal.
    """
    if seeds < 1:
        raise UsageError(f"--seeds: expected at least 1, got {seeds}")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers: expected at least 1, got {workers}")
    names = tuple(filter(None, (name.strip() for name in plans.split(","))))
    folder = out or RUNS / f"compare-{_stem(task)}"
    if (folder / DATABASE).is_file():
        raise UsageError(f"{folder}: expected a directory for a comparison, found a run; choose another one with --out")
    design = Design(
        task=task,
        asked=names,
        seeds=tuple(range(first_seed, first_seed + seeds)),
        out=folder,
        population=population,
        rounds=rounds,
    )
    line = _again(design, plans, workers, named=out is not None)
    return exit_code_of(
        lambda: _compare(design, workers or cores_here(), output or OutputOptions()),
        lambda: line if folder.exists() else None,
    )


def _compare(design: Design, workers: int, output: OutputOptions) -> int:
    # scipy, matplotlib and torch are loaded here: not for --help, and not only after hours of training.
    from pbt.compare.output import as_plain, check_packages, write
    from pbt.compare.results import compared
    from pbt.compare.trials import measured
    from pbt.compare.workers import train_all

    check_packages()
    experiment = design.experiment()
    design.check(experiment)
    trials = design.trials()
    with _ComparisonProgress(trials, show=not (output.quiet or output.no_progress)) as progress:
        train_all(design, experiment, workers, progress)
    found = compared(design, experiment, [measured(trial) for trial in trials])
    files = write(found, design.out)
    if output.as_json:
        print_json(as_plain(found))
    elif not output.quiet:
        _show(found, files)
    return OK


def _show(found: "Comparison", files: Sequence[Path]) -> None:
    from pbt.compare.sentences import sentences
    from pbt.compare.table import comparison_table

    console = console_for()
    console.print(comparison_table(found, console.width))
    console.print()
    for sentence in sentences(found):
        console.print(Text(printable(sentence)))
    console.print(Text(f"\nWritten: {', '.join(map(printable, files))}"), soft_wrap=True)


class _ComparisonProgress:
    """Progress on stderr: a bar on a terminal, otherwise a line per run.

    Args:
        trials: All runs.
        show: Show progress.
    """

    def __init__(self, trials: Sequence[Trial], *, show: bool) -> None:
        self._total, self._done, self._before = len(trials), 0, 0
        self._show, self._began = show, time.monotonic()
        self._console = console_for(stderr=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __call__(self, trial: Trial, before: bool) -> None:
        """Count a finished run."""
        self._done += 1
        self._before += before
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=_name(trial))
        elif self._show and not before:
            done, elapsed = f"{self._done}/{self._total} runs", clock(time.monotonic() - self._began)
            self._console.print(Text(f"{done} · {_name(trial)} · {elapsed}"), soft_wrap=True)

    def __enter__(self) -> Self:
        if self._show and can_redraw(self._console):
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("comparing", total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None and self._show and self._before:
            self._console.print(f"{self._before} of {self._total} runs were already finished", soft_wrap=True)


def _name(trial: Trial) -> str:
    return printable(f"{trial.plan}, seed {trial.seed}")


def _stem(task: str) -> str:
    """A directory name for a task."""
    file, colon, name = task.rpartition(":")
    text = f"{Path(file).stem}-{name}" if colon else Path(task).stem
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip("._-")[:60] or "task"


def _again(design: Design, plans: str, workers: int | None, *, named: bool) -> str:
    """The command that resumes this one."""
    words = ["compare", design.task, "--plans", plans, "--seeds", str(len(design.seeds))]
    given = {"--first-seed": design.seeds[0] or None, "--out": design.out if named else None, "--workers": workers}
    given |= {"--population": design.population, "--rounds": design.rounds}
    words += [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    return " ".join([own_command(), *map(shlex.quote, words)])
