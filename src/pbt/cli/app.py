"""The `pbt` command: train, inspect, resume and verify runs.

Results go to stdout, progress and messages to stderr. Invalid input gives one message and exit code 2.
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
from pbt.cli.command import COMMAND, ProgramOptions, init
from pbt.cli.look import print_errors, print_problems, print_runs, print_status, repair_damage, watch
from pbt.cli.options import Flag, OutputOptions, PlacementOptions
from pbt.cli.plans import under
from pbt.cli.train import check_new, missing_file, resume_application, train_file
from pbt.compare.design import experiment_of, planned_again
from pbt.errors import MissingExtraError, UsageError
from pbt.runs.catalog import APPLICATIONS, REPLAY, RUNS, find_run, new_run_dir, opened, resume_command
from pbt.tasks.command import Command
from pbt.terminal.console import console_for
from pbt.terminal.exit import OK, USAGE, exit_code_of, print_error
from pbt.text import printable


def _version() -> str:
    from pbt.executors.machine import DISTRIBUTION, version_of

    return f"pbt {version_of(DISTRIBUTION) or '(not installed)'}"


app = App(
    name="pbt",
    help="""Population Based Training: train a population of networks and find a hyperparameter schedule.

Example: pbt run task.py:experiment --executor processes

Exit codes:
    0  success
    1  the run failed
    2  invalid input
    3  finished, but some members failed and were not replaced
   75  stopped by a full or failing disk, or at --max-disk; can be resumed
  130  stopped by Ctrl-C; can be resumed
  143  stopped by SIGTERM; can be resumed""",
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
app.command(init)


@app.command
def run(  # noqa: PLR0913 (a flag each)
    named: Annotated[str | None, Parameter(name="FILE.py:object")] = None,
    /,
    *,
    program: ProgramOptions | None = None,
    plan: str | None = None,
    of: str | None = None,
    population: int | None = None,
    rounds: int | None = None,
    seed: int | None = None,
    out: Path | None = None,
    resume: Flag = False,
    changed_plan: Flag = False,
    max_disk: str | None = None,
    placement: PlacementOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Train the population that a Python file, a pbt.toml or a command defines.

    The object is a pbt.Experiment, or a function without arguments that returns
    one. A built-in problem is given by its name alone, such as digits; pbt init
    writes a pbt.toml.

    Example: pbt run task.py:experiment --population 20 --rounds 30

    Args:
        named: Python file and the name of the object in it, a pbt.toml, or a built-in problem.
        program: A program as the task, instead of a file.
        plan: Name of another plan, such as no-evolution or mf-pbt (docs/comparing.md). Default: the experiment's.
        of: Finished run that the plans constant, replay and final are derived from.
        population: Number of members. Default: the experiment's.
        rounds: Rounds per member. Default: the experiment's.
        seed: Random seed. Default: the experiment's.
        out: Run directory. Default: a new directory in runs; runs/latest links to it.
        resume: Resume the run in --out; start it if there is none.
        changed_plan: With --resume: accept a plan that differs from the recorded one, and log the change.
        max_disk: Stop, resumable, before the run directory exceeds this size, such as 2G. Default: unlimited.
        placement: Executor and hardware.
        output: Output on the terminal.
    """
    program = program or ProgramOptions()
    program.check_alone()
    if (named is None) == (program.command is None):
        got = "none of them" if named is None else "both"
        raise UsageError(
            f"expected FILE.py:object, a pbt.toml, or --command with --space, got {got}; see pbt run --help"
        )
    if resume and out is None:
        raise UsageError(
            f"--resume requires --out RUN_DIR; or resume a run with: pbt resume RUN {named or '--command'}"
        )
    if changed_plan and not resume:
        raise UsageError("--changed-plan requires --resume and --out RUN_DIR; a new run has no recorded plan")
    application: dict[str, Any] = program.record() if named is None else {"name": "file", "object": named}
    application |= {} if plan is None else {"plan": plan}
    if out is not None and not resume:
        check_new(out, application)
    experiment = under(program.experiment() if named is None else experiment_of(named), plan, of)
    application |= {"population": experiment.population}  # the file's, not --population
    if isinstance(experiment.task, Command):
        application |= {"score": experiment.task.score, "files": {"logs/": "the output of the newest programs"}}
    experiment = replace(
        experiment,
        population=experiment.population if population is None else population,
        rounds=experiment.rounds if rounds is None else rounds,
        seed=experiment.seed if seed is None else seed,
        placement=(placement or PlacementOptions()).over(experiment.placement),
    )
    experiment = (placement or PlacementOptions()).precise(experiment)
    path = out or new_run_dir(COMMAND if named is None else Path(named.rpartition(":")[0] or named).stem)
    return train_file(
        experiment,
        path,
        application,
        output or OutputOptions(),
        latest=out is None,
        resume=resume,
        max_disk=max_disk,
        changed_plan=changed_plan,
    )


