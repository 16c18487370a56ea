"""Evaluation: the same score in batches of any size, on every executor, of data that nothing changes."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

import pbt
from pbt import Float, Plan, keep, never
from pbt.errors import TaskError
from pbt.pytorch import Split, SupervisedTask, accuracy, optimizer
from pbt.pytorch.evaluation import SplitMetrics
from tests.helpers.sampled import sampled
from tests.pytorch.tasks import EXAMPLES, make_data

EXECUTORS = {
    "inline": {"executor": "inline"},
    "processes": {"executor": "processes", "workers": 2},
    "one program": {"executor": "vectorized", "workers": 1},
    "a program each": {"executor": "vectorized", "workers": 1, "members_per_program": 1},
}
everywhere = pytest.mark.parametrize(
    "executor",
    ["inline", "pool", pytest.param("processes", marks=pytest.mark.slow), "one program", "a program each"],
    indirect=True,
)
DATA = make_data()


def data():
    """The same tensors every time, as a data set that is kept in memory."""
    return DATA


class Net(nn.Module):
    """Shifts its input, in place or not, and mixes a batch or not."""

    def __init__(self, in_place=False, mixing=False, outputs="tensor"):
        super().__init__()
        self.in_place, self.outputs = in_place, outputs
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(8, track_running_stats=False) if mixing else nn.Identity()

    def forward(self, x):
        x = x.sub_(1.0) if self.in_place else x - 1.0
        x = self.last(torch.tanh(self.norm(self.first(x))))
        return {"tensor": x, "tuple": (x, [x[:, 0]]), "dict": {"scores": x, "sum": x.sum(dim=1)}}[self.outputs]


def chain(in_place):
    return nn.Sequential(nn.ReLU(inplace=in_place), nn.Linear(6, 3))


def scores(outputs):
    return outputs if isinstance(outputs, torch.Tensor) else next(iter(outputs.values())) if isinstance(
        outputs, dict) else outputs[0]  # fmt: skip


def weighted(outputs, targets):
    return functional.cross_entropy(scores(outputs), targets, weight=torch.tensor([1.0, 5.0, 0.2]))


def f1(outputs, targets):
    found = scores(outputs).argmax(dim=1) == 1
    return 2 * (found & (targets == 1)).sum() / (found.sum() + (targets == 1).sum()).clamp(min=1)


def one_by_one(outputs, targets):
    """Reads a value, which `vmap` cannot."""
    return torch.tensor(scores(outputs).std().item()) + targets.float().std()


def spoiling(outputs, targets):
    """Changes its targets; reads a value, so that one program computes it for one member after the other."""
    found = (outputs.argmax(dim=1) == targets).float().mean().item()
    targets.zero_()
    return torch.tensor(found)


def spoiling_prepare(x):
    return x.mul_(0.5)


def spoiling_augment(x, generator):
    return x.add_(torch.rand(x.shape, generator=generator))


def spoiling_loss(outputs, targets):
    value = functional.cross_entropy(outputs, targets.clone())
    targets.zero_()
    return value


TASK = SupervisedTask(
    model=Net,
    data=data,
    optimizer=partial(torch.optim.SGD, lr=0.1),
    bind={"lr": optimizer("lr")},
    batch_size=16,
    metrics={"f1": f1, "std": one_by_one},
    score="f1",
    loss=weighted,
)


def history(task, executor="inline"):
    where = EXECUTORS[executor] if isinstance(executor, str) else {"executor": executor}
    run = pbt.run(
        task, {"lr": Float(0.05, 0.5, "log")}, plan=Plan(exploit=never, explore=keep, interval=5), population=3,
        rounds=2, seed=3, placement=pbt.Placement(threads=1, **where),
    )  # fmt: skip
    frame = run.history()
    return {name: list(frame[name]) for name in ("score", "val_loss", *(f"val_{metric}" for metric in task.metrics))}


def close(found, expected):
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=1e-5), name


SPOILING = {
    "network": {"model": partial(Net, True)},
    "in-place layer": {"model": partial(chain, True)},
    "prepare": {"prepare": spoiling_prepare},
    "augment": {"augment": spoiling_augment},
    "metric": {"metrics": {"spoiled": spoiling, "f1": f1}, "means": ("spoiled",)},
    "loss": {"loss": spoiling_loss},
}


@pytest.mark.parametrize("executor", sampled(["inline", "one program", "a program each"], ("inline", "one program")))
@pytest.mark.parametrize("what", SPOILING)
@pytest.mark.parametrize("order", sampled(["stored", "shared"], ("stored",)))
def test_nothing_changes_the_stored_examples(what, executor, order) -> None:
    """A network, `prepare`, `augment`, metric or loss that changes what it is given in place changes a copy."""
    before = [x.clone() for split in (DATA.train, DATA.validation) for x in (split.inputs, split.targets)]
    history(replace(TASK, order=order, evaluation_batch=7, **SPOILING[what]), executor)
    after = [x for split in (DATA.train, DATA.validation) for x in (split.inputs, split.targets)]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


@everywhere
@pytest.mark.parametrize(
    ("in_place", "pure"), [(partial(Net, True), Net), (partial(chain, True), partial(chain, False))]
)
def test_networks_that_change_their_input(executor, in_place, pure) -> None:
    """They have the scores of networks that do not."""
    close(history(replace(TASK, model=in_place, evaluation_batch=7), executor), history(replace(TASK, model=pure)))


@pytest.mark.parametrize("executor", ["one program", "a program each"])
def test_a_metric_that_changes_its_targets(executor) -> None:
    """It changes those of no other member."""
    task = replace(TASK, metrics={"spoiled": spoiling, "f1": f1}, score="spoiled")
    close({"score": history(task, executor)["score"]}, {"score": history(task)["score"]})


@everywhere
@pytest.mark.parametrize("outputs", ["tensor", "tuple", "dict"])
def test_metrics_that_are_no_means(executor, outputs) -> None:
    """F1, a class-weighted loss and the like are those of the whole split, in batches of any size, on any executor."""
    task = replace(TASK, model=partial(Net, outputs=outputs))
    close(history(replace(task, evaluation_batch=7), executor), history(task))


@everywhere
def test_networks_that_mix_a_batch(executor) -> None:
    """Where a network mixes the examples of a batch, all executors have the same batches."""
    task = replace(TASK, model=partial(Net, mixing=True), evaluation_batch=9)
    close(history(task, executor), history(task))


def test_declared_means() -> None:
    """What is declared to be a mean is averaged over batches, weighted by their sizes; nothing else is."""
    sizes = len(DATA.validation)
    found = history(replace(TASK, evaluation_batch=7, metrics={"f1": f1, "size": size}, means=("size",)))
    weights = [7] * (sizes // 7) + [sizes % 7]
    assert found["val_size"] == pytest.approx([sum(w * w for w in weights) / sizes] * 6)
    assert history(replace(TASK, evaluation_batch=7, metrics={"f1": f1, "size": size}))["val_size"] == [sizes] * 6


def size(outputs, targets):
    return torch.tensor(float(len(targets)))


CLASSES = Split(torch.zeros(4, 2), torch.tensor([0, 1, 2, 0]))
NUMBERS = Split(torch.zeros(4, 2), torch.zeros(4))
SOME_IGNORED = Split(torch.zeros(4, 2), torch.tensor([0, 1, -100, 0]))
WEIGHT = torch.ones(3)


@pytest.mark.parametrize(
    ("metric", "split", "known"),
    [
        (accuracy, CLASSES, True),
        (functional.cross_entropy, CLASSES, True),
        (functional.cross_entropy, SOME_IGNORED, False),
        (partial(functional.cross_entropy, label_smoothing=0.1), CLASSES, True),
        (partial(functional.cross_entropy, weight=WEIGHT), CLASSES, False),
        (partial(functional.cross_entropy, ignore_index=0), CLASSES, False),
        (partial(functional.mse_loss, reduction="sum"), NUMBERS, False),
        (functional.mse_loss, NUMBERS, True),
        (nn.CrossEntropyLoss(), CLASSES, True),
        (nn.CrossEntropyLoss(), SOME_IGNORED, False),
        (nn.CrossEntropyLoss(weight=WEIGHT), CLASSES, False),
        (nn.CrossEntropyLoss(ignore_index=2), CLASSES, False),
        (nn.MSELoss(reduction="sum"), NUMBERS, False),
        (nn.HuberLoss(delta=2.0), NUMBERS, True),
        (f1, CLASSES, False),
    ],
)
def test_known_means(metric, split, known) -> None:
    """Torch's losses are known to be means where they are: without class weights, sums or ignored targets."""
    assert ("m" in SplitMetrics.of({"m": metric}, (), split).means) == known
    assert "m" in SplitMetrics.of({"m": metric}, ("m",), split).means


@pytest.mark.parametrize("means", ["loss", ("los",), ("accuracy",)])
def test_means_are_names(means) -> None:
    """Means that name no metric are refused, and so is one name in place of several."""
    with pytest.raises(TaskError, match=r"expected means to be names of metrics \['loss', 'f1', 'std'\], as in"):
        replace(TASK, means=means)


class Sideways(Net):
    def forward(self, x):
        return super().forward(x), self.last.weight.sum()


@everywhere
def test_outputs_that_cannot_be_joined(executor) -> None:
    """Outputs without the examples in front are refused for metrics that are no means, with what to write."""
    task = replace(TASK, model=Sideways, evaluation_batch=7)
    with pytest.raises(
        pbt.PBTError, match=r"a tensor of shape \(\).*means=\(\"loss\",\), or set evaluation_batch to 40"
    ):
        history(task, executor)
    close(history(replace(task, evaluation_batch=40), executor), history(TASK))
    assert len(DATA.train) + len(DATA.validation) == EXAMPLES + 40
