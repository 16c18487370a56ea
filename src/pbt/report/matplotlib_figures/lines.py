"""Curves over training: fitness, schedules, health."""

from typing import Any

from pbt.report.data.axes import STEPS_TITLE, Curve, spread
from pbt.report.data.curves import PointLines
from pbt.report.data.fitness import Fitness
from pbt.report.data.health import Health
from pbt.report.data.schedules import ScheduleLines
from pbt.report.matplotlib_figures.common import (
    Drawing,
    count_ticks,
    hparam,
    isolated_style,
    legend,
    points,
    scaled,
    sheet,
)
from pbt.report.palette import FAILED, OTHERS, POPULATION, WINNER
from pbt.report.plotly_figures.lines import HEALTH
from pbt.report.sentences import TITLES
from pbt.text import printable

THIN: dict[str, Any] = {"color": OTHERS, "linewidth": 0.6, "alpha": 0.75}
BOLD: dict[str, Any] = {"color": WINNER, "linewidth": 2.4}


@isolated_style
def plot_fitness(record: Fitness) -> Drawing:
    """The scores of all members, their 10 to 90 % band and median, the best so far, and the winner's ancestry."""
    figure, ((axes,),) = sheet(5.2)
    dot = "o" if len(record.steps) == 1 else None
    axes.plot(*points(record.members), label="members", marker=dot, markersize=3, **THIN)
    axes.fill_between(
        record.steps, record.low, record.high, color=POPULATION, alpha=0.2, linewidth=0, label="10 to 90 %"
    )
    axes.plot(record.steps, record.median, color=POPULATION, linewidth=1.6, marker=dot, label="median")
    axes.plot(
        record.steps,
        record.best,
        color="#555555",
        linewidth=1,
        linestyle=":",
        drawstyle="steps-post",
        label="best so far",
    )
    axes.plot(*points(record.winner), marker=dot, label="the winner's ancestry", **BOLD)
    if record.marks.x:
        style = {"s": 14, "facecolors": "none", "edgecolors": WINNER, "linewidths": 0.7, "alpha": 0.6}
        axes.scatter(*points(record.marks), label="copied states", zorder=3, **style)
    if record.log:
        scaled(axes, "y", record.members.y, log=True)
    elif record.window is not None:
        axes.set_ylim(record.window)
    count_ticks(axes, "x")
    axes.set(xlabel=STEPS_TITLE, ylabel=printable(record.score))
    axes.set_title(TITLES["fitness"], loc="left")
    legend(figure, axes, 3)
    return figure


@isolated_style
def plot_curves(record: PointLines) -> Drawing:
    """One panel per reported number, over a common axis of steps."""
    figure, grid = sheet(1.3 + 1.8 * len(record.panels), len(record.panels), sharex=True)
    for (axes,), panel in zip(grid, record.panels, strict=True):
        dot: dict[str, Any] = {"marker": "o" if panel.sparse else None, "markersize": 3}
        axes.plot(*points(panel.members), label="members", **dot, **THIN)
        axes.plot(*points(panel.winner), label="the winner's ancestry", **dot, **{**BOLD, "linewidth": 1.6})
        if panel.live.x:
            axes.plot(*points(panel.live), label="in progress", color=POPULATION, linewidth=1.2, **dot)
        if panel.log:
            scaled(axes, "y", (*panel.members.y, *panel.winner.y, *panel.live.y), log=True)
        axes.set_title(printable(panel.name), loc="left")
    count_ticks(grid[-1][0], "x")
    grid[-1][0].set_xlabel(STEPS_TITLE)
    figure.suptitle(TITLES["curves"], x=0.01, ha="left", fontsize=11, fontweight="bold")
    legend(figure, grid[0][0], 3)
    return figure


@isolated_style
def plot_schedules(record: ScheduleLines) -> Drawing:
    """One panel per hyperparameter, over a common axis of steps."""
    figure, grid = sheet(1.3 + 1.6 * len(record.panels), len(record.panels), sharex=True)
    for (axes,), panel in zip(grid, record.panels, strict=True):
        members = panel.members if panel.axis.log else spread(panel.members)
        axes.plot(*points(members), drawstyle="steps-post", label="members", **THIN)
        axes.plot(*points(panel.winner), drawstyle="steps-post", label="the winner's ancestry", **BOLD)
        if panel.handovers.x:
            style = {"s": 24, "facecolors": "white", "edgecolors": WINNER, "linewidths": 1.1, "zorder": 3}
            axes.scatter(*points(panel.handovers), label="handed over", **style)
        hparam(axes, "y", panel.axis, (*panel.members.y, *panel.winner.y))
        axes.set_title(printable(panel.axis.title), loc="left")
    count_ticks(grid[-1][0], "x")
    grid[-1][0].set_xlabel(STEPS_TITLE)
    figure.suptitle(TITLES["schedules"], x=0.01, ha="left", fontsize=11, fontweight="bold")
    legend(figure, grid[0][0], 3)
    return figure


@isolated_style
def plot_health(record: Health) -> Drawing:
    """Up to four panels over a common axis of rounds; what never happened or was not recorded has none."""
    panels = [name for name in HEALTH if name == "founders" or any(getattr(record, name))]
    figure, grid = sheet(1.2 + 1.5 * len(panels), len(panels), sharex=True)
    rounds = tuple(record.rounds)
    for (axes,), name in zip(grid, panels, strict=True):
        if name == "founders":
            axes.step(rounds, record.founders, where="post", color=POPULATION)
        elif name == "copied":
            axes.bar(rounds, [100 * share for share in record.copied], color=POPULATION, width=0.9)
        elif name == "failed":
            axes.bar(rounds, record.failed, color=FAILED, width=0.9)
        else:
            axes.plot(*points(Curve(rounds, record.slowest)), color=OTHERS, linewidth=0.8, label="slowest member")
            axes.plot(*points(Curve(rounds, record.seconds)), color=POPULATION, label="median member")
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderpad=0, borderaxespad=0.2)
        axes.set_title(HEALTH[name], loc="left", fontsize=10)
        axes.set_ylim(bottom=0)
        if name in {"founders", "failed"}:
            count_ticks(axes, "y")
    grid[-1][0].set_xlabel("round of the member")
    count_ticks(grid[-1][0], "x")
    figure.suptitle(TITLES["health"], x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure
