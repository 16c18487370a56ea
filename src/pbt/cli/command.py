"""`pbt run --command`, and `pbt init`: a population of programs without a file of Python."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from pbt.cli.options import Flag
from pbt.core.strategy import Plan
from pbt.errors import UsageError
from pbt.runs.experiment import Experiment
from pbt.runs.placement import Placement
from pbt.space import Space
from pbt.tasks.command import Command
from pbt.tasks.command.config import EXAMPLE
from pbt.tasks.command.domains import FORMS, pairs
from pbt.terminal.exit import OK, print_error

COMMAND = "command"
"""The recorded origin of runs that `--command` started."""


@Parameter(name="*", group=Group("Program", sort_key=0))
@dataclass(frozen=True, kw_only=True)
class ProgramOptions:
    """A program as the task.

    Args:
        command: Program and arguments with placeholders, run once per member and round (docs/command.md).
        space: Hyperparameter and its domain, such as lr=log:1e-5..1e-1; once for each.
        score: Name of the score in the program's numbers.
        minimize: The lowest score is the best.
        steps: Training steps per round. Default: 1.
        metrics: JSON file in {out} with the numbers. Default: metrics.json, else the last JSON line of the output.
        timeout: Seconds for a round, after which the member has failed. Default: unlimited.
        in_place: The program resumes from the folder {out}, which begins as a copy of the state.
    """

    command: str | None = None
    space: Annotated[list[str] | None, Parameter(negative="")] = None
    score: str | None = None
    minimize: Flag = False
    steps: int | None = None
    metrics: str | None = None
    timeout: float | None = None
    in_place: Flag = False

    def check_alone(self) -> None:
        """UsageError if an option is given without `--command`."""
        given = [name for name, value in asdict(self).items() if value not in (None, False)]
        if self.command is None and given:
            raise UsageError(f"--{given[0].replace('_', '-')} requires --command 'PROGRAM ARGUMENTS'")

    def experiment(self) -> Experiment:
        """The experiment of these options.

        Raises:
            UsageError: A value is missing or invalid.
        """
        if not self.space:
            raise UsageError(f"--command requires --space NAME=DOMAIN; a domain is {FORMS}")
        return self._over(pairs(self.space), "minimize" if self.minimize else "maximize")

    def record(self) -> dict[str, Any]:
        """What the run records, as plain values; the command is data in it, and never executed from there."""
        own = {name: value for name, value in asdict(self).items() if name not in ("space", "minimize")}
        return {"name": COMMAND, **own, "score": self.score or "score"}

    def resumed(self, meta: Mapping[str, Any]) -> Experiment:
        """The experiment of a recorded run, with the command given again and all else as recorded.

        Args:
            meta: The recorded values of the run.
        """
        recorded = meta.get("application") or {}
        kinds: dict[str, Any] = {"score": str, "steps": int, "metrics": str, "timeout": (int, float), "in_place": bool}
        known = {name: recorded[name] for name, kind in kinds.items() if isinstance(recorded.get(name), kind)}
        given = {name: value for name, value in asdict(self).items() if value not in (None, False)}
        options = replace(self, **{**known, **{name: value for name, value in given.items() if name in kinds}})
        return options._over(Space.from_dict(meta["space"]), meta.get("objective", "maximize"))

    def _over(self, space: Space, objective: Any) -> Experiment:
        task = Command(
            self.command or "",
            score=self.score or "score",
            metrics=self.metrics,
            timeout=self.timeout,
            in_place=self.in_place,
        )
        return Experiment(
            task=task,
            space=space,
            plan=Plan(interval=self.steps or 1),
            objective=objective,
            placement=Placement(executor="auto"),
        )


def init(file: Annotated[Path, Parameter(name="FILE")] = Path("pbt.toml"), /) -> int:
    """Write a commented pbt.toml: a population of programs without a line of Python.

    Example: pbt init && pbt run pbt.toml

    Args:
        file: The new file.
    """
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(EXAMPLE)
    except FileExistsError:
        raise UsageError(f"{file} already exists; choose a new file name") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be written ({error.strerror or error}); choose another path") from error
    print_error(f"wrote {file}; adapt it, then: pbt run {file}")
    return OK
