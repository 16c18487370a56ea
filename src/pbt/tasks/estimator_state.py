"""The fitted attributes of scikit-learn estimators and skorch nets as states, without pickle.

An estimator is built anew for every round: parameters come from the estimator that the user passed and from the
hyperparameters, fitted attributes from the state. Attributes of other types than those below are refused by name.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from sklearn.preprocessing import LabelBinarizer

from pbt.errors import PBTError, StateError, TaskError
from pbt.executors.base import State
from pbt.executors.seeding import seeded
from pbt.executors.worker import Context
from pbt.store.codec import digest

_KIND = "pbt.kind"
_HELPERS: Mapping[str, Any] = {"AdamOptimizer": AdamOptimizer, "SGDOptimizer": SGDOptimizer}
"""Objects inside a multi-layer perceptron: its optimizer, with moments and a learning rate of its own."""
_ESTIMATORS: Mapping[str, Any] = {"LabelBinarizer": LabelBinarizer}
_RESTARTED = {"LRScheduler", "WarmRestartLR", "EarlyStopping"}
"""Callbacks of skorch that reset themselves when training begins, which every step does."""
_REMADE = frozenset({"_loss_function_"})
"""Attributes that every `partial_fit` makes anew."""


def is_net(estimator: Any) -> bool:
    """Whether an estimator is a skorch net."""
    return any(kind.__module__.startswith("skorch.") for kind in type(estimator).__mro__)


def capture(estimator: Any) -> State:
    """The fitted attributes of an estimator.

    Raises:
        StateError: An attribute cannot be stored; the message names it.
    """
    if is_net(estimator):
        return _of_net(estimator)
    return _fitted(estimator)


def _fitted(estimator: Any) -> dict[str, Any]:
    parameters = estimator.get_params(deep=False)
    found = {}
    for name, value in vars(estimator).items():
        if name not in parameters and name not in _REMADE:
            found[name] = _down(value)
            try:
                digest(found[name])
            except StateError:
                kind = f"{type(value).__module__}.{type(value).__qualname__}"
                raise StateError(
                    f"{type(estimator).__name__}.{name} is a {kind}, which cannot be stored without pickle; write a "
                    "task as a function, which stores the parts that matter"
                ) from None
    return found


def _down(value: Any) -> Any:
    """A value that a state may contain, if there is one for this type."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "UO" and all(isinstance(one, str) for one in value.flat):
        return {_KIND: "strings", "values": value.tolist(), "dtype": value.dtype.kind}
    if isinstance(value, np.random.RandomState):
        same = value is np.random.mtrand._rand  # scikit-learn's name for random_state=None
        return {_KIND: "generator", "state": None if same else value.get_state(legacy=False)}
    name = type(value).__name__
    if type(value) is _HELPERS.get(name):
        return {_KIND: "helper", "class": name, "values": dict(vars(value))}
    if type(value) is _ESTIMATORS.get(name):
        return {_KIND: "estimator", "class": name, "params": value.get_params(), "values": _fitted(value)}
    return value


def _up(value: Any) -> Any:
    kind = value.get(_KIND) if type(value) is dict else None
    if kind == "strings":
        return np.array(value["values"], dtype=object if value["dtype"] == "O" else None)
    if kind == "generator":
        if value["state"] is None:
            return np.random.mtrand._rand
        generator = np.random.RandomState()
        generator.set_state(value["state"])
        return generator
    if kind in ("helper", "estimator"):
        made = _HELPERS[value["class"]] if kind == "helper" else _ESTIMATORS[value["class"]]
        built = made.__new__(made) if kind == "helper" else made(**value["params"])
        vars(built).update({name: _up(one) for name, one in value["values"].items()})
        return built
    return value


def restore(estimator: Any, state: State) -> None:
    """Give an unfitted estimator the fitted attributes of a state. Its parameters, set before, win over the state."""
    if is_net(estimator):
        _load_net(estimator, state)
        return
    vars(estimator).update({name: _up(value) for name, value in state.items()})
    optimizer = vars(estimator).get("_optimizer")
    if type(optimizer) in _HELPERS.values():
        _retune(estimator, optimizer)


