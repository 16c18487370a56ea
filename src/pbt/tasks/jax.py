"""JAX: a member is a pytree, with an optimizer of optax whose settings `optax.inject_hyperparams` keeps in its state.

Works with plain parameters, Equinox and Flax. The state is the whole tree; its custom nodes are rebuilt from a tree
that `build` makes for every round (`pbt.restore`).
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pbt.errors import TaskError, nearest
from pbt.executors.base import State
from pbt.executors.base_values import is_number
from pbt.executors.context import trial_round
from pbt.executors.worker import Context, Metrics, TrainFunction
from pbt.space import HParams
from pbt.store.codec import digest
from pbt.store.pytrees import restore
from pbt.tasks.extras import framework
from pbt.tasks.parameters import scored

_SINGLE = 1e-6
"""Relative tolerance of a value read back, which optax keeps in single precision."""


@dataclass(frozen=True, slots=True)
class Injected:
    """A setting in the state of `optax.inject_hyperparams`."""

    setting: str
    part: str | None = None

    def covers(self, place: "Place") -> bool:
        """Whether it sets this place."""
        return place.setting == self.setting and (self.part is None or self.part in place.path)


@dataclass(frozen=True, slots=True)
class Argument:
    """No effect of its own: the task reads the value from `hparams`."""


def injected(setting: str, *, part: str | None = None) -> Injected:
    """Bind to a setting that `optax.inject_hyperparams` keeps: `injected("learning_rate")`.

    The hyperparameter is the base value, the one that `build` builds the optimizer with. Where it changes, the current
    value, which `train` may have changed since, is multiplied by new/old; where it does not, nothing is touched.

    Args:
        setting: An argument of the optimizer.
        part: A key or attribute on the way to it in the tree, as `"actor"`; None: every optimizer in the tree.
    """
    return Injected(setting, part)


def argument() -> Argument:
    """Declare that `train` or `evaluate` reads the value from `hparams`; it cannot be read back."""
    return Argument()


@dataclass(frozen=True, slots=True)
class Place:
    """A leaf of the tree that is an injected setting."""

    index: int
    """Among the leaves."""
    setting: str
    path: tuple[str, ...]
    scheduled: bool
    """Whether a schedule overwrites it in every update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JaxTask:
    """A training loop in JAX as a task. All functions must be defined at the top level of a module.

    Args:
        build: `(hparams, key) -> tree`: builds parameters, optimizer state and whatever else changes, for every round.
            The key belongs to the lineage, so that a copy has its donor's.
        train: `(tree, hparams, steps, ctx) -> tree`: trains for that many steps, after the first `ctx.first_step`.
        evaluate: `(tree, hparams, ctx) -> metrics`: a number, or a mapping of numbers by name.
        bind: The binding of each hyperparameter, `injected("learning_rate")` or `argument()`. Default: those with the
            name of an injected setting are bound to it.
        score: The metric that is the score; None: `evaluate` returns a number or a mapping with `score`.

    Raises:
        MissingExtraError: jax or optax is not installed.
    """

    build: Callable[[HParams, Any], Any]
    train: Callable[[Any, HParams, int, Context], Any]
    evaluate: Callable[[Any, HParams, Context], Metrics]
    bind: Mapping[str, Injected | Argument] = field(default_factory=dict)
    score: str | None = None

    def __post_init__(self) -> None:
        framework("optax", "JaxTask", "jax")

    def check(self, hparams: HParams) -> None:
        """Build and evaluate a tree once.

        Raises:
            TaskError: `build` or `evaluate` fails, a hyperparameter has no effect, or the metric does not exist.
            StateError: The tree contains a value that cannot be stored.
        """
        with trial_round(hparams, "the tree cannot be built") as ctx:
            tree = self._built(hparams, ctx)
            self._base(tree, hparams, ctx)
            digest(tree)
            self._measured(tree, hparams, ctx)

    def trainer(self, device: str, threads: int) -> TrainFunction:  # noqa: ARG002 (the device is in the context)
        """The function that trains rounds in this worker."""
        _start(threads)
        return self._train

    def restored(self, hparams: HParams, state: State) -> Any:
        """The tree of a state, as `run.model()` returns it."""
        with trial_round(hparams, "the tree cannot be built") as ctx:
            return restore(state["tree"], like=self._built(hparams, ctx))

    def _train(self, hparams: HParams, state: State, steps: int, ctx: Context) -> tuple[State, Metrics]:
        with _on(ctx.device):
            tree = self._built(hparams, ctx)
            base = self._base(tree, hparams, ctx)
            if state is not None:
                built, tree = tree, restore(state["tree"], like=tree)
                _check_constants(tree, built, hparams)
                before, tree = _bases(tree), _rebased(tree, state["base"], base)
                _check_live(before, _bases(tree), state["base"], base)
            tree = self.train(tree, hparams, steps, ctx)
            if (lost := base.keys() - _bases(tree).keys()) or tree is None:
                raise TaskError(f"train: expected the trained tree, got one without {sorted(lost) or 'content'}")
            metrics = self._measured(tree, hparams, ctx)
            return {"tree": tree, "base": base}, metrics

    def _measured(self, tree: Any, hparams: HParams, ctx: Context) -> Metrics:
        metrics = self.evaluate(tree, hparams, ctx)
        return metrics if self.score is None else scored(self.score, metrics)

    def _built(self, hparams: HParams, ctx: Context) -> Any:
        import jax

        return self.build(hparams, jax.random.key(ctx.init_key % 2**31))

    def _base(self, built: Any, hparams: HParams, ctx: Context) -> dict[str, Any]:
        """The injected values of a new tree by their place, in which the bound hyperparameters are read back.

        Raises:
            TaskError: A hyperparameter has no binding or place, a schedule overwrites it, or `build` uses another
                value.
        """
        places, values = _places(built), _bases(built)
        settings = {place.setting for place in places}
        for name, value in hparams.items():
            binding = self.bind.get(name) or (Injected(name) if name in settings else None)
            if binding is None:
                raise TaskError(
                    f"the hyperparameter '{name}' has no effect: it is not bound{nearest(name, settings)}; bind it, as "
                    f"in bind={{'{name}': injected('learning_rate')}}, or declare argument()"
                )
            if isinstance(binding, Injected):
                covered = [place for place in places if binding.covers(place)]
                if not covered:
                    near = nearest(binding.setting, settings)
                    raise TaskError(
                        f"injected({binding.setting!r}): no such setting in the tree{near}; wrap the optimizer in "
                        "optax.inject_hyperparams"
                    )
                if any(place.scheduled for place in covered):
                    raise TaskError(
                        f"injected({binding.setting!r}): a schedule overwrites it in every update; chain the optimizer "
                        "with that schedule and an injected optax.scale, and bind the scale"
                    )
                found = [values["/".join(place.path)] for place in covered]
                ctx.in_effect({name: next((value for one in found if _same(value, one)), found[0])})
        return values


