"""Optimizers for a population; each member has its own settings and its own count of steps.

`Separate` has a torch optimizer per member, on views of its row: it supports any optimizer, with one call per member
and step. `Elementwise` (in `elementwise.py`) runs torch's arithmetic over all rows at once, for networks so small that
a call costs more than its work.
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
"""The state of an optimizer, as in its `state_dict()["state"]`."""


class Stepper(Protocol):
    """The optimizers of all members."""

    def configure(self, groups: Sequence[Sequence[Group]]) -> None:
        """Set each member's settings."""

    def adjust(self, changes: Sequence[Sequence[Group]]) -> None:
        """Change some numbers of each member's settings, as a scheduler does between steps."""

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Step by gradients (members, *shape) in the order of the parameters; None: no gradient."""

    def gather(self, sources: Sequence[int]) -> None:
        """Copy the state of member `sources[i]` to each member i."""

    def load(self, index: int, memory: Memory) -> None:
        """Set the state of one member to a copy of `memory`."""

    def dump(self, index: int) -> Memory:
        """The state of one member; tensors are shared, not copied."""


class Separate:
    """One torch optimizer per member.

    Args:
        make: Returns the task's optimizer of given parameters.
        params: The parameters of all members.
        trained: `requires_grad` of each parameter, which `make` may read.
        shared: Parameters that are not trained and that all members share, by their place among all parameters.
    """

    def __init__(
        self,
        make: Callable[[Any], Optimizer],
        params: Rows,
        trained: Sequence[bool],
        shared: Mapping[int, Tensor] | None = None,
    ) -> None:
        self._stepped = [
            [tensor.detach().requires_grad_(has) for tensor, has in zip(params.row(i).values(), trained, strict=True)]
            for i in range(params.members)
        ]
        """Each member's own parameters."""
        self._params = [_merged(own, shared or {}) for own in self._stepped]
        """All parameters of each member, in their order."""
        self._make = make
        self._optimizers = [make(iter(own)) for own in self._params]
        self._fresh = [set(group) for group in self._optimizers[0].param_groups]
        self._fused: list[FusedAdam | None] = [None] * params.members

    def configure(self, groups: Sequence[Sequence[Group]]) -> None:
        """Set each member's settings."""
        self._fused = [None] * len(groups)
        for i, (params, before) in enumerate(zip(self._params, self._optimizers, strict=True)):
            # Built anew for each round: attributes outside the optimizer's state belong to the previous member.
            self._optimizers[i] = self._make(iter(params))
            self._optimizers[i].state = before.state
        for optimizer, own in zip(self._optimizers, groups, strict=True):
            for group, settings, fresh in zip(optimizer.param_groups, own, self._fresh, strict=True):
                # Entries added by the previous member's optimizer are not this member's.
                for name in group.keys() - fresh - settings.keys():
                    del group[name]
                group.update(settings)

    def adjust(self, changes: Sequence[Sequence[Group]]) -> None:
        """Change some numbers of each member's settings."""
        for i, (optimizer, own) in enumerate(zip(self._optimizers, changes, strict=True)):
            for group, settings in zip(optimizer.param_groups, own, strict=True):
                group.update(settings)
            self._fused[i] = FusedAdam.of(optimizer, self._stepped[i]) if self._fused[i] is not None else None

    def groups(self, index: int) -> list[dict[str, Any]]:
        """A copy of one member's current settings, in which many optimizers keep counters."""
        groups = self._optimizers[index].param_groups
        return [{name: copy.deepcopy(value) for name, value in own.items() if name != "params"} for own in groups]

    def set_mode(self, *, training: bool) -> None:
        """Set training or evaluation mode of optimizers that have modes."""
        set_mode(self._optimizers, training=training)

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Step member by member."""
        present = [place for place, gradient in enumerate(gradients) if gradient is not None]
        split = [gradient.unbind() for gradient in gradients if gradient is not None]
        whole = len(present) == len(gradients)
        for i, (params, optimizer) in enumerate(zip(self._stepped, self._optimizers, strict=True)):
            own = [gradient[i] for gradient in split]
            fused = self._fused[i]
            if fused is not None and whole:
                fused.step(own)
                continue
            if type(optimizer).zero_grad is not Optimizer.zero_grad:
                optimizer.zero_grad(set_to_none=True)
            for param in params:
                param.grad = None
            for place, gradient in zip(present, own, strict=True):
                params[place].grad = gradient
            optimizer.step()
            self._fused[i] = FusedAdam.of(optimizer, params)

    def gather(self, sources: Sequence[int]) -> None:
        """Copy states between members; all are read before one is set, because setting replaces the tensors read.

        Members that keep their state load it too, because torch may load another dtype than it saved.
        """
        for i, memory in enumerate([self.dump(source) for source in sources]):
            self.load(i, memory)

    def load(self, index: int, memory: Memory) -> None:
        """Load a state by the optimizer's `load_state_dict`, which keeps the given tensors and steps them in place."""
        optimizer, self._fused[index] = self._optimizers[index], None
        own = {place: {name: _copied(value) for name, value in kept.items()} for place, kept in memory.items()}
        optimizer.load_state_dict({"state": own, "param_groups": optimizer.state_dict()["param_groups"]})

    def dump(self, index: int) -> Memory:
        """The state in the optimizer's `state_dict`."""
        memory: Memory = self._optimizers[index].state_dict()["state"]
        return memory


