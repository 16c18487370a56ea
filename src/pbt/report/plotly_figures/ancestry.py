"""Figures of ancestry: the family tree, and the founders' shares."""

from typing import Any

from pbt.report.data.axes import Curve
from pbt.report.data.founders import FounderShares
from pbt.report.data.tree import Tree
from pbt.report.palette import FAILED, INITIAL, OTHERS, POPULATION, QUIET, WINNER, cividis
from pbt.report.plotly_figures.common import Figure, axis, dots, layout, line, shorts, step_axis, text

LABELED = 0.04
"""The smallest share of an area with a label."""
NAMED = 40
"""The most founders that are named in the tree."""


def plot_tree(record: Tree) -> Figure:
    """The initial members on the left, the living states on the right, and all branches between them."""
    labels = [text(label) for label in record.passed]
    data = [
        line(record.dead, "extinct", QUIET, width=1, hovertemplate=_STATE),
        line(record.living, "has living descendants", POPULATION, width=1.5, hovertemplate=_STATE),
        line(record.winner, "the winner's ancestry", WINNER, width=3.5, text=labels, hovertemplate=_HOVER),
        dots(record.initial, "initial members", INITIAL, size=7, hovertemplate=_STATE, **_names(record)),
        dots(record.final, "living states", POPULATION, size=7, hovertemplate=_STATE),
    ]
    if record.failed.x:
        data.append(dots(record.failed, "failed round", FAILED, size=8, symbol="x-thin-open", hovertemplate=_STATE))
    if record.winner.x:
        end = Curve(record.winner.x[-1:], record.winner.y[-1:], record.winner.refs[-1:])
        data.append(dots(end, "the best state", WINNER, size=15, symbol="star", text=labels[-1:], hovertemplate=_HOVER))
    height = min(820, 260 + 8 * len(record.initial))
    hidden: dict[str, Any] = {"visible": False, "range": [-0.02, 1.02], "fixedrange": True}
    steps = (*record.dead.x, *record.living.x, *record.winner.x)
    return {"data": data, "layout": layout(height, xaxis=step_axis(steps), yaxis=hidden)}


def _names(record: Tree) -> dict[str, Any]:
    """The founders' numbers beside their dots, if there is room for them."""
    if len(record.initial) > NAMED:
        return {}
    names = [str(ref.member) for ref in record.initial.refs if ref is not None]
    return {"mode": "markers+text", "text": names, "textposition": "middle left", "cliponaxis": False}


_HOVER = "%{text}<extra></extra>"
_STATE = "member %{customdata[0]}, round %{customdata[1]}<br>step %{x}<extra></extra>"


def plot_founders(record: FounderShares) -> Figure:
    """Stacked areas, one per founder, in the order of the tree from top to bottom."""
    data, notes, below = [], [], 0.0
    shares = list(reversed(record.shares))
    positions = {share.founder: i / max(1, len(shares) - 1) for i, share in enumerate(shares)}
    for share in shares:
        name = f"{record.others} others" if share.founder is None else f"member {share.founder}"
        won = share.founder is not None and share.founder == record.winner
        color = WINNER if won else OTHERS if share.founder is None else cividis(positions[share.founder])
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": list(record.steps),
                "y": shorts(100 * part for part in share.parts),
                "stackgroup": "all",
                "line": {"color": "rgba(255,255,255,0.65)", "width": 0.7},
                "fillcolor": color,
                "hovertemplate": f"{name}: %{{y:.3g}} % at step %{{x}}<extra></extra>",
                "hoveron": "points+fills",
                "showlegend": False,
            }
        )
        if share.parts[-1] >= LABELED:
            middle = 100 * (below + share.parts[-1] / 2)
            notes.append({"text": name, "y": middle, "yref": "y", "x": 1.01, "xref": "paper", "xanchor": "left"})
        elif share.parts[share.widest] >= LABELED and share.founder is not None:
            under = sum(other.parts[share.widest] for other in shares[: shares.index(share)])
            place = {"x": record.steps[share.widest], "xref": "x", "xanchor": "left" if share.widest == 0 else "center"}
            middle = 100 * (under + share.parts[share.widest] / 2)
            # On a light ground of its own, since the areas have all shades.
            chip = {"font": {"size": 9, "color": "#1d2126"}, "bgcolor": "#f5f6f8", "borderpad": 1, "opacity": 0.85}
            notes.append({"text": f"{share.founder}", "y": middle, "yref": "y", **chip, **place})
        below += share.parts[-1]
    more = {"annotations": [{**note, "showarrow": False} for note in notes], "margin": _MARGIN, "showlegend": False}
    y = axis("share of the population, %", range=[0, 100], fixedrange=True)
    return {"data": data, "layout": layout(420, xaxis=step_axis(record.steps, range=_ends(record)), yaxis=y) | more}


_MARGIN = {"l": 60, "r": 96, "t": 16, "b": 52}


def _ends(record: FounderShares) -> list[float]:
    first, last = record.steps[0], record.steps[-1]
    return [first, last] if last > first else [first - 0.5, last + 0.5]
