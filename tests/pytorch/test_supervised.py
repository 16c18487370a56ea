"""A supervised task: ordinary training, wherever it is cut, whoever trained before, on whichever executor."""

import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

import pbt
from pbt import Float, Plan, keep, never, truncation
from pbt.core.events import Decided, Failed, Reported
from pbt.core.population import StateRef
from pbt.core.rng import seed_of
from pbt.errors import TaskError
from pbt.executors.base import Failure, Report, RoundTask
from pbt.executors.worker import WorkerSpec
from pbt.pytorch import Data, Noise, Split, argument, key_dropout, loss
from pbt.runs.engine import Observer
from pbt.store.files import StateFiles
from tests.pytorch import tasks as torch_tasks
from tests.pytorch.tasks import BATCH, EXAMPLES, NET, TWO_INPUTS, Witness, make_data, make_net

SEED = 13
HPARAMS = {"lr": 0.05, "p": 0.3, "smoothing": 0.1}
SPACE = {"lr": Float(0.01, 0.5, "log"), "p": Float(0.1, 0.6), "smoothing": Float(0.0, 0.2)}


def worker_of(task):
    return WorkerSpec(task=task, states=StateFiles(None)).open()


def train(worker, rounds, hparams=HPARAMS, member=0, between=lambda: None):
    """Rounds of so many steps, one after another, with something else between them; the last report."""
    report, step, start = None, 0, {"start": None}
    for round_, steps in enumerate(rounds, 1):
        task = RoundTask(member=member, round=round_, **start, hparams=hparams, first_step=step, steps=steps, seed=SEED)
        (report,) = worker.run((task,))
        assert isinstance(report, Report), report
        step += steps
        start = {"start": StateRef(member, round_), "digest": report.stored.digest, "blob": report.stored.blob}
        between()
    return report


def state_of(report):
    return StateFiles(None).get(StateRef(0, 0), report.stored.digest, report.stored.blob)


# Cuts and workers


@pytest.fixture(scope="module")
def whole():
    return train(worker_of(NET), [20])


@pytest.mark.parametrize("rounds", [[5] * 4, [1] * 20, [3, 7, 4, 6], [19, 1]])
def test_cuts_change_nothing(rounds, whole) -> None:
    """Twenty steps give the same weights, statistics, momentum and scores wherever they are cut into rounds."""
    report = train(worker_of(NET), rounds)
    assert report.stored.digest == whole.stored.digest
    assert report.scores == whole.scores


def test_cuts_change_nothing_for_hidden_dropout() -> None:
    """Nor do they for functional dropout, with several inputs and Adam."""
    hparams = {"lr": 0.05, "temperature": 2.0, "momentum": 0.8}
    reports = [train(worker_of(TWO_INPUTS), rounds, hparams) for rounds in ([12], [4] * 3, [1] * 12)]
    assert len({report.stored.digest for report in reports}) == 1


def test_who_was_there_before_changes_nothing(whole) -> None:
    """A worker that trained another member before, with other values, trains this one to the same bits."""
    worker = worker_of(NET)
    other = partial(train, worker, [7], {"lr": 0.5, "p": 0.1, "smoothing": 0.2}, member=1)
    other()
    assert train(worker, [9, 11], between=other).stored.digest == whole.stored.digest


@pytest.mark.parametrize("missing", ["smoothing", "p"])
def test_values_of_another_member_do_not_stay(missing) -> None:
    """A value that one member has and another has not is gone when the other one is trained."""
    fewer = {name: value for name, value in HPARAMS.items() if name != missing}
    alone = train(worker_of(NET), [4, 4], fewer)
    worker = worker_of(NET)
    other = partial(train, worker, [4], member=1)
    assert train(worker, [4, 4], fewer, between=other).stored.digest == alone.stored.digest


def test_members_differ() -> None:
    """Two members begin with other weights and hear other noise; the seed of the run decides both."""
    worker = worker_of(NET)
    reports = [train(worker, [2], member=member) for member in (0, 1)]
    assert reports[0].stored.digest != reports[1].stored.digest


# Ordinary training


def by_hand(model, steps, *, order, before_step=lambda step: None):
    """A plain PyTorch loop over the same batches."""
    data = make_data()
    optimizer = torch.optim.SGD(model.parameters(), lr=HPARAMS["lr"], momentum=0.9)
    batches = [
        batch
        for epoch in range(steps)
        for batch in torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(order(epoch))).split(BATCH)
    ]
    model.train()
    for step, index in enumerate(batches[:steps]):
        before_step(step)
        inputs, targets = data.train.take(index)
        value = functional.cross_entropy(model(*inputs), targets, label_smoothing=HPARAMS["smoothing"])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("order", ["shared", "member"])
