"""Lightning: the laws of members, with a real Trainer."""

import math
from functools import partial

import pytest

pytest.importorskip("lightning")

import torch

import pbt
from pbt.core.events import Reported
from pbt.errors import TaskError
from pbt.executors.seeding import seeded
from pbt.executors.worker import Context
from pbt.pytorch import argument, attribute, dropout, optimizer
from pbt.tasks.lightning import LightningTask
from tests.tasks import lit
from tests.tasks.rules import all_change

pytestmark = pytest.mark.needs("lightning")

SPACE = {"lr": pbt.Float(1e-3, 0.1, "log"), "decay": pbt.Float(1e-4, 0.1, "log")}
BIND = {"lr": optimizer("lr"), "decay": optimizer("weight_decay")}
FIXED = {"exploit": pbt.never(), "explore": pbt.keep()}
INITIAL = [{"lr": 0.02, "decay": 0.01}]


def task_of(build=lit.build, **fields):
    return LightningTask(**{"build": build, "score": "val_loss", "bind": BIND, **fields})


def train(task, interval, rounds, **settings):
    lit.SEEN.clear()
    plan = pbt.Plan(**FIXED, interval=interval)
    common = {"population": 1, "initial": INITIAL, "objective": "minimize", "seed": 5}
    return pbt.run(task, SPACE, plan=plan, rounds=rounds, **{**common, **settings})


def checkpoint(run, member=0):
    return torch.load(run.load_state(run.lineage(member)[-1])["checkpoint"].path, weights_only=True)


def same(one, other):
    """Whether weights, buffers, optimizers and schedulers are equal."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")


def test_every_step_has_the_value_of_the_log():
    """The live optimizer has the logged base rate times what the scheduler makes of it, after every copy and change."""
    lit.SEEN.clear()
    plan = pbt.Plan(exploit=all_change, interval=4)
    run = pbt.run(task_of(), SPACE, plan=plan, population=3, rounds=4, objective="minimize", seed=1)
    assert not run.failures()
    columns = run.history()
    assert len(set(columns["lr"])) > 6
    expected = {
        (member, step): (lr * 0.5 ** (step // 3), decay)
        for member, last, lr, decay in zip(
            columns["member"], columns["step"], columns["lr"], columns["decay"], strict=True
        )
        for step in range(last - 4, last)
    }
    assert len(lit.SEEN) == len(expected) == 48
    for member, step, rate, decay, _ in lit.SEEN:
        assert (rate, decay) == pytest.approx(expected[member, step], rel=1e-9)
    assert "train_loss" in run.curves()["name"]
    assert not [entry for entry in run.journal() if entry.kind == "unread"]


@pytest.mark.parametrize(
    ("schedule", "interval", "settings"),
    [("step", 4, {}), ("epoch", 7, {}), ("plateau", 5, {}), ("step", 3, {"accumulate_grad_batches": 2}),
     ("epoch", 6, {"limit_train_batches": 4, "val_check_interval": 2})],
)  # fmt: skip
def test_rounds_make_no_difference(schedule, interval, settings):
    """Rounds that end within epochs and with them: batches, rates, weights, hooks and scores of one long round."""
    task = task_of(partial(lit.build, schedule=schedule, **settings))
    many = train(task, interval, 4)
    seen = list(lit.SEEN)
    one = train(task, 4 * interval, 1)
    assert seen == lit.SEEN
    assert len({batch for *_, batch in seen}) > 7
    assert many.lineage(0)[-1].score == one.lineage(0)[-1].score
    for part in PARTS:
        assert same(checkpoint(many)[part], checkpoint(one)[part]), part


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.|The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:The 'val_dataloader' does not have many workers|The number of training batches")
def test_rounds_equal_lightning_alone(tmp_path):
    """Three rounds have the weights of one plain `fit` with an optimizer that was built with the member's values."""
    run = train(task_of(lit.in_order), 4, 3)
    ctx = Context(seed=5, member=0, round=1, first_step=0)
    with seeded(ctx.init_key):
        trainer, module, *data = lit.in_order(
            {}, ctx, rate=0.02, decay=0.01, steps=12, logger=False, default_root_dir=tmp_path
        )
    trainer.fit(module, *data)
    assert same(checkpoint(run)["state_dict"]["layers.0.weight"], module.layers[0].weight.detach())
    assert same(checkpoint(run)["optimizer_states"][0]["state"], trainer.optimizers[0].state_dict()["state"])


def test_a_data_module_trains_as_its_loaders_do():
    """Data modules and loaders give the same states."""
    digests = [
        [event.digest for event in train(task_of(build), 5, 2).events if isinstance(event, Reported)]
        for build in (lit.build, lit.with_data_module)
    ]
    assert digests[0] == digests[1]


def test_a_copy_continues_as_its_donor():
    """With the donor's values, the copy's next state is the donor's, bit by bit."""
    plan = pbt.Plan(exploit=pbt.truncation(0.5), explore=pbt.keep(), interval=5)
    start = [{"lr": 0.02, "decay": 0.01}, {"lr": 0.001, "decay": 0.05}]
    run = pbt.run(task_of(), SPACE, plan=plan, population=2, rounds=3, initial=start, objective="minimize")
    digests = {(event.member, event.round): event.digest for event in run.events if isinstance(event, Reported)}
    assert digests[0, 1] != digests[1, 1]
    assert digests[0, 2] == digests[1, 2]
    assert digests[0, 3] == digests[1, 3]


