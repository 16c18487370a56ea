"""`pbt replay`: train one new network along a discovered schedule."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from pbt.cli.options import Flag, print_json
from pbt.cli.train import check_new
from pbt.cli.train_options import OutputOptions, PlacementOptions
from pbt.compare.design import experiment_of
from pbt.core.events import Reported
from pbt.errors import MissingExtraError, UsageError
from pbt.runs.catalog import REPLAY, find_run, opened, own_command, resume_command
from pbt.runs.cleanup import CleanupOnRefusal
from pbt.runs.new_run import new_run_dir
from pbt.runs.placement import Placement
from pbt.runs.replay import ReplayComparison, compare, placement_of
from pbt.runs.replay import replay as train_again
from pbt.runs.results import Run
from pbt.store.reader import is_begun
from pbt.terminal.console import console_for
from pbt.terminal.exit import OK, exit_code_of, print_error
from pbt.terminal.tables import Column, grid
from pbt.text import cell, printable, scalars, scored


def replay(
    named: Annotated[str, Parameter(name="RUN")],
    file: Annotated[str | None, Parameter(name="FILE.py:object")] = None,
    /,
    *,
    seed: int | None = None,
    member: int | None = None,
    out: Path | None = None,
    resume: Flag = False,
    placement: PlacementOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Train one new network along the schedule of the best network, and compare both.

    With the run's seed each round repeats that of the best network's ancestor; on
    the same executor the weights are identical, bit by bit. Another seed tests
    whether the schedule works for other networks.

    Example: pbt replay runs/latest task.py:experiment --seed 7

    Args:
        named: Run directory.
        file: Python file and the name of the experiment in it. Required for a run of your own file.
        seed: Random seed. Default: the run's.
        member: Follow the schedule of this member's newest network instead.
        out: Run directory of the replay. Default: a new directory in runs.
        resume: Resume the replay in --out; start it if there is none.
        placement: Executor and hardware. Default: the run's.
        output: Output on the terminal.
    """
    path, output = find_run(named), output or OutputOptions()
    if resume and out is None:
        raise UsageError("--resume requires --out with the directory of the replay")
    placement = placement or PlacementOptions()
    if placement.workers is not None or placement.members_per_program is not None:
        raise UsageError("--workers and --members-per-program cannot be used: a replay trains one network")
    with opened(path) as (run, _):
        run.lineage(member)
        application = _application(run, path, file, seed, member)
        if out is not None and not resume and is_begun(out):
            with opened(out) as (begun, _):
                check_new(out, begun.meta.get("application") or {})
        task = _task(run.meta.get("application") or {}, path, file)
        wanted = placement.over(Placement(executor="auto"))
        placement_of(run, wanted)
        target = out or new_run_dir(f"{path.name[:30]}-replay")

        def train() -> int:
            with CleanupOnRefusal(target), output.progress(f"replay of {path}", application, Placement()) as progress:
                found = train_again(
                    run,
                    task,
                    member=member,
                    seed=seed,
                    run_dir=target,
                    resume=resume,
                    placement=wanted,
                    observers=[progress],
                    application=application,
                )
            _show(run, found, member, output)
            return OK

        return exit_code_of(train, lambda: resume_command(target, application) if is_begun(target) else None)


def _application(run: Run, path: Path, file: str | None, seed: int | None, member: int | None) -> dict[str, Any]:
    """Record the origin of a replay."""
    recorded = run.meta.get("application") or {}
    shown = {name: recorded[name] for name in ("note", "score") if recorded.get(name)}
    return {"name": REPLAY, "of": str(path), "object": file, "seed": seed, "member": member, **shown}


def _task(application: Mapping[str, Any], path: Path, file: str | None) -> Any:
    """The task of the run, from the given file or from the application recorded in the run."""
    if file is not None:
        return experiment_of(file).task
    known = _TASKS.get(application.get("name", ""))
    if known is None:
        named = printable(application.get("object") or "FILE.py:object")
        raise UsageError(
            f"{path}: the file of its task is required, because code named in a run is never executed: "
            f"{own_command()} replay {path} {named}"
        )
    try:
        return known(application)
    except ImportError as error:
        raise MissingExtraError(f"a replay of {application['name']}", "mnist") from error