def test_a_population_of_one_is_ordinary_training(order) -> None:
    """A population of one ends with the weights of a plain PyTorch loop with the same start, order and dropout."""
    task = replace(NET, augment=None, order=order)
    plan = Plan(exploit=never(), explore=keep(), interval=5)
    run = pbt.run(
        task, SPACE, plan=plan, population=1, rounds=3, seed=SEED, initial=[HPARAMS], placement=pbt.Placement(threads=1)
    )
    torch.manual_seed(seed_of(SEED, "task", "init", 0))
    model, noise = make_net(), Noise()
    for layer in key_dropout(model, noise):
        layer.p = HPARAMS["p"]
    who = () if order == "shared" else (0,)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        by_hand(
            model,
            15,
            order=lambda epoch: seed_of(SEED, "order", *who, epoch),
            before_step=lambda step: noise.at(seed_of(SEED, "task", "noise", 0, step)),
        )
    finally:
        torch.set_num_threads(threads)
    expected, found = model.state_dict(), run.load_state(StateRef(0, 3))["model"]
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# Hand-overs


class Collector(Observer):
    """Takes every state while it is there, and what the next round starts from."""

    def __init__(self):
        self.states, self.handed = {}, {}

    def on_commit(self, engine, events):
        for event in events:
            if isinstance(event, Reported):
                self.states[event.state] = engine.store.load_state(event.state)
                self.handed[event.member, event.round] = event.reported["handed"]


@pytest.mark.parametrize(
    "executor", ["inline", "pool", pytest.param("processes", marks=pytest.mark.slow)], indirect=True
)
def test_hand_overs(executor) -> None:
    """Each round starts from a state with the donor's digest, and trains with the values that were decided.

    The learning rate is looked for in the optimizer itself, as it was stored when the round was over.
    """
    collector = Collector()
    plan = Plan(exploit=truncation(0.4), interval=3)
    run = pbt.run(
        Witness(NET), SPACE, plan=plan, population=5, rounds=4, seed=3,
        placement=pbt.Placement(executor=executor, workers=2, threads=1),
        observers=[collector],
    )  # fmt: skip
    digests = {event.state: event.digest for event in run.events if isinstance(event, Reported)}
    decisions = [event.decision for event in run.events if isinstance(event, Decided)]
    exploits = [decision for decision in decisions if decision.kind == "exploit"]
    assert len(exploits) >= 3
    for decision in decisions:
        assert collector.handed[decision.member, decision.round] == digests[decision.start]
    for decision in exploits:
        assert decision.start == StateRef(decision.donor, decision.round - 1)
        assert decision.hparams["lr"] != run.tree.hparams(decision.donor, decision.round - 1)["lr"]
    assert len(collector.states) == 20
    for (member, round_), state in collector.states.items():
        (group,) = state["optimizer"]["param_groups"]
        assert group["lr"] == run.tree.hparams(member, round_)["lr"]


def test_divergence_is_a_failure() -> None:
    """A member whose loss is no number any more has failed, and goes on as a copy of a healthy one."""
    space = {**SPACE, "lr": Float(1e-3, 1e30, "log", prior=(0.01, 0.1))}
    plan = Plan(exploit=truncation(0.0), explore=keep(), interval=4)
    run = pbt.run(
        NET, space, plan=plan, population=3, rounds=2, seed=1, initial=[{"lr": 1e30, "p": 0.2, "smoothing": 0.0}]
    )
    (failed,) = (event for event in run.events if isinstance(event, Failed))
    assert (failed.member, failed.round, failed.cause) == (0, 1, "score")
    decision = next(event.decision for event in run.events if isinstance(event, Decided))
    assert (decision.member, decision.kind) == (0, "replace")
    assert decision.donor in (1, 2)
    assert (0, 2) in {(event.member, event.round) for event in run.events if isinstance(event, Reported)}


def test_the_caller_is_left_alone() -> None:
    """An inline run moves none of the caller's global generators, and leaves its number of threads."""
    threads = torch.get_num_threads()

    def draws():
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        yield
        yield random.random(), float(np.random.random()), torch.rand(3).tolist()  # noqa: NPY002

    alone, around = draws(), draws()
    next(alone)
    expected = next(alone)
    next(around)
    pbt.run(NET, SPACE, plan=Plan(interval=2), population=2, rounds=2, placement=pbt.Placement(threads=threads + 1))
    assert next(around) == expected
    assert torch.get_num_threads() == threads


