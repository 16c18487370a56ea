"""`pbt run` and `pbt resume`: the experiment of a file or program, or an application recorded in a run."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pbt.cli.command import COMMAND, ProgramOptions
from pbt.cli.look import repair_damage
from pbt.cli.options import Flag
from pbt.cli.plans import under
from pbt.cli.train_options import OutputOptions, PlacementOptions, StopOptions
from pbt.compare.design import experiment_of, planned_again
from pbt.errors import MissingExtraError, RunExistsError, UsageError
from pbt.runs.catalog import APPLICATIONS, REPLAY, find_run, opened, resume_command
from pbt.runs.cleanup import CleanupOnRefusal
from pbt.runs.disk_space import bounded
from pbt.runs.experiment import Experiment
from pbt.runs.new_run import LatestLink, make_private, new_run_dir
from pbt.runs.placement import Placement
from pbt.runs.stopping import Stop
from pbt.store.reader import is_begun
from pbt.tasks.command import Command
from pbt.terminal.exit import exit_code_of, print_error
from pbt.text import printable


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
    private: Flag = False,
    stop: StopOptions | None = None,
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
        population: Number of members; with --resume, another one than before changes it. Default: the experiment's.
        rounds: Rounds per member. Default: the experiment's.
        seed: Random seed. Default: the experiment's.
        out: Run directory. Default: a new directory in runs; runs/latest links to it.
        resume: Resume the run in --out; start it if there is none.
        changed_plan: With --resume: accept a plan that differs from the recorded one, and log the change.
        max_disk: Stop, resumable, before the run directory exceeds this size, such as 2G. Default: unlimited.
        private: Give only yourself access to the run directory. Default: its permissions follow the umask.
        stop: When to end before the last round.
        placement: Executor and hardware.
        output: Output on the terminal.
    """
    program = program or ProgramOptions()
    program.check_alone()
    condition = (stop or StopOptions()).condition()
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
    path = out or new_run_dir(COMMAND if named is None else Path(named.rpartition(":")[0] or named).stem)
    output = output or OutputOptions()
    output.begin(f"{path}: loading {named or 'the program'}")
    experiment = program.experiment() if named is None else experiment_of(named)
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
    # After the options, because a plan may depend on the number of rounds.
    experiment = under(experiment, plan, of)
    experiment = (placement or PlacementOptions()).precise(experiment)
    return train_file(
        experiment,
        path,
        application,
        output,
        latest=out is None,
        resume=resume,
        max_disk=max_disk,
        changed_plan=changed_plan,
        changed_population=population is not None,
        stop=condition,
        private=private,
    )


def resume(  # noqa: PLR0913 (a flag each)
    named: Annotated[str, Parameter(name="RUN")],
    file: Annotated[str | None, Parameter(name="FILE.py:object")] = None,
    /,
    *,
    command: str | None = None,
    rounds: int | None = None,
    population: int | None = None,
    repair: Flag = False,
    changed_plan: Flag = False,
    max_disk: str | None = None,
    stop: StopOptions | None = None,
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
        population: Number of members from now on: new ones copy good ones, the worst leave. Default: as recorded.
        repair: If the run is damaged, first restore its newest intact round, and print what was dropped.
        changed_plan: Accept a plan that differs from the recorded one, and log the change.
        max_disk: Stop, resumable, before the run directory exceeds this size, such as 2G. Default: unlimited.
        stop: When to end before the last round. Default: at the last round, whatever stopped the run before.
        placement: Executor and hardware. Default: as recorded.
        output: Output on the terminal.
    """
    path = find_run(named)
    condition = (stop or StopOptions()).condition()
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
        if condition is not None or population is not None:
            raise UsageError(
                "--until-score, --max-time, --patience and --population are for runs of a file or a command"
            )
        output.begin(f"{path}: resuming")
        return resume_application(path, meta, rounds, placement, output, max_disk)
    if file is None and command is None:
        raise UsageError(missing_file(path, application))
    if command is not None and (file is not None or application.get("name") != COMMAND):
        raise UsageError(
            f"{path}: --command is for a run that --command started; resume this one with: "
            f"{resume_command(path, application)}"
        )
    output.begin(f"{path}: loading {file or 'the program'}")
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
        population=meta["population"] if population is None else population,
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
        changed_population=population is not None,
        stop=condition,
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


def check_new(path: Path, application: Mapping[str, Any]) -> None:
    """RunExistsError, with the command that resumes it, if the directory contains a run."""
    if is_begun(path):
        line = resume_command(path, application)
        raise RunExistsError(f"{path} already contains a run; choose a new directory, or resume it with: {line}")


def missing_file(path: Path, application: Mapping[str, Any]) -> str:
    """The message that a run of a user's file requires the file, with the command to type."""
    origin = f"from {printable(application['object'])}" if application.get("object") else "in Python"
    if application.get("command"):
        return (
            f"{path} was started with --command; a command named in a run is never executed, so give it again:\n"
            f"  {resume_command(path, application)}"
        )
    return (
        f"{path} was started {origin}; code named in a run is never executed, so give the file again:\n"
        f"  {resume_command(path, application)}"
    )


def train_file(  # noqa: PLR0913 (a flag each)
    experiment: Experiment,
    path: Path,
    application: Mapping[str, Any],
    output: OutputOptions,
    *,
    latest: bool,
    resume: bool,
    max_disk: str | None = None,
    changed_plan: bool = False,
    changed_population: bool = False,
    private: bool = False,
    stop: Stop | None = None,
) -> int:
    """Train or resume the experiment of a user's file, and return the exit code."""
    links = [LatestLink()] if latest else []
    bound = bounded(max_disk)

    def train() -> int:
        title = application.get("object") or application.get("command") or ""
        note = {"note": experiment.note, "score": application.get("score")}
        with CleanupOnRefusal(path), output.progress(title, note, experiment.placement) as progress:
            if private:
                make_private(path)
            found = experiment.run(
                path,
                resume=resume,
                observers=[*links, progress, *bound],
                application=application,
                changed_plan=changed_plan,
                changed_population=changed_population,
                stop=stop,
            )
        return output.result(found)

    return exit_code_of(train, _line(path, application))


def resume_application(
    path: Path,
    meta: Mapping[str, Any],
    rounds: int | None,
    options: PlacementOptions,
    output: OutputOptions,
    max_disk: str | None = None,
) -> int:
    """Resume a run of a registered application, and return the exit code."""
    application = meta["application"]
    if options.precision is not None:
        raise UsageError("--precision is for runs of a file; this application sets its own")
    module, _, function = APPLICATIONS[application["name"]].partition(":")
    full = options.over_recorded(meta.get("place") or {}, Placement())
    # Without options the application decides, as at the start.
    placement = None if options == PlacementOptions() else full
    bound = bounded(max_disk)

    def train() -> int:
        try:
            resume = getattr(importlib.import_module(module), function)
        except ImportError as error:
            raise MissingExtraError(f"a run of {application['name']}", application["name"]) from error
        with output.progress(str(path), application, full) as progress:
            found = resume(path, rounds=rounds, placement=placement, observers=[progress, *bound])
        return output.result(found)

    return exit_code_of(train, _line(path, application))


def _line(path: Path, application: Mapping[str, Any]) -> Callable[[], str | None]:
    """The command that resumes a run after an interruption; None if it was not started."""
    return lambda: resume_command(path, application) if is_begun(path) else None