@pytest.mark.slow
def test_processes_train_what_inline_trains():
    """Both executors store the same states."""
    common = {"plan": pbt.Plan(interval=4), "population": 2, "rounds": 2, "objective": "minimize", "seed": 4}
    inline = pbt.run(task_of(), SPACE, **common)
    processes = pbt.run(task_of(), SPACE, placement=pbt.Placement(executor="processes", workers=1), **common)
    one, other = ([event for event in run.events if isinstance(event, Reported)] for run in (inline, processes))
    assert {(e.member, e.round): e.digest for e in one} == {(e.member, e.round): e.digest for e in other}


def test_failures_are_of_one_member():
    """A step that raises, and a score that is not a number: one failed member each, with the reason."""
    space = {"lr": pbt.Float(1e-3, 1), "decay": SPACE["decay"]}
    initial = [{"lr": rate, "decay": 0.01} for rate in (0.02, 0.3, 1.0)]
    run = pbt.run(
        task_of(lit.failing), space, plan=pbt.Plan(**FIXED, interval=2), population=3, rounds=1, initial=initial,
        objective="minimize",
    )  # fmt: skip
    assert {failure.member: failure.cause for failure in run.failures()} == {1: "exception", 2: "score"}
    assert "rate 0.3 breaks the user's step" in run.failures()[0].message
    assert run.best.member == 0


def test_a_missing_metric_names_those_that_there_are():
    """The message has the name, and the logged metrics."""
    run_error = pytest.raises(pbt.PBTError, match=r"'val_acc'.*(train_loss|val_loss)")
    with run_error:
        train(task_of(score="val_acc"), 2, 1)


def test_values_read_by_build_win_over_the_donor():
    """Values that only `build` knows are in effect after a copy, too, where the checkpoint has the donor's."""
    lit.SEEN.clear()
    bind = {"lr": argument(), "decay": argument()}
    plan = pbt.Plan(exploit=all_change, interval=2)
    run = pbt.run(
        task_of(lit.reading, bind=bind), SPACE, plan=plan, population=2, rounds=3, objective="minimize", seed=1
    )
    columns = run.history()
    logged = {
        (m, r): (lr, wd) for m, r, lr, wd in zip(*(columns[n] for n in ("member", "round", "lr", "decay")), strict=True)
    }
    for member, step, rate, decay, _ in lit.SEEN:
        assert (rate, decay) == pytest.approx(logged[member, step // 2 + 1], rel=1e-9)
    assert [entry for entry in run.journal() if entry.kind == "unread"]


def test_attributes_are_set_and_read_back():
    """An attribute of the module and of the trainer have the value of each round."""
    bind = {"lr": attribute("module.factor"), "decay": attribute("trainer.gradient_clip_val")}
    run = train(task_of(bind=bind), 2, 1)
    assert not [entry for entry in run.journal() if entry.kind == "unread"]


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"bind": {"lr": optimizer("lr")}}, ["'decay'", "not bound"]),
        ({"bind": {**BIND, "decay": optimizer("weight_dekay")}}, ["'weight_decay'"]),
        ({"bind": {**BIND, "decay": attribute("module.facter")}}, ["'module.facter'"]),
        ({"build": lit.wrong}, ["(trainer, module, ...)", "(Net)"]),
    ],
)
def test_mistakes_are_found_before_the_start(fields, facts):
    """Nothing is trained; the message is one line with the remedy."""
    with pytest.raises(TaskError) as caught:
        train(task_of(**fields), 2, 1)
    assert all(fact in str(caught.value) for fact in facts)
    assert "\n" not in str(caught.value)
    assert lit.SEEN == []


@pytest.mark.parametrize("fields", [{"build": lit.Net}, {"bind": {"lr": dropout()}}, {"bind": ["lr"]}])
def test_wrong_fields_are_refused(fields):
    """A class as `build`, a binding of another form of task, a list of names."""
    with pytest.raises(TaskError):
        task_of(**fields)


def test_a_trainer_that_stops_early_is_an_error():
    """The round would not have the steps of the log."""
    with pytest.raises(pbt.PBTError, match=r"at step 4, but it stopped at step 2"):
        train(task_of(lit.stopping), 4, 1)


def test_nothing_is_printed_or_left_behind(tmp_path, monkeypatch, capfd):
    """No bars, tables or folders of Lightning's."""
    monkeypatch.chdir(tmp_path)
    run = train(task_of(), 3, 1)
    assert math.isfinite(run.best.score)
    assert list(tmp_path.iterdir()) == []
    assert "GPU" not in "".join(capfd.readouterr())


def test_a_setting_at_zero_in_every_group_takes_effect():
    """An optimizer built without decay, whose default is another value, decays by the hyperparameter."""
    run = train(task_of(lit.without_decay), 2, 2)
    groups = checkpoint(run)["optimizer_states"][0]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [run.best.hparams["decay"]]
