"""Optimizers for a whole population, each member with its own settings and its own count of steps.

Two ways. `Separate`: each member's real torch optimizer, on views of its row: any optimizer, one call per member and
step. `Elementwise` (in `elementwise.py`): torch's arithmetic over all rows at once, for networks so small that a call
costs more than its work.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from pbt.pytorch.modes import set_mode
from pbt.pytorch.vectorized.stacked_tensors import Rows

Group = Mapping[str, Any]
"""An optimizer's settings, as in `param_groups` without the parameters."""
Memory = dict[int, dict[str, Any]]
"""What an optimizer remembers, as in its `state_dict()["state"]`."""


class Stepper(Protocol):
    """Steps all members."""

    def configure(self, groups: Sequence[Sequence[Group]]) -> None:
        """Each member's settings, from now on."""

    def adjust(self, changes: Sequence[Sequence[Group]]) -> None:
        """Some of each member's settings with other numbers, as a scheduler gives them from step to step."""

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """One step; gradients (members, *shape) in the order of the parameters, None where there is none."""

    def gather(self, sources: Sequence[int]) -> None:
        """Give every member what the member at its place in `sources` remembers."""

    def load(self, index: int, memory: Memory) -> None:
        """Make one member remember this; it is copied."""

    def dump(self, index: int) -> Memory:
        """What one member remembers; tensors are shared, not copied."""


class Separate:
    """One torch optimizer per member.

    Args:
        make: The task's optimizer of some parameters.
        params: All members' parameters.
        trained: Which of them have gradients; what makes the optimizer may ask.
    """

    def __init__(self, make: Callable[[Any], Optimizer], params: Rows, trained: Sequence[bool]) -> None:
        self._params = [
            [tensor.detach().requires_grad_(has) for tensor, has in zip(params.row(i).values(), trained, strict=True)]
            for i in range(params.members)
        ]
        self._make = make
        self._optimizers = [make(iter(own)) for own in self._params]
        self._fresh = [set(group) for group in self._optimizers[0].param_groups]
        self._fused: list[FusedAdam | None] = [None] * params.members

    def configure(self, groups: Sequence[Sequence[Group]]) -> None:
        """Each member's settings, from now on."""
        self._fused = [None] * len(groups)
        for i, (params, before) in enumerate(zip(self._params, self._optimizers, strict=True)):
            # Made anew for each round: what an optimizer keeps beside its state belongs to the member before.
            self._optimizers[i] = self._make(iter(params))
            self._optimizers[i].state = before.state
        for optimizer, own in zip(self._optimizers, groups, strict=True):
            for group, settings, fresh in zip(optimizer.param_groups, own, self._fresh, strict=True):
                # What the optimizer of the member before has added since is not this member's.
                for name in group.keys() - fresh - settings.keys():
                    del group[name]
                group.update(settings)

    def adjust(self, changes: Sequence[Sequence[Group]]) -> None:
        """Some settings with other numbers."""
        for i, (optimizer, own) in enumerate(zip(self._optimizers, changes, strict=True)):
            for group, settings in zip(optimizer.param_groups, own, strict=True):
                group.update(settings)
            self._fused[i] = FusedAdam.of(optimizer, self._params[i]) if self._fused[i] is not None else None

    def groups(self, index: int) -> list[dict[str, Any]]:
        """One member's settings as its optimizer has left them: many count in them; copied."""
        groups = self._optimizers[index].param_groups
        return [{name: copy.deepcopy(value) for name, value in own.items() if name != "params"} for own in groups]

    def set_mode(self, *, training: bool) -> None:
        """Training or evaluation, for optimizers that tell them apart."""
        set_mode(self._optimizers, training=training)

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """One member after the other."""
        there = [place for place, gradient in enumerate(gradients) if gradient is not None]
        split = [gradient.unbind() for gradient in gradients if gradient is not None]
        whole = len(there) == len(gradients)
        for i, (params, optimizer) in enumerate(zip(self._params, self._optimizers, strict=True)):
            own = [gradient[i] for gradient in split]
            fused = self._fused[i]
            if fused is not None and whole:
                fused.step(own)
                continue
            for param in params:
                param.grad = None
            for place, gradient in zip(there, own, strict=True):
                params[place].grad = gradient
            optimizer.step()
            self._fused[i] = FusedAdam.of(optimizer, params)

    def gather(self, sources: Sequence[int]) -> None:
        """All is read before one is set; setting puts other tensors in the place of those that were read.

        Those that keep what they have are loaded too, because torch may load another type than it saved.
        """
        for i, memory in enumerate([self.dump(source) for source in sources]):
            self.load(i, memory)

    def load(self, index: int, memory: Memory) -> None:
        """Through the optimizer's own `load_state_dict`, which takes tensors as they are and steps them in place."""
        optimizer, self._fused[index] = self._optimizers[index], None
        own = {place: {name: _copied(value) for name, value in kept.items()} for place, kept in memory.items()}
        optimizer.load_state_dict({"state": own, "param_groups": optimizer.state_dict()["param_groups"]})

    def dump(self, index: int) -> Memory:
        """From the optimizer's own `state_dict`."""
        memory: Memory = self._optimizers[index].state_dict()["state"]
        return memory


