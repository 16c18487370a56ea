"""The command `main.py`: one network, trained and tested, side by side or one after the other."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from pbt.errors import ConfigError
from pbt.mnist.commands import check_new, overrides_of, parse, report_notices, resume_line, searching, show_test
from pbt.mnist.config.record import Config, load_config
from pbt.mnist.population import gpus_of
from pbt.mnist.side_tester import SideTester
from pbt.mnist.single import APPLICATION, SingleRun, continued, prepare_single
from pbt.mnist.single_files import write_losses
from pbt.mnist.tester import best_tested, run_test
from pbt.placement import Placement
from pbt.terminal.exit import exit_code_of, tell
from pbt.terminal.progress import ProgressObserver
from pbt.terminal.runs import LatestLink, new_run_dir
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
        data_dir: Annotated[Path | None, Parameter(name=["--data-dir", "--data_dir"])] = None,
        train_dir: Annotated[Path | None, Parameter(name=["--train-dir", "--train_dir"])] = None,
        out: Path | None = None,
        set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
        progress: bool = True,
    ) -> int:
        """Train and test.

        Args:
            config: Configuration file, as config/fc.json.
            mode: parallel: train, and test the newest checkpoint every sleep_time_sec; train; test; traintest: one
                after the other; val: evaluate the held-out images.
            debug: Write no tables, no TensorBoard scalars and no best checkpoint.
            device: cpu or cuda:N; must be there. Default: the first of the configuration's gpus, if there.
            data_dir: Overrides the configuration's.
            train_dir: Overrides the configuration's.
            out: The training directory itself, instead of a dated one in train_dir.
            set_: Other keys, as --set num_epochs=5.
            progress: Show the live display.
        """
        settings = load_config(config, overrides=overrides_of(set_, data_dir=data_dir, train_dir=train_dir))
        if mode in ("test", "val"):
            return show_test(run_test(settings, mode, APPLICATION, data_dir), mode)
        report_notices()
        going_on = continued(settings)
        if going_on and out is not None:
            raise ConfigError("--out: expected none with load_ckpt, which goes on in the directory of its checkpoint")
        settings, path = going_on or (settings, _new_path(settings, out))
        with searching(progress) as advance:
            placement = Placement(
                executor="inline", threads=settings.train.threads, device=device or gpus_of(settings.train.gpus[:1])
            )
            prepared = prepare_single(settings, placement, debug=debug, progress=advance)
        begun.append(path)
        return _train(prepared, path, resume=going_on is not None, mode=mode, show=progress)

    return exit_code_of(lambda: parse(app, argv), lambda: resume_line(begun), PROGRAM)


def _train(prepared: SingleRun, path: Path, *, resume: bool, mode: Mode, show: bool) -> int:
    tests = mode != "train" and prepared.config.test.version != "test_none"
    beside = None
    if tests and mode == "parallel":
        beside = SideTester(prepared.config, path, prepared.steps_per_epoch, debug=prepared.debug)
    watch = ProgressObserver(
        show=show,
        title=f"{prepared.config.train.model} network, {prepared.config.train.num_epochs} epochs",
        note=prepared.data.note,
        score="validation accuracy",
        placement=prepared.placement,
    )
    with watch, beside or contextlib.nullcontext():
        run = prepared.train(path, resume=resume, observers=[LatestLink(), watch])
    if beside is not None and not prepared.debug:
        # The last test came after the last checkpoint.
        write_losses(path, list(run.tree.reports.values()), prepared.steps_per_epoch, prepared.data.note)
    summary(run)
    if beside is not None and beside.failure:
        tell(f"error: testing beside training failed: {beside.failure}", PROGRAM)
        return 1
    if tests:
        return show_test(best_tested(run, "test", prepared.config.test.data_dir), "test")
    return 0


def _new_path(config: Config, out: Path | None) -> Path:
    path = out or config.train.train_dir / new_run_dir(f"mnist-{config.train.model}").name
    check_new(path)
    return path