# What a batch is


SEEN: list[tuple[torch.Tensor, torch.Tensor]] = []


def spy(inputs, generator):
    changed = torch_tasks.jitter_inputs(inputs, generator)
    SEEN.append((inputs, changed))
    return changed


def batches_of(task, member, rounds):
    SEEN.clear()
    train(worker_of(task), rounds, member=member)
    return list(SEEN)


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_order_of_the_batches() -> None:
    """`shared` shows all members the same batches, `member` each its own, `stored` as they lie there.

    An epoch shows each example once, in another order than the one before unless it is `stored`.
    """
    seen = {
        (order, member): [before for before, _ in batches_of(replace(NET, augment=spy, order=order), member, [8])]
        for order in ("shared", "member", "stored")
        for member in (0, 1)
    }
    assert same(seen["shared", 0], seen["shared", 1])
    assert not same(seen["member", 0], seen["member", 1])
    assert same(seen["stored", 0], make_data().train.inputs.split(BATCH) * 2)
    per_epoch = -(-EXAMPLES // BATCH)
    assert per_epoch == 4
    everything = make_data().train.inputs
    for (order, _), batches in seen.items():
        assert [len(batch) for batch in batches] == [16, 16, 16, 8] * 2
        for epoch in (batches[:4], batches[4:]):
            assert torch.equal(torch.cat(epoch).sort(dim=0).values, everything.sort(dim=0).values)
        assert same(batches[:4], batches[4:]) == (order == "stored")


def test_augmentation_is_keyed() -> None:
    """What augmentation draws belongs to the member and the step: other for each, the same wherever it is cut."""
    task = replace(NET, augment=spy, order="shared")
    whole, cut, other = (batches_of(task, *given) for given in ((0, [6]), (0, [2, 3, 1]), (1, [6])))
    shifts = [[after - before for before, after in batches] for batches in (whole, cut, other)]
    assert same(shifts[0], shifts[1])
    assert not any(torch.equal(a, b) for a, b in zip(shifts[0], shifts[2], strict=True))
    assert not torch.equal(shifts[0][0], shifts[0][1])


def test_several_inputs_and_metrics() -> None:
    """Inputs may be several tensors; the score is the metric that was asked for, and the test split only reported."""
    report = train(worker_of(TWO_INPUTS), [3], {"lr": 0.01, "temperature": 4.0, "momentum": 0.9})
    model = torch_tasks.TwoInputs().eval()
    model.load_state_dict(state_of(report)["model"])
    model.temperature = 4.0
    data = torch_tasks.two_input_data()
    with torch.no_grad():
        expected = model(*data.validation.inputs).mean().item()
    assert report.scores == (pytest.approx(expected, abs=1e-6),)
    assert report.reported["val_mean"] == report.reported["test_mean"] == report.scores[0]
    assert {"train_loss", "train_mean", "val_loss", "test_loss"} <= set(report.reported)


def test_evaluation_batches() -> None:
    """Scores do not depend on the size of the batches they were computed in, the last smaller one counted right."""
    reports = [train(worker_of(replace(NET, evaluation_batch=size)), [4]) for size in (1000, 7, 1)]
    assert len({report.stored.digest for report in reports}) == 1
    for report in reports[1:]:
        assert report.scores == pytest.approx(reports[0].scores, rel=1e-6)


def test_evaluation_without_the_bound_settings() -> None:
    """The reported loss is the plain one, so that members with other settings of it can be compared."""
    report = train(worker_of(NET), [4])
    model = make_net().eval()
    model.load_state_dict(state_of(report)["model"])
    split = make_data().validation
    with torch.no_grad():
        expected = functional.cross_entropy(model(split.inputs), split.targets).item()
    assert report.reported["val_loss"] == pytest.approx(expected, rel=1e-6)


def test_prepare() -> None:
    """`prepare` turns what is stored into what the network takes, in training and in evaluation."""
    plain = train(worker_of(replace(NET, augment=None)), [5])
    prepared = train(worker_of(replace(NET, augment=None, data=doubled_data, prepare=halved)), [5])
    assert prepared.stored.digest == plain.stored.digest
    assert prepared.scores == plain.scores


def doubled_data():
    data = make_data()
    return Data(*(), train=double(data.train), validation=double(data.validation))


def double(split):
    return Split(split.inputs * 2, split.targets)


def halved(inputs):
    return inputs / 2


def test_rows() -> None:
    """With `record_every` the report has the mean loss since the row before, at multiples of it and at the end."""
    task = replace(NET, record_every=4, score="accuracy")
    worker = worker_of(task)
    first, both = train(worker, [6]), train(worker, [6, 7])
    assert [row[0] for row in first.reported["rows"]] == [4, 6]
    assert [row[0] for row in both.reported["rows"]] == [8, 12, 13]
    weights = [2, 4, 1]
    mean = sum(w * row[1] for w, row in zip(weights, both.reported["rows"], strict=True)) / 7
    assert both.reported["train_loss"] == pytest.approx(mean, rel=1e-5)


def test_rows_are_counted_anew_in_each_epoch() -> None:
    """Every epoch has its rows at the same places and one at its end, wherever rounds are cut."""
    per_epoch = -(-EXAMPLES // BATCH)
    worker = worker_of(replace(NET, record_every=3))
    steps = [row[0] for row in train(worker, [2 * per_epoch]).reported["rows"]]
    within = [3, per_epoch]
    assert steps == within + [per_epoch + place for place in within]
    assert [row[0] for row in train(worker, [5, 4]).reported["rows"]] == [7, 2 * per_epoch, 9]


# What is refused


def bad_loss(outputs, targets):
    return functional.cross_entropy(outputs, targets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bind": {"lr": NET.bind["lr"]}}, r"'p' has no effect"),
        ({"loss": bad_loss}, "the loss does not take the arguments bound to it.*label_smoothing"),
        ({"bind": {**NET.bind, "smoothing": loss("smoothing")}}, "the loss does not take"),
        ({"model": partial(torch.nn.Linear, 6, 3)}, "no dropout layer"),
    ],
)
def test_refused_before_the_start(changes, message, tmp_path) -> None:
    """A hyperparameter that would act on nothing is found before anything is written."""
    with pytest.raises(TaskError, match=message):
        pbt.run(replace(NET, **changes), SPACE, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"score": "f1"}, "'f1' is not among the metrics"), ({"batch_size": 0}, "batch sizes must be at least 1")],
)
def test_tasks_that_cannot_be(fields, message) -> None:
    """A task with a score that nothing measures, or an empty batch, is refused."""
    with pytest.raises(TaskError, match=message):
        replace(NET, **fields)