class FusedAdam:
    """One member's step by torch's fused Adam kernel.

    It is what `step` of a fused `Adam` or `AdamW` comes to; the way there takes as long as the kernel itself where a
    network has a few hundred thousand numbers.

    Args:
        optimizer: One that `of` accepts.
        params: What it steps.
    """

    def __init__(self, optimizer: Optimizer, params: list[Tensor]) -> None:
        (group,) = optimizer.param_groups
        kept = [optimizer.state[param] for param in params]
        beta1, beta2 = group["betas"]
        self._steps = [own["step"] for own in kept]
        self._lists = params, [own["exp_avg"] for own in kept], [own["exp_avg_sq"] for own in kept]
        self._kernel: Any = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        self._settings = {name: group[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")}
        self._settings |= {"beta1": beta1, "beta2": beta2}

    @classmethod
    def of(cls, optimizer: Optimizer, params: list[Tensor]) -> Self | None:
        """The step of these parameters as the optimizer is now; None: it is another, or has not begun."""
        if type(optimizer) not in (Adam, AdamW) or len(optimizer.param_groups) != 1 or is_hooked(optimizer):
            return None
        (group,) = optimizer.param_groups
        plain = not any(group[name] for name in ("amsgrad", "capturable", "differentiable"))
        numbers = all(isinstance(number, float) for number in (group["lr"], *group["betas"]))
        same = [id(param) for param in group["params"]] == [id(param) for param in params]
        begun = all(optimizer.state.get(param) for param in params)
        return cls(optimizer, params) if group["fused"] and plain and numbers and same and begun else None

    @torch.no_grad()
    def step(self, gradients: list[Tensor]) -> None:
        """One step; there must be a gradient of every parameter."""
        params, first, second = self._lists
        torch._foreach_add_(self._steps, 1)
        self._kernel(params, gradients, first, second, [], self._steps, **self._settings)


def is_hooked(optimizer: Optimizer) -> bool:
    """Whether something else happens when it steps."""
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
        or "step" in vars(optimizer)
    )


def _copied(value: Any) -> Any:
    # A deep copy of a view would copy, and keep, the memory of all members.
    return value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)


@torch.no_grad()
def clip(gradients: Sequence[Tensor | None], norms: Tensor) -> None:
    """Scale each member's gradient down to its norm in place, as `torch.nn.utils.clip_grad_norm_` does.

    Args:
        gradients: (members, *shape) each; None where there is none.
        norms: (members,) in double precision; infinite where a member's gradient is left alone.
    """
    there = [gradient for gradient in gradients if gradient is not None]
    if not there:
        return
    sizes = [gradient.abs() if gradient.is_complex() else gradient for gradient in there]
    squares = torch.stack([size.flatten(1).square().sum(dim=1) for size in sizes]).sum(dim=0)
    norms = norms.to(squares)
    # An infinite gradient times zero is NaN, as there; without a norm nothing is touched.
    factor = torch.where(norms.isinf(), 1.0, (norms / (squares.sqrt() + 1e-6)).clamp(max=1.0))
    for gradient in there:
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
