"""Training on behalf of the command line: a user's file, or an application that a run names."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pbt.cli.options import Screen, Where
from pbt.errors import MissingExtraError, RunExistsError
from pbt.runs.catalog import APPLICATIONS, CleanupOnRefusal, LatestLink, resume_command
from pbt.runs.disk_space import bounded
from pbt.runs.experiment import Experiment
from pbt.runs.placement import Placement
from pbt.store.reader import is_begun
from pbt.terminal.exit import exit_code_of
from pbt.text import printable


def check_new(path: Path, application: Mapping[str, Any]) -> None:
    """RunExistsError, with the line that goes on, where a run is already."""
    if is_begun(path):
        line = resume_command(path, application)
        raise RunExistsError(f"{path}: expected a new directory, found a run; go on with it: {line}")


def name_it_again(path: Path, application: Mapping[str, Any]) -> str:
    """Why a run cannot go on by itself, and the line to type."""
    origin = f"from {printable(application['object'])}" if application.get("object") else "in Python"
    return (
        f"{path}: was begun {origin}; no code that a run names is executed, so name the file again:\n"
        f"  {resume_command(path, application)}"
    )


def train_file(
    experiment: Experiment,
    path: Path,
    application: Mapping[str, Any],
    screen: Screen,
    *,
    latest: bool,
    resume: bool,
    max_disk: str | None = None,
    changed_plan: bool = False,
) -> int:
    """Train, or go on, with the experiment of a user's file; answers the exit code."""
    links = [LatestLink()] if latest else []
    bound = bounded(max_disk)

    def train() -> int:
        title, note = application["object"], {"note": experiment.note}
        with CleanupOnRefusal(path), screen.progress(title, note, experiment.placement) as progress:
            found = experiment.run(
                path,
                resume=resume,
                observers=[*links, progress, *bound],
                application=application,
                changed_plan=changed_plan,
            )
        return screen.result(found)

    return exit_code_of(train, _line(path, application))


def go_on_with(
    path: Path,
    meta: Mapping[str, Any],
    rounds: int | None,
    where: Where,
    screen: Screen,
    max_disk: str | None = None,
) -> int:
    """Go on with a run of a registered application; answers the exit code."""
    application = meta["application"]
    module, _, function = APPLICATIONS[application["name"]].partition(":")
    place = where.over_recorded(meta.get("place") or {}, Placement())
    # Where nothing is asked for the application decides, as it did at the start.
    placement = None if where == Where() else place
    bound = bounded(max_disk)

    def train() -> int:
        try:
            go_on = getattr(importlib.import_module(module), function)
        except ImportError as error:
            raise MissingExtraError(f"a run of {application['name']}", application["name"]) from error
        with screen.progress(str(path), application, place) as progress:
            found = go_on(path, rounds=rounds, placement=placement, observers=[progress, *bound])
        return screen.result(found)

    return exit_code_of(train, _line(path, application))


def _line(path: Path, application: Mapping[str, Any]) -> Callable[[], str | None]:
    """What to say after an interruption: nothing where the run was not begun."""
    return lambda: resume_command(path, application) if is_begun(path) else None
