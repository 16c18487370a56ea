"""The command `pbt`: train, look, resume, verify.

Data goes to stdout and progress to stderr. What is wrong with the input is one message and exit code 2.
"""

import importlib
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import App, Parameter

from pbt.cli import ancestry, compare, dashboard, digits, export, replay, report
from pbt.cli.look import mend, print_errors, print_problems, print_runs, print_status, watch
from pbt.cli.options import Flag, Screen, Where
from pbt.cli.plans import under
from pbt.cli.train import check_new, go_on_with, name_it_again, train_file
from pbt.compare.design import experiment_of, planned_again
from pbt.errors import MissingExtraError, UsageError
from pbt.runs.catalog import APPLICATIONS, REPLAY, RUNS, find_run, new_run_dir, opened, resume_command
from pbt.terminal.console import console_for
from pbt.terminal.exit import OK, USAGE, exit_code_of, print_error


def _version() -> str:
    from pbt.executors.machine import DISTRIBUTION, version_of

    return f"pbt {version_of(DISTRIBUTION) or '(not installed)'}"


app = App(
    name="pbt",
    help="""Population Based Training: a trained network and the hyperparameter schedule that made it.

Example: pbt run task.py:experiment --executor processes

Exit codes: 0 all well, 1 the run failed, 2 wrong input, 3 finished with failed members, 130 and 143 stopped by
Ctrl-C and SIGTERM with the state kept, 75 stopped by a disk that is full, failing or at --max-disk, with the state
kept.""",
    help_format="plaintext",
    version=_version,
    suppress_keyboard_interrupt=False,
)

app.command(digits.app)
app.command(report.report)
app.command(dashboard.dashboard)
app.command(ancestry.lineage)
app.command(ancestry.schedule)
app.command(replay.replay)
app.command(export.export)
app.command(compare.compare)


@app.command
def run(  # noqa: PLR0913 (a flag each)
    named: Annotated[str, Parameter(name="FILE.py:object")],
    /,
    *,
    plan: str | None = None,
    of: str | None = None,
    population: int | None = None,
    rounds: int | None = None,
    seed: int | None = None,
    out: Path | None = None,
    resume: Flag = False,
    changed_plan: Flag = False,
    max_disk: str | None = None,
    where: Where | None = None,
    screen: Screen | None = None,
) -> int:
    """Train the population that a file of yours describes.

    The object is a pbt.Experiment, or a function without arguments that returns one. A problem that comes with pbt,
    such as digits or cartpole, is named alone.

    Example: pbt run task.py:experiment --population 20 --rounds 30

    Args:
        named: The Python file and the name in it.
        plan: Another algorithm, or a control, by name: pbt, no-evolution, selection-only, mf-pbt, pb2, fire, ...;
            docs/comparing.md has them all. Default: as the experiment says.
        of: The finished run that the plans constant, replay and final are made of.
        population: Members. Default: as the experiment says.
        rounds: Rounds per member. Default: as the experiment says.
        seed: Of everything that is drawn. Default: as the experiment says.
        out: The run directory. Default: a new one in runs, which runs/latest then points to.
        resume: Go on with the run in --out, or begin it.
        changed_plan: With --resume: accept a plan that differs from the one that the run was begun with; it is logged.
        max_disk: Stop, with everything kept, before the run directory takes more than this, as 2G. Default: no bound.
        where: Where it is trained.
        screen: What is shown.
    """
    if resume and out is None:
        raise UsageError(f"--resume: expected --out RUN_DIR with it; to go on with a run: pbt resume RUN {named}")
    if changed_plan and not resume:
        raise UsageError("--changed-plan: expected --resume and --out RUN_DIR with it; a new run has no plan to change")
    application: dict[str, Any] = {"name": "file", "object": named} | ({} if plan is None else {"plan": plan})
    if out is not None and not resume:
        check_new(out, application)
    experiment = under(experiment_of(named), plan, of)
    application |= {"population": experiment.population}  # the file's own, whatever --population says
    experiment = replace(
        experiment,
        population=experiment.population if population is None else population,
        rounds=experiment.rounds if rounds is None else rounds,
        seed=experiment.seed if seed is None else seed,
        placement=(where or Where()).over(experiment.placement),
    )
    path = out or new_run_dir(Path(named.rpartition(":")[0] or named).stem)
    return train_file(
        experiment,
        path,
        application,
        screen or Screen(),
        latest=out is None,
        resume=resume,
        max_disk=max_disk,
        changed_plan=changed_plan,
    )


