"""JAX: trees with injected settings as members."""

import functools

import numpy as np
import pytest

import pbt
from pbt.errors import StateError, TaskError
from pbt.executors.worker import Context
from pbt.store.codec import decode, digest, encode
from tests.tasks.rules import all_change

pytestmark = pytest.mark.needs("jax")
FIXED = functools.partial(pbt.Plan, exploit=pbt.never(), explore=pbt.keep())
SPACE = {"lr": pbt.Float(1e-3, 1e-1, "log"), "noise": pbt.Float(0, 0.1)}
KINDS = ["plain", pytest.param("equinox", marks=[pytest.mark.needs("equinox"), pytest.mark.slow]),
         pytest.param("flax", marks=[pytest.mark.needs("flax"), pytest.mark.slow])]  # fmt: skip


def task_of(name="plain", **fields):
    from tests.tasks import jax_tasks

    return getattr(jax_tasks, name)(**fields)


def space_of(name):
    return SPACE if name == "plain" else {"lr": SPACE["lr"]}


def train(task, hparams, state, steps, first_step=0, member=0):
    ctx = Context(seed=3, member=member, round=1, first_step=first_step, hparams=hparams, founder=0)
    state, metrics = task.trainer("cpu", 1)(hparams, decode(encode(state)), steps, ctx)
    return state, metrics, ctx


def rate(tree):
    return float(tree["opt"].hyperparams["learning_rate"])


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_rounds_make_no_difference(name):
    """Three rounds of two steps equal one round of six, bit for bit: parameters, moments, generators."""
    task, common = task_of(name), {"population": 2, "seed": 2, "objective": "minimize"}
    many = pbt.run(task, space_of(name), plan=FIXED(interval=2), rounds=3, **common)
    one = pbt.run(task, space_of(name), plan=FIXED(interval=6), rounds=1, **common)
    for member in (0, 1):
        first, second = (run.lineage(member)[-1] for run in (many, one))
        assert first.score == second.score
        assert digest(many.load_state(first)) == digest(one.load_state(second))
    assert not many.failures() + one.failures()


def test_a_population_trains_as_its_log_says():
    """The best state is that of a loop by hand, with the values of its lineage; the live rate is the last one."""
    from tests.tasks import jax_tasks

    task = task_of()
    run = pbt.run(
        task, SPACE, plan=pbt.Plan(exploit=all_change, interval=3), population=3, rounds=4, objective="minimize", seed=4
    )
    lineage = run.lineage()
    assert not run.failures()
    assert len({state.hparams["lr"] for state in lineage}) > 1
    tree = task.restored(lineage[-1].hparams, run.load_state())
    assert rate(tree) == pytest.approx(lineage[-1].hparams["lr"])
    key = Context(seed=4, member=lineage[0].state.member, round=1, first_step=0).init_key
    params, opt = jax_tasks.plain_build(lineage[0].hparams, jax_tasks.jax.random.key(key % 2**31)).values()
    for number, state in enumerate(lineage):
        value = jax_tasks.jnp.float32(state.hparams["lr"])
        opt = opt._replace(hyperparams={**opt.hyperparams, "learning_rate": value})
        ctx = Context(seed=4, member=0, round=1, first_step=3 * number)
        params, opt = jax_tasks.plain_train({"params": params, "opt": opt}, state.hparams, 3, ctx).values()
    assert np.array_equal(params["w"], tree["params"]["w"])
    assert run.best.reported["loss"] == run.best.score
    assert isinstance(tree["params"]["w"], jax_tasks.jax.Array)


def test_a_copy_continues_as_its_donor():
    """Another member that continues a state reaches the same one."""
    task = task_of()
    start, *_ = train(task, {"lr": 0.02, "noise": 0.1}, None, 2)
    first, second = (
        train(task, {"lr": 0.01, "noise": 0.1}, start, 2, first_step=2, member=member)[0] for member in (0, 1)
    )
    assert digest(first) == digest(second)


@pytest.mark.long
def test_a_rate_that_training_changes_keeps_its_phase():
    """The hyperparameter is the base value: the decayed rate is scaled by new/old, and untouched without a change."""
    from tests.tasks.jax_tasks import DECAY, decaying_train

    task = task_of(train=decaying_train)
    state, *_ = train(task, {"lr": 0.02}, None, 3)
    assert rate(state["tree"]) == pytest.approx(0.02 * DECAY**3)
    same, _, ctx = train(task, {"lr": 0.02}, state, 1, first_step=3)
    assert rate(same["tree"]) == pytest.approx(0.02 * DECAY**4)
    assert ctx.checked == {"lr"}
    moved, *_ = train(task, {"lr": 0.01}, state, 1, first_step=3)
    assert rate(moved["tree"]) == pytest.approx(0.01 * DECAY**4)
    one, *_ = train(task, {"lr": 0.02}, None, 4)
    assert digest(one) == digest(same)


