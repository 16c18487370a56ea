"""Parameters and metrics of boosters: seeds of a round, read-back, the form of data and scores."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pbt.errors import TaskError, nearest
from pbt.executors.base_values import is_number
from pbt.executors.worker import Context, Metrics
from pbt.space import HParams

_PRECISION = 1e-5
"""Relative tolerance of a number read back: XGBoost keeps single precision, LightGBM writes six digits."""
_NO_ALIASES: Mapping[str, str] = {}
_SEEDS = ("seed", "random_state", "random_seed")


def in_effect(
    hparams: HParams, params: Mapping[str, Any], config: Mapping[str, str], names: Mapping[str, str] = _NO_ALIASES
) -> dict[str, Any]:
    """The hyperparameters whose value was found in the live configuration.

    A hyperparameter is found under its own name, or as the value of a parameter of another name.

    Args:
        hparams: The decided values.
        params: The parameters passed to the booster.
        config: The live configuration of the booster.
        names: The name in the configuration by alias.

    Raises:
        TaskError: A parameter, or a hyperparameter with the name of a parameter, has another value in the booster.
    """
    for name, value in {**params, **hparams}.items():
        found = config.get(names.get(name, name))
        if found is not None and not _same(value, found):
            raise TaskError(
                f"the parameter '{name}' should be {value!r}, but is {found} in the booster; `params` must return it, "
                "and under one name only"
            )
    checked = [value for name, value in params.items() if names.get(name, name) in config and is_number(value)]
    return {
        name: value
        for name, value in hparams.items()
        if names.get(name, name) in config or (is_number(value) and any(value == other for other in checked))
    }


def _same(value: Any, text: str) -> bool:
    """Whether a parameter equals the text in the configuration; only numbers and strings are compared."""
    if isinstance(value, (bool, int, float)) or hasattr(value, "item"):
        try:
            return math.isclose(float(value), float(text), rel_tol=_PRECISION, abs_tol=1e-12)
        except ValueError:
            return str(value).lower() == text.lower()
    return not isinstance(value, str) or value == text


def parameters(params: Callable[[HParams], Mapping[str, Any]], hparams: HParams) -> dict[str, Any]:
    """The parameters for these hyperparameters, as the user's function returns them."""
    found = params(hparams)
    if not isinstance(found, Mapping):
        raise TaskError(f"params: expected a dict of parameters, got {type(found).__name__}")
    return dict(found)


def reseeded(params: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
    """The parameters with seeds of this round: a library draws from its seed anew in every call.

    With the same seed, each round would sample the same rows as the round before.
    """
    given = {name: value for name, value in params.items() if name in _SEEDS or name.endswith("_seed")}
    keys = {name: ctx.key("boosting", name, value, ctx.first_step) % 2**31 for name, value in given.items()}
    return {**({} if given else {"seed": ctx.key("boosting", ctx.first_step) % 2**31}), **params, **keys}


def splits_of(given: Any, kind: type, names: Sequence[str] = ("train", "valid", "test")) -> dict[str, Any]:
    """The data by split, as the user's function returns them."""
    if not isinstance(given, Sequence) or not 2 <= len(given) <= 3 or not all(isinstance(one, kind) for one in given):
        got = [type(one).__name__ for one in given] if isinstance(given, Sequence) else type(given).__name__
        raise TaskError(
            f"data: expected (training, validation) or (training, validation, test), each a {kind.__name__}, got {got}"
        )
    return dict(zip(names, given, strict=False))


def metrics(score: str, found: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The metrics of the validation data by name, with the score; those of the test data with the prefix `test_`."""
    test = {f"test_{name}": value for name, value in found.get("test", {}).items()}
    return {**scored(score, found.get("valid", {})), **test}


def scored(score: str, metrics: Metrics) -> dict[str, Any]:
    """Metrics with the metric of this name as their score.

    Raises:
        TaskError: There is no such metric.
    """
    if not isinstance(metrics, Mapping) or score not in metrics:
        known = metrics if isinstance(metrics, Mapping) else ()
        raise TaskError(f"score='{score}' is not among the metrics{nearest(score, map(str, known))}")
    return {**metrics, "score": metrics[score]}
