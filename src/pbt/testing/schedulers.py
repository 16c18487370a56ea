"""Learning-rate schedulers of every kind in torch, built relative to the rates of their optimizer.

All bounds (`max_lr`, `eta_min`, `min_lrs`, ...) are multiples of the optimizer's rates when the scheduler is built. So
the reference for another learning rate is plain torch with an optimizer built with that rate.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch.optim.lr_scheduler
import torch.optim.swa_utils
from torch.optim import Optimizer
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

BASE = 0.1
"""The default learning rate with which optimizers are built."""

Make = Callable[[Optimizer, int], Any]
"""Makes a scheduler from an optimizer and the total number of steps."""


def shipped() -> set[str]:
    """The names of all schedulers in the installed torch."""
    members = {**vars(torch.optim.lr_scheduler), **vars(torch.optim.swa_utils)}
    return {
        name
        for name, kind in members.items()
        if inspect.isclass(kind)
        and issubclass(kind, lrs.LRScheduler)
        and kind is not lrs.LRScheduler
        and not name.startswith("_")
    }


def kind_of(name: str) -> str:
    """The class name of an entry of `SCHEDULERS`."""
    return name.split(maxsplit=1)[0]


def metric(step: int) -> float:
    """The loss with which `ReduceLROnPlateau` is stepped; it is constant most of the time."""
    return 1.0 / (1 + step // 7)


def advance(scheduler: Any, step: int) -> None:
    """Step a scheduler of any kind."""
    if isinstance(scheduler, lrs.ReduceLROnPlateau):
        scheduler.step(metric(step))
    else:
        scheduler.step()


def _rates(optimizer: Optimizer, factor: float = 1.0) -> list[float]:
    return [factor * group["lr"] for group in optimizer.param_groups]


def _cycled(optimizer: Optimizer) -> bool:
    """Whether the optimizer has a momentum that a scheduler can cycle."""
    return "betas" in optimizer.defaults or bool(optimizer.defaults.get("momentum"))


def _lambda(optimizer: Optimizer, steps: int) -> Any:
    return lrs.LambdaLR(optimizer, [_warm_up(start, steps) for start in range(1, 1 + len(optimizer.param_groups))])


def _warm_up(start: int, steps: int) -> Callable[[int], float]:
    return lambda step: min(1.0, (step + start) / steps)


def _multiplicative(optimizer: Optimizer, steps: int) -> Any:  # noqa: ARG001 (every entry has one signature)
    return lrs.MultiplicativeLR(optimizer, [lambda step: 0.8 + 0.1 * (step % 3)] * len(optimizer.param_groups))


def _cyclic(optimizer: Optimizer, steps: int, cycle: bool = True, mode: Any = "triangular2") -> Any:
    return lrs.CyclicLR(
        optimizer,
        _rates(optimizer, 0.5),
        _rates(optimizer, 2.0),
        step_size_up=max(2, steps // 5),
        mode=mode,
        gamma=0.95,
        cycle_momentum=cycle and _cycled(optimizer),
    )


def _one_cycle(optimizer: Optimizer, steps: int, three: bool = False, cycle: bool = True) -> Any:
    return lrs.OneCycleLR(
        optimizer,
        _rates(optimizer, 2.0),
        total_steps=steps + 2,
        three_phase=three,
        cycle_momentum=cycle and _cycled(optimizer),
    )


def _sequential(optimizer: Optimizer, steps: int) -> Any:
    warm = lrs.LinearLR(optimizer, 0.1, 1.0, total_iters=steps // 3)
    return lrs.SequentialLR(optimizer, [warm, lrs.CosineAnnealingLR(optimizer, steps)], [steps // 3])


def _nested(optimizer: Optimizer, steps: int) -> Any:
    first = lrs.SequentialLR(
        optimizer, [lrs.ConstantLR(optimizer, 0.5, steps // 4), lrs.ExponentialLR(optimizer, 0.9)], [steps // 3]
    )
    return lrs.ChainedScheduler([first, lrs.PolynomialLR(optimizer, steps + 5)])


def _chained(optimizer: Optimizer, steps: int) -> Any:
    return lrs.ChainedScheduler([lrs.LinearLR(optimizer, 0.2, 1.0, steps // 2), lrs.ExponentialLR(optimizer, 0.95)])


SCHEDULERS: Mapping[str, Make] = {
    "LambdaLR": _lambda,
    "MultiplicativeLR": _multiplicative,
    "StepLR": lambda o, n: lrs.StepLR(o, max(1, n // 4), 0.3),
    "MultiStepLR": lambda o, n: lrs.MultiStepLR(o, [n // 4, n // 2], 0.3),
    "ConstantLR": lambda o, n: lrs.ConstantLR(o, 0.3, n // 2),
    "LinearLR": lambda o, n: lrs.LinearLR(o, 0.1, 1.0, n // 2),
    "ExponentialLR": lambda o, _: lrs.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o, n: lrs.PolynomialLR(o, n - 2, 2.0),
    "CosineAnnealingLR": lambda o, n: lrs.CosineAnnealingLR(o, n, eta_min=0.1 * _rates(o)[0]),
    "CosineAnnealingLR to zero and back": lambda o, n: lrs.CosineAnnealingLR(o, n // 2),
    "CosineAnnealingWarmRestarts": lambda o, n: lrs.CosineAnnealingWarmRestarts(
        o, max(1, n // 6), 2, eta_min=0.1 * _rates(o)[0]
    ),
    "ReduceLROnPlateau": lambda o, _: lrs.ReduceLROnPlateau(
        o, factor=0.5, patience=2, min_lr=_rates(o, 0.1), eps=0.0, cooldown=1
    ),
    "SequentialLR": _sequential,
    "ChainedScheduler": _chained,
    "ChainedScheduler of a sequence": _nested,
    "OneCycleLR": _one_cycle,
    "OneCycleLR in three phases": lambda o, n: _one_cycle(o, n, three=True),
    "OneCycleLR without momentum": lambda o, n: _one_cycle(o, n, cycle=False),
    "CyclicLR": _cyclic,
    "CyclicLR exponential": lambda o, n: _cyclic(o, n, cycle=False, mode="exp_range"),
    "SWALR": lambda o, n: SWALR(o, _rates(o, 0.5), anneal_epochs=n // 2),  # type: ignore[arg-type]
}
"""By class name, with a description of the settings if a class has several entries."""
