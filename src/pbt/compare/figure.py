"""A comparison as one figure: the results of each plan on every seed, and the differences from the first plan."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pbt.compare.results import Comparison, PlanResult
from pbt.compare.sentences import verdict
from pbt.compare.statistics import Paired, Summary
from pbt.report.matplotlib_figures.common import Drawing, isolated_style, scaled, sheet
from pbt.report.palette import OTHERS, POPULATION, WINNER
from pbt.text import count, number, printable

BETTER, WORSE, UNKNOWN, FIRST = POPULATION, WINNER, OTHERS, "#3c4248"
LOOKS = {"better": (BETTER, "D"), "worse": (WORSE, "s"), "not shown": (UNKNOWN, "o"), "same": (UNKNOWN, "o")}
"""Color and marker by verdict; the shape repeats the meaning of the color."""
_ABOVE, _SPREAD, _BELOW = 0.2, 0.13, 0.1
"""In row heights: the center of the dots above the row, their spread, and the marker below the row."""
_WIDE = 20
"""The ratio of the largest value to the small ones above which the axis is logarithmic."""
_TICKS = 6
"""The most ticks of a logarithmic axis."""


@isolated_style
def plot_comparison(found: Comparison) -> Drawing:
    """A dot per seed and a marker for the interquartile mean with its interval; beside them the paired differences."""
    shown = [result for result in found.plans if result.summary is not None]
    pairs = [result for result in shown if result.paired is not None]
    figure, axes = sheet(1.75 + 0.52 * len(shown), 1, 2 if pairs else 1, sharey=True)
    figure.set_facecolor("white")
    left = axes[0][0]
    for row, result in enumerate(shown):
        _reached(left, row, result, _look(found, result))
    _name_plans(left, shown)
    values = [value for result in shown for value in result.values.values()]
    wide = _is_wide(values)
    scale = _fit(left, values, _ends([result.summary for result in shown]), wide=wide)
    direction = "lower" if found.minimize else "higher"
    left.set_xlabel(f"{printable(found.metric)} ({direction} is better{scale})")
    left.set_title("Results by plan", loc="left")
    if pairs:
        _differences(axes[0][1], found, shown, wide=wide)
    _legend(figure, found, shown)
    size = f"{count(len(found.seeds), 'seed')} · {found.population} members, {found.rounds} rounds"
    figure.suptitle(f"{printable(found.task)} · {size}", x=0.01, ha="left", fontsize=10, color="#555555")
    return figure


def _look(found: Comparison, result: PlanResult) -> tuple[str, str]:
    return (FIRST, "D") if result.paired is None else LOOKS[verdict(found, result.paired)]


def _reached(axes: Any, row: int, result: PlanResult, look: tuple[str, str]) -> None:
    if result.summary is not None:
        whole = result.summary
        _dots(axes, row, list(result.values.values()), look[0])
        _mark(axes, row, (whole.low, whole.iqm, whole.high), look)


def _differences(axes: Any, found: Comparison, shown: Sequence[PlanResult], *, wide: bool) -> None:
    axes.axvline(0, color=FIRST, linewidth=1.1, zorder=1)
    for row, result in enumerate(shown):
        pair = result.paired
        if pair is not None:
            look = LOOKS[verdict(found, pair)]
            _dots(axes, row, pair.differences, look[0])
            _mark(axes, row, (pair.low, pair.iqm, pair.high), look)
    values = [value for result in shown if result.paired for value in result.paired.differences]
    scale = _fit(axes, [0.0, *values], _ends([result.paired for result in shown]), wide=wide)
    axes.tick_params(left=False)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    side = "left" if found.minimize else "right"
    axes.set_xlabel(f"difference per seed ({side} is better{scale})")
    axes.set_title(f"Difference from {printable(shown[0].plan)}", loc="left")


def _dots(axes: Any, row: int, values: Sequence[float], color: str) -> None:
    axes.scatter(values, row - _ABOVE + _swarm(values), s=17, color=color, alpha=0.5, linewidths=0, zorder=2)


def _mark(axes: Any, row: int, at: tuple[float, float, float], look: tuple[str, str]) -> None:
    low, middle, high = at
    height = row + _BELOW
    if math.isfinite(high - low):
        axes.plot([low, high], [height, height], color=look[0], linewidth=3, solid_capstyle="round", zorder=4)
    axes.plot([middle], [height], look[1], color=look[0], markeredgecolor="white", markersize=7.5, zorder=5)


def _swarm(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Deterministic heights that keep dots of similar values apart."""
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64)
    # Multiples of the golden ratio fill the height evenly for any number of dots.
    return _SPREAD * (2 * ((order + 0.5) * 0.6180339887 % 1) - 1)


