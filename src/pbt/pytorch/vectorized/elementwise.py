"""Torch's arithmetic of optimizer steps, over the rows of all members.

To add an optimizer that treats every number of a network alike, subclass `Elementwise`, define its state, the settings
that may differ between members and its step, and add it to `ELEMENTWISE`. Other optimizers run by `Separate`.

The arithmetic is exactly torch's, with one exception: if momentum is switched on for a network that `RMSprop` trained
without it, torch raises a `KeyError`, and here the momentum starts at zero.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from pbt.executors.base_values import MARK
from pbt.pytorch.vectorized.optimizers import Group, Memory, is_hooked
from pbt.pytorch.vectorized.stacked_tensors import Rows

_BESIDE = {"betas", "foreach", "fused", "initial_lr", MARK}
_PLAIN = {"maximize": False, "amsgrad": False, "differentiable": False, "capturable": False}
"""Unsupported options of torch's optimizers, with the values that switch them off."""


class Elementwise(ABC):
    """One optimizer step for all members.

    Args:
        params: The parameters of all members, of one dtype.
        flat: The same parameters as one tensor.
        block: Numbers that are stepped at once; None: all.
        places: The numbers of the parameters in torch's optimizer, which may have more that are never stepped.
    """

    numbers: ClassVar[tuple[str, ...]]
    """The settings that may differ between members; all others must be equal."""
    remembers: ClassVar[tuple[str, ...]]
    """The names in torch's state of the tensors that have the parameters' shapes."""
    counts: ClassVar[bool] = True
    """Whether torch's state has a count of steps."""

    def __init__(
        self, params: Rows, flat: Tensor, block: int | None = None, places: Sequence[int] | None = None
    ) -> None:
        self._params = flat
        self._places = range(len(params.views)) if places is None else places
        self._block = len(flat) if block is None else max(1, block // max(1, flat.shape[1]))
        self._gradients, self._gradient = _like(params, flat)
        kept = {name: _like(params, flat) for name in self.remembers}
        self._rows = {name: rows for name, (rows, _) in kept.items()}
        self._kept = {name: tensor for name, (_, tensor) in kept.items()}
        self._groups: Sequence[Sequence[Group]] = ()
        self._settings: dict[str, Any] = {}
        self._numbers: Tensor | None = None
        """The settings that differ between members (settings, members), in double precision."""
        self.kept: Mapping[str, Tensor] = {}
        """The state of the rows in `update`, (rows, numbers) by name."""
        self.settings: Mapping[str, Any] = {}
        """The settings in `update` by name: (rows, 1) in double precision for `numbers`, plain values for the rest."""
        self.using: Sequence[str] = ()
        """The names in `kept` that the current settings use."""
        self._steps = torch.zeros((params.members, 1), dtype=torch.float64, device=flat.device)
        self._present: list[set[str]] = [set() for _ in range(params.members)]
        """The names in each member's state, including those of rounds with other settings, as in torch."""

    @property
    def rows(self) -> Sequence[Rows]:
        """The state of all members."""
        return list(self._rows.values())

    @abstractmethod
    def update(self, p: Tensor, g: Tensor, step: Tensor) -> None:
        """Step p (rows, numbers) in place by the gradient g, which may be changed; step (rows, 1) counts from 1."""

    @classmethod
    def used(cls, settings: Mapping[str, Any]) -> Sequence[str]:  # noqa: ARG003
        """The names of the state that a member's settings use."""
        return cls.remembers

    @classmethod
    def suits(cls, groups: Sequence[Sequence[Group]]) -> bool:
        """Whether all members' settings are supported."""
        if any(len(own) != 1 for own in groups):
            return False
        flat = [flatten(own[0]) for own in groups]
        common = [{name: value for name, value in own.items() if name not in cls.numbers} for own in flat]
        # The state depends on whether momentum is used.
        same = all(rest == common[0] and bool(own.get("momentum")) == bool(flat[0].get("momentum"))
                   for rest, own in zip(common, flat, strict=True))  # fmt: skip
        plain = all(not common[0].get(name, off) for name, off in _PLAIN.items())
        return same and plain and not any(isinstance(own[name], Tensor) for own in flat for name in cls.numbers)

    @classmethod
    def holds(cls, memory: Memory, params: int) -> bool:
        """Whether a member's state is supported: empty, or with equal names and counts for all `params` parameters."""
        kinds = {(float(kept.get("step", 0)), *sorted(_names(kept) - {"step"})) for kept in memory.values()}
        known = all(_names(kept) <= {"step", *cls.remembers} for kept in memory.values())
        return known and (not memory or (len(memory) == params and len(kinds) == 1))

    def configure(self, groups: Sequence[Sequence[Group]]) -> None:
        """Set each member's settings."""
        self._groups = groups
        flat = [flatten(own[0]) for own in groups]
        self.using = self.used(flat[0])
        numbers = torch.tensor([[own[name] for own in flat] for name in self.numbers], dtype=torch.float64)
        if self._numbers is None:
            self._numbers = numbers.to(self._params.device)
        else:
            # In place, because a captured graph reads this tensor.
            self._numbers.copy_(numbers)
        self._settings = {**flat[0], **dict(zip(self.numbers, self._numbers.unsqueeze(2), strict=True))}

    @property
    def signature(self) -> Sequence[Any]:
        """The values that a graph of the step depends on, except tensors changed in place."""
        common = [(name, of) for name, of in self._settings.items() if name not in self.numbers]
        return type(self), list(self.using), common

    def adjust(self, changes: Sequence[Sequence[Group]]) -> None:
        """Change some numbers of each member's settings."""
        self.configure([[{**own[0], **new[0]}] for own, new in zip(self._groups, changes, strict=True)])

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Step; every parameter must have a gradient."""
        for view, gradient in zip(self._gradients.views.values(), gradients, strict=True):
            assert gradient is not None  # noqa: S101 (checked by the caller)
            view.copy_(gradient)
        if self.counts or self.using:
            self._steps.add_(1)
        self.mark_used()
        for start in range(0, len(self._params), self._block):
            rows = slice(start, start + self._block)
            self.kept = {name: tensor[rows] for name, tensor in self._kept.items()}
            self.settings = {**self._settings, **{name: self._settings[name][rows] for name in self.numbers}}
            self.update(self._params[rows], self._gradient[rows], self._steps[rows])

    def mark_used(self) -> None:
        """Record that every member's state has the names that the current settings use."""
        for present in self._present:
            present.update(self.using)

    def gather(self, sources: Sequence[int]) -> None:
        """Copy states between members, by one gather per tensor."""
        for rows in self._rows.values():
            rows.gather(sources)
        self._steps.copy_(self._steps[list(sources)])
        self._present = [set(self._present[source]) for source in sources]

    def load(self, index: int, memory: Memory) -> None:
        """Load torch's state of one member, which `holds` must accept; an empty state precedes the first step."""
        first = memory.get(self._places[0], {})
        self._present[index] = _names(first) - {"step"}
        # Without a count the first step still differs: it sets the momentum instead of adding to it.
        self._steps[index] = float(first["step"]) if self.counts and first else float(bool(self._present[index]))
        for name, rows in self._rows.items():
            for place, view in zip(self._places, rows.views.values(), strict=True):
                kept = memory.get(place, {}).get(name)
                view[index].zero_() if kept is None else view[index].copy_(kept)

    def dump(self, index: int) -> Memory:
        """Torch's state of one member."""
        count = float(self._steps[index])
        if not count:
            return {}
        names = [name for name in self.remembers if name in self._present[index]]
        rows = {name: list(self._rows[name].row(index).values()) for name in names}
        # One count per parameter, as torch increments them separately.
        # Torch's fused kernels count in single precision, whatever the default type.
        dtype = torch.float32 if self._groups and self._groups[index][0].get("fused") else None
        counts = [{"step": torch.tensor(count, dtype=dtype)} if self.counts else {} for _ in self._gradients.views]
        return {
            place: own | {name: kept[i] for name, kept in rows.items()}
            for i, (place, own) in enumerate(zip(self._places, counts, strict=True))
        }

    def setting(self, name: str) -> Tensor:
        """A setting in the parameters' dtype; compute with settings in double precision before, as torch does."""
        value: Tensor = self.settings[name]
        return value.to(self._params.dtype)

    def rest(self, name: str) -> Tensor:
        """One minus a setting, in the parameters' dtype."""
        value: Tensor = 1 - self.settings[name]
        return value.to(self._params.dtype)


def _names(kept: Mapping[str, Any]) -> set[str]:
    return {name for name, value in kept.items() if value is not None}


def _like(params: Rows, flat: Tensor) -> tuple[Rows, Tensor]:
    rows = Rows(params.row(0), params.members, str(flat.device))
    assert rows.flat is not None  # noqa: S101 (of one dtype, as the parameters)
    return rows, rows.flat


def flatten(group: Group) -> dict[str, Any]:
    """Settings with `betas` as `beta1` and `beta2`, without entries that do not change the result."""
    settings = {name: value for name, value in group.items() if name not in _BESIDE}
    for i, beta in enumerate(group.get("betas", ()), 1):
        settings[f"beta{i}"] = beta
    return settings


class ElementwiseSGD(Elementwise):
    """`torch.optim.SGD`: momentum with dampening, Nesterov, weight decay."""

    numbers = ("lr", "momentum", "dampening", "weight_decay")
    remembers = ("momentum_buffer",)
    counts = False

    @classmethod
    def used(cls, settings: Mapping[str, Any]) -> Sequence[str]:
        """The buffer, if there is momentum."""
        return cls.remembers if settings["momentum"] else ()

    def update(self, p: Tensor, g: Tensor, step: Tensor) -> None:
        """Step the rows."""
        g.addcmul_(p, self.setting("weight_decay"))
        if self.using:
            buffer = self.kept["momentum_buffer"]
            later = torch.addcmul(buffer * self.setting("momentum"), g, self.rest("dampening"))
            buffer.copy_(torch.where(step > 1, later, g))
            g = g.addcmul_(buffer, self.setting("momentum")) if self.settings["nesterov"] else buffer
        p.addcmul_(g, self.setting("lr"), value=-1)


class ElementwiseAdam(Elementwise):
    """`torch.optim.Adam` and `AdamW`."""

    numbers = ("lr", "beta1", "beta2", "eps", "weight_decay")
    remembers = ("exp_avg", "exp_avg_sq")

    def update(self, p: Tensor, g: Tensor, step: Tensor) -> None:
        """Step the rows."""
        s, first, second = self.settings, self.kept["exp_avg"], self.kept["exp_avg_sq"]
        if s["decoupled_weight_decay"]:
            p.mul_((1 - s["lr"] * s["weight_decay"]).to(p.dtype))
        else:
            g.addcmul_(p, self.setting("weight_decay"))
        first.lerp_(g, self.rest("beta1").expand_as(g))
        second.mul_(self.setting("beta2")).addcmul_(g * self.rest("beta2"), g)
        correction1, correction2 = (1 - s[name] ** step for name in ("beta1", "beta2"))
        spread = second.sqrt().div_(correction2.sqrt().to(p.dtype)).add_(self.setting("eps"))
        p.addcdiv_(first * (s["lr"] / correction1).to(p.dtype), spread, value=-1)


class ElementwiseRMSprop(Elementwise):
    """`torch.optim.RMSprop`: centered, momentum."""

    numbers = ("lr", "alpha", "eps", "weight_decay", "momentum")
    remembers = ("square_avg", "momentum_buffer", "grad_avg")

    @classmethod
    def used(cls, settings: Mapping[str, Any]) -> Sequence[str]:
        """The squares, the buffer with momentum, and the mean if it is centered."""
        momentum = ("momentum_buffer",) if settings["momentum"] else ()
        return ("square_avg", *momentum, *(("grad_avg",) if settings["centered"] else ()))

    def update(self, p: Tensor, g: Tensor, step: Tensor) -> None:  # noqa: ARG002
        """Step the rows."""
        g.addcmul_(p, self.setting("weight_decay"))
        square = self.kept["square_avg"]
        square.mul_(self.setting("alpha")).addcmul_(g * self.rest("alpha"), g)
        if self.settings["centered"]:
            mean = self.kept["grad_avg"].lerp_(g, self.rest("alpha").expand_as(g))
            spread = square.addcmul(mean, mean, value=-1).sqrt_()
        else:
            spread = square.sqrt()
        change = g.div_(spread.add_(self.setting("eps")))
        if "momentum_buffer" in self.using:
            change = self.kept["momentum_buffer"].mul_(self.setting("momentum")).add_(change)
        p.addcmul_(change, self.setting("lr"), value=-1)


ELEMENTWISE: dict[type[Any], type[Elementwise]] = {
    SGD: ElementwiseSGD,
    Adam: ElementwiseAdam,
    AdamW: ElementwiseAdam,
    RMSprop: ElementwiseRMSprop,
}
"""The rules by the optimizer's exact class, because a subclass may have another step."""


def elementwise_rule(
    optimizer: Optimizer, own: Sequence[Tensor], params: Rows, most: int | None
) -> tuple[type[Elementwise] | None, Sequence[int]]:
    """The equivalent of an optimizer over all rows at once, and the numbers of the parameters in the optimizer.

    None if it does not exist or is not faster. Parameters that are not trained are never stepped.

    Args:
        optimizer: The optimizer of one network.
        own: The parameters of that network that have rows.
        params: The rows of all members.
        most: The most numbers per row for which it is faster; None: any.
    """
    flat, groups = params.flat, optimizer.param_groups
    if flat is None or flat.dtype not in (torch.float32, torch.float64) or len(groups) != 1:
        return None, []
    if most is not None and flat.shape[1] > most:
        return None, []
    places = [place for place, parameter in enumerate(groups[0]["params"]) if parameter.requires_grad]
    every = [id(groups[0]["params"][place]) for place in places] == [id(parameter) for parameter in own]
    return (ELEMENTWISE.get(type(optimizer)) if every and not is_hooked(optimizer) else None), places