def _mnist(application: Mapping[str, Any], *, test: bool = True) -> Any:
    from pbt.mnist.config.record import Config
    from pbt.mnist.schedules import halved
    from pbt.mnist.task import find_data, supervised

    if application.get("fine_tuned"):
        raise UsageError("a fine-tuned network cannot be replayed, because a replay starts from initial weights")
    config = Config.from_dict(application["config"])
    # Downloads happen here, because workers never download.
    print_error(f"data: {find_data(config.train).line}")
    task, steps = supervised(config, test=test), application.get("steps_per_epoch")
    # The schedule of a single network already contains its halvings.
    return halved(task, config, steps) if test and steps else task


_TASKS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "mnist": _mnist,
    "mnist-single": lambda application: _mnist(application, test=False),
}
"""Functions that return the task of an application; nothing else recorded in a run directory is ever imported."""


def _show(run: Run, replayed: Run, member: int | None, output: OutputOptions) -> None:
    found = compare(run, replayed, member)
    if output.as_json:
        print_json(_as_json(run, replayed, found))
    elif not output.quiet:
        console = console_for()
        console.print(grid(_title(found), _columns(run, replayed, found), console.width))
        console.print(Text(f"\n{_verdict(run, replayed, found)}", style="bold"), soft_wrap=True)
        console.print(Text(f"Files in {printable(replayed.path)}"), soft_wrap=True)


def _title(found: ReplayComparison) -> str:
    last = found.original
    return f"One network along the schedule of member {last.member} after round {last.round} (step {last.step:,})"


def _columns(run: Run, replayed: Run, found: ReplayComparison) -> list[Column]:
    both = found.original, found.replayed
    columns = [
        Column(
            title="", cells=["winner" if found.original.state == run.best.state else "member", "replay"], side="left"
        ),
        Column(title="seed", cells=[str(run.meta["seed"]), str(replayed.meta["seed"])]),
        Column(title="score", cells=[scored(report.scores[0]) for report in both]),
    ]
    if all("test_accuracy" in report.reported for report in both):
        cells = [cell(report.reported["test_accuracy"], "accuracy") for report in both]
        columns.append(Column(title="test accuracy", cells=cells))
    return columns


def _verdict(run: Run, replayed: Run, found: ReplayComparison) -> str:
    before, now = run.meta.get("place") or {}, replayed.meta["place"]
    if replayed.meta["seed"] != run.meta["seed"]:
        return "Another seed: the difference shows how much depends on the seed rather than on the schedule."
    if found.identical:
        return f"The weights are identical, bit by bit, after each of {found.rounds} rounds."
    names = sorted(before.keys() & now.keys() - {"executor", "members_per_program"})
    why = ", ".join(f"{name} {before[name]} -> {now[name]}" for name in names if before[name] != now[name])
    if before.get("executor") == "vectorized":
        why = why or "the run trained all members as one program; --executor vectorized gives identical weights"
    return (
        f"The weights are identical, bit by bit, for {found.same} of {found.rounds} rounds, then they differ "
        f"({why or 'check for a change of code, data or executor'})."
    )


def _as_json(run: Run, replayed: Run, found: ReplayComparison) -> dict[str, Any]:
    return {
        "run": str(run.path),
        "replay": str(replayed.path),
        "rounds": found.rounds,
        "same_rounds": found.same,
        "identical": found.identical,
        "original": _state(found.original, run),
        "replayed": _state(found.replayed, replayed),
    }


def _state(report: Reported, run: Run) -> dict[str, Any]:
    return {
        "seed": run.meta["seed"],
        "member": report.member,
        "round": report.round,
        "step": report.step,
        "score": report.scores[0],
        "reported": scalars(report.reported),
    }
