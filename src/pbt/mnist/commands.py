"""The commands of the MNIST application: `main.py`, `main_PBT.py` and `pbt demo`."""

import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from pbt.errors import ConfigError, RunExistsError, UsageError
from pbt.mnist.beginning import Beginning, Weights, beginning
from pbt.mnist.checks import check_program, check_unused, overrides_of
from pbt.mnist.config.record import Config, load_config
from pbt.mnist.demo import demo_config, demo_epochs, demo_result
from pbt.mnist.evaluations import keep_evaluation, keep_test
from pbt.mnist.output import print_start, print_test, report_notices, searching
from pbt.mnist.placement import placement_of
from pbt.mnist.recorded import POPULATION, SINGLE
from pbt.mnist.results_table import take_tests
from pbt.mnist.side_tester import SideTester, StartTester
from pbt.mnist.task import find_data
from pbt.mnist.tester import best_tested, run_test
from pbt.mnist.training import PreparedRun, prepare
from pbt.runs.catalog import own_command
from pbt.runs.disk_space import bounded
from pbt.runs.engine import Observer
from pbt.runs.new_run import LatestLink, new_run_dir
from pbt.runs.results import Run
from pbt.store.layout import check_vacant
from pbt.store.reader import is_begun
from pbt.terminal.exit import FAILED, OK, SOME_FAILED, exit_code_of, print_error
from pbt.terminal.single_progress import progress_of
from pbt.terminal.summary import summary

