"""scikit-learn estimators and skorch nets as members."""

import functools

import numpy as np
import pytest

import pbt
from pbt.errors import TaskError
from pbt.executors.worker import Context
from pbt.store.codec import decode, digest, encode
from tests.tasks.rules import all_change

pytestmark = pytest.mark.needs("sklearn")
FIXED = functools.partial(pbt.Plan, exploit=pbt.never(), explore=pbt.keep())


def estimator(name):
    from sklearn.linear_model import SGDClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neural_network import MLPClassifier

    if name == "net":
        from tests.tasks.nets import net

        return net()
    return {
        "linear": functools.partial(SGDClassifier, loss="log_loss"),
        "seeded": functools.partial(SGDClassifier, loss="log_loss", random_state=3),
        "adam": functools.partial(MLPClassifier, (6,), early_stopping=False),
        "sgd": functools.partial(MLPClassifier, (6,), solver="sgd", learning_rate="adaptive", random_state=1),
        "bayes": GaussianNB,
    }[name]()


SPACES = {
    "linear": {"alpha": pbt.Float(1e-5, 1e-1, "log")},
    "seeded": {"alpha": pbt.Float(1e-5, 1e-1, "log")},
    "adam": {"learning_rate_init": pbt.Float(1e-3, 1e-1, "log"), "beta_1": pbt.Float(0.5, 0.95)},
    "sgd": {"learning_rate_init": pbt.Float(1e-3, 1e-1, "log"), "momentum": pbt.Float(0.5, 0.95)},
    "bayes": {"var_smoothing": pbt.Float(1e-9, 1, "log")},
    "net": {
        "lr": pbt.Float(1e-3, 0.5, "log"),
        "optimizer__momentum": pbt.Float(0, 0.9),
        "module__p": pbt.Float(0, 0.5),
    },
}
ALL = pytest.mark.parametrize("name", [*list(SPACES)[:-1], pytest.param("net", marks=pytest.mark.needs("skorch"))])


def task_of(name, given=None, **fields):
    from pbt.tasks.sklearn import EstimatorTask
    from tests.tasks.estimators import NUMBERS, X, Y

    y = NUMBERS if name == "net" else Y
    made = estimator(name) if given is None else given
    return EstimatorTask(estimator=made, train=(X[:150], y[:150]), valid=(X[150:], y[150:]), **fields)


def train(task, hparams, state, steps, first_step=0, member=0):
    ctx = Context(seed=3, member=member, round=1, first_step=first_step, hparams=hparams, founder=0)
    # A worker gets a copy of its own.
    state, metrics = task.trainer("cpu", 1)(hparams, decode(encode(state)), steps, ctx)
    return state, metrics, ctx


def same(first, second):
    return digest(first) == digest(second)


@ALL
def test_rounds_make_no_difference(name):
    """Three rounds of two epochs equal one round of six: scores and states."""
    task, common = task_of(name), {"population": 2, "seed": 2}
    many = pbt.run(task, SPACES[name], plan=FIXED(interval=2), rounds=3, **common)
    one = pbt.run(task, SPACES[name], plan=FIXED(interval=6), rounds=1, **common)
    assert not many.failures() + one.failures()
    for member in (0, 1):
        first, second = (run.lineage(member)[-1] for run in (many, one))
        assert first.score == second.score
        states = [many.load_state(first), one.load_state(second)]
        if name == "net":  # its history has times
            assert [len(state.pop("history")) for state in states] == [6, 6]
        assert same(*states)


@ALL
def test_a_population_trains_as_its_log_says(name):
    """The best estimator has the logged values, all of them read back, and predicts."""
    task = task_of(name)
    run = pbt.run(task, SPACES[name], plan=pbt.Plan(exploit=all_change), population=3, rounds=4)
    assert not run.failures()
    assert not [entry for entry in run.journal() if entry.kind == "unread"]
    best = task.restored(run.best.hparams, run.load_state())
    assert best.score(*task.valid) == pytest.approx(run.best.score)
    assert {key: best.get_params()[key] for key in SPACES[name]} == run.best.hparams


