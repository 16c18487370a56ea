"""Hugging Face: the laws of members, with a real Trainer."""

from functools import partial

import pytest

pytest.importorskip("transformers")

from safetensors.torch import load_file

import pbt
from pbt.core.events import Reported
from pbt.errors import TaskError
from pbt.pytorch import argument, attribute, optimizer
from pbt.tasks.transformers import TransformersTask
from tests.tasks import hf
from tests.tasks.rules import all_change

pytestmark = pytest.mark.needs("transformers")

SPACE = {"lr": pbt.Float(1e-4, 0.1, "log"), "decay": pbt.Float(1e-4, 0.1, "log")}
BIND = {"lr": optimizer("lr"), "decay": optimizer("weight_decay")}
FIXED = {"exploit": pbt.never(), "explore": pbt.keep()}
INITIAL = [{"lr": 0.003, "decay": 0.01}]
LINEAR = 60


def task_of(build=hf.build, **fields):
    return TransformersTask(**{"build": build, "score": "eval_loss", "bind": BIND, **fields})


def train(task, interval, rounds, **settings):
    hf.SEEN.clear()
    hf.BATCHES.clear()
    common = {"population": 1, "initial": INITIAL, "objective": "minimize", "seed": 5}
    plan = pbt.Plan(**FIXED, interval=interval)
    return pbt.run(task, SPACE, plan=plan, rounds=rounds, **{**common, **settings})


def checkpoint(run, member=0):
    """The files of the last checkpoint by name."""
    folder = run.load_state(run.lineage(member)[-1])["checkpoint"].path
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def digests(run):
    return {(event.member, event.round): event.digest for event in run.events if isinstance(event, Reported)}


@pytest.mark.slow
def test_every_step_has_the_value_of_the_log():
    """The live optimizer has the logged base rate times the Trainer's linear decay, after every copy and change."""
    hf.SEEN.clear()
    plan = pbt.Plan(exploit=all_change, interval=4)
    run = pbt.run(task_of(), SPACE, plan=plan, population=3, rounds=3, objective="minimize", seed=1)
    assert not run.failures()
    columns = run.history()
    assert len(set(columns["lr"])) > 5
    expected = {
        (member, step): (lr * (1 - step / LINEAR), decay)
        for member, last, lr, decay in zip(
            columns["member"], columns["step"], columns["lr"], columns["decay"], strict=True
        )
        for step in range(last - 4, last)
    }
    assert len(hf.SEEN) == len(expected) == 36
    for member, step, rate, decay in hf.SEEN:
        assert (rate, decay) == pytest.approx(expected[member, step], rel=1e-9)
    assert not [entry for entry in run.journal() if entry.kind == "unread"]
    assert run.best.reported["eval_accuracy"] >= 0
    assert not [name for name in run.best.reported if "runtime" in name]


@pytest.mark.long
@pytest.mark.parametrize(
    ("interval", "model", "settings"),
    [
        pytest.param(5, hf.bert, {}, marks=pytest.mark.slow),
        (4, hf.bert, {"gradient_accumulation_steps": 2, "eval_strategy": "epoch", "lr_scheduler_type": "cosine"}),
        pytest.param(5, hf.lora, {"warmup_steps": 4}, marks=[pytest.mark.needs("peft"), pytest.mark.slow]),
    ],
)
def test_rounds_make_no_difference(interval, model, settings):
    """Rounds that end within epochs and with them: batches, rates, scores and every file of one long round."""
    task = task_of(partial(hf.build, model=model, **settings))
    many = train(task, interval, 3)
    seen, batches = list(hf.SEEN), list(hf.BATCHES)
    one = train(task, 3 * interval, 1)
    assert seen == hf.SEEN
    assert batches == hf.BATCHES
    assert len(set(batches)) > 7
    assert many.lineage(0)[-1].score == one.lineage(0)[-1].score
    ours, theirs = checkpoint(many), checkpoint(one)
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} <= {"trainer_state.json"}
    assert "training_args.bin" not in ours