def _places(tree: Any) -> list[Place]:
    """The injected settings in a tree."""
    import jax

    found = []
    paths = [
        tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)
        for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]
    scheduled = {path[:i] + path[i + 1 : i + 2] for path in paths for i, key in enumerate(path) if key == _STATES}
    for index, path in enumerate(paths):
        if _VALUES in path[:-1]:
            i = len(path) - 1 - path[::-1].index(_VALUES)
            found.append(Place(index, path[i + 1], path, path[:i] + path[i + 1 : i + 2] in scheduled))
    return found


_VALUES, _STATES = "hyperparams", "hyperparams_states"
"""The fields of optax's state with the injected values, and with the states of their schedules."""


def _bases(tree: Any) -> dict[str, Any]:
    """The injected numbers by the path of their place, without those of schedules."""
    import jax

    leaves = jax.tree_util.tree_leaves(tree)
    places = [place for place in _places(tree) if not place.scheduled]
    return {"/".join(place.path): leaves[place.index].item() for place in places if leaves[place.index].shape == ()}


def _rebased(tree: Any, old: Mapping[str, Any], new: Mapping[str, Any]) -> Any:
    """The tree with injected values scaled by new/old; where the base value did not change, nothing is touched."""
    import jax

    leaves, structure = jax.tree_util.tree_flatten(tree)
    for place in _places(tree):
        path = "/".join(place.path)
        if path not in new or old.get(path) == new[path]:
            continue
        held, before, after = leaves[place.index], old.get(path), new[path]
        scaled = isinstance(after, float) and before
        moved = held.item() * (after / before) if scaled and held.item() != before else after
        leaves[place.index] = jax.numpy.asarray(moved, held.dtype)
    return jax.tree_util.tree_unflatten(structure, leaves)


def _check_live(
    before: Mapping[str, Any], after: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]
) -> None:
    """Raise TaskError unless each value in the tree is the new base value, or one that `train` has derived from it."""
    for path, value in new.items():
        changed_by_train = path in old and not _same(before[path], old[path])
        if not changed_by_train and not _same(value, after[path]):
            raise TaskError(f"{path} should be {value!r} after a hand-over, but is {after[path]!r}")


def _check_constants(tree: Any, built: Any, hparams: HParams) -> None:
    """Raise TaskError if `build` put a hyperparameter into a number of the tree, which the state overrides."""
    import jax

    values = [value for value in hparams.values() if is_number(value)]
    for (path, held), own in zip(
        jax.tree_util.tree_flatten_with_path(tree)[0], jax.tree_util.tree_leaves(built), strict=True
    ):
        if is_number(held) and is_number(own) and held != own and own in values:
            place = jax.tree_util.keystr(path)
            raise TaskError(
                f"build makes the hyperparameter {own!r} a constant of tree{place}, which is {held!r} in the state; "
                "pass it to the model in train and evaluate instead, and declare argument()"
            )


def _same(value: Any, found: Any) -> bool:
    if is_number(value) and is_number(found):
        return bool(abs(value - found) <= _SINGLE * max(abs(value), abs(found)))
    return bool(value == found)


@contextmanager
def _on(device: str) -> Iterator[None]:
    """Put new arrays on this device."""
    import jax

    kind, _, index = device.partition(":")
    with jax.default_device(jax.devices({"cuda": "gpu"}.get(kind, kind))[int(index or 0)]):
        yield


def _start(threads: int) -> None:
    """Start JAX with this many CPU threads, unless it runs already: sums may depend on them."""
    import jax

    wanted = {"NPROC": str(threads), "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"}
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        jax.devices()
    finally:
        for name in added:
            del os.environ[name]
