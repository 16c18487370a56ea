"""Cases of losses, metrics, schedulers and the options of a task."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam, lr_scheduler

from pbt.pytorch import (
    Data,
    Split,
    accumulate,
    attribute,
    augment,
    batch_size,
    clip_norm,
    ema,
    loss,
    optimizer,
)
from tests.pytorch.vectorized.zoo.cases import NOISE, add, examples, refused, task_of
from tests.pytorch.vectorized.zoo.optimizers import Twin

TWO = ({"lr": 0.05}, {"lr": 0.1}, {"lr": 0.02})


def option(name, word="equal", model=Twin, **options):
    add(f"option_{name}", model, word, **options)


# Losses

WEIGHT = torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64)


def numbers(x):
    return x


def signs(x):
    return (x > 0).to(x.dtype)


def positive(x):
    return x.abs()


def plus_minus(x):
    return torch.where(x[:, 0] > 0, 1.0, -1.0)


def every_class(x):
    return (x > 0).long()


def probabilities(x):
    return x.softmax(1)


def pair(m):
    return lambda outputs, targets: m(outputs[:, 0], outputs[:, 1], targets)


for name, function, target in (
    ("mse", F.mse_loss, numbers), ("l1", F.l1_loss, numbers), ("smooth_l1", F.smooth_l1_loss, numbers),
    ("huber", partial(F.huber_loss, delta=0.5), numbers), ("bce", F.binary_cross_entropy_with_logits, signs),
    ("mse_module", nn.MSELoss(), numbers), ("mse_sum", nn.MSELoss(reduction="sum"), numbers),
    ("bce_weight", nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)), signs),
    ("cross_entropy_weight", nn.CrossEntropyLoss(weight=WEIGHT), None),
    ("cross_entropy_partial", partial(F.cross_entropy, weight=WEIGHT), None),
    ("cross_entropy_sum", partial(F.cross_entropy, reduction="sum"), None),
    ("cross_entropy_smooth", nn.CrossEntropyLoss(label_smoothing=0.2), None),
    ("cross_entropy_probabilities", F.cross_entropy, probabilities),
    ("nll", lambda outputs, targets: F.nll_loss(outputs.log_softmax(1), targets), None),
    ("multi_margin", nn.MultiMarginLoss(), None), ("soft_margin", nn.SoftMarginLoss(), lambda x: x.sign()),
    ("multilabel_margin", nn.MultiLabelMarginLoss(), every_class),
    ("multilabel_soft_margin", nn.MultiLabelSoftMarginLoss(), signs),
    ("kl", lambda outputs, targets: F.kl_div(outputs.log_softmax(1), targets, reduction="batchmean"), probabilities),
    ("poisson", nn.PoissonNLLLoss(), positive), ("gaussian", lambda outputs, targets: F.gaussian_nll_loss(
        outputs, targets, outputs.detach() ** 2 + 1), numbers),
    ("hinge_embedding", lambda outputs, targets: F.hinge_embedding_loss(outputs[:, 0], targets), plus_minus),
    ("cosine", lambda outputs, targets: F.cosine_embedding_loss(outputs, outputs + 1, targets), plus_minus),
    ("ranking", lambda outputs, targets: F.margin_ranking_loss(outputs[:, 0], outputs[:, 1], targets), plus_minus),
    ("triplet", lambda outputs, targets: F.triplet_margin_loss(outputs, targets, targets + 1), numbers),
    ("ctc_like", lambda outputs, targets: (outputs.logsumexp(1) - outputs[:, 0]).mean(), None),
):  # fmt: skip
    option(f"loss_{name}", loss=function, data=partial(examples, target=target), tolerance=1e-8,
           sample=name in {"mse", "cross_entropy_weight"})  # fmt: skip


def focal(outputs, targets, gamma=2.0):
    rows = F.cross_entropy(outputs, targets, reduction="none")
    return ((1 - torch.exp(-rows)) ** gamma * rows).mean()


def branching(outputs, targets):
    value = F.cross_entropy(outputs, targets)
    return value if value.item() > 1.0 else value * 2


def read(outputs, targets, weight=1.0):
    return F.cross_entropy(outputs, targets) * (2.0 if weight > 1 else 1.0)


class Remembering(nn.Module):
    """A loss with a buffer that it changes, which no state holds."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, outputs, targets):
        value = F.cross_entropy(outputs, targets)
        self.mean = 0.9 * self.mean + 0.1 * value.detach()
        return value * (1 + self.mean)