def _name_plans(axes: Any, shown: Sequence[PlanResult]) -> None:
    axes.set_yticks(range(len(shown)), [printable(result.plan) for result in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _is_wide(values: Sequence[float]) -> bool:
    """Whether most values would coincide on a linear axis."""
    low, high = _sizes(values)
    return high > _WIDE * low


def _sizes(values: Sequence[float]) -> tuple[float, float]:
    """The 10 % quantile and the maximum of the absolute values other than 0."""
    sizes = np.abs(np.array(values)[np.array(values) != 0])
    return (float(np.quantile(sizes, 0.1)), float(sizes.max())) if len(sizes) else (1.0, 1.0)


def _ends(shown: Sequence[Summary | Paired | None]) -> list[float]:
    """The ends of the intervals, which an axis has to contain."""
    ends = [end for one in shown if one is not None for end in (one.low, one.high)]
    return [end for end in ends if math.isfinite(end)]


def _fit(axes: Any, values: Sequence[float], ends: Sequence[float], *, wide: bool) -> str:
    """Set up a linear axis, or one that is logarithmic away from 0; returns `, log` for the latter."""
    whole = [*values, *ends]
    if not wide:
        scaled(axes, "x", whole, log=False)
        axes.locator_params(axis="x", nbins=5)
        return ""
    from matplotlib.ticker import NullLocator

    low, high = _sizes(values)
    near = 10 ** math.floor(math.log10(low))
    axes.set_xscale("symlog", linthresh=near, linscale=0.5)
    bounds = _beyond(min(whole), near, -1), _beyond(max(whole), near, 1)
    powers = [near * 10**power for power in range(math.ceil(math.log10(high / near)) + 1)]
    ticks: list[float] = []
    for factors in ((1, 2, 5), (1, 3), (1,)):
        steps = [factor * power for power in powers for factor in factors]
        ticks = [tick for tick in (*(-step for step in steps[::-1]), 0.0, *steps) if bounds[0] <= tick <= bounds[1]]
        if len(ticks) <= _TICKS:
            break
    axes.set_xticks(ticks, [number(tick, 3) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(bounds)
    return ", log"


def _beyond(value: float, near: float, side: int) -> float:
    """A value a little farther to one side, as it appears on the axis."""
    if abs(value) <= near:
        return value + 0.3 * near * side
    return value * 1.2 if value * side > 0 else value / 1.2


def _legend(figure: Drawing, found: Comparison, shown: Sequence[PlanResult]) -> None:
    from matplotlib.lines import Line2D

    labels = {
        "better": "significantly better",
        "worse": "significantly worse",
        "not shown": "no significant difference",
    }
    verdicts = [verdict(found, result.paired) for result in shown if result.paired is not None]
    verdicts = ["not shown" if word == "same" else word for word in verdicts]
    style: dict[str, Any] = {"linewidth": 3, "markeredgecolor": "white", "markersize": 7.5}
    handles = [Line2D([], [], color="#777777", marker="o", linestyle="", alpha=0.5, markersize=4.5, label="a run")]
    handles.append(Line2D([], [], color=FIRST, marker="D", label="interquartile mean, 95 % interval", **style))
    for word, label in labels.items():
        if word in verdicts:
            color, mark = LOOKS[word]
            handles.append(Line2D([], [], color=color, marker=mark, label=label, **style))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8.5, handlelength=1.6)
