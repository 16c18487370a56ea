"""Maximization in the unit box by projected BFGS, from several starts at once; PyTorch has none with bounds."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FLAT = 1e-4
"""A slope, per side of the box, at which a search ends."""


def climb(
    objective: Callable[["Tensor"], tuple["Tensor", "Tensor"]], start: "Tensor", steps: int
) -> tuple["Tensor", "Tensor"]:
    """Projected BFGS in the unit box, independently for each row (Nocedal and Wright 2006, chapters 6 and 16.7).

    Every evaluation is a step, or a shorter trial of the last one.

    Args:
        objective: Heights and gradients of points, one row per point.
        start: The starting points, one per row.
        steps: The most evaluations.

    Returns:
        The best point of each row, and its height.
    """
    import torch

    eye = torch.eye(start.shape[1], dtype=start.dtype, device=start.device)
    point, size = start, torch.ones_like(start[:, :1])
    height, gradient = objective(point)
    inverse, fresh = eye.expand(len(start), -1, -1), torch.ones_like(height, dtype=torch.bool)
    for _ in range(steps - 1):
        blocked = ((point <= 0) & (gradient < 0)) | ((point >= 1) & (gradient > 0))
        slope = gradient.masked_fill(blocked, 0.0)
        steepest = slope.abs().amax(1, keepdim=True)
        if float(steepest.max()) < FLAT:
            break
        # Without curvature the first step is a fifth of the box.
        way = torch.where(fresh[:, None], 0.2 * slope / steepest.clamp(min=FLAT), (inverse @ slope[..., None])[..., 0])
        way = way.masked_fill(blocked, 0.0)
        way = way * (0.5 / way.abs().amax(1, keepdim=True).clamp(min=0.5))
        tried = (point + size * way).clamp(0, 1)
        reached, turned = objective(tried)
        moved = tried - point
        higher = reached >= height + 1e-4 * (slope * moved).sum(1)
        bent = (gradient - turned).masked_fill(blocked | (moved == 0), 0.0)
        curved = higher & ((moved * bent).sum(1) > 1e-10 * moved.norm(dim=1) * bent.norm(dim=1))
        inverse = torch.where(curved[:, None, None], _bent(inverse, moved, bent, fresh), inverse)
        # A direction of which not even a thousandth helps is given up.
        lost = ~higher & (size[:, 0] < 1e-3)
        fresh = (fresh & ~curved) | lost
        size = torch.where((higher | lost)[:, None], torch.ones_like(size), 0.3 * size)
        point, gradient = (torch.where(higher[:, None], *pair) for pair in ((tried, point), (turned, gradient)))
        height = torch.where(higher, reached, height)
    return point, height


def _bent(inverse: "Tensor", moved: "Tensor", bent: "Tensor", fresh: "Tensor") -> "Tensor":
    """The update of the inverse curvature by a step and the change of the slope along it."""
    import torch

    eye = torch.eye(moved.shape[1], dtype=moved.dtype, device=moved.device)
    along = (moved * bent).sum(1)[:, None, None]
    along = torch.where(along > 0, along, torch.ones_like(along))
    scale = along / bent.square().sum(1).clamp(min=1e-300)[:, None, None]
    known = torch.where(fresh[:, None, None], scale * eye, inverse)
    rest = eye - moved[..., None] * bent[:, None] / along
    return rest @ known @ rest.mT + moved[..., None] * moved[:, None] / along