@app.command
def resume(  # noqa: PLR0913 (a flag each)
    named: Annotated[str, Parameter(name="RUN")],
    file: Annotated[str | None, Parameter(name="FILE.py:object")] = None,
    /,
    *,
    command: str | None = None,
    rounds: int | None = None,
    repair: Flag = False,
    changed_plan: Flag = False,
    max_disk: str | None = None,
    placement: PlacementOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Resume a stopped run, or extend a finished run by more rounds.

    A run of your own file requires that file again, and a run of --command the
    command: code named in a run directory is never executed.

    Example: pbt resume runs/latest task.py:experiment --rounds 40

    Args:
        named: Run directory.
        file: Python file and the name of the experiment in it, or pbt.toml. Required for a run of your own file.
        command: Program and arguments. Required for a run that --command started.
        rounds: Rounds per member in total, at least as many as recorded. Default: as recorded.
        repair: If the run is damaged, first restore its newest intact round, and print what was dropped.
        changed_plan: Accept a plan that differs from the recorded one, and log the change.
        max_disk: Stop, resumable, before the run directory exceeds this size, such as 2G. Default: unlimited.
        placement: Executor and hardware. Default: as recorded.
        output: Output on the terminal.
    """
    path = find_run(named)
    placement, output = placement or PlacementOptions(), output or OutputOptions()
    if repair:
        repair_damage(path)
    with opened(path) as (recorded, _):
        meta = recorded.meta
    if rounds is not None and rounds < meta["rounds"]:
        raise UsageError(f"--rounds: expected at least {meta['rounds']}, as recorded in {path}, got {rounds}")
    application = meta.get("application") or {}
    if application.get("name") == REPLAY:
        raise UsageError(f"{path} is a replay; resume it with: {resume_command(path, application)}")
    if application.get("name") in APPLICATIONS and file is None:
        return resume_application(path, meta, rounds, placement, output, max_disk)
    if file is None and command is None:
        raise UsageError(missing_file(path, application))
    if command is not None and (file is not None or application.get("name") != COMMAND):
        raise UsageError(
            f"{path}: --command is for a run that --command started; resume this one with: "
            f"{resume_command(path, application)}"
        )
    if file is None:
        own = ProgramOptions(command=command).resumed(meta)
        if command != application.get("command"):
            print_error(f"warning: resumed with another command; before: {printable(application.get('command'))}")
        application = {**application, "command": command}
    else:
        own = experiment_of(file)
        application = {**application, "name": "file", "object": file}
        _check_population(path, own.population, meta)
    # A plan given by --plan is rebuilt from its record.
    experiment = planned_again(own, meta)
    experiment = replace(
        experiment,
        seed=meta["seed"],
        population=meta["population"],
        initial=meta.get("initial") or (),
        rounds=rounds or meta["rounds"],
        placement=placement.over_recorded(meta.get("place") or {}, experiment.placement),
    )
    experiment = placement.precise(experiment, meta.get("place"))
    return train_file(
        experiment,
        path,
        application,
        output,
        latest=False,
        resume=True,
        max_disk=max_disk,
        changed_plan=changed_plan,
    )


def _check_population(path: Path, own: int, meta: Mapping[str, Any]) -> None:
    """UsageError if the file's population differs from the recorded one."""
    application = meta.get("application") or {}
    # Earlier versions did not record whether --population was given.
    known = meta["population"] if application.get("name") != "file" else application.get("population", own)
    if own != known:
        raise UsageError(
            f"{path}: expected a population of {known}, as recorded, got {own}; restore it, or start a new run"
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


@app.command
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


@app.command
def verify(named: Annotated[str, Parameter(name="RUN")], /) -> int:
    """Check every byte of a run against its checksums; exit code 1 if it is damaged.

    Example: pbt verify runs/latest

    Args:
        named: Run directory.
    """
    return print_problems(named)


@app.command
def doctor() -> int:
    """Test this machine for training: versions, devices, storage, processes.

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
    """Train ten networks on handwritten digits in a minute or two, with all tables and figures.

    Example: pbt demo --out runs/demo

    Args:
        rounds: Epochs per member. Default: a number that takes a minute or two on two cores.
        seed: Random seed.
        out: Run directory. Default: a new directory in runs.
        executor: How members are trained (docs/executors.md). Default: the fastest on this machine.
        device: cpu, cuda or cuda:N. Default: cuda if available.
        address: Address of the Ray cluster: host:port or auto. Default: RAY_ADDRESS, else a local Ray for this run.
        max_disk: Stop, resumable, before the run directory exceeds this size, such as 2G. Default: unlimited.
        no_progress: Hide the progress display during training.
    """
    # Printed first, because loading PyTorch can take seconds.
    print_error("training a population of ten networks on handwritten digits; takes a minute or two on two cores")
    try:
        commands = importlib.import_module("pbt.mnist.commands")
    except ImportError as error:
        raise MissingExtraError("pbt demo", "mnist") from error
    started: list[Path] = []
    flags = {"out": out, "rounds": rounds, "seed": seed, "executor": executor, "device": device, "begun": started}
    flags |= {"address": address, "max_disk": max_disk}
    return exit_code_of(
        lambda: commands.demo(**flags, show=not no_progress), lambda: commands.resume_line(started) if started else None
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    logger = logging.getLogger("pbt")
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler())
    before = logger.level
    logger.setLevel(logging.WARNING)  # commands that train also show notes
    for stream in (sys.stdout, sys.stderr):
        # Characters that the terminal cannot encode are replaced, not an error.
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        return exit_code_of(lambda: _call(sys.argv[1:] if argv is None else list(argv)))
    finally:
        logger.setLevel(before)  # a program may call this function


def _call(tokens: list[str]) -> int:
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        help_line = " ".join(["pbt", *(error.command_chain or ()), "--help"])
        print_error(f"error: {' '.join(str(error).split())}\nsee: {help_line}")
        return USAGE
    return code if isinstance(code, int) else OK


class _StderrHandler(logging.Handler):
    """Print the package's notes and warnings as messages of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print on stderr; a live display redirects it above itself."""
        if not logging.root.handlers:  # they would print it a second time
            level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
            print_error(f"{level}{record.getMessage()}")
