"""Cases of optimizers: all of `torch.optim` with their options, parameter groups, and users' own."""

from functools import partial

import torch
from torch import nn
from torch.optim import (
    ASGD,
    LBFGS,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
)

from pbt.pytorch import optimizer
from tests.helpers.optimizers import ScheduleFree
from tests.pytorch.vectorized.zoo.cases import NOISE, add, refused, task_of


class Twin(nn.Module):
    """Two layers with a bias, no two gradients of which cancel."""

    def __init__(self, width=5):
        super().__init__()
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))


def rule(name, make, word="equal", scale=1.0, model=Twin, **options):
    """A case of one optimizer; rates are multiplied by `scale`."""
    rates = tuple({"lr": scale * rate} for rate in (0.05, 0.1, 0.02))
    add(f"optim_{name}", model, word, optimizer=make, **({"hparams": rates} | options))


for name, make, scale in (
    ("sgd", SGD, 1),
    ("sgd_momentum_dampening", partial(SGD, momentum=0.8, dampening=0.3, weight_decay=0.01), 1),
    ("sgd_nesterov", partial(SGD, momentum=0.8, nesterov=True), 1),
    ("sgd_maximize", partial(SGD, maximize=True), 0.1),
    ("sgd_foreach", partial(SGD, momentum=0.9, foreach=True), 1),
    ("sgd_fused", partial(SGD, momentum=0.9, fused=True), 1),
    ("sgd_differentiable_off", partial(SGD, differentiable=False, foreach=False), 1),
    ("adam", Adam, 0.1),
    ("adam_amsgrad", partial(Adam, amsgrad=True, weight_decay=0.1), 0.1),
    ("adam_maximize", partial(Adam, maximize=True), 0.1),
    ("adam_fused", partial(Adam, fused=True), 0.1),
    ("adam_foreach", partial(Adam, foreach=True), 0.1),
    ("adam_decoupled", partial(Adam, weight_decay=0.1, decoupled_weight_decay=True), 0.1),
    ("adam_betas", partial(Adam, betas=(0.5, 0.9), eps=1e-4), 0.1),
    ("adam_capturable_off", partial(Adam, capturable=False), 0.1),
    ("adamw", AdamW, 0.1),
    ("adamw_amsgrad_fused", partial(AdamW, amsgrad=True, fused=True), 0.1),
    ("adamw_maximize", partial(AdamW, maximize=True, weight_decay=0.3), 0.1),
    ("rmsprop", RMSprop, 0.1),
    ("rmsprop_centered", partial(RMSprop, centered=True, momentum=0.5, weight_decay=0.01), 0.1),
    ("rmsprop_maximize", partial(RMSprop, maximize=True), 0.1),
    ("adagrad", partial(Adagrad, lr_decay=0.1, initial_accumulator_value=0.1), 1),
    ("adagrad_fused", partial(Adagrad, fused=True), 1),
    ("adadelta", partial(Adadelta, rho=0.8), 10),
    ("adamax", partial(Adamax, weight_decay=0.01), 0.1),
    ("nadam", partial(NAdam, momentum_decay=0.01), 0.1),
    ("nadam_decoupled", partial(NAdam, weight_decay=0.1, decoupled_weight_decay=True), 0.1),
    ("radam", partial(RAdam, weight_decay=0.01), 0.1),
    ("asgd", partial(ASGD, t0=2), 1),
    ("rprop", Rprop, 0.1),
    ("adafactor", Adafactor, 1),
):
    rule(name, make, scale=scale, sample=name in {"sgd_momentum_dampening", "adam", "adam_amsgrad", "nadam", "rprop"})
if hasattr(torch.optim, "Muon"):
    rule("muon", torch.optim.Muon, dtype=torch.float32, tolerance=3e-2,
         model=lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False)))  # fmt: skip
rule("adam_single", Adam, scale=0.1, dtype=torch.float32)
rule("adam_many_numbers", partial(Adam, fused=True), scale=0.01, model=partial(Twin, 2100))
rule("sgd_many_numbers", partial(SGD, momentum=0.9), scale=0.1, model=partial(Twin, 2100))
rule("tensor_rate", lambda params: Adam(params, lr=torch.tensor(0.01), capturable=False, foreach=False), scale=0.1)
rule("lbfgs", LBFGS, refused("by any executor", "LBFGS", "closure", remedy=False), sample=True)
rule("sparse_adam", torch.optim.SparseAdam, refused("by any executor", "SparseAdam", remedy=False))


def grouped(make, by="size", **options):
    def build(params):
        params = list(params)
        if by == "generator":
            return make([{"params": (p for p in params[:2])}, {"params": params[2:], **options}])
        return make([{"params": params[:1], **options}, {"params": params[1:]}])

    return build


