"""A framework that is not installed is named, with the extra that installs it."""

import sys

import pytest

from pbt.errors import MissingExtraError, TaskError
from pbt.tasks.boosting import LightGBMTask, XGBoostTask
from pbt.tasks.jax import JaxTask
from pbt.tasks.keras import KerasTask

MADE = {
    "xgboost": (lambda: XGBoostTask(params=dict, data=list, score="x"), "boosting"),
    "lightgbm": (lambda: LightGBMTask(params=dict, data=list, score="x"), "boosting"),
    "optax": (lambda: JaxTask(build=dict, train=dict, evaluate=dict), "jax"),
}


@pytest.mark.parametrize("module", MADE)
def test_a_missing_framework_is_named_with_its_extra(module, monkeypatch):
    """The error stands where the task is made, before any data is read."""
    make, extra = MADE[module]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"Task needs .*the extra '{extra}'"):
        make()


def test_missing_scikit_learn_is_named_with_its_extra(monkeypatch):
    """The module itself cannot be imported, because its estimators have base classes of scikit-learn."""
    for name in list(sys.modules):
        if name.startswith("pbt.tasks.sklearn") or name == "pbt.tasks.estimators":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(MissingExtraError, match="the extra 'sklearn'"):
        __import__("pbt.tasks.sklearn")


@pytest.mark.parametrize("installed", [True, False])
def test_keras_without_its_backend_is_no_missing_keras(installed, monkeypatch):
    """With Keras installed, the error names the backend and the variable that chooses another."""
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    expected = (TaskError, "tensorflow.*KERAS_BACKEND=torch") if installed else (MissingExtraError, "the extra 'keras'")
    with pytest.raises(expected[0], match=expected[1]):
        KerasTask(build=dict, data=list, bind={})