@app.command
def resume(
    named: Annotated[str, Parameter(name="RUN")],
    file: Annotated[str | None, Parameter(name="FILE.py:object")] = None,
    /,
    *,
    rounds: int | None = None,
    repair: Flag = False,
    changed_plan: Flag = False,
    max_disk: str | None = None,
    where: Where | None = None,
    screen: Screen | None = None,
) -> int:
    """Go on with a run that was stopped, or give a finished one more rounds.

    A run of your own file needs that file named again: what a run directory names is never executed.

    Example: pbt resume runs/latest task.py:experiment --rounds 40

    Args:
        named: The run directory.
        file: The Python file and the name in it, where the run was begun with one.
        rounds: Rounds per member, no fewer than before.
        repair: Go back to the newest whole round first, where the run is damaged, and say what that drops.
        changed_plan: Accept a plan that differs from the one that the run was begun with; the change is logged.
        max_disk: Stop, with everything kept, before the run directory takes more than this, as 2G. Default: no bound.
        where: Where it is trained. Default: as it was begun.
        screen: What is shown.
    """
    path = find_run(named)
    where, screen = where or Where(), screen or Screen()
    if repair:
        mend(path)
    with opened(path) as (begun, _):
        meta = begun.meta
    if rounds is not None and rounds < meta["rounds"]:
        raise UsageError(f"--rounds: expected at least the {meta['rounds']} rounds that {path} has, got {rounds}")
    application = meta.get("application") or {}
    if application.get("name") == REPLAY:
        raise UsageError(f"{path}: is a replay; go on with it: {resume_command(path, application)}")
    if application.get("name") in APPLICATIONS and file is None:
        return go_on_with(path, meta, rounds, where, screen, max_disk)
    if file is None:
        raise UsageError(name_it_again(path, application))
    own = experiment_of(file)
    _check_population(path, own.population, meta)
    # A plan that was named on the command line is made anew from what was recorded of it.
    experiment = planned_again(own, meta)
    experiment = replace(
        experiment,
        seed=meta["seed"],
        population=meta["population"],
        initial=meta.get("initial") or (),
        rounds=rounds or meta["rounds"],
        placement=where.over_recorded(meta.get("place") or {}, experiment.placement),
    )
    return train_file(
        experiment,
        path,
        {**application, "name": "file", "object": file},
        screen,
        latest=False,
        resume=True,
        max_disk=max_disk,
        changed_plan=changed_plan,
    )


def _check_population(path: Path, own: int, meta: Mapping[str, Any]) -> None:
    """UsageError where the file has another population than when the run was begun from it."""
    application = meta.get("application") or {}
    # Runs that an earlier version began from a file do not say whether --population was given.
    known = meta["population"] if application.get("name") != "file" else application.get("population", own)
    if own != known:
        raise UsageError(
            f"{path}: this run was begun with a population of {known}, it cannot go on with {own}; use the same, or "
            "start another run"
        )


