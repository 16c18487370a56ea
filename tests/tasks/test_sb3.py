"""Stable-Baselines3: the laws of members, with real algorithms."""

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

import torch

import pbt
from pbt.core.events import Reported
from pbt.errors import TaskError
from pbt.pytorch import argument, attribute, optimizer
from pbt.store.folder import Folder
from pbt.tasks.sb3 import SB3Task, algorithm
from tests.tasks import agents
from tests.tasks.rules import all_change

pytestmark = pytest.mark.needs("sb3")

SPACE = {"lr": pbt.Float(1e-4, 1e-1, "log"), "gamma": pbt.Float(0.8, 0.999)}
BIND = {"lr": optimizer("lr"), "gamma": algorithm("gamma")}
FIXED = {"exploit": pbt.never(), "explore": pbt.keep()}
INITIAL = [{"lr": 0.003, "gamma": 0.97}]
TOTAL = 256


def task_of(build=agents.ppo, **fields):
    defaults = {"build": build, "score": "rollout/ep_rew_mean", "bind": BIND, "total_steps": TOTAL}
    return SB3Task(**{**defaults, **fields})


def train(task, interval, rounds, space=SPACE, **settings):
    agents.SEEN.clear()
    common = {"population": 1, "initial": INITIAL, "seed": 5}
    return pbt.run(task, space, plan=pbt.Plan(**FIXED, interval=interval), rounds=rounds, **{**common, **settings})


def digests(run):
    return {(event.member, event.round): event.digest for event in run.events if isinstance(event, Reported)}