class Calling:
    """A loss that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, outputs, targets):
        self.calls += 1
        return F.cross_entropy(outputs, targets) * (1 + self.calls % 2)


class Center(nn.Module):
    """A loss with its own parameters."""

    def __init__(self):
        super().__init__()
        self.centers = nn.Parameter(torch.zeros(3))

    def forward(self, outputs, targets):
        return (outputs - self.centers).square().mean()


class BoundLoss(nn.Module):
    """A loss with a setting as an attribute."""

    def __init__(self, power=1.0):
        super().__init__()
        self.power = power

    def forward(self, outputs, targets):
        return F.cross_entropy(outputs, targets) ** self.power


def three(name, values, **options):
    bind = {"lr": optimizer("lr"), "a": options.pop("to")}
    return {"bind": bind, "hparams": tuple({"lr": r, "a": v} for r, v in zip((0.05, 0.1, 0.02), values, strict=True))}


class _Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Twin()

    def forward(self, x):
        y = self.inner(x)
        return {"y": y, "z": y.square().mean()}


option("loss_focal_bound", loss=focal, **three("a", (0.5, 2.0, 1.0), to=loss("gamma")), sample=True)
option("loss_smoothing_bound", **three("a", (0.0, 0.2, 0.5), to=loss("label_smoothing")))
option("loss_branching", loss=branching, sample=True)
option("loss_branch_bound", loss=read, **three("a", (0.5, 2.0, 1.0), to=loss("weight")))
option("loss_attribute_bound", loss=BoundLoss(), **three("a", (0.5, 2.0, 1.0), to=loss("power")))
option("loss_beta_bound", loss=nn.SmoothL1Loss(), data=partial(examples, target=numbers),
       **three("a", (0.5, 2.0, 1.0), to=loss("beta")))  # fmt: skip
option("loss_with_changing_buffer", loss=Remembering(), word=refused("loss", "'mean'"), sample=True)
option("loss_with_counter", loss=Calling(), word=refused("loss", "'calls'"))
option("loss_of_dictionary", model=_Named, loss=lambda o, t: F.cross_entropy(o["y"], t) + o["z"])
option("loss_numpy", loss=lambda o, t: F.cross_entropy(o, t) * float(o.detach().numpy().std() + 1))
option("loss_draws", loss=lambda o, t: F.cross_entropy(o + 0.1 * torch.randn_like(o), t), word=NOISE,
       silent=task_of(Twin))  # fmt: skip


# Metrics


def f1(outputs, targets):
    found = outputs.argmax(1)
    return 2.0 * ((found == 1) & (targets == 1)).sum() / ((found == 1).sum() + (targets == 1).sum()).clamp(min=1)


def in_python(outputs, targets):
    return float(outputs.max()) - sum(outputs[0].tolist())


option("metric_f1", metrics={"f1": f1}, score="f1", sample=True)
option("metric_in_python", metrics={"m": in_python}, score="m")
option("metric_numpy", metrics={"m": lambda o, t: o.detach().numpy().std()}, score="m")
option("metric_mean", metrics={"m": lambda o, t: (o - 1).square().mean()}, score="m", means=("m",))
option("metric_changes_targets", metrics={"m": lambda o, t: t.add_(1).double().mean() + o.mean()}, score="m")
option("metric_changes_outputs", metrics={"m": lambda o, t: o.mul_(2).mean(), "n": lambda o, t: o.mean()}, score="n")


# Schedulers


def one_cycle(o):
    return lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=20)


for name, make in (
    ("step", partial(lr_scheduler.StepLR, step_size=3, gamma=0.5)),
    ("multi_step", partial(lr_scheduler.MultiStepLR, milestones=[2, 5], gamma=0.5)),
    ("exponential", partial(lr_scheduler.ExponentialLR, gamma=0.9)),
    ("cosine", partial(lr_scheduler.CosineAnnealingLR, T_max=10)),
    ("warm_restarts", partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=3)),
    ("linear", partial(lr_scheduler.LinearLR, total_iters=5)),
    ("constant", partial(lr_scheduler.ConstantLR, total_iters=3)),
    ("polynomial", partial(lr_scheduler.PolynomialLR, total_iters=10)),
    ("lambda", partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (1 + step))),
    ("multiplicative", partial(lr_scheduler.MultiplicativeLR, lr_lambda=lambda step: 0.9)),
    ("cyclic", partial(lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=3)),
    ("one_cycle", one_cycle),
    ("plateau", partial(lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5, threshold=10.0)),
    ("sequential", lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.9)], [3])),
    ("chained", lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.9)])),
):  # fmt: skip
    option(f"scheduler_{name}", scheduler=make, optimizer=partial(SGD, lr=0.1, momentum=0.9),
           sample=name in {"cosine", "plateau"})  # fmt: skip
option("scheduler_adam", scheduler=partial(lr_scheduler.CosineAnnealingLR, T_max=10), optimizer=Adam)
option("scheduler_bound", scheduler=partial(lr_scheduler.StepLR, step_size=2, gamma=0.5),
       **three("a", (0.5, 0.9, 0.7), to=attribute("scheduler.gamma")))  # fmt: skip


# The options of a task

option("ema", ema=0.9, sample=True)
option("ema_bound", ema=0.9, **three("a", (0.0, 0.5, 0.99), to=ema()))
option("ema_batch_norm", ema=0.9, model=lambda: nn.Sequential(
    nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)))  # fmt: skip
option("ema_adam", ema=0.99, optimizer=Adam, hparams=({"lr": 0.01}, {"lr": 0.02}, {"lr": 0.005}))
option("accumulate", accumulate=2, batch_size=5, sample=True)
option("accumulate_uneven", accumulate=3, batch_size=7)
option("accumulate_bound", batch_size=4, **three("a", (1, 2, 3), to=accumulate()))
option("batch_size_bound", **three("a", (4, 8, 12), to=batch_size()))
option("clip", clip_norm=0.1, sample=True)
option("clip_bound", **three("a", (0.05, 0.5, 5.0), to=clip_norm()))
option("clip_adam_ema", clip_norm=0.1, ema=0.5, optimizer=Adam, hparams=({"lr": 0.01}, {"lr": 0.02}, {"lr": 0.005}))
option("order_shared", order="shared")
option("order_stored", order="stored")
option("drop_last", drop_last=True, batch_size=7)
option("evaluation_of_one", evaluation_batch=1)
option("evaluation_of_all", evaluation_batch=1000)
option("record_every", record_every=2)
option("prepare", prepare=lambda x: x * 0.5 + 1)
option("bf16", precision="bf16", dtype=torch.float32, tolerance=3e-2)


def shifted(x, generator, strength=0.1):
    return x + strength * torch.randn(x.shape, generator=generator)


def shifted_globally(x, generator):
    return x + 0.1 * torch.randn_like(x)


def chosen(x, generator, strength=1.0):
    return x * 2 if strength > 1 else x


option("augment", augment=shifted)
option("augment_bound", augment=shifted, **three("a", (0.0, 0.1, 0.5), to=augment("strength")), sample=True)
option("augment_global", augment=shifted_globally)
option("augment_branch", augment=chosen, **three("a", (0.5, 1.5, 2.0), to=augment("strength")))


class _Buffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Twin()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        return self.inner(x) * self.scale


option("buffer_bound", model=_Buffers, **three("a", (0.5, 1.5, 2.0), to=attribute("model.scale")))


def no_test():
    data = examples()
    return Data(train=data.train, validation=data.validation, test=Split(data.train.inputs, data.train.targets))


option("test_split", data=no_test)


class Empty(nn.Module):
    """Evaluates by its training statistics in both modes."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.norm(x))


option("mixes_examples", model=Empty)