Mode = Literal["parallel", "train", "test", "traintest", "val"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of both programs.

    Args:
        debug: Write no tables, no figures, no TensorBoard scalars and no best checkpoint.
        device: cpu, cuda or cuda:N; must exist, and is used for testing, too. Default: the existing ones of the
            configuration's gpus; a single network and a test use the first.
        address: Address of the Ray cluster, as host:port or auto. Default: RAY_ADDRESS, else a new Ray on this machine.
        data_dir: Overrides the configuration's data_dir.
        train_dir: Overrides the configuration's train_dir.
        out: The training directory. Default: a dated one in train_dir.
        max_disk: Stop, keeping everything, before the training directory exceeds this size, as 2G. Default: no limit.
        set_: Override another key of the configuration, as --set num_epochs=5; may be repeated.
        progress: Show the live display.
    """

    debug: bool = False
    device: str | None = None
    address: str | None = None
    data_dir: Annotated[Path | None, Parameter(name=["--data-dir", "--data_dir"])] = None
    train_dir: Annotated[Path | None, Parameter(name=["--train-dir", "--train_dir"])] = None
    out: Path | None = None
    max_disk: Annotated[str | None, Parameter(name=["--max-disk", "--max_disk"])] = None
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = ()
    progress: bool = True


def single(argv: Sequence[str] | None = None) -> int:
    """Run `main.py`; returns the exit code."""
    program = _Program("main.py", "Train and test one MNIST network.\n\nExample: python3 main.py config/fc.json")

    @program.app.default
    def command(
        config: Path,
        *,
        mode: Annotated[Mode, Parameter(name=["--mode", "-m"])] = "parallel",
        executor: Literal["inline", "ray"] | None = None,
        options: Options | None = None,
    ) -> int:
        """Train and test one network.

        Args:
            config: Configuration file, as config/fc.json.
            mode: parallel: train, and test the newest checkpoint every sleep_time_sec seconds; train: train only;
                test: test load_ckpt or the newest run; traintest: train, then test; val: evaluate the held-out images.
            executor: inline: in this process; ray: in one worker on a Ray cluster. Default: the configuration's.
            options: Further options.
        """
        return program.run(config, mode, executor, options or Options())

    return program.exit_code(argv)


def population(argv: Sequence[str] | None = None) -> int:
    """Run `main_PBT.py`; returns the exit code."""
    program = _Program(
        "main_PBT.py",
        "Population based training of an MNIST network.\n\nExample: python3 main_PBT.py config/fc_PBT.json",
    )

    @program.app.default
    def command(
        config: Path,
        *,
        mode: Annotated[Literal["train", "test", "val"], Parameter(name=["--mode", "-m"])] = "train",
        executor: Literal["auto", "inline", "processes", "vectorized", "ray"] | None = None,
        options: Options | None = None,
    ) -> int:
        """Train a population, or test one of its members.

        Args:
            config: Configuration file, as config/fc_PBT.json.
            mode: train: train and test; test: test load_ckpt or the best member of the newest run; val: evaluate the
                held-out images.
            executor: Overrides the configuration's.
            options: Further options.
        """
        return program.run(config, mode, executor, options or Options())

    return program.exit_code(argv)


class _Program:
    """One of the two programs, and the run directory that it has started."""

    def __init__(self, name: str, help_: str) -> None:
        self.app = App(name=name, help=help_, version_flags=[], suppress_keyboard_interrupt=False)
        self._name = name
        self._is_single = name == "main.py"
        self._begun: list[Path] = []

    def exit_code(self, argv: Sequence[str] | None) -> int:
        """Run the program with these arguments. Default: those of the process."""
        return exit_code_of(lambda: self._parse(argv), lambda: resume_line(self._begun), self._name)

    def _parse(self, argv: Sequence[str] | None) -> int:
        words = None if argv is None else list(argv)
        try:
            code = self.app(words, exit_on_error=False, print_error=False, result_action="return_value")
        except CycloptsError as error:
            raise UsageError(" ".join(str(error).split())) from error
        return int(code or OK)

    def run(self, config: Path, mode: Mode, executor: str | None, options: Options) -> int:
        """Train or evaluate; returns the exit code."""
        overrides = overrides_of(options.set_, data_dir=options.data_dir, train_dir=options.train_dir)
        settings = load_config(config, overrides=overrides)
        report_notices()
        if mode not in ("test", "val"):
            return self._train(settings, mode, executor, options)
        check_unused(mode, executor=executor, address=options.address, out=options.out, max_disk=options.max_disk)
        application = SINGLE if self._is_single else POPULATION
        tested = run_test(settings, mode, application, overridden=overrides, device=options.device)
        print_test(tested, mode)
        if mode == "val" and not options.debug:
            keep_evaluation(tested, settings.val.val)
        elif self._is_single and not options.debug:
            keep_test(tested)
        return OK

    def _train(self, settings: Config, mode: Mode, executor: str | None, options: Options) -> int:
        check_program(settings, single=self._is_single)
        start = beginning(settings) if self._is_single else Beginning()
        if start.path is not None and options.out is not None:
            raise ConfigError("--out: expected none with load_ckpt, which continues in the directory of its checkpoint")
        path = start.path or new_path(settings, options.out)
        tests = self._is_single and mode != "train" and settings.test.version != "test_none"
        prepared = _prepare(settings, executor, options, weights=start.weights, tests=tests)
        limit = bounded(options.max_disk)
        if start.branch is not None:
            start.branch.write(path, prepared.rounds, prepared.steps_per_epoch)
        self._begun.append(path)
        tester = None
        if tests and mode == "parallel":
            steps = prepared.steps_per_epoch
            tester = SideTester(prepared.config, path, steps, debug=options.debug, device=options.device)
        is_resumed = start.path is not None or start.branch is not None
        run = train(prepared, path, show=options.progress, resume=is_resumed, observers=limit, tester=tester)
        if tests:
            return self._test(prepared, run, tester, options.device)
        summary(run)
        return _code_of(run)

    def _test(self, prepared: PreparedRun, run: Run, tester: SideTester | None, device: str | None) -> int:
        """Test the best checkpoint of a single network after training, and take all tests into its journal."""
        failure = "" if tester is None else tester.failure
        tested = None if failure else best_tested(run, prepared.config, device)
        if not prepared.debug and run.path is not None:
            if tested is not None:
                keep_test(tested)
            take_tests(run.path, prepared.steps_per_epoch, prepared.data.note)
        summary(run)
        if tested is None:
            print_error(f"error: testing beside training failed: {failure}", self._name)
            return FAILED
        print_test(tested, "test")
        return OK


def demo(  # noqa: PLR0913 (one parameter per option)
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
    """Population based training of the fully connected network, in a minute or two.

    Args:
        out: The run directory. Default: a dated one in `runs`.
        rounds: Epochs. Default: as many as take a minute or two on two cores.
        seed: Seed of every random draw.
        device: `cpu`, `cuda` or `cuda:N`.
        executor: `inline`, `processes`, `vectorized`, `ray` or `auto`. Default: the fastest on this machine.
        address: Address of the Ray cluster. Default: `RAY_ADDRESS`, else a new Ray on this machine.
        show: Show the live table.
        begun: Receives the run directory before training starts.
        max_disk: Size limit of the run directory, as `2G`. Default: no limit.

    Returns:
        The exit code.
    """
    path = out or new_run_dir("demo")
    check_new(path)
    options = Options(device=device, address=address, progress=show)
    prepared = _prepare(demo_config({"seed": seed}), executor, options)
    epochs = demo_epochs(prepared.data) if rounds is None else rounds
    prepared = replace(prepared, config=prepared.config.changed(num_epochs_tot=epochs))
    if begun is not None:
        begun.append(path)
    run = train(prepared, path, show=show, observers=bounded(max_disk))
    demo_result(prepared.data, run)
    return _code_of(run)


def train(
    prepared: PreparedRun,
    path: Path,
    *,
    show: bool,
    resume: bool = False,
    observers: Sequence[Observer] = (),
    tester: SideTester | None = None,
) -> Run:
    """Train with a live display.

    Args:
        prepared: The run.
        path: Its directory.
        show: Show the live display.
        resume: Resume the run in `path`.
        observers: Further observers of the run.
        tester: Tests the newest checkpoint beside training.
    """
    watch = progress_of(
        prepared.application(),
        show=show,
        title=prepared.title,
        note=prepared.data.note,
        score="validation accuracy",
        placement=prepared.placement,
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(watch)
        beside = [] if tester is None else [StartTester(tester, stack)]
        return prepared.train(path, resume=resume, observers=[LatestLink(), watch, *beside, *observers])


def _code_of(run: Run) -> int:
    return SOME_FAILED if any(member.status == "failed" for member in run.view.population) else OK


def _prepare(
    config: Config, executor: str | None, options: Options, *, weights: Weights | None = None, tests: bool = False
) -> PreparedRun:
    """Find the data, also that of the tests beside training, and print network and data."""
    report_notices()
    placement = placement_of(config, device=options.device, executor=executor, address=options.address)
    other = None
    with searching(options.progress) as advance:
        prepared = prepare(config, placement, debug=options.debug, weights=weights, progress=advance)
        if tests and config.test.data_dir != config.train.data_dir:
            # Read now, so that an error in it is reported before training.
            other = find_data(config.test, advance, held_out=False)
    print_start(config, prepared.data)
    if other is not None:
        print_error(f"test data: {other.line}")
    return prepared


def new_path(config: Config, out: Path | None) -> Path:
    """The training directory `out`, or a dated one in `train_dir`; checked by `check_new`."""
    path = out or config.train.train_dir / new_run_dir(f"mnist-{config.train.model}").name
    check_new(path)
    return path


def check_new(path: Path) -> None:
    """Check that a training directory can be created, before the data is searched.

    Raises:
        RunExistsError: It holds a run or other files.
    """
    if is_begun(path):
        raise RunExistsError(f"{path}: expected a new directory, found a run; resume it with: {_resume(path)}")
    check_vacant(path)


def resume_line(begun: Sequence[Path]) -> str | None:
    """The command that resumes the newest run of `begun`; None if none was started."""
    return _resume(begun[-1]) if begun and is_begun(begun[-1]) else None


def _resume(path: Path) -> str:
    return f"{own_command()} resume {shlex.quote(str(path))}"
