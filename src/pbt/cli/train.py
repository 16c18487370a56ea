"""Train for the command line: the experiment of a file, or an application recorded in a run."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pbt.cli.options import OutputOptions, PlacementOptions
from pbt.errors import MissingExtraError, RunExistsError, UsageError
from pbt.runs.catalog import APPLICATIONS, CleanupOnRefusal, LatestLink, resume_command
from pbt.runs.disk_space import bounded
from pbt.runs.experiment import Experiment
from pbt.runs.placement import Placement
from pbt.store.reader import is_begun
from pbt.terminal.exit import exit_code_of
from pbt.text import printable


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


def train_file(
    experiment: Experiment,
    path: Path,
    application: Mapping[str, Any],
    output: OutputOptions,
    *,
    latest: bool,
    resume: bool,
    max_disk: str | None = None,
    changed_plan: bool = False,
) -> int:
    """Train or resume the experiment of a user's file, and return the exit code."""
    links = [LatestLink()] if latest else []
    bound = bounded(max_disk)

    def train() -> int:
        title = application.get("object") or application.get("command") or ""
        note = {"note": experiment.note, "score": application.get("score")}
        with CleanupOnRefusal(path), output.progress(title, note, experiment.placement) as progress:
            found = experiment.run(
                path,
                resume=resume,
                observers=[*links, progress, *bound],
                application=application,
                changed_plan=changed_plan,
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
