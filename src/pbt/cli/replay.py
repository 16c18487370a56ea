"""`pbt replay`: the schedule put to the test, on one fresh network."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from pbt.cli.options import Flag, Screen, Where, print_json
from pbt.cli.train import check_new
from pbt.core.events import Reported
from pbt.errors import MissingExtraError, UsageError
from pbt.runs.catalog import (
    REPLAY,
    CleanupOnRefusal,
    find_run,
    new_run_dir,
    opened,
    own_command,
    resume_command,
)
from pbt.runs.experiment_file import load_experiment
from pbt.runs.placement import Placement
from pbt.runs.replay import ReplayComparison, compare, place_of
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
    where: Where | None = None,
    screen: Screen | None = None,
) -> int:
    """Train one fresh network along the schedule that made the best one, and show both.

    With the run's own seed every round is trained as the ancestor of the best network trained it: on the same
    executor the weights are the same to the bit. Another seed is the honest test of the schedule.

    Example: pbt replay runs/latest task.py:experiment --seed 7

    Args:
        named: The run directory.
        file: The Python file and the name in it, where the run was begun with one: no code that a run names is run.
        seed: Of everything that is drawn. Default: the run's own.
        member: Follow the ancestry of this member's newest network instead.
        out: The run directory of the replay. Default: a new one in runs.
        resume: Go on with the replay in --out, or begin it.
        where: Where it is trained. Default: as the run was.
        screen: What is shown.
    """
    path, screen = find_run(named), screen or Screen()
    if resume and out is None:
        raise UsageError("--resume: expected --out with the directory of the replay, got none")
    where = where or Where()
    if where.workers is not None or where.members_per_program is not None:
        raise UsageError("--workers, --members-per-program: expected none of them, a replay trains one network")
    with opened(path) as (run, _):
        run.lineage(member)
        application = _application(run, path, file, seed, member)
        if out is not None and not resume and is_begun(out):
            with opened(out) as (begun, _):
                check_new(out, begun.meta.get("application") or {})
        task = _task(run.meta.get("application") or {}, path, file)
        wanted = where.over(Placement(executor="auto"))
        place_of(run, wanted)
        target = out or new_run_dir(f"{path.name[:30]}-replay")

        def train() -> int:
            with CleanupOnRefusal(target), screen.progress(f"replay of {path}", application, Placement()) as progress:
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
            _show(run, found, member, screen)
            return OK

        return exit_code_of(train, lambda: resume_command(target, application) if is_begun(target) else None)


def _application(run: Run, path: Path, file: str | None, seed: int | None, member: int | None) -> dict[str, Any]:
    """By which a replay is found again, and what is said of it."""
    begun = run.meta.get("application") or {}
    told = {name: begun[name] for name in ("note", "score") if begun.get(name)}
    return {"name": REPLAY, "of": str(path), "object": file, "seed": seed, "member": member, **told}


def _task(application: Mapping[str, Any], path: Path, file: str | None) -> Any:
    """What the run trained: of the file that is named, or of the application that the run names."""
    if file is not None:
        return load_experiment(file).task
    known = _TASKS.get(application.get("name", ""))
    if known is None:
        told = printable(application.get("object") or "FILE.py:object")
        raise UsageError(
            f"{path}: no code that a run names is executed, so name the file of its task: "
            f"{own_command()} replay {path} {told}"
        )
    try:
        return known(application)
    except ImportError as error:
        raise MissingExtraError(f"a replay of {application['name']}", "mnist") from error


def _mnist(application: Mapping[str, Any], *, test: bool = True) -> Any:
    from pbt.mnist.config.record import Config
    from pbt.mnist.population import halved
    from pbt.mnist.task import find_data, supervised

    if application.get("fine_tuned"):
        raise UsageError("a network that was fine-tuned cannot be replayed: a replay starts from initial weights")
    config = Config.from_dict(application["config"])
    # Workers never download: what is to be downloaded is so now.
    print_error(f"data: {find_data(config.train).line}")
    task, steps = supervised(config, test=test), application.get("steps_per_epoch")
    # Of a single network the halvings are in its schedule.
    return halved(task, config, steps) if test and steps else task


_TASKS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "mnist": _mnist,
    "mnist-single": lambda application: _mnist(application, test=False),
}
"""The task of an application that a run may name; nothing else that a run directory says is ever imported."""


def _show(run: Run, replayed: Run, member: int | None, screen: Screen) -> None:
    found = compare(run, replayed, member)
    if screen.as_json:
        print_json(_as_json(run, replayed, found))
    elif not screen.quiet:
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
    begun, now = run.meta.get("place") or {}, replayed.meta["place"]
    if replayed.meta["seed"] != run.meta["seed"]:
        return "Another seed: what differs is what the schedule alone does not decide."
    if found.identical:
        return f"The weights are the same to the bit after each of {found.rounds} rounds."
    names = sorted(begun.keys() & now.keys() - {"executor", "members_per_program"})
    why = ", ".join(f"{name} {begun[name]} -> {now[name]}" for name in names if begun[name] != now[name])
    if begun.get("executor") == "vectorized":
        why = why or "the run was one program for all members; --executor vectorized repeats its bits"
    return (
        f"The weights are the same to the bit for {found.same} of {found.rounds} rounds, then they differ "
        f"({why or 'is it the same code, data and executor?'})."
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