def _retune(estimator: Any, optimizer: Any) -> None:
    """Give the optimizer of a multi-layer perceptron the parameters that it read when it was built."""
    if type(optimizer) is not _HELPERS["AdamOptimizer" if estimator.solver == "adam" else "SGDOptimizer"]:
        del estimator._optimizer  # another solver: scikit-learn builds its optimizer at the next step
        return
    old, new = optimizer.learning_rate_init, estimator.learning_rate_init
    if old != new:
        # The current rate is derived from the initial one, and has its own history under learning_rate="adaptive".
        optimizer.learning_rate *= new / old
    held = vars(optimizer)
    given = {**estimator.get_params(deep=False), "lr_schedule": estimator.learning_rate}
    given.update(nesterov=estimator.nesterovs_momentum, learning_rate=optimizer.learning_rate)
    held.update({name: given[name] for name in held if name in given})


def in_effect(estimator: Any, name: str) -> Any:
    """The value of a parameter, from the live optimizer of a multi-layer perceptron if it has its own."""
    optimizer = vars(estimator).get("_optimizer")
    if type(optimizer) in _HELPERS.values() and name != "learning_rate" and name in vars(optimizer):
        return vars(optimizer)[name]
    return estimator.get_params()[name]


def _of_net(net: Any) -> dict[str, Any]:
    net_state = {
        "modules": {name: getattr(net, name + "_").state_dict() for name in _parts(net, "modules")},
        "optimizers": {name: getattr(net, name + "_").state_dict() for name in _parts(net, "optimizers")},
        "criteria": {name: _criterion(net, name) for name in _parts(net, "criteria")},
        "history": net.history.to_list(),
        "classes": _down(np.asarray(net.classes_inferred_)) if hasattr(net, "classes_inferred_") else None,
    }
    try:
        digest(net_state)
    except StateError as error:
        raise StateError(f"{type(net).__name__}: {error}") from None
    return net_state


def _parts(net: Any, kind: str) -> list[str]:
    """The names of a net's modules, optimizers or criteria, without the underscore."""
    return [name.rstrip("_") for name in getattr(net, f"_{kind}")]


def _criterion(net: Any, name: str) -> Any:
    criterion = getattr(net, name + "_")
    return criterion.state_dict() if hasattr(criterion, "state_dict") else {}


def _load_net(net: Any, state: State) -> None:
    for kind in ("modules", "optimizers", "criteria"):
        for name, values in state[kind].items():
            part = getattr(net, name + "_")
            if hasattr(part, "load_state_dict"):
                part.load_state_dict(values)
    net.history.clear()
    net.history.extend(state["history"])
    if state["classes"] is not None:
        net.classes_inferred_ = _up(state["classes"])


def build_net(net: Any, ctx: Context) -> None:
    """Initialize a net with draws that belong to the lineage.

    Raises:
        TaskError: It has a callback whose progress would be lost at every step.
    """
    with seeded(ctx.init_key, ctx.device):
        net.initialize()
    for name, callback in net.callbacks_:
        if {kind.__name__ for kind in type(callback).__mro__} & _RESTARTED:
            raise TaskError(
                f"the net's callback '{name}' ({type(callback).__name__}) starts anew in every partial_fit, so it "
                "never takes effect; remove it, and let the hyperparameter 'lr' change instead"
            )


def apply_to_net(net: Any, values: Mapping[str, Any], ctx: Context) -> None:
    """Apply the optimizer settings among the hyperparameters, as base values, and read them back."""
    for name, value in values.items():
        if place := _place(net, name):
            optimizer, setting = place
            ctx.apply(optimizer, **{setting: value})
            ctx.in_effect({name: value})


def rates(net: Any, names: Iterable[str]) -> dict[str, list[Any]]:
    """The settings in the optimizers' parameter groups, by hyperparameter."""
    places = {name: _place(net, name) for name in names} if is_net(net) else {}
    return {
        name: [group[place[1]] for group in place[0].param_groups]
        for name, place in places.items()
        if place is not None
    }


def _place(net: Any, name: str) -> tuple[Any, str] | None:
    """The optimizer and the setting of a hyperparameter; None for other parameters."""
    part, _, setting = ("optimizer", "", "lr") if name == "lr" else name.partition("__")
    optimizer = getattr(net, part + "_") if part in _parts(net, "optimizers") else None
    return (optimizer, setting) if optimizer is not None and setting in optimizer.defaults else None


def check_stored(estimator: Any) -> None:
    """Raise TaskError if the attributes of this fitted estimator cannot be stored."""
    try:
        capture(estimator)
    except PBTError as error:
        raise TaskError(f"the estimator cannot be a member: {error}") from error


def is_estimator(value: Any) -> bool:
    """Whether a value is an estimator instance that learns step by step."""
    return isinstance(value, BaseEstimator) and hasattr(value, "partial_fit")
