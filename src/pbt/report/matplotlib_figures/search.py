"""Figures of the search: parallel coordinates, and the importance of hyperparameters."""

from pbt.report.data.importance import Importance
from pbt.report.data.parallel import Parallel
from pbt.report.matplotlib_figures.common import Drawing, isolated_style, legend, sheet, values
from pbt.report.palette import POPULATION, WINNER, cividis
from pbt.report.sentences import TITLES
from pbt.text import printable


@isolated_style
def plot_parallel(record: Parallel) -> Drawing:
    """The last round above, the means along the ancestries below, over the same axes; colored by rank."""
    figure, grid = sheet(6.4, 2, sharex=True)
    for (axes,), title, lines in zip(grid, ("last round", "lineage means"), (record.newest, record.means), strict=True):
        for index, line in enumerate(lines):
            best = index == len(lines) - 1
            color = WINNER if best else cividis(0.2 + 0.75 * index / max(1, len(lines) - 1))
            axes.plot(range(len(line.heights)), values(line.heights), color=color, linewidth=2 if best else 0.8)
        for place, upright in enumerate(record.axes):
            axes.axvline(place, color="#c4c8cd", linewidth=0.8, zorder=0)
            for height, label in upright.ticks:
                axes.annotate(printable(label), (place, height), xytext=(3, 0), textcoords="offset points", fontsize=7)
        axes.set(ylim=(-0.02, 1.02), xlim=(-0.2, len(record.axes) - 0.7), yticks=[])
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.grid(visible=False)
        axes.set_title(title, loc="left")
    names = [printable(one.title)[:18] for one in record.axes]
    slanted = {"rotation": 30, "ha": "right"} if len(names) > 5 else {}
    grid[-1][0].set_xticks(range(len(names)), names, **slanted)
    figure.suptitle(TITLES["parallel"], x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


@isolated_style
def plot_importance(record: Importance) -> Drawing:
    """Dots per hyperparameter, the one that goes most with the score on top, and the level of chance."""
    figure, ((axes,),) = sheet(1.8 + 0.34 * len(record.rows))
    rows = list(reversed(record.rows))
    places = list(range(len(rows)))
    low = [0.0 if row.axis.options else -row.chance for row in rows]
    width = [row.chance * (1 if row.axis.options else 2) for row in rows]
    axes.barh(places, width, left=low, height=0.9, color="#d9dce0", label="reached by chance in one round")
    score = printable(record.score)
    axes.scatter(values(row.score for row in rows), places, color=POPULATION, label=f"with the {score} after the round")
    label = "with the improvement during the round"
    axes.scatter(values(row.gain for row in rows), places, color=WINNER, marker="D", label=label)
    axes.set_yticks(places, [printable(row.axis.name)[:30] for row in rows])
    axes.axvline(0, color="#777777", linewidth=0.8)
    axes.set(xlim=(-1, 1), xlabel="mean rank correlation within rounds")
    axes.set_title(TITLES["importance"], loc="left")
    legend(figure, axes, 2)
    return figure
