"""The command `main.py`: one network, trained and tested, side by side or one after the other."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from pbt.errors import ConfigError
from pbt.executors.ray import Cluster
from pbt.mnist.beginning import beginning
from pbt.mnist.commands import (
    check_unused,
    check_worker,
    new_path,
    overrides_of,
    parse,
    report_notices,
    resume_line,
    searching,
    show_test,
    tell_start,
)
from pbt.mnist.config.record import Config, load_config
from pbt.mnist.evaluations import keep_evaluation
from pbt.mnist.population import gpu_of, placement_on_ray
from pbt.mnist.side_tester import SideTester
from pbt.mnist.single import APPLICATION, SingleRun, prepare_single
from pbt.mnist.single_files import add_test, take_tests
from pbt.mnist.task import find_data
from pbt.mnist.tester import Tested, best_tested, run_test
from pbt.runs.catalog import LatestLink
from pbt.runs.disk_space import bounded
from pbt.runs.engine import Engine, Observer
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from pbt.terminal.exit import exit_code_of, print_error
from pbt.terminal.single import progress_of
from pbt.terminal.summary import summary

PROGRAM = "main.py"
Mode = Literal["parallel", "train", "test", "traintest", "val"]


def single(argv: Sequence[str] | None = None) -> int:
    """What `main.py` does; returns the exit code."""
    begun: list[Path] = []
    app = App(
        name=PROGRAM,
        help="Train and test one MNIST network.\n\nExample: python3 main.py config/fc.json",
        version_flags=[],
        suppress_keyboard_interrupt=False,
    )

    @app.default
    def command(  # noqa: PLR0913 (a flag each)
        config: Path,
        *,
        mode: Annotated[Mode, Parameter(name=["--mode", "-m"])] = "parallel",
        debug: bool = False,
        device: str | None = None,
        executor: Literal["inline", "ray"] | None = None,
        address: str | None = None,
        data_dir: Annotated[Path | None, Parameter(name=["--data-dir", "--data_dir"])] = None,
        train_dir: Annotated[Path | None, Parameter(name=["--train-dir", "--train_dir"])] = None,
        out: Path | None = None,
        max_disk: Annotated[str | None, Parameter(name=["--max-disk", "--max_disk"])] = None,
        set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
        progress: bool = True,
    ) -> int:
        """Train and test.

        Args:
            config: Configuration file, as config/fc.json.
            mode: parallel: train, and test the newest checkpoint every sleep_time_sec; train; test; traintest: one
                after the other; val: evaluate the held-out images.
            debug: Write no tables, no TensorBoard scalars and no best checkpoint.
            device: cpu or cuda:N; must be there, and holds for testing too. Default: the first of the configuration's
                gpus, in each section its own, if there.
            executor: In this process, or in one worker on a Ray cluster. Default: the configuration's.
            address: The Ray cluster, as host:port or auto. Default: RAY_ADDRESS, else one of its own on this machine.
            data_dir: Overrides the configuration's.
            train_dir: Overrides the configuration's.
            out: The training directory itself, instead of a dated one in train_dir.
            max_disk: Stop, with everything kept, before the directory takes more than this, as 2G. Default: no bound.
            set_: Other keys, as --set num_epochs=5.
            progress: Show the live display.
        """
        overrides = overrides_of(set_, data_dir=data_dir, train_dir=train_dir)
        settings = load_config(config, overrides=overrides)
        report_notices()
        if mode in ("test", "val"):
            check_unused(mode, executor=executor, address=address, out=out, max_disk=max_disk)
            tested = run_test(settings, mode, APPLICATION, overridden=overrides, device=device)
            code = show_test(tested, mode)
            if not debug:
                _keep(tested) if mode == "test" else keep_evaluation(tested, settings.val.val)
            return code
        check_worker(settings)
        start = beginning(settings)
        if start.path is not None and out is not None:
            raise ConfigError("--out: expected none with load_ckpt, which goes on in the directory of its checkpoint")
        path = start.path or new_path(settings, out)
        placement = _placement_of(settings, device, executor, address)
        other = None
        with searching(progress) as advance:
            prepared = prepare_single(settings, placement, debug=debug, weights=start.weights, progress=advance)
            if _tests(settings, mode) and settings.test.data_dir != settings.train.data_dir:
                # What is wrong with it is an error before anything is trained.
                other = find_data(settings.test, advance, held_out=False)
        tell_start(settings, prepared.data)
        if other is not None:
            print_error(f"test data: {other.line}")
        bound = bounded(max_disk)
        if start.branch is not None:
            start.branch.write(path, prepared.experiment().rounds, prepared.steps_per_epoch)
        begun.append(path)
        resume = start.path is not None or start.branch is not None
        return _train(prepared, path, resume=resume, mode=mode, show=progress, bound=bound, device=device)

    return exit_code_of(lambda: parse(app, argv), lambda: resume_line(begun), PROGRAM)


def _placement_of(config: Config, device: str | None, executor: str | None, address: str | None) -> Placement:
    """The first of the configured devices, or a worker on a cluster.

    Raises:
        ConfigError: The configured executor is one of populations.
        DeviceError: It is not there, which is told before data is looked for.
    """
    train = config.train
    executor = executor or train.executor
    if executor not in ("auto", "inline", "ray"):
        raise ConfigError(f"executor: expected auto, inline or ray for a single network, got {executor}")
    if executor == "ray":
        placement = placement_on_ray(config, Cluster(address=address), device, workers=1)
    else:
        placement = Placement(executor="inline", threads=train.threads, device=device or gpu_of(train.gpus))
    placement.resolve(1)
    return placement


def _tests(config: Config, mode: Mode) -> bool:
    return mode != "train" and config.test.version != "test_none"


class _Beside(Observer):
    """Lets a tester begin with training: when nothing can be refused any more."""

    def __init__(self, tester: SideTester, stack: contextlib.ExitStack) -> None:
        self._tester, self._stack = tester, stack

    def on_start(self, engine: Engine) -> None:  # noqa: ARG002 (one signature for all observers)
        self._stack.enter_context(self._tester)


def _train(
    prepared: SingleRun,
    path: Path,
    *,
    resume: bool,
    mode: Mode,
    show: bool,
    bound: Sequence[Observer] = (),
    device: str | None = None,
) -> int:
    config, tests = prepared.config, _tests(prepared.config, mode)
    beside = None
    if tests and mode == "parallel":
        beside = SideTester(config, path, prepared.steps_per_epoch, debug=prepared.debug, device=device)
    watch = progress_of(
        prepared.application(),
        show=show,
        title=f"{config.train.model} network, {config.train.num_epochs} epochs",
        note=prepared.data.note,
        score="validation accuracy",
        placement=prepared.placement,
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(watch)
        others = [] if beside is None else [_Beside(beside, stack)]
        run = prepared.train(path, resume=resume, observers=[LatestLink(), watch, *others, *bound])
    failure = "" if beside is None else beside.failure
    tested = best_tested(run, config, device) if tests and not failure else None
    if tests and not prepared.debug:
        if tested is not None:
            _keep(tested)
        # These tests came after the last checkpoint.
        take_tests(path, prepared.steps_per_epoch, prepared.data.note)
    summary(run)
    if failure:
        print_error(f"error: testing beside training failed: {failure}", PROGRAM)
        return 1
    return 0 if tested is None else show_test(tested, "test")


def _keep(tested: Tested) -> None:
    """Put what a test found into the tables of its training directory, if it is one of a single network."""
    if tested.run is not None:
        run = Run.open(tested.run)
        # Every state of a population was tested by its own training, and stands in its tables.
        if run.meta["application"].get("name") == APPLICATION:
            add_test(run, tested)
