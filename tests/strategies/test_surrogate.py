"""The Gaussian process: constants of its kernel, what it proposes where that is known, what it leaves alone."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from pbt.core.rng import Rng
from pbt.domains import Float, Int
from pbt.strategies.gains import at_share, share, standardized
from pbt.strategies.surrogate import Kernel, Points, confidence, fit, mixed, propose

NOTHING = Points([], [], [])


def tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def drifting(rows, seed, best=lambda t: 0.1 + 0.8 * t, width=2, options=0):
    """Observations over time of what is best at `best(time)` in the second column, with a little noise."""
    rng = Rng("drifting", seed)
    times = [i / (rows - 1) for i in range(rows)]
    places = [[rng.random() for _ in range(width)] for _ in times]
    gains = [-((place[1] - best(t)) ** 2) + 0.02 * rng.normal() for t, place in zip(times, places, strict=True)]
    kinds = [[rng.below(options)] for _ in times] if options else ()
    return Points(times, places, kinds), standardized(gains)


def proposed(seen, gains, pending=NOTHING, acquisition="variance", **settings):
    width = len(seen.places[0])
    rng = Rng("starts")
    starts = [{column: rng.random() for column in range(1, width)} for _ in range(10)]
    here = Points([1.0], [[0.5] * width], [[0]] if seen.kinds else ())
    return propose(fit(seen, gains, **settings), seen, gains, pending, here, starts, acquisition)


@pytest.mark.parametrize(
    ("kernel", "squared", "gap", "expected"),
    [
        (Kernel(variance=1.0, length=1.0, eps=0.1), 1.0, 1.0, 0.349001),
        (Kernel(variance=1.0, length=0.5, eps=0.2), 0.25, 0.5, 0.573621),
    ],
)
def test_kernel_constants(kernel, squared, gap, expected):
    """The time-varying kernel has the constants of the reference."""
    assert float(kernel(tensor(squared), tensor(gap))) == pytest.approx(expected, abs=1e-6)


def test_mixed_constant():
    """Half the sum and the product of two kernels, mixed."""
    assert mixed(0.5, 0.6, 0.5) == pytest.approx(0.425, abs=1e-12)


def test_kernel_of_categories():
    """Equal choices count as a kernel of 1, others as 0; both fade with time, each at its own rate."""
    kernel = Kernel(variance=3.0, length=1.0, eps=0.0, eps_kinds=0.19, mix=0.5)
    near, faded = math.exp(-0.4), 0.9
    equal, other = (float(kernel(tensor(0.4), tensor(1.0), tensor(same))) for same in (1.0, 0.0))
    assert equal == pytest.approx(3 * (0.25 * (near + faded) + 0.5 * near * faded))
    assert other == pytest.approx(3 * 0.25 * near)


def test_confidence_constants():
    """Nothing below three rows, where the published program takes the root of a negative number."""
    assert [confidence(n) for n in (2, 3, 10, 50, 100, 1000)] == pytest.approx(
        [0, 0.190956, 0.526554, 0.774046, 0.858939, 1.094666], abs=1e-6
    )
    assert confidence(0) == 0


@pytest.mark.parametrize(
    "domain",
    [Float(-1.0, 3.0), Float(1e-4, 10.0, "log"), Float(0.9, 0.9999, "one_minus_log"), Int(1, 9), Int(8, 512, "log")],
)
def test_shares(domain):
    """A share of a range, measured in its scale, and back."""
    assert [at_share(domain, place) for place in (0.0, 1.0, -0.2, 1.2)] == pytest.approx([domain.low, domain.high] * 2)
    for value in (domain.low, domain.sample(Rng("value")), domain.high):
        assert at_share(domain, share(domain, value)) == pytest.approx(value)
        assert 0 <= share(domain, value) <= 1
    assert type(at_share(domain, 0.37)) is type(domain.low)


def test_standardized():
    """Mean 0, deviation 1, no more than two deviations, whatever the magnitude."""
    assert standardized([1.0, 2.0, 3.0]) == pytest.approx([-math.sqrt(1.5), 0, math.sqrt(1.5)])
    assert standardized([5.0, 5.0]) == [0, 0]
    assert max(standardized([0.0] * 99 + [1e300])) == 2
    assert all(map(math.isfinite, standardized([-1e308, 1e308, 0.0])))


def unlikely(kernel, seen, gains):
    """Minus the logarithm of the likelihood, in nats, up to a constant; written without the module's functions."""
    times, places = np.array(seen.times), np.array(seen.places)
    squared = ((places[:, None] - places) ** 2).sum(2)
    gaps = abs(times[:, None] - times) / 2
    near = np.exp(-squared / kernel.length) * (1 - kernel.eps) ** gaps
    if seen.kinds:
        same = (np.array(seen.kinds) == np.array(seen.kinds).T) * (1 - kernel.eps_kinds) ** gaps
        near = (1 - kernel.mix) * (near + same) / 2 + kernel.mix * near * same
    root = np.linalg.cholesky(kernel.variance * near + kernel.noise * np.eye(len(gains)))
    return (np.linalg.solve(root, gains) ** 2).sum() / 2 + np.log(np.diag(root)).sum()