def test_every_update_has_the_values_of_the_log():
    """Rate (times the user's schedule), clip range and the buffer's discount are those of the log at every update."""
    agents.SEEN.clear()
    bind = {**BIND, "clip": algorithm("clip_range")}
    space = {**SPACE, "clip": pbt.Float(0.05, 0.5)}
    plan = pbt.Plan(exploit=all_change, interval=64)
    run = pbt.run(task_of(bind=bind), space, plan=plan, population=3, rounds=3, seed=1)
    assert not run.failures()
    columns = run.history()
    rows = zip(*(columns[name] for name in ("member", "step", "lr", "clip", "gamma")), strict=True)
    logged = {(member, step): values for member, step, *values in rows}
    assert len({tuple(values) for values in logged.values()}) > 5
    assert len(agents.SEEN) == 18
    for member, step, rates, clip, gamma in agents.SEEN:
        rate, *others = logged[member, -(-step // 64) * 64]
        assert rates == pytest.approx([rate * (1 - step / TOTAL)], rel=1e-9)
        assert [clip, gamma] == pytest.approx(others, rel=1e-9)
    assert "rollout/ep_rew_mean" in run.curves()["name"]
    assert not [entry for entry in run.journal() if entry.kind == "unread"]


@pytest.mark.long
@pytest.mark.parametrize("build", [agents.ppo, agents.dqn, pytest.param(agents.sac, marks=pytest.mark.slow)])
def test_rounds_make_no_difference_where_episodes_end_with_them(build):
    """Weights, optimizers, buffers, exploration and scores of one long round."""
    task = task_of(build)
    many = train(task, 64, 3)
    seen = list(agents.SEEN)
    one = train(task, 192, 1)
    assert seen == agents.SEEN
    assert len(seen) > 5
    assert many.lineage(0)[-1].score == one.lineage(0)[-1].score
    assert digests(many)[0, 3] == digests(one)[0, 1]


def test_a_copy_continues_as_its_donor():
    """With the donor's values, the copy's next state is the donor's, bit by bit."""
    plan = pbt.Plan(exploit=pbt.truncation(0.5), explore=pbt.keep(), interval=64)
    start = [{"lr": 0.01, "gamma": 0.9}, {"lr": 0.0002, "gamma": 0.99}]
    run = pbt.run(task_of(agents.dqn), SPACE, plan=plan, population=2, rounds=3, initial=start, seed=2)
    found = digests(run)
    assert found[0, 1] != found[1, 1]
    assert found[0, 2] == found[1, 2]
    assert found[0, 3] == found[1, 3]


def test_the_replay_buffer_is_kept_by_choice():
    """With it, the files of the buffer are in the state; without it, the next round starts with an empty one."""
    run = train(task_of(agents.dqn), 64, 2)
    buffer = run.load_state(run.lineage(0)[-1])["replay_buffer"]
    assert isinstance(buffer["files"], Folder)
    assert buffer["full"]
    assert {np.load(path).shape[0] for path in buffer["files"].path.iterdir()} == {100}
    other = train(task_of(agents.dqn, replay_buffer=False), 64, 2)
    assert "replay_buffer" not in other.load_state()
    assert digests(other) != digests(run)


def test_statistics_of_normalization_are_part_of_the_state():
    """The running means of a VecNormalize go on counting, and evaluation uses them without changing them."""
    run = train(task_of(agents.normalized, score="eval/mean_reward"), 32, 3)
    counts = [run.load_state(end)["normalization"]["obs"][2] for end in run.lineage(0)[-1:]]
    assert counts == pytest.approx([96 + 3], abs=0.1)


def test_the_series_are_returns_of_episodes():
    """Those of the evaluation, else those of training; the score is their mean."""
    for build, score, count in ((agents.ppo, "eval/mean_reward", 10), (agents.dqn, "rollout/ep_rew_mean", 8)):
        run = train(task_of(build, score=score), 64, 1)
        (event,) = [event for event in run.events if isinstance(event, Reported)]
        assert len(event.series) == count
        assert event.scores[0] == pytest.approx(sum(event.series) / count)


@pytest.mark.slow
def test_processes_train_what_inline_trains():
    """Both executors store the same states."""
    common = {"plan": pbt.Plan(interval=64), "population": 2, "rounds": 2, "seed": 4}
    inline = pbt.run(task_of(agents.dqn), SPACE, **common)
    processes = pbt.run(task_of(agents.dqn), SPACE, placement=pbt.Placement(executor="processes", workers=1), **common)
    assert digests(inline) == digests(processes)


def test_failures_are_of_one_member():
    """An environment that raises, and rewards that are not numbers: one failed member each, with the reason."""
    space = {"lr": pbt.Float(1e-4, 1), "gamma": SPACE["gamma"]}
    initial = [{"lr": rate, "gamma": 0.97} for rate in (0.003, 0.3, 1.0)]
    run = train(task_of(agents.failing), 32, 1, space=space, population=3, initial=initial)
    causes = {failure.member: failure.cause for failure in run.failures()}
    assert causes.keys() == {1, 2}
    assert causes[1] == "exception"
    assert "rate 0.3 breaks the user's environment" in run.failures()[0].message
    assert run.best.member == 0


@pytest.mark.parametrize(
    ("build", "fields", "interval", "message"),
    [
        (agents.ppo, {"score": "eval/mean_rewards"}, 32, r"'eval/mean_rewards'.*eval/mean_reward, rollout/ep_len_mean"),
        (agents.endless, {}, 32, r"'rollout/ep_rew_mean'.*no episode ended"),
        (agents.ppo, {}, 40, r"whole rollouts of 32 environment steps.*got 40.*multiple of 32"),
        (agents.dqn, {}, 30, r"whole rollouts of 4 environment steps.*got 30"),
    ],
)
def test_mistakes_of_a_round_name_the_remedy(build, fields, interval, message):
    """A missing metric, episodes that do not end, and rounds that are no whole number of rollouts."""
    with pytest.raises(pbt.PBTError, match=message):
        train(task_of(build, **fields), interval, 1)


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"bind": {"lr": optimizer("lr")}}, ["'gamma'", "not bound"]),
        ({"bind": {**BIND, "gamma": algorithm("gama")}}, ["'gama'", "'gamma'"]),
        ({"bind": {**BIND, "gamma": algorithm("n_steps")}}, ["'n_steps'", "argument()"]),
        ({"bind": {**BIND, "gamma": algorithm("target_kl")}}, ["'target_kl'", "argument()"]),
        ({"bind": {**BIND, "gamma": attribute("model.gamma")}}, ["'model.gamma'", "algorithm('gamma')"]),
        ({"total_steps": None}, ["lr_schedule", "total_steps"]),
        ({"build": agents.wrong}, ["stable_baselines3", "(Waves)"]),
    ],
)
def test_mistakes_are_found_before_the_start(fields, facts):
    """Nothing is trained; the message is one line with the remedy."""
    with pytest.raises(TaskError) as caught:
        train(task_of(**fields), 32, 1)
    assert all(fact in str(caught.value) for fact in facts)
    assert "\n" not in str(caught.value)
    assert agents.SEEN == []


def test_a_fixed_entropy_coefficient_is_that_of_the_member():
    """SAC keeps a tensor of it, which is set and read back, too."""
    space = {"lr": SPACE["lr"], "coef": pbt.Float(0.01, 1)}
    bind = {"lr": algorithm("learning_rate"), "coef": algorithm("ent_coef")}
    run = train(task_of(fixed_sac, bind=bind), 32, 2, space=space, initial=[{"lr": 0.001, "coef": 0.3}], population=1)
    assert not [entry for entry in run.journal() if entry.kind == "unread"]
    assert COEFFICIENTS[-1] == pytest.approx(0.3)


COEFFICIENTS = []


def fixed_sac(hparams, ctx):
    """A coefficient of 0.2, unless it is changed."""
    model = agents.sac(hparams, ctx)
    model.ent_coef, model.ent_coef_tensor = 0.2, torch.tensor(0.2)
    model.ent_coef_optimizer = model.log_ent_coef = None
    train_ = model.train

    def spied(*args, **kwargs):
        COEFFICIENTS.append(float(model.ent_coef_tensor))
        train_(*args, **kwargs)

    model.train = spied
    return model


def test_argument_is_reported_as_unread():
    """A value that only `build` knows cannot be read back, and the run says so."""
    run = train(task_of(bind={"lr": optimizer("lr"), "gamma": argument()}), 32, 1)
    (unread,) = [entry for entry in run.journal() if entry.kind == "unread"]
    assert "gamma" in str(unread.details)