@pytest.mark.needs("peft")
def test_an_adapter_is_all_that_is_stored():
    """With PEFT the checkpoint has the adapter, not the frozen network."""
    run = train(task_of(partial(hf.build, model=hf.lora)), 2, 1)
    state = run.load_state()
    folder = state["checkpoint"].path
    assert not (folder / "model.safetensors").exists()
    assert all("lora" in name or "classifier" in name for name in load_file(folder / "adapter_model.safetensors"))


def test_a_copy_continues_as_its_donor():
    """With the donor's values, the copy's next state is the donor's, bit by bit."""
    plan = pbt.Plan(exploit=pbt.truncation(0.5), explore=pbt.keep(), interval=5)
    start = [{"lr": 0.003, "decay": 0.01}, {"lr": 0.0001, "decay": 0.05}]
    run = pbt.run(task_of(), SPACE, plan=plan, population=2, rounds=2, initial=start, objective="minimize")
    found = digests(run)
    assert found[0, 1] != found[1, 1]
    assert found[0, 2] == found[1, 2]


@pytest.mark.slow
def test_processes_train_what_inline_trains():
    """Both executors store the same states."""
    common = {"plan": pbt.Plan(interval=4), "population": 2, "rounds": 2, "objective": "minimize", "seed": 4}
    inline = pbt.run(task_of(), SPACE, **common)
    processes = pbt.run(task_of(), SPACE, placement=pbt.Placement(executor="processes", workers=1), **common)
    assert digests(inline) == digests(processes)


@pytest.mark.long
def test_failures_are_of_one_member():
    """A step that raises, and a score that is not a number: one failed member each, with the reason."""
    initial = [{"lr": rate, "decay": 0.01} for rate in (0.003, 0.06, 0.1)]
    run = train(task_of(hf.failing), 2, 1, population=3, initial=initial)
    assert {failure.member: failure.cause for failure in run.failures()} == {1: "exception", 2: "score"}
    assert "rate 0.06 breaks the user's step" in run.failures()[0].message
    assert run.best.member == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"score": "eval_f1"}, r"'eval_f1'.*eval_accuracy"),
        ({"build": partial(hf.build, max_steps=3)}, r"at least 4 steps.*got 3; set max_steps"),
    ],
)
def test_mistakes_of_a_round_name_the_remedy(fields, message):
    """A missing metric names those that there are; too short a Trainer names the argument."""
    with pytest.raises(pbt.PBTError, match=message):
        train(task_of(**fields), 4, 1)


def test_attributes_and_values_of_build():
    """An attribute of the arguments takes effect before the data loader is made; `argument()` is reported as unread."""
    bind = {"lr": argument(), "decay": attribute("args.label_smoothing_factor")}
    run = train(task_of(bind=bind), 2, 1)
    (unread,) = [entry for entry in run.journal() if entry.kind == "unread"]
    assert "lr" in str(unread.details)
    assert "decay" not in str(unread.details)


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"bind": {"lr": optimizer("lr")}}, ["'decay'", "not bound"]),
        ({"bind": {**BIND, "decay": optimizer("weight_dekay")}}, ["'weight_decay'"]),
        ({"build": hf.wrong}, ["transformers.Trainer", "BertForSequenceClassification"]),
    ],
)
def test_mistakes_are_found_before_the_start(fields, facts):
    """Nothing is trained; the message is one line with the remedy."""
    with pytest.raises(TaskError) as caught:
        train(task_of(**fields), 2, 1)
    assert all(fact in str(caught.value) for fact in facts)
    assert "\n" not in str(caught.value)
    assert hf.SEEN == []


def test_nothing_is_printed_or_left_behind(tmp_path, monkeypatch, capfd):
    """No bars, tables or folders of the Trainer's."""
    monkeypatch.chdir(tmp_path)
    train(task_of(), 3, 1)
    assert list(tmp_path.iterdir()) == []
    assert "".join(capfd.readouterr()) == ""
