"""Checks of a command before the start."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pbt.domains import Domain
from pbt.errors import TaskError, nearest
from pbt.tasks.command.template import PLACEHOLDERS, Template
from pbt.tasks.command.values import variable


def check_placeholders(template: Template, space: Mapping[str, Domain], *, reads_env: bool, in_place: bool) -> None:
    """Check the placeholders of a command against a search space.

    Args:
        template: The command.
        space: Domains by hyperparameter name.
        reads_env: Whether the program reads `PBT_*` variables itself, so that nothing has to be a placeholder.
        in_place: Whether `{out}` begins as a copy of the state to start from.

    Raises:
        TaskError: A placeholder is unknown or can be without a value, or a value is not used.
    """
    clash = sorted(set(PLACEHOLDERS) & space.keys())
    if clash:
        raise TaskError(f"command: the hyperparameter '{clash[0]}' has the name of a placeholder; rename it")
    owners: dict[str, str] = {}
    for name in space:
        owner = owners.setdefault(variable(name), name)
        if owner != name:
            raise TaskError(f"command: '{owner}' and '{name}' have the same variable {variable(name)}; rename one")
    known = {*PLACEHOLDERS, *space}
    for name in sorted(template.names - known):
        raise TaskError(
            f"command: unknown placeholder {{{name}}}{nearest(name, known)}; write {{{{ and }}}} for braces"
        )
    conditional = {name for name, domain in space.items() if domain.when is not None}
    for name in sorted(template.required & (conditional | {"start"})):
        when = "in the first round" if name == "start" else f"unless {_condition(space[name])}"
        raise TaskError(
            f"command: {{{name}}} has no value {when}; put it into an optional part, as [--{_option(name)} {{{name}}}]"
        )
    if in_place and "start" in template.names:
        raise TaskError("command: with in_place=True {out} contains the state to start from already; leave out {start}")
    if not reads_env:
        _check_used(template, space, in_place=in_place)


def _check_used(template: Template, space: Mapping[str, Domain], *, in_place: bool) -> None:
    names = template.names
    for name in space:
        if name not in names and "hparams" not in names:
            raise TaskError(
                f"command: the hyperparameter '{name}' appears nowhere in it, so it would have no effect; write "
                f"{{{name}}}, or {{hparams}} for a JSON file of all; or, if the program reads PBT_HPARAMS or "
                f"{variable(name)} itself, set reads_env=True"
            )
    if "out" not in names:
        raise TaskError(
            "command: {out} appears nowhere in it, so all members would write to one place, and no state could be "
            "handed over; write it as the folder in which the program saves its checkpoint; or, if the program reads "
            "PBT_OUT itself, set reads_env=True"
        )
    if "start" not in names and not in_place:
        raise TaskError(
            "command: {start} appears nowhere in it, so every round would begin anew; write it as an optional part, as "
            "[--resume {start}]; or, if the program resumes from the folder that it saves in, set in_place=True"
        )


def _condition(domain: Domain) -> str:
    name, value = domain.when or ("", None)
    return f"'{name}' is {value!r}"


def _option(name: str) -> str:
    return "resume" if name == "start" else name.replace("_", "-")


def check_program(template: Template, cwd: Path, path: str | None) -> None:
    """Check that the program exists, and the Python file that it runs.

    Args:
        template: The command.
        cwd: Its working directory.
        path: The value of its `PATH`; None: this process's.

    Raises:
        TaskError: One does not exist.
    """
    if not cwd.is_dir():
        raise TaskError(f"command: its working directory {cwd} does not exist")
    fixed = template.fixed
    if not fixed:
        return  # the program itself is a placeholder
    program = fixed[0]
    found = cwd / program if os.sep in program else shutil.which(program, path=path)
    if found is None or not os.access(found, os.X_OK):
        hint = "; make it executable, or name its interpreter" if found is not None and Path(found).exists() else ""
        raise TaskError(
            f"command: the program '{program}' does not exist or is not executable (searched in "
            f"{cwd if os.sep in program else 'PATH'}){hint}"
        )
    for word in fixed[1:]:
        if word.endswith(".py") and not word.startswith("-"):
            if not (cwd / word).is_file():
                raise TaskError(f"command: expected the file {word} in {cwd}, found none")
            return
