"""Keras 3: a member is a compiled model, trained by `fit`; a step is one epoch. On any backend of Keras.

The model is built anew for every round. The state has the variables of the model (weights, moving averages, the
generators of dropout) and of the optimizer, in their order.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from pbt.errors import PBTError, TaskError, nearest
from pbt.executors.base import State
from pbt.executors.base_values import is_number
from pbt.executors.context import trial_round
from pbt.executors.worker import Context, Metrics, TrainFunction
from pbt.pytorch.bind import ArgumentBinding, AttributeBinding, Binding, OptimizerBinding, check_bound
from pbt.space import HParams
from pbt.store.codec import digest
from pbt.tasks.extras import framework
from pbt.tasks.parameters import scored

_SINGLE = 1e-6
"""Relative tolerance of a rate read back, which Keras keeps in single precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasTask:
    """A Keras model as a task. All functions must be defined at the top level of a module.

    Args:
        build: `(hparams, ctx) -> model`: returns a new compiled model with variables; called in every round.
        data: Returns training and validation data, and optionally test data, each `(x, y)`, `(x, y, weights)` or a
            dataset that `fit` takes; called once before the start, and once per worker.
        bind: The binding of each hyperparameter, of `pbt.pytorch`: `optimizer("learning_rate")`,
            `attribute("drop.rate")` (a layer's name and its attribute), or `argument()`.
        score: The metric of the validation data that is the score: `"loss"`, or the name of a compiled metric.
        fit: Further arguments of `fit`, as `{"batch_size": 64}`.
        callbacks: Returns new callbacks, for every round; what they hold is not part of the state.

    Raises:
        MissingExtraError: Keras is not installed.
        TaskError: Its backend is not installed.
    """

    build: Callable[[HParams, Context], Any]
    data: Callable[[], Sequence[Any]]
    bind: Mapping[str, Binding]
    score: str = "loss"
    fit: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Callable[[], Sequence[Any]] | None = None

    def __post_init__(self) -> None:
        _keras()
        if taken := sorted(self.fit.keys() & {"x", "y", "sample_weight", "epochs", "initial_epoch", "callbacks"}):
            raise TaskError(f"fit: {taken} are set by the task; data and callbacks have arguments of their own")

    def check(self, hparams: HParams) -> None:
        """Build and evaluate the model once.

        Raises:
            TaskError: A hyperparameter has no binding or place, `build` or `data` fails, or the metric does not exist.
            StateError: A variable cannot be stored.
        """
        check_bound(hparams, self.bind)
        with trial_round(hparams, "the model cannot be built") as ctx:
            trainer = _KerasTrainer(self)
            model = trainer.built(hparams, ctx)
            self._apply(model, hparams, {}, ctx)
            digest(_captured(model, {}))
            trainer.measured(model)

    def trainer(self, device: str, threads: int) -> TrainFunction:  # noqa: ARG002 (both are those of the backend)
        """The function that trains rounds in this worker."""
        return _KerasTrainer(self)

    def restored(self, hparams: HParams, state: State) -> Any:
        """The model of a state, as `run.model()` returns it."""
        with trial_round(hparams, "the model cannot be built") as ctx:
            model = _built(self.build, hparams, ctx)
            _load(model, state)
            self._apply(model, hparams, state["base"], ctx)
        return model

    def _apply(self, model: Any, hparams: HParams, old: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        """Set the bound values and read them back; returns the base value of each.

        Args:
            model: The model, with its start state.
            hparams: The values.
            old: The base values of the state.
            ctx: The round.
        """
        base = {}
        for name, value in hparams.items():
            binding = self.bind[name]
            if isinstance(binding, ArgumentBinding):
                continue
            holder, key = _place(model, binding)
            base[name] = value
            # Only variables are part of the state; other settings are as `build` made them.
            kept = name in old and isinstance(getattr(holder, key), _keras().Variable)
            target = _moved(_get(holder, key), old[name], value) if kept else value
            _set(holder, key, target)
            if not _same(found := _get(holder, key), target):
                raise TaskError(f"the hyperparameter '{name}' should be {target!r} after it was set, but is {found!r}")
            ctx.in_effect({name: value})
        return base


class _KerasTrainer:
    def __init__(self, task: KerasTask) -> None:
        self._task = task
        self._splits = _splits(task.data())

    def built(self, hparams: HParams, ctx: Context) -> Any:
        """A new model."""
        return _built(self._task.build, hparams, ctx)

    def measured(self, model: Any) -> Metrics:
        """The metrics of the validation and test data."""
        found = {
            name: model.evaluate(**data, verbose=0, return_dict=True)
            for name, data in self._splits.items()
            if name != "train"
        }
        test = {f"test_{name}": value for name, value in found.get("test", {}).items()}
        return {**scored(self._task.score, found["valid"]), **test}

    def __call__(self, hparams: HParams, state: State, steps: int, ctx: Context) -> tuple[State, Metrics]:
        task, epochs = self._task, (ctx.first_step, ctx.first_step + steps)
        with _on(ctx.device):
            model = self.built(hparams, ctx)
            if state is not None:
                _load(model, state)
            base = task._apply(model, hparams, {} if state is None else state["base"], ctx)
            own = [] if task.callbacks is None else task.callbacks()
            model.fit(
                **self._splits["train"],
                **{"verbose": 0, **task.fit},
                initial_epoch=epochs[0],
                epochs=epochs[1],
                callbacks=[_seeder(ctx), *own],
            )
            return _captured(model, base), self.measured(model)


def _built(build: Callable[[HParams, Context], Any], hparams: HParams, ctx: Context) -> Any:
    keras = _keras()
    keras.utils.set_random_seed(ctx.init_key % 2**32)
    built = build(dict(hparams), ctx)
    if not isinstance(built, keras.Model) or getattr(built, "optimizer", None) is None:
        raise TaskError(f"build: expected a compiled keras.Model, got {type(built).__name__}; call model.compile(...)")
    if not built.built:
        raise TaskError(
            "build: expected a model with variables; begin it with keras.Input(...), or call model.build(...)"
        )
    built.optimizer.build(built.trainable_variables)
    return built


def _captured(model: Any, base: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "variables": _numbers(model.variables),
        "optimizer": _numbers(model.optimizer.variables),
        "base": dict(base),
    }


def _numbers(variables: Sequence[Any]) -> list[Any]:
    """Arrays of their own: bfloat16, which numpy lacks, as float32."""
    keras = _keras()
    wide = {"bfloat16": "float32"}
    return [keras.ops.convert_to_numpy(keras.ops.cast(one, wide.get(one.dtype, one.dtype))).copy() for one in variables]


def _load(model: Any, state: State) -> None:
    """Assign the variables of a state; those of another optimizer are left behind.

    Raises:
        TaskError: The model has other variables.
    """
    for kind, variables in (("variables", model.variables), ("optimizer", model.optimizer.variables)):
        shapes = [tuple(one.shape) for one in variables]
        found = [tuple(one.shape) for one in state[kind]]
        if shapes != found:
            raise TaskError(
                f"build: expected the {kind} of the state, with the shapes {found}, got {shapes}; build the same "
                "structure for all members"
            )
        for variable, value in zip(variables, state[kind], strict=True):
            variable.assign(value)


def _place(model: Any, binding: Binding) -> tuple[Any, str]:
    """The object and the attribute of a binding.

    Raises:
        TaskError: There is no such place, or a schedule overwrites it.
    """
    keras = _keras()
    if isinstance(binding, OptimizerBinding):
        setting = "learning_rate" if binding.setting == "lr" else binding.setting
        known = [key for key, held in vars(model.optimizer).items() if is_number(held) and not key.startswith("_")]
        if not hasattr(model.optimizer, setting):
            raise TaskError(f"{binding}: no such optimizer setting{nearest(setting, known)}")
        if setting == "learning_rate" and not isinstance(model.optimizer.learning_rate, keras.Variable):
            raise TaskError(f"{binding}: a schedule overwrites it in every step; compile the optimizer with a number")
        return model.optimizer, setting
    if isinstance(binding, AttributeBinding):
        name, _, key = binding.path.partition(".")
        layers = {layer.name: layer for layer in model.layers}
        if name not in layers or not hasattr(layers[name], key):
            raise TaskError(f"attribute({binding.path!r}): no such attribute of a layer{nearest(name, layers)}")
        return layers[name], key
    raise TaskError(f"{binding}: expected optimizer(...), attribute(...) or argument() for a KerasTask")


def _get(holder: Any, key: str) -> Any:
    held = getattr(holder, key)
    return float(held) if isinstance(held, _keras().Variable) else held


def _set(holder: Any, key: str, value: Any) -> None:
    held = getattr(holder, key)
    if isinstance(held, _keras().Variable):
        held.assign(value)
    else:
        setattr(holder, key, value)


def _moved(current: Any, old: Any, new: Any) -> Any:
    """The value of a setting after a change of its base value; a callback may have changed it since it was set."""
    if not (is_number(current) and is_number(old) and is_number(new)) or not old or _same(current, old):
        return new
    return current if old == new else current * new / old


def _same(value: Any, other: Any) -> bool:
    if is_number(value) and is_number(other):
        return bool(abs(value - other) <= _SINGLE * max(abs(value), abs(other)))
    return bool(value == other)


def _splits(given: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(given, (tuple, list)) or not 2 <= len(given) <= 3:
        raise TaskError(
            f"data: expected (training, validation) or (training, validation, test), got {type(given).__name__}"
        )
    names = ("x", "y", "sample_weight")
    return {
        split: dict(zip(names, data, strict=False)) if isinstance(data, (tuple, list)) else {"x": data}
        for split, data in zip(("train", "valid", "test"), given, strict=False)
    }


def _seeder(ctx: Context) -> Any:
    """A callback that seeds the global generators before each epoch, which orders the examples."""
    keras = _keras()

    def seed(epoch: int, logs: Any = None) -> None:  # noqa: ARG001
        keras.utils.set_random_seed(ctx.key("epoch", epoch) % 2**32)

    return keras.callbacks.LambdaCallback(on_epoch_begin=seed)


def _on(device: str) -> AbstractContextManager[Any]:
    kind, _, index = device.partition(":")
    found: AbstractContextManager[Any] = _keras().device(f"gpu:{index or 0}" if kind == "cuda" else device)
    return found


def _keras() -> Any:
    try:
        return framework("keras", "KerasTask", "keras")
    except PBTError as error:
        if importlib.util.find_spec("keras") is None:
            raise
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        raise TaskError(
            f"Keras cannot be imported with the backend {backend} ({error.__cause__}); install it, or set the "
            "environment variable KERAS_BACKEND=torch before the first import"
        ) from error
