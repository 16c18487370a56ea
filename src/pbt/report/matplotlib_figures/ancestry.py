"""Figures of ancestry: the family tree, and the founders' shares."""

from pbt.report.data.axes import STEPS_TITLE
from pbt.report.data.founders import FounderShares
from pbt.report.data.tree import Tree
from pbt.report.matplotlib_figures.common import Drawing, count_ticks, isolated_style, legend, points, sheet
from pbt.report.palette import FAILED, INITIAL, OTHERS, POPULATION, WINNER, cividis
from pbt.report.sentences import TITLES

LABELED = 0.04
"""The smallest share of an area with a label."""
NAMED = 40
"""The most founders that are named in the tree."""


@isolated_style
def plot_tree(record: Tree) -> Drawing:
    """The initial members on the left, the living states on the right, and all branches between them."""
    figure, ((axes,),) = sheet(min(9.0, 3.0 + 0.09 * len(record.initial)))
    axes.plot(*points(record.dead), color=OTHERS, linewidth=0.5, alpha=0.6, label="extinct")
    axes.plot(*points(record.living), color=POPULATION, linewidth=1, label="has living descendants")
    axes.plot(*points(record.winner), color=WINNER, linewidth=2.6, label="the winner's ancestry")
    axes.scatter(*points(record.initial), s=18, color=INITIAL, label="initial members", zorder=3)
    axes.scatter(*points(record.final), s=18, color=POPULATION, label="living states", zorder=3)
    if len(record.initial) <= NAMED:
        for ref, x, y in zip(record.initial.refs, *points(record.initial), strict=True):
            if ref is not None:
                place = {"xytext": (-5, 0), "textcoords": "offset points"}
                axes.annotate(str(ref.member), (x, y), va="center", ha="right", fontsize=8, **place)
    if record.failed.x:
        axes.scatter(*points(record.failed), s=26, color=FAILED, marker="x", label="failed round", zorder=3)
    if record.winner.x:
        x, y = points(record.winner)
        axes.scatter(x[-1:], y[-1:], s=140, color=WINNER, marker="*", label="the best state", zorder=4)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.02, 1.02)
    count_ticks(axes, "x")
    axes.set_xlabel(STEPS_TITLE)
    axes.set_title(TITLES["tree"], loc="left")
    legend(figure, axes, 4)
    return figure


@isolated_style
def plot_founders(record: FounderShares) -> Drawing:
    """Stacked areas, one per founder, in the order of the tree from top to bottom."""
    figure, ((axes,),) = sheet(4.4)
    shares = list(reversed(record.shares))
    steps = list(record.steps) if len(record.steps) > 1 else [record.steps[0] - 0.5, record.steps[0] + 0.5]
    below, colors, areas = 0.0, [], []
    for index, share in enumerate(shares):
        won = share.founder is not None and share.founder == record.winner
        gradual = OTHERS if share.founder is None else cividis(index / max(1, len(shares) - 1))
        colors.append(WINNER if won else gradual)
        areas.append([100 * part for part in share.parts] * (1 if len(record.steps) > 1 else 2))
        if share.parts[-1] >= LABELED:
            name = f"{record.others} others" if share.founder is None else f"member {share.founder}"
            middle = 100 * (below + share.parts[-1] / 2)
            axes.annotate(name, (1.01, middle), xycoords=("axes fraction", "data"), va="center", fontsize=9)
        elif share.parts[share.widest] >= LABELED and share.founder is not None:
            under = sum(other.parts[share.widest] for other in shares[:index])
            place = (record.steps[share.widest], 100 * (under + share.parts[share.widest] / 2))
            color = "black" if index > len(shares) / 2 and not won else "white"
            side = "left" if share.widest == 0 else "center"
            axes.annotate(str(share.founder), place, va="center", ha=side, fontsize=8, color=color)
        below += share.parts[-1]
    axes.stackplot(steps, areas, colors=colors, edgecolor="white", linewidth=0.4)
    axes.set(xlabel=STEPS_TITLE, ylabel="share of the population, %", xlim=(steps[0], steps[-1]), ylim=(0, 100))
    axes.grid(visible=False)
    count_ticks(axes, "x")
    axes.set_title(TITLES["founders"], loc="left")
    return figure