@ALL
def test_a_copy_continues_as_its_donor(name):
    """Another member that continues a state reaches the same one."""
    task = task_of(name)
    hparams = {key: domain.low * 1.5 + 0.1 for key, domain in SPACES[name].items()}
    start, *_ = train(task, hparams, None, 2)
    states = [train(task, hparams, start, 2, first_step=2, member=member)[0] for member in (0, 1)]
    for state in states:
        state.pop("history", None)
    assert same(*states)
    if name != "bayes":  # has the same moments after any number of epochs
        assert not same(states[0], start)


@pytest.mark.parametrize(("name", "rate"), [("adam", "learning_rate_init"), ("sgd", "learning_rate_init")])
def test_a_perceptrons_live_optimizer_has_the_decided_values(name, rate):
    """scikit-learn keeps the optimizer of the first `partial_fit`, with its rate: the decided one replaces it."""
    task = task_of(name)
    other = "beta_1" if name == "adam" else "momentum"
    state, *_ = train(task, {rate: 0.02, other: 0.8}, None, 2)
    found = task.restored({rate: 0.01, other: 0.7}, state)._optimizer
    assert (found.learning_rate_init, getattr(found, other)) == (0.01, 0.7)
    assert found.learning_rate == pytest.approx(state["_optimizer"]["values"]["learning_rate"] / 2)
    moved, _, ctx = train(task, {rate: 0.01, other: 0.7}, state, 1, first_step=2)
    assert ctx.checked == {rate, other}
    assert moved["_optimizer"]["values"]["learning_rate_init"] == 0.01
    unchanged = train(task, {rate: 0.02, other: 0.8}, state, 1, first_step=2)[0]
    assert not np.array_equal(moved["coefs_"][0], unchanged["coefs_"][0])


def test_another_solver_gets_an_optimizer_of_its_own():
    """The state of the donor's optimizer is left behind; scikit-learn builds another."""
    task = task_of("adam")
    start, *_ = train(task, {"solver": "adam"}, None, 1)
    state, *_ = train(task, {"solver": "sgd"}, start, 1, first_step=1)
    assert (start["_optimizer"]["class"], state["_optimizer"]["class"]) == ("AdamOptimizer", "SGDOptimizer")


@pytest.mark.needs("skorch")
def test_a_nets_live_optimizer_has_the_decided_values():
    """The donor's optimizer state does not bring its rate along."""
    task = task_of("net")
    old, new = ({"lr": lr, "optimizer__momentum": m, "module__p": 0.1} for lr, m in ((0.1, 0.9), (0.03, 0.5)))
    state, *_ = train(task, old, None, 1)
    (group,) = task.restored(new, state).optimizer_.param_groups
    assert (group["lr"], group["momentum"]) == (0.03, 0.5)
    moved, _, ctx = train(task, new, state, 1, first_step=1)
    assert ctx.checked == set(new)
    assert moved["optimizers"]["optimizer"]["param_groups"][0]["lr"] == 0.03


@pytest.mark.needs("skorch")
@pytest.mark.parametrize("kind", ["LRScheduler", "EarlyStopping"])
def test_a_nets_callbacks_that_restart_are_refused(kind):
    """They begin again in every partial_fit, so they would train something else than written."""
    import skorch.callbacks

    from tests.tasks.nets import net

    task = task_of("net", net(callbacks=[getattr(skorch.callbacks, kind)()]))
    with pytest.raises(TaskError, match=rf"{kind}.*partial_fit"):
        task.check({"lr": 0.1})


@pytest.mark.slow
def test_processes_train_what_inline_trains():
    """Both executors give the same scores and states."""
    common = {"plan": pbt.Plan(), "population": 3, "rounds": 2}
    inline = pbt.run(task_of("adam"), SPACES["adam"], **common)
    processes = pbt.run(
        task_of("adam"), SPACES["adam"], placement=pbt.Placement(executor="processes", workers=2), **common
    )
    assert inline.history()["score"] == processes.history()["score"]
    assert same(inline.load_state(), processes.load_state())


def test_a_raising_member_is_one_failed_member():
    """An exception of the estimator costs its member the round."""
    from tests.tasks.estimators import Fragile

    initial = [{"alpha": 0.001}, {"alpha": 0.3}, {"alpha": 0.01}]
    run = pbt.run(
        task_of("linear", Fragile()), {"alpha": pbt.Float(1e-4, 1, "log")}, plan=FIXED(), population=3, rounds=2,
        initial=initial,
    )  # fmt: skip
    (failure,) = run.failures()
    assert failure.member == 1
    assert "no such penalty" in failure.message
    assert len(run.history()["score"]) == 4


