"""The check before the start that one program trains a task, and the reason if it does not."""

import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pbt.errors import PBTError, TaskError
from pbt.executors.seeding import seeded
from pbt.executors.source_lines import users_line
from pbt.executors.worker import Context, WorkerSpec, context_of, error_text
from pbt.pytorch.bind import AttributeBinding, SettingBinding
from pbt.pytorch.data import Split
from pbt.pytorch.precision import matrix_products
from pbt.pytorch.state import seed_global, threads_of
from pbt.pytorch.supervised import SupervisedTask
from pbt.pytorch.trainer import SupervisedTrainer
from pbt.pytorch.vectorized.failures import REMEDY, broken
from pbt.pytorch.vectorized.population import Population, trial
from pbt.pytorch.vectorized.unsaved import leaves
from pbt.space import HParams

_APART, _ROUGHLY = 0.02, 0.2
"""The largest difference by rounding of a gradient, relative to its size, in single and in lower precision.

It is far above any rounding, because it decides whether the task is trained as one program; a wrong gradient, mode or
value differs by its own size. Smaller differences are the tests' to find."""
_LEAST = 1e-6
"""Sizes of gradients below this are not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gradient:
    """What a member computes in its first step."""

    loss: float
    losses: Mapping[str, float]
    """The loss on the first evaluation batch of each split, before the step."""
    gradient: Mapping[str, Tensor]
    """By parameter."""


class _Alone(SupervisedTrainer):
    """A member without a program."""

    def first(self, hparams: HParams, ctx: Context) -> _Gradient | None:
        """The first gradient of a new member; None if torch's, NumPy's or Python's generator drew for it."""
        before = _generators()
        with threads_of(self._threads), matrix_products(self._task.precision, self._device):
            live = self._load(hparams, None, ctx)
            model, size = live.parts["model"], self._task.evaluation_batch
            seed_global(0, self._device)
            before = _generators()
            firsts = {name: Split(*split.take(slice(0, size))) for name, split in self._held_out.items()}
            losses = {
                name: float(self._evaluate(live, self._measured[name], split)["loss"]) for name, split in firsts.items()
            }
            drawn = _generators() != before
            model.train()
            seed_global(ctx.key("noise", ctx.member, 0), self._device)
            before = _generators()
            loss, _ = self._backward(live, 0, ctx)
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        if drawn or _generators() != before:
            return None
        return _Gradient(loss=float(loss), losses=losses, gradient=found)


def _generators() -> list[Any]:
    """The states of the global generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    states = [torch.get_rng_state(), *cuda]
    return [random.getstate(), repr(np.random.get_state()), [state.numpy().tobytes() for state in states]]  # noqa: NPY002


def check(population: Population, task: SupervisedTask, setup: WorkerSpec, births: Sequence[HParams]) -> None:
    """Train a step of two members as one program, evaluate them, and compare with members alone.

    Args:
        population: The worker.
        task: The task.
        setup: The specification of the worker.
        births: The initial hyperparameters of all members.

    Raises:
        TaskError: One program cannot run the task, or computes something else than members alone.
    """
    single = getattr(setup, "members_per_program", None) == 1
    some = births[:1] if single or len(births) == 1 else [births[0], _partner(task, births)]
    paths = [] if len(some) == 1 else _attributes(task, births[0])
    checked = _Check(population, task, setup, some)
    try:
        checked.run(paths)
    except Exception as error:
        if isinstance(error, PBTError) and str(error).startswith("attribute("):
            raise
        # Equal values, so that attributes may also be plain numbers.
        path = _at_fault(_Check(population, task, setup, [births[0]] * len(some)), paths)
        if path is None and isinstance(error, PBTError):
            raise
        if path is None:
            raise TaskError(broken(error)) from error
        raise TaskError(
            f"attribute('model.{path}'): the network uses it as a plain number, and in one program it is a tensor with "
            f"a value per member ({_brief(error)}); {REMEDY}"
        ) from error


class _Check:
    """One program of some members, against members alone."""

    def __init__(
        self, population: Population, task: SupervisedTask, setup: WorkerSpec, births: Sequence[HParams]
    ) -> None:
        self._population, self._task, self._births = population, task, births
        with seeded(0, setup.device):
            # The data that the population has loaded.
            alone = _Alone(replace(task, data=lambda: population.data), setup.device, setup.threads)
            contexts = [context_of(one, setup) for one in trial(births, 1)]
            self._expected = [alone.first(hparams, ctx) for hparams, ctx in zip(births, contexts, strict=True)]
        low = {torch.float16, torch.bfloat16}
        kinds = {tensor.dtype for one in self._expected if one for tensor in one.gradient.values()}
        self._tolerance = _ROUGHLY if task.precision == "bf16" or kinds & low else _APART

    def run(self, stacked: Collection[str]) -> None:
        """Train and evaluate; `stacked` as in `StackedNet.configure`.

        Raises:
            Exception: The program cannot run, or differs from members alone.
        """
        step, _ = self._population.try_out(self._births, stacked=stacked)
        # Members that turn out not to share a frozen tensor are loaded again in their first step.
        step(eager=True)
        step, _ = self._population.try_out(self._births, stacked=stacked)
        losses = self._population.try_evaluation(trained=False)
        program = self._population.held()
        before, program.recorded = _seen(program.loss), {}
        first, _ = step(eager=True)
        found, program.recorded = program.recorded, None
        changed = next((path for path, value in _seen(program.loss).items() if before.get(path, value) != value), None)
        if changed is not None:
            raise TaskError(
                f"the loss changes its '{changed}' in training, which members of one program would share; {REMEDY}"
            )
        self._population.try_evaluation()
        for i, expected in enumerate(self._expected):
            if expected is not None and i not in program.faults:
                own = {name: gradient[i] for name, gradient in found.items()}
                of = {name: values[i] for name, values in losses.items()}
                self._compare(_Gradient(loss=float(first[i, 0]), losses=of, gradient=own), expected)

    def _compare(self, found: _Gradient, expected: _Gradient) -> None:
        """Raise TaskError if a member's step differs from its step alone."""
        for name, loss in expected.losses.items():
            self._same(f"{name} loss", found.losses[name], loss)
        self._same("training loss", found.loss, expected.loss)
        names = [name for name, gradient in expected.gradient.items() if gradient.isfinite().all()]
        size = max(_LEAST, _norm([expected.gradient[name] for name in names]))
        zeros = {name: torch.zeros_like(expected.gradient[name]) for name in names}
        apart = {name: found.gradient.get(name, zeros[name]) - expected.gradient[name] for name in names}
        if size > _LEAST and _norm(list(apart.values())) > self._tolerance * size:
            name = max(apart, key=lambda name: _norm([apart[name]]))
            raise TaskError(
                "as one program the network computes another gradient than members alone, mostly of "
                f"'{name}': {_norm([apart[name]]) / size:.2g} of its size apart; {REMEDY}"
            )

    def _same(self, what: str, found: float, expected: float) -> None:
        if math.isfinite(expected) and not abs(found - expected) <= self._tolerance * max(1.0, abs(expected)):
            raise TaskError(
                f"as one program the network has another {what} than members alone: {found:.4g} instead of "
                f"{expected:.4g}; {REMEDY}"
            )