NOTHING = Split(torch.empty(0, 6), torch.empty(0, dtype=torch.long))


def no_validation():
    return Data(train=make_data().train, validation=NOTHING)


def no_training():
    return Data(train=NOTHING, validation=make_data().validation)


def test_nothing_held_out() -> None:
    """Without validation examples nothing is reported of them, and the newest state counts as the best."""
    reports = [train(worker_of(replace(NET, data=no_validation)), rounds) for rounds in ([3], [3, 4])]
    assert [report.scores for report in reports] == [(3.0,), (7.0,)]
    assert not any(name.startswith(("val", "test")) for name in reports[0].reported)


def test_nothing_to_train_on() -> None:
    """Without training examples the task is refused when it is opened."""
    with pytest.raises(TaskError, match="expected examples to train on, found none"):
        worker_of(replace(NET, data=no_training))


def wider_each_time():
    make_data.width = getattr(make_data, "width", 3) + 1
    return torch.nn.Sequential(torch.nn.Linear(6, make_data.width), torch.nn.Dropout(0.5))


def test_a_state_that_does_not_fit() -> None:
    """A network that is built with other shapes each time cannot take a state over: its member fails and says why."""
    task = replace(NET, model=wider_each_time)
    first = train(worker_of(task), [1])
    again = RoundTask(
        member=1, round=2, start=StateRef(0, 1), digest=first.stored.digest, blob=first.stored.blob,
        hparams=HPARAMS, first_step=1, steps=1, seed=SEED,
    )  # fmt: skip
    (outcome,) = worker_of(task).run((again,))
    assert isinstance(outcome, Failure)
    assert outcome.cause == "exception"
    assert "must not change shapes" in outcome.message


def test_values_that_nothing_reads() -> None:
    """`argument()` is refused: nothing in a SupervisedTask reads hparams."""
    with pytest.raises(TaskError, match=r"'mine' has no effect.*batch_size\(\)"):
        replace(NET, bind={**NET.bind, "mine": argument()}).check({**HPARAMS, "mine": 3})