@pytest.mark.parametrize("options", [0, 3])
@pytest.mark.parametrize(("rows", "seed"), [(10, 0), (30, 1), (60, 2)])
def test_fit_is_as_likely_as_by_l_bfgs(rows, seed, options):
    """The fitted kernel is at most 0.05 nats less likely than what SciPy's L-BFGS-B finds from the same start."""
    seen, gains = drifting(rows, seed, options=options)
    names = ("variance", "length", "noise", "eps", "eps_kinds", "mix")[: 6 if options else 4]
    bounds = dict(zip(names, ((1e-2, 1e2), (1e-5, 1.0), (1e-4, 1.0), (0, 0.5), (0, 0.5), (0, 1)), strict=False))
    real = ("eps", "eps_kinds", "mix")

    def kernel_at(point):
        return Kernel(**{name: x if name in real else math.exp(x) for name, x in zip(names, point, strict=True)})

    first = Kernel(eps=0.0 if options else 0.1)
    found = minimize(
        lambda point: unlikely(kernel_at(point), seen, gains),
        [getattr(first, name) if name in real else math.log(getattr(first, name)) for name in names],
        method="L-BFGS-B",
        bounds=[bounds[name] if name in real else tuple(map(math.log, bounds[name])) for name in names],
    )
    assert unlikely(fit(seen, gains, eps=first.eps), seen, gains) < found.fun + 0.05


@pytest.mark.parametrize("seed", range(3))
def test_drifting_optimum(seed):
    """What is best has moved from 0.1 to 0.9: a process that forgets is there, one that does not is in the middle."""
    observed = drifting(150, seed)
    forgetting, remembering = proposed(*observed)[1], proposed(*observed, eps_cap=0.0)[1]
    assert forgetting > 0.75
    assert remembering < 0.7


def test_still_optimum():
    """Where nothing drifts both find it."""
    observed = drifting(150, 0, best=lambda t: 0.3)
    for eps_cap in (0.5, 0.0):
        assert proposed(*observed, eps_cap=eps_cap)[1] == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("acquisition", ["variance", "std"])
def test_pending_is_avoided(acquisition):
    """Where others are about to look there is less to learn, so the next one looks elsewhere."""
    observed = drifting(12, 1)
    first = proposed(*observed, acquisition=acquisition)[1]
    second = proposed(*observed, acquisition=acquisition, pending=Points([1.0] * 3, [[0.5, first]] * 3))[1]
    assert abs(second - first) > 0.02


def test_equal_rows():
    """Rows that are all alike have no unique answer, but one inside the box."""
    seen = Points([0.0] * 30, [[0.5, 0.5]] * 30)
    assert 0 <= proposed(seen, [0.0] * 30)[1] <= 1


def test_categories_are_told_apart():
    """Best is 0.2 with one option and 0.8 with the other; the process answers for the option that it is asked about."""
    rng = Rng("categories")
    kinds = [[rng.below(2)] for _ in range(100)]
    places = [[0.5, rng.random()] for _ in kinds]
    gains = standardized([-((place[1] - (0.2, 0.8)[k]) ** 2) for (k,), place in zip(kinds, places, strict=True)])
    seen = Points([i / 99 for i in range(100)], places, kinds)
    kernel = fit(seen, gains, eps=0.0)
    starts = [{1: rng.random()} for _ in range(10)]
    found = [
        propose(kernel, seen, gains, NOTHING, Points([1.0], [[0.5, 0.5]], [[k]]), starts, "variance")[1] for k in (0, 1)
    ]
    assert found == pytest.approx([0.2, 0.8], abs=0.1)


def test_nothing_else_is_touched():
    """The same bits again, whatever torch's generator, threads and default type are; and all of these as before."""
    observed = drifting(40, 0, width=3, options=2)
    first = proposed(*observed)
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_default_dtype(torch.float16)
    try:
        with torch.inference_mode():
            assert proposed(*observed) == first
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_torch_is_not_loaded_before():
    """A run whose strategy asks no process starts without torch."""
    check = "import sys, pbt.strategies.pb2_mix, pbt.strategies.gpbt_pl; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
