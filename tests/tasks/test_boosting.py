"""Continued boosting: the laws of members, on both libraries."""

import functools
import re

import numpy as np
import pytest

import pbt
from pbt.errors import TaskError
from pbt.executors.worker import Context
from tests.tasks import boosters
from tests.tasks.boosters import PARTS, X
from tests.tasks.rules import all_change

SPACE = {"lr": pbt.Float(0.05, 0.5, "log"), "decay": pbt.Float(0.1, 3)}
BOTH = pytest.mark.parametrize(
    "library",
    [pytest.param("xgboost", marks=pytest.mark.needs("xgboost")),
     pytest.param("lightgbm", marks=pytest.mark.needs("lightgbm"))],
)  # fmt: skip


def task_of(library, *args, **extra):
    return {"xgboost": boosters.xgboost_task, "lightgbm": boosters.lightgbm_task}[library](*args, **extra)


def params_of(library):
    return {"xgboost": boosters.xgboost_params, "lightgbm": boosters.lightgbm_params}[library]


def train(task, hparams, state, steps, first_step=0, member=0):
    ctx = Context(seed=3, member=member, round=1, first_step=first_step, hparams=hparams)
    state, metrics = task.trainer("cpu", 1)(hparams, state, steps, ctx)
    return state, metrics, ctx


def predictions(library, task, state):
    booster = task.restored({}, state)
    rows = X[PARTS["test"]]
    if library == "lightgbm":
        return booster.predict(rows)
    import xgboost

    return booster.predict(xgboost.DMatrix(rows))


def by_hand(library, rounds):
    """Predictions of a booster that the library itself continued with these (hyperparameters, trees)."""
    booster, params = None, params_of(library)
    for hparams, steps in rounds:
        if library == "xgboost":
            import xgboost

            given = {**params(hparams), "nthread": 1}
            booster = xgboost.train(given, boosters.matrices()[0], steps, xgb_model=booster)
        else:
            import lightgbm

            given = {**params(hparams), "num_threads": 1, "verbosity": -1}
            booster = lightgbm.train(given, boosters.datasets()[0], steps, init_model=booster)
    rows = X[PARTS["test"]]
    return booster.predict(xgboost.DMatrix(rows) if library == "xgboost" else rows)


@BOTH
def test_a_population_trains_as_its_log_says(library):
    """The best state is that of the library itself with the values of the lineage; all are read back."""
    task = task_of(library)
    run = pbt.run(
        task, SPACE, plan=pbt.Plan(exploit=all_change, interval=3), population=3, rounds=4, objective="minimize", seed=1
    )
    lineage = run.lineage()
    assert not run.failures()
    assert len({(s.hparams["lr"], s.hparams["decay"]) for s in lineage}) > 1
    assert np.array_equal(
        predictions(library, task, run.load_state()), by_hand(library, [(s.hparams, 3) for s in lineage])
    )
    assert run.best.reported["test_" + task.score] > 0
    assert run.best.score == run.best.reported[task.score] == min(run.history()["score"])
    assert not [entry for entry in run.journal() if entry.kind == "unread"]


@pytest.mark.needs("lightgbm")
def test_every_tree_has_the_logged_rate():
    """LightGBM writes the rate of each tree: it is that of the schedule at this step."""
    run = pbt.run(
        task_of("lightgbm"),
        SPACE,
        plan=pbt.Plan(exploit=all_change, interval=2),
        population=3,
        rounds=5,
        objective="minimize",
    )
    rates = [float(text) for text in re.findall("shrinkage=(.*)", run.load_state()["model"])]
    logged = [state.hparams["lr"] for state in run.lineage() for _ in range(2)]
    assert len(set(logged)) > 1
    # LightGBM may add the average of the data to the first tree, whose rate it then writes as 1.
    assert rates[1:] == pytest.approx(logged[1:], rel=1e-5)


@BOTH
def test_rounds_make_no_difference(library):
    """Four rounds of three trees equal one round of twelve."""
    plan = functools.partial(pbt.Plan, exploit=pbt.never(), explore=pbt.keep())
    task, common = task_of(library), {"population": 2, "objective": "minimize", "seed": 2}
    many = pbt.run(task, SPACE, plan=plan(interval=3), rounds=4, **common)
    one = pbt.run(task, SPACE, plan=plan(interval=12), rounds=1, **common)
    for member in (0, 1):
        last = [run.lineage(member)[-1] for run in (many, one)]
        assert last[0].score == last[1].score
        found = [predictions(library, task, run.load_state(end)) for run, end in zip((many, one), last, strict=True)]
        assert np.array_equal(*found)


@BOTH
def test_a_copy_continues_as_its_donor(library):
    """Another member that continues a state reaches the same state, also with sampling of rows and columns."""
    sampling = {"subsample": 0.5, "colsample_bytree": 0.6}
    if library == "lightgbm":
        sampling["bagging_freq"] = 1
    task = task_of(library, **sampling)
    start, *_ = train(task, {"lr": 0.3}, None, 3)
    found = [train(task, {"lr": 0.1}, start, 3, first_step=3, member=member)[0] for member in (0, 1)]
    assert found[0] == found[1]
    assert found[0] != start


