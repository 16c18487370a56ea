"""Torch's arithmetic of an optimizer step, written once over the rows of all members.

To add an optimizer that treats every number of a network alike: subclass `Elementwise`, say what it remembers, which
settings may differ between members and how it steps, and put it into `ELEMENTWISE`. Until then it runs all the same,
by `Separate`.

Torch's arithmetic to the letter, save for one thing: where momentum is turned on for a network that `RMSprop` trained
without, torch stops with a `KeyError`, and here the momentum begins at zero.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, RMSprop

from pbt.executors.base_values import MARK
from pbt.pytorch.vectorized.optimizers import Group, Memory
from pbt.pytorch.vectorized.stacked_tensors import Rows

_BESIDE = {"betas", "foreach", "fused", "initial_lr", MARK}
_PLAIN = {"maximize": False, "amsgrad": False, "differentiable": False, "capturable": False}
"""Options of torch's optimizers that are not done here."""


class Elementwise(ABC):
    """One step for all members.

    Args:
        params: All members' parameters, of one dtype.
        flat: The same, as one tensor.
        block: Numbers of one kind that are stepped at once; None: all.
    """

    numbers: ClassVar[tuple[str, ...]]
    """Settings that may differ between members; all others must be the same."""
    remembers: ClassVar[tuple[str, ...]]
    """What it may keep of the size of the parameters, by the names in torch's state."""
    counts: ClassVar[bool] = True
    """Whether torch's state has a count of steps."""

    def __init__(self, params: Rows, flat: Tensor, block: int | None = None) -> None:
        self._params = flat
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
        """While rows are stepped: what is kept of them, (rows, numbers)."""
        self.settings: Mapping[str, Any] = {}
        """While rows are stepped, by name: (rows, 1) in double precision for `numbers`, plain values for the others."""
        self.using: Sequence[str] = ()
        """The names in `kept` that these settings use."""
        self._steps = torch.zeros((params.members, 1), dtype=torch.float64, device=flat.device)
        self._there: list[set[str]] = [set() for _ in range(params.members)]
        """The names in `kept` that each member has, of now or of rounds with other settings, as in torch's state."""

    @property
    def rows(self) -> Sequence[Rows]:
        """What is kept of all members."""
        return list(self._rows.values())

    @abstractmethod
    def update(self, p: Tensor, g: Tensor, step: Tensor) -> None:
        """One step of p (rows, numbers) in place, by g, which may be changed; step (rows, 1) counts it."""

    @classmethod
    def used(cls, settings: Mapping[str, Any]) -> Sequence[str]:  # noqa: ARG003
        """What it keeps under one member's settings."""
        return cls.remembers

    @classmethod
    def suits(cls, groups: Sequence[Sequence[Group]]) -> bool:
        """Whether all members' settings are within what is done here."""
        if any(len(own) != 1 for own in groups):
            return False
        flat = [flatten(own[0]) for own in groups]
        common = [{name: value for name, value in own.items() if name not in cls.numbers} for own in flat]
        # Whether there is a momentum decides what is kept.
        same = all(rest == common[0] and bool(own.get("momentum")) == bool(flat[0].get("momentum"))
                   for rest, own in zip(common, flat, strict=True))  # fmt: skip
        plain = all(not common[0].get(name, off) for name, off in _PLAIN.items())
        return same and plain and not any(isinstance(own[name], Tensor) for own in flat for name in cls.numbers)

    @classmethod
    def holds(cls, memory: Memory, params: int) -> bool:
        """Whether this memory of one member has all that is kept here, the same for each of so many parameters."""
        kinds = {(float(kept.get("step", 0)), *sorted(_names(kept) - {"step"})) for kept in memory.values()}
        known = all(_names(kept) <= {"step", *cls.remembers} for kept in memory.values())
        return known and (not memory or (len(memory) == params and len(kinds) == 1))

    def configure(self, groups: Sequence[Sequence[Group]]) -> None:
        """Each member's settings, from now on."""
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
        """What a graph of the step depends on, beside tensors that are changed in place."""
        common = [(name, of) for name, of in self._settings.items() if name not in self.numbers]
        return type(self), list(self.using), common

    def adjust(self, changes: Sequence[Sequence[Group]]) -> None:
        """Some settings with other numbers."""
        self.configure([[{**own[0], **new[0]}] for own, new in zip(self._groups, changes, strict=True)])

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """One step; there must be a gradient of every parameter."""
        for view, gradient in zip(self._gradients.views.values(), gradients, strict=True):
            assert gradient is not None  # noqa: S101 (asked before)
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
        """Note that members have what these settings use."""
        for there in self._there:
            there.update(self.using)

    def gather(self, sources: Sequence[int]) -> None:
        """One gather for each tensor that is kept."""
        for rows in self._rows.values():
            rows.gather(sources)
        self._steps.copy_(self._steps[list(sources)])
        self._there = [set(self._there[source]) for source in sources]

    def load(self, index: int, memory: Memory) -> None:
        """Take torch's state of one member, which must be one that it `holds`; an empty one: before its first step."""
        first = memory.get(0, {})
        self._there[index] = _names(first) - {"step"}
        # Without a count there is still a first step, which sets the momentum instead of adding to it.
        self._steps[index] = float(first["step"]) if self.counts and first else float(bool(self._there[index]))
        for name, rows in self._rows.items():
            for place, view in enumerate(rows.views.values()):
                kept = memory.get(place, {}).get(name)
                view[index].zero_() if kept is None else view[index].copy_(kept)

    def dump(self, index: int) -> Memory:
        """Torch's state of one member."""
        count = float(self._steps[index])
        if not count:
            return {}
        names = [name for name in self.remembers if name in self._there[index]]
        rows = {name: list(self._rows[name].row(index).values()) for name in names}
        # A count for each parameter, which torch would step one by one.
        counts = [{"step": torch.tensor(count)} if self.counts else {} for _ in self._gradients.views]
        return {place: own | {name: kept[place] for name, kept in rows.items()} for place, own in enumerate(counts)}

    def setting(self, name: str) -> Tensor:
        """A setting as the parameters' type; what is computed of settings is so before, as torch does with numbers."""
        value: Tensor = self.settings[name]
        return value.to(self._params.dtype)

    def rest(self, name: str) -> Tensor:
        """One minus a setting."""
        value: Tensor = 1 - self.settings[name]
        return value.to(self._params.dtype)


def _names(kept: Mapping[str, Any]) -> set[str]:
    return {name for name, value in kept.items() if value is not None}


def _like(params: Rows, flat: Tensor) -> tuple[Rows, Tensor]:
    rows = Rows(params.row(0), params.members, str(flat.device))
    assert rows.flat is not None  # noqa: S101 (of one dtype, as the parameters)
    return rows, rows.flat


def flatten(group: Group) -> dict[str, Any]:
    """Settings with `betas` as `beta1` and `beta2`, and without what does not change the result."""
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
        """No buffer without momentum."""
        return cls.remembers if settings["momentum"] else ()

    def update(self, p: Tensor, g: Tensor, step: Tensor) -> None:
        """One step."""
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
        """One step."""
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
        """No buffer without momentum, no mean unless it is centered."""
        momentum = ("momentum_buffer",) if settings["momentum"] else ()
        return ("square_avg", *momentum, *(("grad_avg",) if settings["centered"] else ()))

    def update(self, p: Tensor, g: Tensor, step: Tensor) -> None:  # noqa: ARG002
        """One step."""
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
"""By the optimizer's exact class: a subclass may do something else."""
