"""`Command`: a task whose rounds are runs of a program."""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pbt.domains import Domain
from pbt.errors import DiskError, TaskError
from pbt.executors.base import State
from pbt.executors.metrics import MetricsError
from pbt.executors.process_tree import ending
from pbt.executors.worker import Context, Metrics, TrainFunction
from pbt.space import HParams
from pbt.store.durable import REMEDY
from pbt.store.folder import Folder
from pbt.store.points import NAME
from pbt.tasks.command.checks import check_placeholders, check_program
from pbt.tasks.command.output import Log, log_file, remove_old_logs
from pbt.tasks.command.process import STDERR, STDOUT, ProgramEnd, run_program
from pbt.tasks.command.scores import HPARAMS, Found, compiled, in_digits, metrics_in, number_of, scored
from pbt.tasks.command.supervisor import end_orphans
from pbt.tasks.command.template import Template, Words
from pbt.tasks.command.values import environment, round_values

E = TypeVar("E", bound=Exception)
METRICS = "metrics.json"
"""The default name of the file with the numbers."""


@dataclass(frozen=True)
class Command:
    """A task that is a program: placeholders in, a folder and numbers out.

    ```python
    task = pbt.Command(
        "python train.py --lr {lr} [--resume {start}] --out {out} --steps {steps} --seed {seed}",
        score="accuracy",
    )
    run = pbt.run(task, {"lr": pbt.Float(1e-5, 1e-1, "log")}, placement="processes")
    ```

    The program runs once per member and round, without a shell. What is in the folder `{out}` at its end is the
    member's state; `{start}` is a private copy of the state to start from. A part in brackets falls away if a
    placeholder in it has no value, as `{start}` in the first round. `docs/command.md` lists all placeholders.

    Args:
        command: The program and its arguments: a string, split as a shell splits it, or a list of words, in which a
            list is an optional part.
        score: Name of the score in the program's numbers.
        metrics: JSON file in `{out}` with the numbers. Default: `metrics.json` if the program writes it. Numbers are
            also taken from the last line of the output that is a JSON object with the score.
        patterns: Regular expressions by the name of a number, each with one group, for programs that print no JSON;
            the last match in the output counts.
        in_effect: Regular expressions by hyperparameter, each with one group, for the value that the program prints.
            The last match is compared in the digits that were printed. A program can also print a JSON line
            `{"hparams": {"lr": 0.1}}`, or write that key into its numbers.
        in_place: For programs that resume from the folder in which they save: `{out}` begins as a copy of the state.
        reads_env: Whether the program reads `PBT_*` variables itself, so that placeholders may be missing.
        timeout: Seconds for a round, at the end of which the program is ended and the member has failed. Default:
            unlimited.
        env: Further environment variables of the program.
        cwd: Its working directory. Default: the current one.
        keep_logs: Number of newest logs kept per member, in the folder `logs` of the run directory, at least 1.

    Raises:
        TaskError: The command or a pattern is invalid.
    """

    command: str | Words
    score: str = "score"
    metrics: str | None = None
    patterns: Mapping[str, str] = field(default_factory=dict)
    in_effect: Mapping[str, str] = field(default_factory=dict)
    in_place: bool = False
    reads_env: bool = False
    timeout: float | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | Path | None = None
    keep_logs: int = 3
    many_devices: ClassVar[bool] = True
    """A member may train on several devices."""

    def __post_init__(self) -> None:
        Template.of(self.command)
        compiled(self.patterns, "patterns")
        compiled(self.in_effect, "in_effect")
        if self.timeout is not None and not self.timeout > 0:
            raise TaskError(f"Command: expected a timeout above 0 seconds, got {self.timeout!r}")
        if self.keep_logs < 1:
            raise TaskError(f"Command: expected keep_logs of at least 1, got {self.keep_logs!r}")
        name = Path(self.metrics or METRICS)
        if name.is_absolute() or ".." in name.parts:
            raise TaskError(f"Command: expected metrics to be the name of a file in {{out}}, got {self.metrics!r}")
        # Workers may have another working directory.
        object.__setattr__(self, "cwd", Path(self.cwd or ".").absolute())

    def check(self, hparams: HParams) -> None:  # noqa: ARG002 (all of a space is checked by check_data)
        """Raise TaskError unless the program exists; called once, before the start."""
        if not hasattr(os, "fork"):
            raise TaskError(
                "Command: a program as a member needs Linux or macOS, where it can be ended with all its processes; "
                "on this system use a Python function as the task"
            )
        check_program(Template.of(self.command), self._folder, self.env.get("PATH", os.environ.get("PATH")))

    def check_data(self, members: int, space: Mapping[str, Domain]) -> None:  # noqa: ARG002
        """Raise TaskError unless the command fits the search space; called once, before the start."""
        check_placeholders(Template.of(self.command), space, reads_env=self.reads_env, in_place=self.in_place)
        unknown = sorted(self.in_effect.keys() - space.keys())
        if unknown:
            raise TaskError(f"Command: in_effect names '{unknown[0]}', which is no hyperparameter: {', '.join(space)}")

    def trainer(self, device: str, threads: int) -> TrainFunction:  # noqa: ARG002 (the context has both)
        """The function that trains rounds."""
        end_orphans()
        return self._train

    def _train(self, hparams: HParams, state: State, steps: int, ctx: Context) -> tuple[State, Metrics]:
        if state is not None and not isinstance(state, Folder):
            raise TaskError(f"Command: expected a state that is a Folder, got {type(state).__name__}")
        scratch = ctx.scratch.absolute()  # the program has a working directory of its own
        out, values_file = scratch / "out", scratch / "hparams.json"
        start = None if state is None else state.path.absolute()
        if start is not None and self.in_place:
            out, start = start, None  # a private copy already
        try:
            out.mkdir(exist_ok=True)
            values_file.write_text(json.dumps(dict(hparams)) + "\n")
        except OSError as error:
            raise DiskError(f"cannot write {scratch}: {error.strerror or error}; {REMEDY}") from error
        values = round_values(ctx, steps, out, start, values_file)
        argv = Template.of(self.command).fill({**values, **hparams})
        env = environment(values, hparams, ctx.devices, self.env)
        found = _OneRound(self, ctx)
        try:
            ended = run_program(argv, env=env, cwd=self._folder, timeout=self.timeout, output=found.take)
        except Exception as error:
            found.log.close()
            found.explain(error)
            raise
        found.log.close()
        if ended.late or ended.code:
            raise found.explain(TaskError(found.failure(ended)))
        metrics = found.metrics(out)
        if not (out.is_dir() and any(out.iterdir())):
            raise found.explain(TaskError("the program left {out} empty; expected its checkpoint there at its end"))
        return Folder(out), metrics

    @property
    def _folder(self) -> Path:
        return Path(self.cwd or ".")


