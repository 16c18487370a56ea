"""Flags that several commands share: where a run is trained, and what is shown."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from pbt.runs.placement import EXECUTORS, Placement
from pbt.runs.results import Run
from pbt.terminal.exit import OK, SOME_FAILED, print_error
from pbt.terminal.progress import ProgressObserver
from pbt.terminal.single import progress_of
from pbt.terminal.summary import summary
from pbt.terminal.tables import as_json
from pbt.text import printable

Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""True where it is given."""
_WHERE, _SCREEN = Group("Where it is trained", sort_key=1), Group("Screen", sort_key=2)


@Parameter(name="*", group=_WHERE)
@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a run is trained.

    Args:
        executor: In this process, in worker processes, all members as one program, on a Ray cluster, or what is
            faster here. Default: as the experiment says.
        workers: Worker processes. Default: as many as there is room for; with vectorized as many as are fastest.
        threads: CPU threads of one round; results depend on it in their last bits.
        members_per_program: Members that one program trains, with vectorized or ray. Default: as many as memory has
            room for; with ray one.
        device: cpu, cuda, cuda:1, or several joined by commas.
        address: The Ray cluster, as host:port or auto. Default: RAY_ADDRESS, else a Ray of its own on this machine.
        cpus: CPU cores that a worker takes of the Ray cluster.
        gpus: GPUs that a worker takes of it, also a part of one, as 0.25.
    """

    executor: Literal["auto", "inline", "processes", "vectorized", "ray"] | None = None
    workers: int | None = None
    threads: int | None = None
    members_per_program: int | None = None
    device: str | None = None
    address: str | None = None
    cpus: float | None = None
    gpus: float | None = None

    def over(self, placement: Placement) -> Placement:
        """A placement with what was asked for instead of its own."""
        asked = {
            name: getattr(self, name) for name in ("executor", "workers", "threads", "members_per_program", "device")
        }
        of_ray = {name: getattr(self, name) for name in ("address", "cpus", "gpus")}
        of_ray = {name: value for name, value in of_ray.items() if value is not None}
        asked["cluster"] = replace(placement.cluster, **of_ray)
        return replace(placement, **{name: value for name, value in asked.items() if value is not None})

    def over_recorded(self, recorded: Mapping[str, Any], base: Placement) -> Placement:
        """The place that a run was begun in, with what was asked for instead of its own."""
        if recorded.get("executor") in EXECUTORS:
            base = replace(base, executor="auto")
        if recorded.get("device") == "cpu":
            base = replace(base, device=None)
        return self.over(base).resumed(recorded)


@Parameter(name="*", group=_SCREEN)
@dataclass(frozen=True, kw_only=True)
class Screen:
    """What is shown.

    Args:
        as_json: Print the result as JSON on stdout, instead of tables.
        quiet: Print nothing but errors.
        no_progress: Show nothing while it trains.
    """

    as_json: Annotated[Flag, Parameter(name="--json")] = False
    quiet: Annotated[Flag, Parameter(name=["--quiet", "-q"])] = False
    no_progress: Flag = False

    def progress(self, title: str, application: Mapping[str, Any], placement: Placement | None) -> ProgressObserver:
        """What shows a run while it trains."""
        return progress_of(
            application,
            show=not (self.quiet or self.no_progress),
            title=title,
            note=str(application.get("note") or ""),
            score=printable(application.get("score") or "score"),
            placement=placement,
        )

    def result(self, run: Run) -> int:
        """Show what came out; answers the exit code."""
        lost = sorted({member for member, _ in run.tree.failures} & _gone(run))
        if self.as_json:
            print_json(as_json(run, "finished"))
        elif not self.quiet:
            summary(run)
        if lost:
            print_error(f"finished, but member {', '.join(map(str, lost))} failed and was not replaced")
        return SOME_FAILED if lost else OK


def print_json(value: Any, indent: int | None = 2) -> None:
    """One JSON document on stdout, at once."""
    sys.stdout.write(json.dumps(value, indent=indent, allow_nan=False) + "\n")
    sys.stdout.flush()


def _gone(run: Run) -> set[int]:
    return {member.id for member in run.view.members if member.role == "member" and member.status != "live"}
