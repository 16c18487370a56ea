"""Figures without a time axis: the matrix of copies, and the hyperparameter plane."""

import math
from typing import Any

import numpy as np

from pbt.report.data.axes import Number, thin
from pbt.report.data.exploits import Exploits
from pbt.report.data.plane import Plane, color_ticks, ties
from pbt.report.matplotlib_figures.common import Drawing, hparam, isolated_style, scaled, sheet, values
from pbt.report.palette import WINNER, cividis
from pbt.report.plotly_figures.maps import FEW
from pbt.report.sentences import TITLES
from pbt.text import printable

FRAMES = 4
"""The number of rounds drawn side by side, since paper has no slider."""
NAMED = 20
"""The most members with a label on an axis."""


@isolated_style
def plot_exploits(record: Exploits) -> Drawing:
    """A heat map of copies, with a row per donor and a column per copying member."""
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap
    from matplotlib.ticker import MaxNLocator

    figure, ((axes,),) = sheet(5.6)
    copies = np.array(record.copies)
    most = int(copies.max())
    few = most <= FEW
    shades = [cividis(0.25 + 0.75 * i / max(1, most - 1)) for i in range(most)] if few else []
    ramp = LinearSegmentedColormap.from_list("copies", [cividis(0.25 + 0.75 * i / 8) for i in range(9)])
    shown = np.ma.masked_equal(copies, 0)
    look: dict[str, Any] = {"cmap": ramp, "vmin": 1, "vmax": most}
    if few:
        look = {"cmap": ListedColormap(shades), "vmin": 0.5, "vmax": most + 0.5}
    image = axes.imshow(shown, aspect="auto", interpolation="none", **look)
    places = thin(range(len(record.members)), NAMED)
    names = [record.members[place] for place in places]
    slanted = {"rotation": 45, "ha": "right"} if any(" " in name for name in names) else {}
    axes.grid(visible=False)
    axes.set_xticks(places, names, **slanted)
    axes.set_yticks(places, names)
    axes.set(xlabel="member that copied", ylabel="donor")
    axes.set_title(TITLES["exploits"], loc="left")
    if most > 1:
        ticks: Any = list(range(1, most + 1)) if few else MaxNLocator(integer=True)
        figure.colorbar(image, ax=axes, label="copies", pad=0.02, ticks=ticks)
    return figure


@isolated_style
def plot_plane(record: Plane) -> Drawing:
    """The members in the plane after four rounds, from the first to the last."""
    frames = thin(record.frames, FRAMES)
    columns = min(2, len(frames))
    rows = -(-len(frames) // columns)
    figure, grid = sheet(1.0 + 2.9 * rows, rows, columns, sharex=True, sharey=True)
    low, high = record.colors
    look: dict[str, Any] = {"cmap": "viridis_r" if record.minimize else "viridis", "vmin": low, "vmax": high}
    for axes, frame in zip(grid.flat, frames, strict=False):
        colors = [math.log10(score) if record.log else score for score in frame.scores]
        edge = {"edgecolors": "#777777", "linewidths": 0.3}
        dots = axes.scatter(values(frame.x), values(frame.y), c=colors, s=34, alpha=0.9, **edge, **look)
        x, y = values(p for p, _ in frame.winner), values(p for _, p in frame.winner)
        axes.scatter(x, y, s=130, facecolors="none", edgecolors=WINNER, linewidths=1.8)
        for place, amount in ties(frame).items():
            axes.annotate(f"×{amount}", place, xytext=(4, 4), textcoords="offset points", fontsize=7)  # noqa: RUF001
        axes.set_title(f"after round {frame.round}", loc="left", fontsize=10)
    for axes in grid.flat[len(frames) :]:
        axes.set_visible(False)
    _fit(grid.flat[0], record)
    figure.supxlabel(printable(record.x.title), fontsize=10)
    figure.supylabel(printable(record.score if record.y is None else record.y.title), fontsize=10)
    bar = figure.colorbar(dots, ax=grid, pad=0.02, label=printable(record.score))
    ticks = color_ticks(record)
    bar.set_ticks([position for position, _ in ticks], labels=[label for _, label in ticks])
    figure.suptitle(TITLES["plane"], x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _fit(axes: Any, record: Plane) -> None:
    """Fit the shared axes to all rounds."""
    x: list[Number] = [value for frame in record.frames for value in frame.x]
    y: list[Number] = [value for frame in record.frames for value in frame.y]
    hparam(axes, "x", record.x, x)
    if record.y is None:
        scaled(axes, "y", y, log=record.log)
    else:
        hparam(axes, "y", record.y, y)