class _OneRound:
    """The output of a program during one round."""

    def __init__(self, task: Command, ctx: Context) -> None:
        self._task, self._ctx = task, ctx
        file = None
        if ctx.logs is not None and ctx.logs.parent.is_dir():  # another node may have no run directory
            file = log_file(ctx.logs, ctx.member, ctx.round)
        self.log = Log(file)
        if file is not None:
            remove_old_logs(file.parent, ctx.member, task.keep_logs)
        patterns = compiled({**task.patterns, **{_printed(name): p for name, p in task.in_effect.items()}}, "patterns")
        self._streams = [Found(task.score, patterns, self._point, ctx.in_effect) for _ in (STDOUT, STDERR)]

    def take(self, stream: int, piece: bytes) -> None:
        """Take a piece of output."""
        self.log.write(piece)
        self._streams[stream].lines.feed(piece)

    def _point(self, step: int, numbers: Mapping[str, float]) -> None:
        # A program may print any line: what is no point of a curve is not an error.
        with contextlib.suppress(TaskError):
            self._ctx.report(step, **{name: value for name, value in numbers.items() if NAME.fullmatch(name)})

    def metrics(self, out: Path) -> dict[str, Any]:
        """All numbers, after the values in effect were compared.

        Raises:
            MetricsError: There is no score.
            TaskError: A value that the program reports is not the decided one.
        """
        task = self._task
        matches: dict[str, str] = {}
        lines: dict[str, Any] = {}
        for found in reversed(self._streams):  # standard output wins
            found.lines.end()
            matches |= found.matches
            lines |= found.metrics
        for name in task.in_effect:
            if _printed(name) in matches and name in self._ctx.hparams:
                self._ctx.in_effect({name: in_digits(matches[_printed(name)], self._ctx.hparams[name])})
        name = task.metrics or METRICS
        file = metrics_in(out / name, name)
        if file is None and task.metrics is not None:
            raise self.explain(MetricsError(f"expected the program to write {name} into {{out}}, found no such file"))
        file = dict(file or {})
        if isinstance(values := file.pop(HPARAMS, None), dict):
            self._ctx.in_effect(values)
        numbers = {n: number_of(matches[n], n) for n in task.patterns if n in matches}
        try:
            return scored({**numbers, **lines, **file}, task.score, self._sources(name))
        except MetricsError as error:
            raise self.explain(error) from None

    def _sources(self, file: str) -> str:
        return f"{file} in {{out}}, a JSON line of the output{', or a match of a pattern' * bool(self._task.patterns)}"

    def failure(self, ended: ProgramEnd) -> str:
        """The message for a program that failed."""
        if ended.late:
            return f"the program took longer than its timeout of {self._task.timeout:g} s and was ended"
        return f"the program ended with {ending(ended.code)} after {ended.seconds:.1f} s"

    def explain(self, error: E) -> E:
        """Add the last line of the output to the message of an error, and the whole tail to its traceback."""
        tail = self.log.tail()
        where = "" if self.log.path is None else f"; log: {self.log.path.parent.name}/{self.log.path.name}"
        if tail and error.args:
            error.args = (f"{error.args[0]}; its last line: {tail[-1][:300]}{where}", *error.args[1:])
            error.add_note("The end of the program's output:\n" + "\n".join(tail))
        return error


def _printed(name: str) -> str:
    """The key of the pattern for a value in effect, apart from those of numbers."""
    return f"in effect: {name}"