@BOTH
def test_each_round_samples_anew(library):
    """With sampling, two rounds of one tree draw different rows, although a library restarts its generator."""
    sampling = {"subsample": 0.5} if library == "xgboost" else {"subsample": 0.5, "bagging_freq": 1, "bagging_seed": 5}
    task = task_of(library, **sampling)
    first, second = (train(task, {"lr": 0.3}, None, 1, first_step=step)[0] for step in (0, 1))
    assert not np.array_equal(predictions(library, task, first), predictions(library, task, second))


@pytest.mark.slow
@BOTH
def test_processes_train_what_inline_trains(library):
    """Both executors store the same states."""
    common = {"plan": pbt.Plan(interval=2), "population": 3, "rounds": 2, "objective": "minimize"}
    inline, processes = (
        pbt.run(task_of(library), SPACE, placement=pbt.Placement(executor=name, workers=2), **common)
        if name == "processes"
        else pbt.run(task_of(library), SPACE, **common)
        for name in ("inline", "processes")
    )
    assert inline.history()["score"] == processes.history()["score"]
    assert inline.load_state() == processes.load_state()


@BOTH
def test_a_raising_member_is_one_failed_member(library):
    """An error in the user's function costs its member one round; the others train."""
    task = task_of(library, functools.partial(boosters.failing, params_of(library)))
    plan = pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=2)
    initial = [{"lr": 0.1, "decay": 1.0}, {"lr": 0.3, "decay": 1.0}, {"lr": 0.45, "decay": 1.0}]
    run = pbt.run(task, SPACE, plan=plan, population=3, rounds=2, initial=initial, objective="minimize")
    (failure,) = run.failures()
    assert failure.member == 1
    assert "no such rate" in failure.message
    assert len(run.history()["score"]) == 4


@BOTH
def test_values_are_read_back(library):
    """A parameter under its own or another name is confirmed; a value that `params` drops is an error."""
    task = task_of(library)
    *_, ctx = train(task, {"lr": 0.3, "decay": 0.7}, None, 1)
    assert ctx.checked == {"lr", "decay"}
    dropped = {"lr": 0.3, "max_depth": 5}  # the parameters have max_depth 3, or LightGBM's default -1
    for call in (task.check, lambda hparams: train(task, hparams, None, 1)):
        with pytest.raises(TaskError, match="'max_depth' should be 5, but is"):
            call(dropped)


@BOTH
@pytest.mark.parametrize(
    ("extra", "facts"),
    [({"max_dpeth": 3}, ["'max_dpeth'", "'max_depth'"]), ({"objective": "wrong"}, ["cannot be configured", "wrong"])],
)
def test_mistakes_in_parameters_are_found_before_the_start(library, extra, facts):
    """An unknown parameter or objective is named, and nothing is trained."""
    with pytest.raises(TaskError) as caught:
        pbt.run(task_of(library, **extra), SPACE, population=2, rounds=1)
    assert all(fact in str(caught.value) for fact in facts)
    assert "\n" not in str(caught.value)


@BOTH
def test_a_missing_metric_is_named(library):
    """The error has the name, and the metrics that there are."""
    task = task_of(library)
    wrong = type(task)(params=task.params, data=task.data, score="accuracy")
    with pytest.raises(TaskError, match=r"'accuracy'.*logloss"):
        wrong.check({"lr": 0.1})


def no_data():
    return [1, 2]


def data_with_offsets():
    train, valid, _ = boosters.datasets()
    train.set_init_score(np.ones(200))
    return train, valid


@functools.cache
def kept_datasets():
    return boosters.datasets()


@BOTH
def test_other_data_are_refused(library):
    """The form of the data is checked before the start."""
    task = task_of(library)
    with pytest.raises(TaskError, match=r"data: expected \(training, validation\).*int"):
        type(task)(params=task.params, data=no_data, score=task.score).check({"lr": 0.1})
    with pytest.raises(TaskError, match="params: expected a dict"):
        type(task)(params=list, data=task.data, score=task.score).check({"lr": 0.1})


@pytest.mark.needs("lightgbm")
def test_datasets_with_a_past_are_refused():
    """A Dataset of LightGBM that was used, or has scores of its own, would train another model."""
    task = task_of("lightgbm")
    with pytest.raises(TaskError, match="init_score"):
        type(task)(params=task.params, data=data_with_offsets, score=task.score).check({"lr": 0.1})
    kept = type(task)(params=task.params, data=kept_datasets, score=task.score)
    kept.check({"lr": 0.1})
    with pytest.raises(TaskError, match="new Datasets in every call"):
        train(kept, {"lr": 0.1}, None, 1)