@app.command
def status(
    named: Annotated[str, Parameter(name="RUN")],
    /,
    *,
    watching: Annotated[Flag, Parameter(name=["--watch", "-w"])] = False,
    errors: Flag = False,
    as_json: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Show how a run stands, while it runs or afterwards; for a folder, the runs in it.

    Nothing is written, and a running run is not disturbed.

    Example: pbt status runs/latest --watch

    Args:
        named: A run directory, or a folder that holds some.
        watching: Show it again whenever something was added, until it ends or Ctrl-C.
        errors: Print the rounds that failed instead, each with its traceback.
        as_json: Print it as JSON; scores are as the task returned them. With --watch one line each time.
    """
    if errors:
        if watching:
            raise UsageError("--errors prints the failed rounds once; leave out --watch")
        return print_errors(named, json=as_json)
    return watch(named, json=as_json) if watching else print_status(named, json=as_json)


@app.command
def ls(
    folder: Annotated[Path, Parameter(name="FOLDER")] = RUNS,
    /,
    *,
    as_json: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """List the runs in a folder: name, state, rounds, best score and when something was last added; newest last.

    Example: pbt ls runs

    Args:
        folder: The folder that holds them.
        as_json: Print it as JSON; scores are as the task returned them.
    """
    return print_runs(folder, json=as_json)


@app.command
def verify(named: Annotated[str, Parameter(name="RUN")], /) -> int:
    """Check every byte of a run against what was recorded; exit code 0 when it is sound, 1 when not.

    Example: pbt verify runs/latest

    Args:
        named: The run directory.
    """
    return print_problems(named)


@app.command
def doctor() -> int:
    """Test what training needs on this machine: versions, devices, storage, processes.

    Example: pbt doctor
    """
    from pbt.cli.doctor import show

    return show(console_for())


@app.command
def demo(
    *,
    rounds: int | None = None,
    seed: int = 117,
    out: Path | None = None,
    executor: Literal["auto", "inline", "processes", "vectorized", "ray"] | None = None,
    device: str | None = None,
    address: str | None = None,
    max_disk: str | None = None,
    no_progress: Flag = False,
) -> int:
    """Train a population on handwritten digits, with every table and picture, in a minute or two.

    Example: pbt demo --out runs/demo

    Args:
        rounds: Epochs of every member. Default: as many as take a minute or two on two cores.
        seed: Of everything that is drawn.
        out: The run directory. Default: a new one in runs.
        executor: In this process, in worker processes, all members as one program, or on a Ray cluster. Default: what
            is faster.
        device: cpu, cuda or cuda:N.
        address: The Ray cluster, as host:port or auto. Default: RAY_ADDRESS, else a Ray of its own on this machine.
        max_disk: Stop, with everything kept, before the run directory takes more than this, as 2G. Default: no bound.
        no_progress: Show nothing while it trains.
    """
    # Before PyTorch is loaded, which can take seconds.
    print_error("a population of ten networks learns to read digits, for a minute or two on two cores")
    try:
        commands = importlib.import_module("pbt.mnist.commands")
    except ImportError as error:
        raise MissingExtraError("pbt demo", "mnist") from error
    begun: list[Path] = []
    flags = {"out": out, "rounds": rounds, "seed": seed, "executor": executor, "device": device, "begun": begun}
    flags |= {"address": address, "max_disk": max_disk}
    return exit_code_of(
        lambda: commands.demo(**flags, show=not no_progress), lambda: commands.resume_line(begun) if begun else None
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; answers the exit code."""
    logger = logging.getLogger("pbt")
    if not any(isinstance(handler, _Teller) for handler in logger.handlers):
        logger.addHandler(_Teller(logging.WARNING))
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows no arrow gets a question mark.
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    return exit_code_of(lambda: _call(sys.argv[1:] if argv is None else list(argv)))


def _call(tokens: list[str]) -> int:
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        help_line = " ".join(["pbt", *(error.command_chain or ()), "--help"])
        print_error(f"error: {' '.join(str(error).split())}\nsee: {help_line}")
        return USAGE
    return code if isinstance(code, int) else OK


class _Teller(logging.Handler):
    """Warnings of the package, as messages of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it on stderr, which a live display redirects to a place above itself."""
        if not logging.root.handlers:  # which would say it again
            print_error(f"{record.levelname.lower()}: {record.getMessage()}")
