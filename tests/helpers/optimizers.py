"""Optimizers unlike those of torch, for executors that must support any optimizer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class ScheduleFree(Optimizer):
    """SGD without a schedule (Defazio et al. 2024, arXiv:2405.15682), reduced to its core.

    It counts steps in its parameter groups, and uses one set of weights in training and another, their average, in
    evaluation; `train()` and `eval()` switch between them.

    Args:
        params: The parameters to train.
        lr: The learning rate.
        beta: The share of the average in the training weights.
    """

    def __init__(self, params: Any, lr: float = 0.1, beta: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "k": 0, "training": False})

    @torch.no_grad()
    def train(self) -> None:
        """Switch to the training weights."""
        self._turn(True, lambda beta: 1 - beta)

    @torch.no_grad()
    def eval(self) -> None:
        """Switch to the average."""
        self._turn(False, lambda beta: 1 - 1 / beta)

    def _turn(self, training: bool, weight: Callable[[float], float]) -> None:
        for group in self.param_groups:
            for param in group["params"] if group["training"] != training else ():
                if "z" in self.state[param]:
                    param.lerp_(self.state[param]["z"], weight(group["beta"]))
            group["training"] = training

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step.

        Raises:
            RuntimeError: The optimizer is in evaluation mode.
        """
        for group in self.param_groups:
            if not group["training"]:
                raise RuntimeError("call train() of the optimizer before step()")
            group["k"] += 1
            for param in group["params"]:
                if param.grad is not None:
                    self._step(param, param.grad, group)

    def _step(self, param: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        lr, share = group["lr"], 1 / group["k"]
        z = self.state[param].setdefault("z", param.clone())
        param.lerp_(z, share).add_(gradient, alpha=lr * (group["beta"] * (1 - share) - 1))
        z.sub_(gradient, alpha=lr)
