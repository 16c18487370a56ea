"""Options of the commands that train: placement and output."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from pbt.cli.options import Flag, print_json
from pbt.errors import UsageError
from pbt.runs.experiment import Experiment
from pbt.runs.placement import EXECUTORS, Placement
from pbt.runs.results import Run
from pbt.runs.stopping import Stop, seconds_of
from pbt.terminal.exit import OK, SOME_FAILED, print_error
from pbt.terminal.plain import as_json
from pbt.terminal.progress import ProgressObserver
from pbt.terminal.single_progress import progress_of
from pbt.terminal.summary import summary
from pbt.text import printable

_STOP, _PLACEMENT, _OUTPUT = (Group(name, sort_key=i) for i, name in enumerate(("Stopping", "Placement", "Output"), 1))


@Parameter(name="*", group=_PLACEMENT)
@dataclass(frozen=True, kw_only=True)
class PlacementOptions:
    """Placement of a run.

    Args:
        executor: How members are trained (docs/executors.md); auto: the fastest here. Default: the experiment's.
        workers: Worker processes. Default: as many as the hardware holds; with vectorized, the fastest number.
        threads: CPU threads per round; the last bits of results depend on it. Default: cores / members, at least 1.
        members_per_program: Members per program (vectorized, ray). Default: as many as memory holds; with ray 1.
        device: cpu, cuda, cuda:1, or several joined by commas. Default: cuda if available.
        devices_per_member: Devices that each member trains on at once. Default: 1.
        convolutions: How a program on a GPU runs them (docs/accelerator.md). Default: the fastest, which is timed.
        precision: Products of a SupervisedTask: float32, tf32 (GPUs) or bf16. Default: the task's, or as recorded.
        address: Address of the Ray cluster: host:port or auto. Default: RAY_ADDRESS, else a local Ray for this run.
        cpus: CPU cores per Ray worker.
        gpus: GPUs per Ray worker; fractions such as 0.25 are allowed.
    """

    executor: Literal["auto", "inline", "processes", "vectorized", "ray"] | None = None
    workers: int | None = None
    threads: int | None = None
    members_per_program: int | None = None
    device: str | None = None
    devices_per_member: int | None = None
    convolutions: Literal["grouped", "separate", "unfolded"] | None = None
    precision: Literal["float32", "tf32", "bf16"] | None = None
    address: str | None = None
    cpus: float | None = None
    gpus: float | None = None

    def over(self, placement: Placement) -> Placement:
        """A placement, with the options given on the command line in place of its own fields."""
        own = ("executor", "workers", "threads", "members_per_program", "device", "devices_per_member", "convolutions")
        given = {name: getattr(self, name) for name in own}
        of_ray = {name: getattr(self, name) for name in ("address", "cpus", "gpus")}
        of_ray = {name: value for name, value in of_ray.items() if value is not None}
        given["cluster"] = replace(placement.cluster, **of_ray)
        return replace(placement, **{name: value for name, value in given.items() if value is not None})

    def precise(self, experiment: Experiment, recorded: Mapping[str, Any] | None = None) -> Experiment:
        """The experiment in the precision given on the command line, else in the one that a run recorded.

        Raises:
            UsageError: Its task has none.
        """
        precision = self.precision or (recorded or {}).get("precision")
        if precision is None or precision == getattr(experiment.task, "precision", None):
            return experiment
        if not hasattr(experiment.task, "precision"):
            raise UsageError(
                f"--precision {precision} is for a SupervisedTask; {type(experiment.task).__name__} sets its own"
            )
        task: Any = experiment.task
        return replace(experiment, task=replace(task, precision=precision))

    def over_recorded(self, recorded: Mapping[str, Any], base: Placement) -> Placement:
        """The recorded placement of a run, with the options given on the command line in place of its own fields."""
        if recorded.get("executor") in EXECUTORS:
            base = replace(base, executor="auto")
        if recorded.get("device") == "cpu":
            base = replace(base, device=None)
        return self.over(base).resumed(recorded)


@Parameter(name="*", group=_STOP)
@dataclass(frozen=True, kw_only=True)
class StopOptions:
    """Conditions that end a run before its last round; it can be resumed.

    Args:
        until_score: Stop when a member has reached this score.
        max_time: Stop at the first decision after this time of training, such as 90s, 30m, 8h or 2d.
        patience: Stop when the best score has not improved for this many rounds.
    """

    until_score: float | None = None
    max_time: str | None = None
    patience: int | None = None

    def condition(self) -> Stop | None:
        """The condition; None without options.

        Raises:
            UsageError: A value is out of range.
        """
        seconds = None if self.max_time is None else seconds_of("--max-time", self.max_time)
        if (self.until_score, seconds, self.patience) == (None, None, None):
            return None
        return Stop(score=self.until_score, seconds=seconds, patience=self.patience)


@Parameter(name="*", group=_OUTPUT)
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Output on the terminal.

    Args:
        as_json: Print the result as JSON instead of tables.
        quiet: Print only errors.
        no_progress: Hide the progress display during training.
    """

    as_json: Annotated[Flag, Parameter(name="--json")] = False
    quiet: Annotated[Flag, Parameter(name=["--quiet", "-q"])] = False
    no_progress: Flag = False

    def begin(self, message: str) -> None:
        """Print a first line, because importing PyTorch and a user's file can take seconds."""
        if not (self.quiet or self.no_progress):
            print_error(message)

    def progress(self, title: str, application: Mapping[str, Any], placement: Placement | None) -> ProgressObserver:
        """The display of a run during training; without `--quiet`, notes are printed, too."""
        logging.getLogger("pbt").setLevel(logging.WARNING if self.quiet else logging.INFO)
        return progress_of(
            application,
            show=not (self.quiet or self.no_progress),
            title=title,
            note=str(application.get("note") or ""),
            score=printable(application.get("score") or "score"),
            placement=placement,
        )

    def result(self, run: Run) -> int:
        """Print the result of a run and return the exit code."""
        gone = _gone(run)
        lost = sorted({failure.member for failure in run.failures()} & gone) if gone else []
        if self.as_json:
            print_json(as_json(run, "finished"))
        elif not self.quiet:
            summary(run)
        if lost:
            print_error(f"finished; failed and not replaced: member {', '.join(map(str, lost))}")
        return SOME_FAILED if lost else OK


def _gone(run: Run) -> set[int]:
    return {member.id for member in run.view.members if member.role == "member" and member.status != "live"}
