"""The time-varying Gaussian process of PB2 and PB2-Mix, and the maximization of its acquisition function.

The kernel is that of Bogunovic et al. 2016 (arXiv 1601.06650) as used by Parker-Holder et al. for PB2 (2020, arXiv
2002.02518) and, with categories, for PB2-Mix (2021, arXiv 2106.15883). Linear algebra in float64 on one thread,
gradients by autograd, a bounded number of steps: equal rows give equal bits. The caller passes the starting points, so
torch's generator is never used. Torch is imported when the first kernel is fitted.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pbt.strategies.ascent import climb

if TYPE_CHECKING:
    from torch import Tensor

Acquisition = Literal["variance", "std"]

KERNEL_STEPS = 100
"""The most evaluations to fit a kernel."""
POINT_STEPS = 25
"""The most evaluations to find a point."""
FITTED_ROWS = 128
"""The most rows to which a kernel is fitted, evenly spread over time; all 1,000 would take fifty times as long."""
_BOXES: Mapping[str, tuple[float, float]] = {
    "variance": (1e-2, 1e2),
    "length": (1e-5, 1.0),
    "noise": (1e-4, 1.0),
}
"""Bounds of parameters that are fitted in the logarithm. Equal rows with less noise would make the matrix singular."""


class Points(NamedTuple):
    """Inputs of the Gaussian process, one row per observation or candidate."""

    times: Sequence[float]
    places: Sequence[Sequence[float]]
    """The score before the round, and the hyperparameters; each about 0 .. 1."""
    kinds: Sequence[Sequence[int]] = ()
    """The index of the option of each choice; empty for a kernel without categories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The covariance of two observations and their noise; parameters are numbers, or tensors during the fit.

    Without categories: `variance * exp(-|x - x'|^2 / length) * (1 - eps)^(|t - t'| / 2)`. With categories: k1 is the
    same without the variance, k2 the share of equal choices times `(1 - eps_kinds)^(|t - t'| / 2)`, and the kernel is
    `variance * mixed(mix, k1, k2)`.
    """

    variance: Any = 1.0
    length: Any = 1.0
    noise: Any = 0.1
    """Noise variance of a single observation."""
    eps: Any = 0.1
    """How fast the past is forgotten; 0 for never."""
    eps_kinds: Any = 0.0
    mix: Any = 0.5
    """0 for half the sum of both kernels, 1 for their product."""

    def __call__(self, squared: "Tensor", gaps: "Tensor", same: "Tensor | None" = None) -> "Tensor":
        """The covariances, from squared distances, distances in time, and shares of equal choices."""
        near = (gaps * _fading(self.eps) - squared / self.length).exp()
        if same is not None:
            near = mixed(self.mix, near, same * (gaps * _fading(self.eps_kinds)).exp())
        covariance: Tensor = self.variance * near
        return covariance


def _fading(eps: Any) -> Any:
    """The logarithm of the correlation that remains after a unit of time."""
    return (math.log1p(-eps) if isinstance(eps, float) else (-eps).log1p()) / 2


def mixed(mix: Any, k1: Any, k2: Any) -> Any:
    """The combination of two kernels, `(1 - mix) (k1 + k2) / 2 + mix k1 k2`."""
    return (1 - mix) * (k1 + k2) / 2 + mix * k1 * k2


def confidence(rows: int) -> float:
    """The weight of uncertainty after this many rows: the root of `0.2 ln(0.4 rows)`, 0 below three rows."""
    return math.sqrt(max(0.0, 0.2 * math.log(0.4 * rows))) if rows else 0.0


def fit(seen: Points, values: Sequence[float], *, eps: float = 0.1, eps_cap: float = 0.5) -> Kernel:
    """Fit a kernel to observations by maximum likelihood.

    Args:
        seen: The observed points, oldest first.
        values: The observed values, standardized.
        eps: The initial value of `eps`.
        eps_cap: The upper bound of `eps` and `eps_kinds`, below 1; with 0 the kernel never forgets.
    """
    import torch

    rows = min(len(values), FITTED_ROWS)
    chosen = [i * len(values) // rows for i in range(rows)]
    boxes = {**_BOXES, "eps": (0.0, eps_cap)} | ({"eps_kinds": (0.0, eps_cap), "mix": (0.0, 1.0)} if seen.kinds else {})
    with one_thread():
        targets = _tensor([[values[i]] for i in chosen])
        points = tensors(_only(seen, chosen))
        between, eye = _between(points, points), _eye(rows)

        def likelihood(places: "Tensor") -> tuple["Tensor", "Tensor"]:
            with torch.enable_grad():
                places = places.detach().requires_grad_()
                kernels = [_kernel(place, boxes) for place in places]
                covariances = torch.stack([kernel(*between) + kernel.noise * eye for kernel in kernels])
            roots = torch.linalg.cholesky(covariances.detach())
            weights = torch.cholesky_solve(targets.expand(len(places), -1, -1), roots)
            height = -(weights * targets).sum((1, 2)) / 2 - roots.diagonal(dim1=1, dim2=2).log().sum(1)
            # The derivative by the covariances is known; differentiating the factorization would take longer.
            slopes = (weights @ weights.mT - torch.cholesky_inverse(roots)) / 2
            (gradient,) = torch.autograd.grad(covariances, places, grad_outputs=slopes)
            return height, gradient

        # The likelihood often has several maxima: where all is noise, and where little is.
        calm = Kernel(variance=5.0, noise=1e-3, eps=eps_cap / 2, mix=0.0)
        first = [Kernel(eps=min(eps, eps_cap)), calm]
        starts = [[_place(name, getattr(kernel, name), boxes[name]) for name in boxes] for kernel in first]
        found, heights = climb(likelihood, _tensor(starts), KERNEL_STEPS)
        return _kernel(found[int(heights.argmax())].tolist(), boxes)


def _place(name: str, value: float, box: tuple[float, float]) -> float:
    """The position of a kernel parameter in its bounds, 0 .. 1."""
    value, low, high = map(math.log, (value, *box)) if name in _BOXES else (value, *box)
    return (value - low) / (high - low) if high > low else 0.0


def _kernel(places: Any, boxes: Mapping[str, tuple[float, float]]) -> Kernel:
    """The kernel at these positions, numbers or tensors: the inverse of `_place` for all parameters."""
    return Kernel(
        **{
            name: low * (high / low) ** places[i] if name in _BOXES else low + places[i] * (high - low)
            for i, (name, (low, high)) in enumerate(boxes.items())
        }
    )


def propose(
    kernel: Kernel,
    seen: Points,
    values: Sequence[float],
    pending: Points,
    here: Points,
    starts: Sequence[Mapping[int, float]],
    acquisition: Acquisition,
    unsure: Kernel | None = None,
) -> dict[int, float]:
    """The point that maximizes the mean plus weighted uncertainty.

    Args:
        kernel: The fitted kernel.
        seen: The observed points.
        values: The observed values, standardized.
        pending: Points whose values are still unknown; they reduce the uncertainty but not the mean.
        here: One row: the current time, the place to optimize, and its choices.
        starts: The starting points: for each, the values of the columns to optimize, the same columns in all.
        acquisition: The measure of uncertainty: `"variance"` as in the published programs, `"std"` as in the paper.
        unsure: The kernel of the uncertainty; None: `kernel`.

    Returns:
        The best value, 0 .. 1, by column.
    """
    columns = list(starts[0])
    with one_thread():
        worth = acquired((kernel, unsure or kernel), seen, values, pending, acquisition, confidence(len(values)))
        now, place, kinds = tensors(_only(here, [0] * len(starts)))
        first = _tensor([[start[column] for column in columns] for start in starts])
        found, worths = climb(along(worth, now, place, kinds, columns), first, POINT_STEPS)
        return dict(zip(columns, found[int(worths.argmax())].tolist(), strict=True))


Worth = Callable[["Tensor", "Tensor", "Tensor | None"], "Tensor"]
"""The height of candidates: their times, places and choices."""


def acquired(
    kernels: tuple[Kernel, Kernel],
    seen: Points,
    values: Sequence[float],
    pending: Points,
    acquisition: Acquisition,
    weight: float,
) -> Worth:
    """The mean by the first kernel plus weighted uncertainty by the second, as a function of candidates."""
    import torch

    n, both = len(values), tensors(joined(seen, pending))
    kernel, unsure = kernels
    root = torch.linalg.cholesky(unsure(*_between(both, both)) + unsure.noise * _eye(len(both[0])))
    rows, corner = tensors(seen), root[:n, :n]
    if kernel is not unsure:
        corner = torch.linalg.cholesky(kernel(*_between(rows, rows)) + kernel.noise * _eye(n))
    # With one kernel the factor of the observed rows is the upper left corner of the whole.
    weights = torch.cholesky_solve(_tensor([[value] for value in values]), corner)

    def worth(times: "Tensor", places: "Tensor", kinds: "Tensor | None") -> "Tensor":
        cross = unsure(*_between((times, places, kinds), both))
        known = torch.linalg.solve_triangular(root, cross.T, upper=False)
        variance = (unsure.variance - (known**2).sum(0)).clamp(min=1e-12)
        near = cross[:, :n] if kernel is unsure else kernel(*_between((times, places, kinds), rows))
        height: Tensor = (near @ weights)[:, 0] + weight * (variance if acquisition == "variance" else variance.sqrt())
        return height

    return worth


def along(
    worth: Worth, times: "Tensor", places: "Tensor", kinds: "Tensor | None", columns: Sequence[int]
) -> Callable[["Tensor"], tuple["Tensor", "Tensor"]]:
    """The heights and their gradients by these columns of the places."""
    import torch

    def objective(free: "Tensor") -> tuple["Tensor", "Tensor"]:
        with torch.enable_grad():
            free = free.detach().requires_grad_()
            moved = places.clone()
            moved[:, columns] = free
            height = worth(times, moved, kinds)
        (gradient,) = torch.autograd.grad(height, free, grad_outputs=torch.ones_like(height))
        return height.detach(), gradient

    return objective


def _only(points: Points, rows: Sequence[int]) -> Points:
    kinds = [points.kinds[i] for i in rows] if points.kinds else ()
    return Points([points.times[i] for i in rows], [points.places[i] for i in rows], kinds)


def joined(one: Points, other: Points) -> Points:
    """The rows of both."""
    return Points([*one.times, *other.times], [*one.places, *other.places], [*one.kinds, *other.kinds])


_Places = tuple["Tensor", "Tensor", "Tensor | None"]


def tensors(points: Points) -> _Places:
    """The times, places and choices as tensors; None without choices."""
    return _tensor(points.times), _tensor(points.places), _tensor(points.kinds) if points.kinds else None


def _between(one: _Places, other: _Places) -> tuple["Tensor", "Tensor", "Tensor | None"]:
    """Squared distances, distances in time, and shares of equal choices of all pairs."""
    squared = ((one[1] ** 2).sum(1)[:, None] + (other[1] ** 2).sum(1) - 2 * one[1] @ other[1].T).clamp(min=0)
    gaps = (one[0][:, None] - other[0]).abs()
    if one[2] is None or other[2] is None:
        return squared, gaps, None
    same = [(mine[:, None] == theirs).double() for mine, theirs in zip(one[2].T, other[2].T, strict=True)]
    return squared, gaps, sum(same[1:], same[0]) / len(same)


def _tensor(values: Any) -> "Tensor":
    # Explicit, because the user may have changed torch's default device or type.
    import torch

    made: Tensor = torch.tensor(values, dtype=torch.float64, device="cpu")
    return made


def _eye(rows: int) -> "Tensor":
    import torch

    return torch.eye(rows, dtype=torch.float64, device="cpu")


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: floating-point sums depend on the number of threads, and decisions must not."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode(mode=False), torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)