def _at_fault(equal: _Check, paths: Sequence[str]) -> str | None:
    """The attribute with which alone the check fails; None: it also fails without any."""

    def fails(stacked: Collection[str]) -> bool:
        try:
            equal.run(stacked)
        except Exception:  # noqa: BLE001 (the first error is reported)
            return True
        return False

    if not paths or fails(()):
        return None
    return next((path for path in paths if fails((path,))), paths[0])


def _seen(loss: Any) -> dict[str, Any]:
    """The values of a loss, comparable; tensors by identity and version."""
    return {
        path.removeprefix("loss:").removeprefix("_buffers."): (id(value), value._version)
        if isinstance(value, Tensor)
        else repr(value)
        for path, value in leaves("loss:", vars(loss) if hasattr(loss, "__dict__") else {}, {})
    }


def _norm(gradients: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(gradient.detach().abs().double().square().sum()) for gradient in gradients))


def sound(task: SupervisedTask, setup: WorkerSpec, births: Sequence[HParams]) -> Sequence[HParams]:
    """The hyperparameters with which a member can be trained alone for a step.

    Raises:
        TaskError: There are none.
    """
    found, reason = [], ""
    trainer: SupervisedTrainer | None = None
    for one in trial(births, 1):
        try:
            with seeded(0, setup.device):
                trainer = trainer or SupervisedTrainer(task, setup.device, setup.threads)
                trainer(one.hparams, None, 1, context_of(one, setup))
            found.append(one.hparams)
        except Exception as error:  # noqa: BLE001 (it becomes the message)
            place = users_line(error.__traceback__)
            reason = reason or error_text(error)[0] + (f" ({place})" if place else "")
    if not found:
        raise TaskError(f"the task cannot be trained by any executor: {reason}")
    return found


def _partner(task: SupervisedTask, births: Sequence[HParams]) -> HParams:
    """The hyperparameters of another member that shares a program with the first."""
    sizes = [
        name
        for name, binding in task.bind.items()
        if isinstance(binding, SettingBinding) and binding.name in ("batch_size", "accumulate")
    ]
    same = (own for own in births[1:] if all(own.get(name) == births[0].get(name) for name in sizes))
    return next(same, births[0])


def _attributes(task: SupervisedTask, hparams: HParams) -> list[str]:
    """The paths of the bound attributes of the model."""
    bindings = [task.bind[name] for name in hparams]
    paths = [binding.path.partition(".") for binding in bindings if isinstance(binding, AttributeBinding)]
    return [path for part, _, path in paths if part == "model"]


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