class FusedAdam:
    """One member's step by torch's fused Adam kernel.

    A direct call of the kernel that `step` of a fused `Adam` or `AdamW` calls; for a network of a few hundred thousand
    numbers the overhead of `step` equals the time of the kernel.

    Args:
        optimizer: An optimizer that `of` accepts.
        params: Its parameters.
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
        """The fused step of these parameters; None if the optimizer has another kind of step, or has no state yet."""
        if type(optimizer) not in (Adam, AdamW) or len(optimizer.param_groups) != 1 or is_hooked(optimizer):
            return None
        (group,) = optimizer.param_groups
        plain = not any(group[name] for name in ("amsgrad", "capturable", "differentiable"))
        numbers = all(isinstance(number, float) for number in (group["lr"], *group["betas"]))
        trained = [param for param in group["params"] if param.requires_grad]
        same = [id(param) for param in trained] == [id(param) for param in params]
        begun = all(optimizer.state.get(param) for param in params)
        return cls(optimizer, params) if group["fused"] and plain and numbers and same and begun else None

    @torch.no_grad()
    def step(self, gradients: list[Tensor]) -> None:
        """Step; every parameter must have a gradient."""
        params, first, second = self._lists
        torch._foreach_add_(self._steps, 1)
        self._kernel(params, gradients, first, second, [], self._steps, **self._settings)


def _merged(own: Sequence[Tensor], shared: Mapping[int, Tensor]) -> list[Tensor]:
    rest = iter(own)
    return [shared[place] if place in shared else next(rest) for place in range(len(own) + len(shared))]


def is_hooked(optimizer: Optimizer) -> bool:
    """Whether the optimizer's step has hooks or is replaced."""
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
    """Clip each member's gradient to its norm in place, as `torch.nn.utils.clip_grad_norm_` does.

    Args:
        gradients: (members, *shape) each; None: no gradient.
        norms: (members,) in double precision; infinite: the member's gradient is not clipped.
    """
    present = [gradient for gradient in gradients if gradient is not None]
    if not present:
        return
    sizes = [gradient.abs() if gradient.is_complex() else gradient for gradient in present]
    squares = torch.stack([size.flatten(1).square().sum(dim=1) for size in sizes]).sum(dim=0)
    norms = norms.to(squares)
    # An infinite gradient times zero is NaN, as in torch; with an infinite norm the factor is 1.
    factor = torch.where(norms.isinf(), 1.0, (norms / (squares.sqrt() + 1e-6)).clamp(max=1.0))
    for gradient in present:
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
