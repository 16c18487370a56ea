"""Figures without a time axis: the matrix of copies, and the hyperparameter plane."""

import math
from typing import Any

from pbt.report.data.axes import Axis, Number, extent
from pbt.report.data.exploits import Exploits
from pbt.report.data.plane import Plane, PlaneFrame, color_ticks
from pbt.report.palette import WINNER, cividis
from pbt.report.plotly_figures.common import Figure, axis, hparam_axis, layout, short, shorts, text
from pbt.text import times

FEW = 8
"""Up to this count, each has a color of its own."""
_MARGIN = {"l": 60, "r": 20, "t": 24, "b": 52}
"""Margins without room for a legend."""


def plot_exploits(record: Exploits) -> Figure:
    """A heat map of copies, with a row per donor and a column per copying member."""
    names = list(record.members)
    most = max(max(row) for row in record.copies)
    cells = list(zip(record.copies, record.rounds, strict=True))
    bar = {"title": {"text": "copies"}, "thickness": 14, "outlinewidth": 0}
    few = most <= FEW
    trace = {
        "type": "heatmap",
        "x": names,
        "y": names,
        # Cells without copies have no color.
        "z": [[count or None for count in row] for row in record.copies],
        "zmin": 0.5 if few else 1,
        "zmax": most + 0.5 if few else most,
        "colorscale": _steps(most) if few else [[i / 4, _shade(i / 4)] for i in range(5)],
        "colorbar": bar | ({"tickvals": list(range(1, most + 1))} if few else {}),
        "showscale": most > 1,
        "text": [[_when(count, seen) for count, seen in zip(*row, strict=True)] for row in cells],
        "hovertemplate": "member %{x} copied member %{y}: %{text}<extra></extra>",
        "xgap": 1 if len(names) <= 50 else 0,
        "ygap": 1 if len(names) <= 50 else 0,
    }
    common: dict[str, Any] = {"type": "category", "categoryorder": "array", "categoryarray": names}
    x = axis("member that copied", **common)
    y = axis("donor", autorange="reversed", **common)
    height = min(680, 260 + 16 * len(names))
    return {"data": [trace], "layout": layout(height, xaxis=x, yaxis=y, margin=_MARGIN)}


def _shade(position: float) -> str:
    """A color of the scale, without the darkest part, which is invisible on a dark background."""
    return cividis(0.25 + 0.75 * position)


def _steps(most: int) -> list[list[Any]]:
    """One color per count."""
    colors = [_shade(1 - (most - count) / max(1, most - 1)) for count in range(1, most + 1)]
    return [[end / most, color] for index, color in enumerate(colors) for end in (index, index + 1)]


def _when(count: int, rounds: tuple[int, ...]) -> str:
    """How often and when one member copied another."""
    if not count:
        return "never"
    more = ", ..." if count > len(rounds) else ""
    return f"{times(count)} (round {', '.join(map(str, rounds))}{more})"


def plot_plane(record: Plane) -> Figure:
    """The members in the plane, with a slider over the rounds, initially at the last."""
    marker = {
        "size": 10,
        "opacity": 0.9,
        "line": {"width": 0.5, "color": "rgba(128,128,128,0.8)"},
        "cmin": shorts(record.colors)[0],
        "cmax": shorts(record.colors)[1],
        "colorscale": "Viridis",
        "reversescale": record.minimize,
        "colorbar": {"title": {"text": text(record.score)}, "thickness": 14, "outlinewidth": 0} | _color_ticks(record),
    }
    points = {
        "type": "scatter",
        "mode": "markers",
        "name": "members",
        # The page writes the number of members above dots at the same place.
        "meta": {"ties": True},
        "marker": marker,
        "hovertemplate": "member %{customdata[0]}, round %{customdata[1]}<br>score %{customdata[2]}<extra></extra>",
        "showlegend": False,
    }
    ring = {"size": 18, "symbol": "circle-open", "color": WINNER, "line": {"width": 3}}
    winner = {
        "type": "scatter",
        "mode": "markers",
        "name": "ancestor of the best state",
        "marker": ring,
        "hovertemplate": "member %{customdata[0]}, round %{customdata[1]}<extra></extra>",
        "showlegend": True,
    }
    start = _traces(record, record.frames[-1])
    return {
        "data": [points | {"marker": marker | start[0].pop("marker")} | start[0], winner | start[1]],
        "layout": layout(540, xaxis=_axis(record, record.x, "x"), yaxis=_axis(record, record.y, "y"), margin=_MARGIN)
        | {"meta": {"controls": ["plane", "scale-x", "scale-y"]}}
        | {"sliders": [_slider(record)] if len(record.frames) > 1 else []},
        "frames": [
            {"name": str(frame.round), "data": _traces(record, frame), "traces": [0, 1]}
            for frame in (record.frames if len(record.frames) > 1 else ())
        ],
    }


def _color_ticks(record: Plane) -> dict[str, Any]:
    ticks = color_ticks(record)
    return {"tickvals": [short(position) for position, _ in ticks], "ticktext": [label for _, label in ticks]}


def _traces(record: Plane, frame: PlaneFrame) -> list[dict[str, Any]]:
    colors = {"color": shorts(math.log10(score) if record.log else score for score in frame.scores)}
    named = [[*ref, short(score)] for ref, score in zip(frame.refs, frame.scores, strict=True)]
    points = {"x": shorts(frame.x), "y": shorts(frame.y), "customdata": named, "marker": colors}
    ring = {"x": shorts(x for x, _ in frame.winner), "y": shorts(y for _, y in frame.winner)}
    return [points, ring | {"customdata": [list(ref) for ref in frame.ancestors]}]


def _axis(record: Plane, hparam: Axis | None, side: str) -> dict[str, Any]:
    """An axis fitted to all frames, so that it stays fixed while the slider moves."""
    values: list[Number] = [value for frame in record.frames for value in getattr(frame, side)]
    if hparam is not None:
        return hparam_axis(hparam, values, title=text(hparam.title))
    span = extent(values, log=record.log)
    return axis(text(record.score), log=record.log, span=span, range=shorts(span))


def _slider(record: Plane) -> dict[str, Any]:
    still = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}, "transition": {"duration": 0}}
    steps = [
        {"label": f"{frame.round}", "method": "animate", "args": [[str(frame.round)], still]} for frame in record.frames
    ]
    return {
        "active": len(steps) - 1,
        "steps": steps,
        "currentvalue": {"prefix": "after round ", "xanchor": "left", "font": {"size": 14}},
        "pad": {"t": 48, "b": 0},
        "len": 1,
        "ticklen": 0,
        "minorticklen": 0,
        "font": {"size": 11},
    }
