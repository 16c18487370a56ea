"""The MNIST application's commands: `main_PBT.py`, and what `pbt demo` does."""

import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pbt.errors import ConfigError, RunExistsError, UsageError
from pbt.mnist.config.record import Config, load_config
from pbt.mnist.config.types import plain
from pbt.mnist.data.find import Dataset
from pbt.mnist.demo import demo_config, demo_epochs, demo_result
from pbt.mnist.evaluations import keep_evaluation
from pbt.mnist.models import Shape, count_parameters
from pbt.mnist.population import APPLICATION, PopulationRun, placement_of, prepare
from pbt.mnist.tester import Tested, run_test
from pbt.runs.catalog import LatestLink, new_run_dir, own_command
from pbt.runs.disk_space import bounded
from pbt.runs.results import Run
from pbt.store.layout import check_vacant
from pbt.store.reader import is_begun
from pbt.terminal.console import can_redraw, console_for
from pbt.terminal.exit import OK, SOME_FAILED, exit_code_of, print_error
from pbt.terminal.progress import ProgressObserver
from pbt.terminal.summary import summary


def population(argv: Sequence[str] | None = None) -> int:
    """What `main_PBT.py` does; returns the exit code."""
    begun: list[Path] = []
    program = "main_PBT.py"
    app = App(
        name=program,
        help="Population based training of an MNIST network.\n\nExample: python3 main_PBT.py config/fc_PBT.json",
        version_flags=[],
        suppress_keyboard_interrupt=False,
    )

    @app.default
    def command(  # noqa: PLR0913 (a flag each)
        config: Path,
        *,
        mode: Annotated[Literal["train", "test", "val"], Parameter(name=["--mode", "-m"])] = "train",
        debug: bool = False,
        device: str | None = None,
        executor: Literal["auto", "inline", "processes", "vectorized", "ray"] | None = None,
        address: str | None = None,
        data_dir: Annotated[Path | None, Parameter(name=["--data-dir", "--data_dir"])] = None,
        train_dir: Annotated[Path | None, Parameter(name=["--train-dir", "--train_dir"])] = None,
        out: Path | None = None,
        max_disk: Annotated[str | None, Parameter(name=["--max-disk", "--max_disk"])] = None,
        set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
        progress: bool = True,
    ) -> int:
        """Train, or test what was trained.

        Args:
            config: Configuration file, as config/fc_PBT.json.
            mode: train; test: the test images on load_ckpt or the best member of the newest run; val: the same on
                the held-out images.
            debug: Write no tables, no figures, no TensorBoard scalars and no best checkpoint.
            device: cpu, cuda or cuda:N; must be there, and holds for -m test and val too. Default: what the
                configuration's gpus name, if there.
            executor: Overrides the configuration's.
            address: The Ray cluster, as host:port or auto. Default: RAY_ADDRESS, else one of its own on this machine.
            data_dir: Overrides the configuration's.
            train_dir: Overrides the configuration's.
            out: The training directory itself, instead of a dated one in train_dir.
            max_disk: Stop, with everything kept, before the directory takes more than this, as 2G. Default: no bound.
            set_: Other keys, as --set num_epochs_tot=5.
            progress: Show the live table.
        """
        overrides = overrides_of(set_, data_dir=data_dir, train_dir=train_dir)
        settings = load_config(config, overrides=overrides)
        if mode != "train":
            check_unused(mode, executor=executor, address=address, out=out, max_disk=max_disk)
            report_notices()
            tested = run_test(settings, mode, APPLICATION, overridden=overrides, device=device)
            if mode == "val" and not debug:
                keep_evaluation(tested, settings.val.val)
            return show_test(tested, mode)
        check_worker(settings)
        if settings.train.load_ckpt:
            raise ConfigError("load_ckpt: expected none to train a population; go on with a run by: pbt resume RUN")
        path = new_path(settings, out)
        prepared = _prepare(settings, device=device, executor=executor, address=address, debug=debug, show=progress)
        begun.append(path)
        return train(prepared, path, show=progress, max_disk=max_disk)

    return exit_code_of(lambda: parse(app, argv), lambda: resume_line(begun), program)


def demo(  # noqa: PLR0913 (a flag each)
    *,
    out: Path | None = None,
    rounds: int | None = None,
    seed: int = 117,
    device: str | None = None,
    executor: str | None = None,
    address: str | None = None,
    show: bool = True,
    begun: list[Path] | None = None,
    max_disk: str | None = None,
) -> int:
    """Population based training of the fully connected network, small enough to watch.

    Args:
        out: The run directory; None: a dated one in `runs`.
        rounds: Epochs; None: as many as take a minute or two on two cores.
        seed: Of everything that is drawn.
        device: `cpu`, `cuda` or `cuda:N`.
        executor: `inline`, `processes`, `vectorized`, `ray` or `auto`; None: what is faster.
        address: Of the Ray cluster; None: what `RAY_ADDRESS` says, else one of its own.
        show: Show the live table.
        begun: Gets the run directory as soon as there is one.
        max_disk: What the run directory may take, as `2G`; None: no bound.

    Returns:
        The exit code.
    """
    path = out or new_run_dir("demo")
    check_new(path)
    prepared = _prepare(
        demo_config({"seed": seed}), device=device, executor=executor, address=address, debug=False, show=show
    )
    epochs = demo_epochs(prepared.data) if rounds is None else rounds
    config = prepared.config.changed(num_epochs_tot=epochs)
    if begun is not None:
        begun.append(path)
    demonstration = PopulationRun(config=config, data=prepared.data, placement=prepared.placement)
    return train(demonstration, path, show=show, max_disk=max_disk, result=partial(demo_result, prepared.data))