rule("groups", grouped(partial(SGD, lr=0.1, momentum=0.9), lr=0.05), sample=True)
rule("groups_adam", grouped(partial(Adam, lr=0.1), weight_decay=0.1), scale=0.1)
rule("groups_generator", grouped(partial(SGD, lr=0.1), "generator", momentum=0.5))
rule("groups_one_bound", grouped(partial(SGD, lr=0.1), lr=0.05), bind={"lr": optimizer("lr", group=1)})
rule("groups_at_zero", grouped(partial(SGD, lr=0.1), lr=0.0))
rule("part_of_parameters", lambda params: SGD(list(params)[:2], lr=0.1))
rule("parameters_reversed", lambda params: Adam(list(params)[::-1], lr=0.01), scale=0.1)
rule("trained_only", lambda params: SGD([p for p in params if p.dim() > 1], lr=0.1))
rule("bound_betas", Adam, bind={"lr": optimizer("lr"), "b": optimizer("betas", index=0)},
     hparams=({"lr": 0.01, "b": 0.9}, {"lr": 0.02, "b": 0.5}, {"lr": 0.005, "b": 0.0}))  # fmt: skip
rule("bound_momentum", SGD, bind={"lr": optimizer("lr"), "m": optimizer("momentum")},
     hparams=({"lr": 0.1, "m": 0.0}, {"lr": 0.1, "m": 0.9}, {"lr": 0.05, "m": 0.5}), sample=True)  # fmt: skip
rule("bound_decay", AdamW, bind={"lr": optimizer("lr"), "d": optimizer("weight_decay")},
     hparams=({"lr": 0.01, "d": 0.0}, {"lr": 0.02, "d": 0.5}, {"lr": 0.005, "d": 0.1}))  # fmt: skip


class Counts(torch.optim.Optimizer):
    """Keeps a count in its groups."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr, "k": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] += 1
            for p in group["params"]:
                p.add_(p.grad, alpha=-group["lr"] / group["k"] ** 0.5)


class Estimates(Counts):
    """Keeps a tensor and a nested value in its groups."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["size"] = 0.9 * group.get("size", torch.ones(())) + sum(p.grad.norm() for p in group["params"])
            group.setdefault("seen", {"n": []})["n"].append(float(group["size"]) < 1e9)
        super().step()


class Remembers(Counts):
    """Keeps a count as an attribute of itself, which starts anew with each round."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        self.calls = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.calls += 1
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad, alpha=-group["lr"] / self.calls)


class StateOfOwn(Counts):
    """Keeps state under a key that is not a parameter."""

    @torch.no_grad()
    def step(self, closure=None):
        self.state["shared"] = {"n": self.state.get("shared", {}).get("n", 0) + 1}
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad, alpha=-group["lr"] / self.state["shared"]["n"])


class Centralized(SGD):
    """A subclass with another step."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.dim() > 1:
                    p.grad -= p.grad.mean(1, keepdim=True)
        return super().step(closure)


class LowMemory(Adam):
    """Another default and nothing else."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, lr=lr, betas=(0.8, 0.95))


class Lookahead(torch.optim.Optimizer):
    """Wraps another optimizer."""

    def __init__(self, params, lr=0.1):
        params = list(params)
        super().__init__(params, {"lr": lr})
        self.inner = SGD(params, lr=lr)
        self.slow = [p.detach().clone() for p in params]

    @torch.no_grad()
    def step(self, closure=None):
        self.inner.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        self.inner.step()
        for slow, p in zip(self.slow, self.inner.param_groups[0]["params"], strict=True):
            slow.lerp_(p, 0.5)
            p.copy_(slow)


class NeedsClosure(Counts):
    """Calls its closure."""

    def step(self, closure):
        closure()
        super().step()


class NoisySGD(SGD):
    """Draws from the global generator."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(torch.randn_like(p), alpha=0.01 * group["lr"])


class Sam(SGD):
    """Replaces `zero_grad`, and reads gradients by name."""

    def zero_grad(self, set_to_none=True):
        super().zero_grad(set_to_none)
        self.zeroed = getattr(self, "zeroed", 0) + 1

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad.mul_(1 + 0.1 * getattr(self, "zeroed", 0))
        return super().step(closure)


def with_step_hook(params):
    made = SGD(params, lr=0.1)
    made.register_step_pre_hook(_halve)
    return made


def _halve(rule, *_):
    for group in rule.param_groups:
        for p in group["params"]:
            p.grad.mul_(0.5)


rule("own_counter_in_groups", Counts, sample=True)
rule("own_estimates_in_groups", Estimates)
rule("own_counter_in_attribute", Remembers)
rule("own_shared_state", StateOfOwn)
rule("own_subclass", Centralized)
rule("own_defaults", LowMemory, scale=0.1)
rule("own_wrapper", Lookahead, refused("optimizer's 'slow", "depends on the seed"))
rule("own_closure", NeedsClosure, refused("by any executor", "closure", remedy=False))


class QuietSGD(SGD):
    """The same without draws."""


rule("own_draws", NoisySGD, NOISE, silent=task_of(Twin, optimizer=QuietSGD))
rule("own_zero_grad", Sam)
rule("step_hook", with_step_hook)
rule("schedule_free", ScheduleFree, sample=True)
