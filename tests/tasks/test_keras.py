"""Keras models as members, on the torch backend."""

import functools

import numpy as np
import pytest

import pbt
from pbt.errors import TaskError
from pbt.executors.worker import Context
from pbt.pytorch import argument, attribute, optimizer
from pbt.store.codec import decode, digest, encode
from tests.tasks.rules import all_change

pytestmark = [
    pytest.mark.needs("keras"),
    # Keras converts torch tensors by a method of numpy 1.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
FIXED = functools.partial(pbt.Plan, exploit=pbt.never(), explore=pbt.keep())
SPACE = {"lr": pbt.Float(1e-3, 1e-1, "log"), "p": pbt.Float(0, 0.5), "beta": pbt.Float(0.5, 0.95)}


def task_of(**fields):
    from tests.tasks import keras_tasks

    return keras_tasks.task(**fields)


def tasks():
    from tests.tasks import keras_tasks

    return keras_tasks


def train(task, hparams, state, steps, first_step=0, member=0):
    ctx = Context(seed=3, member=member, round=1, first_step=first_step, hparams=hparams, founder=0)
    state, metrics = task.trainer("cpu", 1)(hparams, decode(encode(state)), steps, ctx)
    return state, metrics, ctx


def test_rounds_make_no_difference():
    """Three rounds of two epochs equal one round of six, bit for bit: weights, moments, generators of dropout."""
    task, common = task_of(), {"population": 2, "seed": 2}
    many = pbt.run(task, SPACE, plan=FIXED(interval=2), rounds=3, **common)
    one = pbt.run(task, SPACE, plan=FIXED(interval=6), rounds=1, **common)
    assert not many.failures() + one.failures()
    for member in (0, 1):
        first, second = (run.lineage(member)[-1] for run in (many, one))
        assert first.score == second.score
        assert digest(many.load_state(first)) == digest(one.load_state(second))


def test_a_population_trains_as_its_log_says():
    """At every batch the live optimizer and layer have the logged values; the best model scores as logged."""
    keras_tasks = tasks()
    seen = keras_tasks.Watch.seen
    seen.clear()
    task = task_of(callbacks=keras_tasks.watching)
    run = pbt.run(task, SPACE, plan=pbt.Plan(exploit=all_change), population=2, rounds=3)
    assert not run.failures()
    history = run.history()
    logged = [pair for pair in zip(history["lr"], history["p"], strict=True) for _ in range(4)]
    assert np.allclose(seen, logged, rtol=1e-6)
    assert len(set(seen)) > 2
    assert {"exploit", "explore"} <= set(history["kind"])
    assert not [entry for entry in run.journal() if entry.kind == "unread"]
    best = task.restored(run.best.hparams, run.load_state())
    assert best.evaluate(keras_tasks.X[160:200], keras_tasks.Y[160:200], verbose=0)[1] == run.best.score
    assert {"loss", "accuracy", "test_loss", "test_accuracy"} <= run.best.reported.keys()


def test_a_copy_continues_as_its_donor():
    """Another member that continues a state reaches the same one."""
    task, hparams = task_of(), {"lr": 0.02, "p": 0.2}
    start, *_ = train(task, hparams, None, 1)
    first, second = (train(task, hparams, start, 1, first_step=1, member=member)[0] for member in (0, 1))
    assert digest(first) == digest(second)
    assert digest(first) != digest(start)


def test_a_rate_that_a_callback_changes_keeps_its_phase():
    """The hyperparameter is the base value: the current rate is scaled by new/old, and untouched without a change."""
    task = task_of(callbacks=tasks().halving)
    live = lambda state: float(state["optimizer"][1])  # noqa: E731 (the variable after the count of steps)
    state, *_ = train(task, {"lr": 0.08}, None, 2)
    assert live(state) == pytest.approx(0.02)
    same, _, ctx = train(task, {"lr": 0.08}, state, 1, first_step=2)
    assert live(same) == pytest.approx(0.01)
    assert ctx.checked == {"lr"}
    moved, *_ = train(task, {"lr": 0.04}, state, 1, first_step=2)
    assert live(moved) == pytest.approx(0.005)
    assert digest(train(task, {"lr": 0.08}, None, 3)[0]) == digest(same)


@pytest.mark.slow  # imports the framework in each worker; other frameworks do it by default
def test_processes_train_what_inline_trains():
    """Both executors give the same bits."""
    common = {"population": 2, "rounds": 2}
    inline = pbt.run(task_of(), SPACE, **common)
    processes = pbt.run(task_of(), SPACE, placement=pbt.Placement(executor="processes", workers=1), **common)
    assert inline.history()["score"] == processes.history()["score"]
    assert digest(inline.load_state()) == digest(processes.load_state())


def test_a_raising_member_is_one_failed_member():
    """An exception in `build` costs its member the round."""
    initial = [{"lr": lr, "p": 0.1, "beta": 0.9} for lr in (0.01, 0.03, 0.05)]
    run = pbt.run(task_of(build=tasks().failing), SPACE, plan=FIXED(), population=3, rounds=1, initial=initial)
    (failure,) = run.failures()
    assert failure.member == 1
    assert "no such rate" in failure.message


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"bind": {}}, "'lr' has no effect"),
        ({"bind": {"lr": optimizer("beta_3")}}, "beta_3.*beta_2"),
        ({"bind": {"lr": attribute("drpo.rate")}}, "'drpo.rate'.*'drop'"),
        ({"score": "acuracy"}, "'acuracy'.*'accuracy'"),
        ({"build": "scheduled"}, "schedule overwrites it"),
        ({"build": "uncompiled"}, "compiled keras.Model.*compile"),
        ({"build": "unbuilt"}, r"keras\.Input"),
        ({"data": list}, r"\(training, validation\)"),
    ],
)
def test_mistakes_are_found_before_the_start(fields, facts):
    """No binding, no such setting, layer or metric, a schedule, a model that is not compiled or built, other data."""
    if isinstance(fields.get("build"), str):
        fields = {"build": getattr(tasks(), fields["build"])}
    with pytest.raises(TaskError, match=facts):
        task_of(**fields).check({"lr": 0.01})


def test_arguments_of_the_task_are_not_arguments_of_fit():
    """Epochs and data are the task's."""
    with pytest.raises(TaskError, match="epochs"):
        task_of(fit={"epochs": 3})


def test_what_is_declared_as_an_argument_is_not_checked():
    """It is reported as not read back."""
    *_, ctx = train(task_of(bind={"lr": argument()}), {"lr": 0.01}, None, 1)
    assert ctx.checked == set()
