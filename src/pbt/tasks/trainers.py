"""Common parts of the tasks over training frameworks: fields, checks, seeds, metrics and silence."""

import logging
import random
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from pbt.errors import TaskError
from pbt.executors.base import State
from pbt.executors.base_values import KIND, MARK
from pbt.executors.context import trial_round
from pbt.executors.metrics import MetricsError
from pbt.executors.seeding import seeded
from pbt.executors.worker import Context, Metrics, TrainFunction
from pbt.pytorch.bind import ArgumentBinding, AttributeBinding, Binding, OptimizerBinding, bind_all, check_bound
from pbt.pytorch.live import Live
from pbt.pytorch.state import seed_global, threads_of
from pbt.space import HParams

Build = Callable[[HParams, Context], Any]
"""`(hparams, ctx) -> ...`: makes the framework's objects anew, as the user's own program does."""


def check_fields(build: Any, bind: Any, kinds: tuple[type, ...], example: str) -> None:
    """Check the fields that all tasks have.

    Args:
        build: The user's function.
        bind: The table of bindings.
        kinds: Types of bindings that the framework has besides `optimizer()`, `attribute()` and `argument()`.
        example: What `build` returns, for the message.

    Raises:
        TaskError: A field has another type, or a binding has no effect with this framework.
    """
    if not callable(build) or isinstance(build, type):
        raise TaskError(
            f"expected build to be a function (hparams, ctx) that returns {example}, got {type(build).__name__}; it is "
            "called at the start of every round"
        )
    if not isinstance(bind, Mapping):
        raise TaskError(f"expected bind to be a mapping as {{'lr': optimizer('lr')}}, got {type(bind).__name__}")
    for name, binding in bind.items():
        if not isinstance(binding, (OptimizerBinding, AttributeBinding, ArgumentBinding, *kinds)):
            raise TaskError(
                f"the hyperparameter '{name}' has no effect: {binding!r:.80} is for a SupervisedTask; bind "
                "optimizer('lr'), attribute('module.temperature'), or argument() if build reads it from hparams"
            )


def built(build: Build, hparams: HParams, ctx: Context) -> Any:
    """The framework's objects; draws belong to the lineage, so that a copy has what its weights were trained with."""
    with seeded(ctx.init_key, ctx.device):
        return build(dict(hparams), ctx)


def tried(hparams: HParams, bind: Mapping[str, Binding], attempt: Callable[[Context], None]) -> None:
    """Check a task before the start: bind values to a freshly built model, without training it.

    Raises:
        TaskError: A hyperparameter is not bound, a value does not take effect, or `build` fails.
    """
    check_bound(hparams, bind)
    with trial_round(hparams, "build failed before the start") as ctx:
        attempt(ctx)


def with_threads(threads: int, train: TrainFunction) -> TrainFunction:
    """A function that trains rounds with this number of CPU threads of torch."""

    def limited(hparams: HParams, state: State, steps: int, ctx: Context) -> tuple[State, Metrics]:
        with threads_of(threads):
            return train(hparams, state, steps, ctx)

    return limited


def bind_attributes(parts: Mapping[str, Any], hparams: HParams, bind: Mapping[str, Binding]) -> None:
    """Set the attributes of parts that exist before training: data loaders and optimizers are made from them."""
    live = Live(parts={name: part for name, part in parts.items() if not isinstance(part, Optimizer)})
    for name, value in hparams.items():
        binding = bind[name]
        if isinstance(binding, AttributeBinding) and binding.path.split(".")[0] in live.parts:
            binding.apply(live, value)


def bind_live(live: Live, hparams: HParams, bind: Mapping[str, Binding], ctx: Context) -> None:
    """Set every value after a checkpoint was loaded, and read all of them back.

    Raises:
        TaskError: A value is not in effect, or `build` made another class of optimizer than the loaded state has.
    """
    for name, made in live.built.items():
        for group in live.parts[name].param_groups:
            loaded = group.get(MARK, {}).get(KIND, made.kind)
            if loaded != made.kind:
                raise TaskError(
                    f"expected an optimizer of class {loaded}, as in the state that the member starts from, but build "
                    f"made {made.kind}; the class of an optimizer must not depend on hyperparameters"
                )
    bind_all(live, hparams, bind, ctx)


def check_device(found: Any, ctx: Context, remedy: str) -> None:
    """Raise TaskError if the framework chose another device than the member has."""
    expected, actual = torch.device(ctx.device), torch.device(str(found))
    if expected.type != actual.type or (expected.index or 0) != (actual.index or 0):
        raise TaskError(f"expected training on {ctx.device}, the device of this member, got {found}; {remedy}")


def metrics_of(found: Mapping[str, Any], score: str, hint: str = "") -> dict[str, Any]:
    """The metrics of a round for the log, with the score.

    Args:
        found: Numbers by name, as the framework reports them.
        score: The name of the score among them.
        hint: The remedy if there is no such metric.

    Raises:
        MetricsError: There is no metric of that name.
    """
    numbers = {name: float(value) for name, value in found.items() if _is_number(value)}
    if score not in numbers:
        known = ", ".join(sorted(numbers)) or "none"
        raise MetricsError(f"the score '{score}' is not among the metrics of the round ({known}){hint}")
    # `score`, `scores` and `series` have a meaning of their own in the metrics of a task.
    others = {name: value for name, value in numbers.items() if name not in ("scores", "series")}
    return {**others, "score": numbers[score]}


def report_curves(ctx: Context, step: int, found: Mapping[str, Any]) -> None:
    """Report the numbers among what a framework logs as points of curves; at most `_CURVES` names."""
    names = [name for name, value in found.items() if _is_number(value) and _NAME.fullmatch(name) and name != "step"]
    if names:
        ctx.report(step, **{name: float(found[name]) for name in sorted(names)[:_CURVES]})


_NAME = re.compile(r"[\w./-]{1,64}", re.ASCII)
_CURVES = 32


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) or (isinstance(value, torch.Tensor) and value.numel() == 1)


def generators() -> dict[str, Any]:
    """The states of the global generators, as values of a state."""
    version, words, gauss = random.getstate()
    states: dict[str, Any] = {
        "python": [version, np.array(words, dtype=np.uint32), gauss],
        "numpy": np.random.get_state(),  # noqa: NPY002 (the frameworks draw from it)
        "torch": torch.get_rng_state(),
    }
    cuda: Any = torch.cuda
    if cuda.is_available() and cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_generators(states: Mapping[str, Any]) -> None:
    """Continue with generators as `generators` found them."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(map(int, words)), gauss))
    np.random.set_state(states["numpy"])  # noqa: NPY002 (the frameworks draw from it)
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def sow(ctx: Context) -> None:
    """Seed the global generators for a lineage's first round; later rounds continue with those of the state."""
    seed = ctx.key("train", ctx.member if ctx.founder is None else ctx.founder)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (the frameworks draw from it)
    seed_global(seed, ctx.device)


@contextmanager
def silenced(loggers: tuple[str, ...], messages: tuple[str, ...]) -> Iterator[None]:
    """Hide informative log records and known warnings of a framework.

    Args:
        loggers: Names of loggers of which only warnings and errors are shown.
        messages: Regular expressions of warnings that do not apply to a round.
    """
    with ExitStack() as stack:
        for name in loggers:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.WARNING)
        stack.enter_context(warnings.catch_warnings())
        for message in messages:
            warnings.filterwarnings("ignore", message)
        yield