def check_new(path: Path) -> None:
    """Check, before any data is looked for, that a training directory can be made here.

    Raises:
        RunExistsError: Something is there.
    """
    if is_begun(path):
        raise RunExistsError(f"{path}: expected a new directory, found a run; go on with it: {_resume(path)}")
    check_vacant(path)


def new_path(config: Config, out: Path | None) -> Path:
    """The training directory that was asked for, or a dated one in `train_dir`; checked that it can be made."""
    path = out or config.train.train_dir / new_run_dir(f"mnist-{config.train.model}").name
    check_new(path)
    return path


def train(
    prepared: PopulationRun,
    path: Path,
    *,
    show: bool,
    max_disk: str | None = None,
    result: Callable[[Run], None] = summary,
) -> int:
    """Train with a live table, and say at the end what came out; returns the exit code.

    Args:
        prepared: The run.
        path: Its directory.
        show: Show the live table.
        max_disk: What the directory may take, as `2G`; None: no bound.
        result: Prints what came out.
    """
    train_ = prepared.config.train
    bound = bounded(max_disk)
    title = f"{train_.model} network, {train_.num_worker_tot} workers, {prepared.rounds} rounds"
    watch = ProgressObserver(
        show=show,
        title=title,
        note=prepared.data.note,
        score="validation accuracy",
        placement=prepared.placement,
    )
    with watch:
        run = prepared.train(path, resume=False, observers=[LatestLink(), watch, *bound])
    result(run)
    return SOME_FAILED if any(member.status == "failed" for member in run.view.population) else OK


def _prepare(
    config: Config, *, device: str | None, executor: str | None, address: str | None, debug: bool, show: bool
) -> PopulationRun:
    """Find the data, and say what is used."""
    report_notices()
    placement = placement_of(config, device=device, executor=executor, address=address)
    with searching(show) as advance:
        prepared = prepare(config, placement, debug=debug, progress=advance)
    tell_start(config, prepared.data)
    return prepared


def tell_start(config: Config, data: Dataset) -> None:
    """Say what is trained, and on what."""
    shape = Shape.of(config.train)
    print_error(f"network: {shape.model} {plain(shape.sizes)}, {count_parameters(shape):,} parameters")
    print_error(f"data: {data.line}")


def report_notices() -> None:
    """Show what the package logs on stderr, a line each."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)


@contextmanager
def searching(show: bool) -> Iterator[Callable[[str, int, int], None]]:
    """What to call while data is downloaded, so that there is a bar for each file."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = console_for(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not (show and can_redraw(console))) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total or None)
            bar.update(tasks[name], completed=done)

        yield advance


def show_test(tested: Tested, mode: Literal["test", "val"]) -> int:
    """Print what a test found; returns the exit code."""
    images = "test" if mode == "test" else "held-out"
    lines = [tested.what, f"network: {tested.network}", f"data: {tested.data}"]
    scores = ", ".join(f"{name} {value:.4f}" for name, value in tested.scores.items())
    lines.append(f"{tested.images:,} {images} images: {scores}")
    console_for().print("\n".join(lines), soft_wrap=True)
    return 0


def check_unused(mode: str, **options: object) -> None:
    """Check that no option was given that a mode has no use for.

    Raises:
        UsageError: One was.
    """
    unread = {name for name, value in options.items() if value is not None and (name, value) != ("executor", "inline")}
    given = [f"--{name.replace('_', '-')}" for name in sorted(unread)]
    if given:
        raise UsageError(f"{given[0]}: has no effect with -m {mode}, which evaluates in this process; leave it out")


def check_worker(config: Config) -> None:
    """Check that the configuration is not that of one worker of a population.

    Raises:
        ConfigError: It is.
    """
    if config.train.worker_num:
        raise ConfigError(
            f"worker_num: expected 0 to train, got {config.train.worker_num}; a run numbers its workers itself"
        )


def overrides_of(pairs: Sequence[str], **named: object) -> Mapping[str, object]:
    """What the command line says of the configuration's keys; ConfigError for a `--set` without `=`."""
    overrides: dict[str, object] = {name: str(value) for name, value in named.items() if value is not None}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set: expected key=value, got '{pair}'")
        overrides[key] = value
    return overrides


def parse(app: App, argv: Sequence[str] | None) -> int:
    """Run the command; what cyclopts has to say about wrong arguments becomes one error of ours."""
    from cyclopts import CycloptsError

    try:
        code = app(
            list(argv) if argv is not None else None,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        raise UsageError(" ".join(str(error).split())) from error
    return int(code or 0)


def resume_line(begun: Sequence[Path]) -> str | None:
    """The command that goes on with what was begun; None: nothing was."""
    if not begun or not is_begun(begun[-1]):
        return None
    return _resume(begun[-1])


def _resume(path: Path) -> str:
    return f"{own_command()} resume {shlex.quote(str(path))}"