def test_what_cannot_be_a_member_is_named_before_the_start():
    """No partial_fit, an unknown parameter, an unknown scorer, an attribute without a form on disk."""
    from sklearn.svm import SVC

    from tests.tasks.estimators import Remembering

    for task, hparams, facts in (
        (task_of("", SVC()), {"C": 1.0}, "partial_fit.*SVC"),
        (task_of("linear"), {"alhpa": 1.0}, "SGDClassifier has no parameter 'alhpa'.*'alpha'"),
        (task_of("linear", scoring="acuracy"), {"alpha": 0.1}, "acuracy"),
        (task_of("", Remembering()), {"var_smoothing": 0.1}, "Remembering.log_ is a .*TextIOWrapper.*pickle"),
    ):
        with pytest.raises(TaskError, match=facts):
            task.check(hparams)


def test_search_has_scikit_learns_form():
    """Strings as classes, frames with names, a generator as seed, a plan of one's own, validation data given."""
    import pandas as pd
    from sklearn.base import clone

    from pbt.tasks.sklearn import PBTClassifier
    from tests.tasks.estimators import X, Y

    frame = pd.DataFrame(X, columns=list("abcd"))
    search = clone(PBTClassifier(estimator("bayes"), SPACES["bayes"], population=3, rounds=2, random_state=5))
    assert search.fit(frame, Y) is search
    assert search.score(frame, Y) == np.mean(search.predict(frame) == Y) > 0.5
    assert search.predict_proba(frame).shape == (200, 2)
    assert list(search.classes_) == ["no", "yes"]
    assert list(search.feature_names_in_) == list("abcd")
    assert search.best_params_ == search.run_.best.hparams
    assert search.best_schedule_.at(0).keys() == {"var_smoothing"}
    assert not hasattr(search, "transform")
    again = PBTClassifier(
        estimator("bayes"), SPACES["bayes"], population=2, rounds=3, plan=FIXED(interval=2), scoring="neg_log_loss",
        random_state=np.random.RandomState(0),
    ).fit(X, Y, validation=(X[:50], Y[:50]))  # fmt: skip
    assert again.run_.best.step in (2, 4, 6)
    assert again.best_score_ == pytest.approx(again.score(X[:50], Y[:50]))


def test_search_over_a_transformer():
    """`PBTSearch` takes estimators without a target; the score is the estimator's, or a function."""
    from sklearn.cluster import MiniBatchKMeans

    from pbt.tasks.sklearn import PBTSearch
    from tests.tasks.estimators import X

    space = {"reassignment_ratio": pbt.Float(1e-3, 1e-1, "log")}
    search = PBTSearch(MiniBatchKMeans(3, n_init=1), space, population=2, rounds=2, random_state=0).fit(X)
    assert search.transform(X).shape == (200, 3)
    assert search.best_score_ < 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_scikit_learn_accepts_the_estimators(kind):
    """All of scikit-learn's own checks pass."""
    run_checks(kind)


def test_scikit_learn_accepts_the_estimators_in_short(monkeypatch):
    """The same, for the checks that most often fail: cloning, data of wrong form, names of features, sparse data."""
    short = ("clone", "parameters", "pickle", "nan", "n_features", "sparse_array", "y_2d", "one_label", "idempotent")
    run_checks("classifier", short)


def run_checks(kind, words=("",)):
    from sklearn.linear_model import SGDRegressor
    from sklearn.utils.estimator_checks import estimator_checks_generator

    from pbt.tasks.sklearn import PBTClassifier, PBTRegressor

    made = functools.partial(PBTClassifier if kind == "classifier" else PBTRegressor, population=2, random_state=0)
    inner = estimator("linear") if kind == "classifier" else SGDRegressor()
    search = made(inner, SPACES["linear"], rounds=3, steps=1 if kind == "classifier" else 5)
    done = 0
    for each, check in estimator_checks_generator(search):
        if any(word in str(check) for word in words):
            done += 1
            try:
                check(each)
            except pytest.skip.Exception:
                raise
            except Exception as error:
                if type(error).__name__ != "SkipTest":
                    raise AssertionError(f"{check}") from error
    assert done >= len(words)