@pytest.mark.slow  # imports the framework in each worker; other frameworks do it by default
def test_processes_train_what_inline_trains():
    """Both executors give the same bits."""
    common = {"plan": pbt.Plan(interval=2), "population": 2, "rounds": 2, "objective": "minimize"}
    inline = pbt.run(task_of(), SPACE, **common)
    processes = pbt.run(task_of(), SPACE, placement=pbt.Placement(executor="processes", workers=2), **common)
    assert inline.history()["score"] == processes.history()["score"]
    assert digest(inline.load_state()) == digest(processes.load_state())


def test_a_raising_member_is_one_failed_member():
    """An exception in `train` costs its member the round."""
    from tests.tasks.jax_tasks import failing_train

    initial = [{"lr": lr, "noise": 0.0} for lr in (0.01, 0.03, 0.05)]
    run = pbt.run(
        task_of(train=failing_train), SPACE, plan=FIXED(), population=3, rounds=2, initial=initial, objective="minimize"
    )
    (failure,) = run.failures()
    assert failure.member == 1
    assert "no such rate" in failure.message


def fixed_rate_build(hparams, key):
    from tests.tasks.jax_tasks import plain_build

    return plain_build({"lr": 0.5}, key)


def scheduled_build(hparams, key):
    import optax

    from tests.tasks.jax_tasks import ADAM

    opt = ADAM(learning_rate=optax.cosine_decay_schedule(hparams["lr"], 10))
    return {"params": {}, "opt": opt.init({"w": np.ones(2, "float32")})}


def scaled_build(hparams, key):
    import optax

    from tests.tasks.jax_tasks import plain_build

    schedule = optax.cosine_decay_schedule(0.1, 10)
    opt = optax.chain(optax.adam(schedule), optax.inject_hyperparams(optax.scale)(step_size=hparams["lr"]))
    params = plain_build(hparams, key)["params"]
    return {"params": params, "opt": opt.init(params)}


def constant_build(hparams, key):
    import equinox as eqx

    from tests.tasks.jax_tasks import plain_build

    return {**plain_build(hparams, key), "dropout": eqx.nn.Dropout(hparams["noise"])}


def unstorable_build(hparams, key):
    from tests.tasks.jax_tasks import plain_build

    return {**plain_build(hparams, key), "lock": object()}


def kept_train(tree, hparams, steps, ctx):
    return tree


def lost_train(tree, hparams, steps, ctx):
    return tree["params"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"build": fixed_rate_build}, "'lr' should be 0.01.*is 0.5"),
        ({"build": scheduled_build}, "learning_rate.*schedule overwrites it"),
        ({"bind": {}}, "'lr' has no effect.*bind"),
        ({"score": "accuracy"}, "'accuracy' is not among the metrics.*loss"),
        ({"build": unstorable_build}, r"state\['lock'\].*builtins\.object"),
    ],
)
def test_mistakes_are_found_before_the_start(fields, facts):
    """A value without effect, a schedule, no binding, no metric, no form on disk."""
    with pytest.raises((TaskError, StateError), match=facts):
        task_of(**fields).check({"lr": 0.01})


def test_a_setting_that_does_not_exist_is_named():
    """The error names the nearest one."""
    from pbt.tasks.jax import injected

    with pytest.raises(TaskError, match=r"'learning_rat'.*did you mean 'learning_rate'"):
        task_of(bind={"lr": injected("learning_rat")}).check({"lr": 0.01})
    with pytest.raises(TaskError, match="no such setting"):
        task_of(bind={"lr": injected("learning_rate", part="actor")}).check({"lr": 0.01})


def test_a_scale_beside_a_schedule_is_bound():
    """The remedy of the error about a schedule."""
    from pbt.tasks.jax import injected

    task = task_of(build=scaled_build, train=kept_train, bind={"lr": injected("step_size")})
    state, *_ = train(task, {"lr": 0.5}, None, 1)
    moved, _, ctx = train(task, {"lr": 0.25}, state, 1)
    assert moved["tree"]["opt"][1].hyperparams["step_size"] == 0.25
    assert ctx.checked == {"lr"}


@pytest.mark.needs("equinox")
def test_a_hyperparameter_in_a_constant_of_the_tree_is_an_error():
    """The state's constant would win over the decided value."""
    task = task_of(build=constant_build, train=kept_train)
    state, *_ = train(task, {"lr": 0.01, "noise": 0.3}, None, 1)
    train(task, {"lr": 0.02, "noise": 0.3}, state, 1)
    with pytest.raises(TaskError, match=r"0\.2.*\['dropout'\].*0\.3"):
        train(task, {"lr": 0.01, "noise": 0.2}, state, 1)


def test_a_tree_that_loses_its_optimizer_is_an_error():
    """`train` returns the whole tree."""
    with pytest.raises(TaskError, match=r"train: expected the trained tree.*learning_rate"):
        train(task_of(train=lost_train), {"lr": 0.01}, None, 1)
