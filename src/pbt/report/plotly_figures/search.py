"""Figures of the search: parallel coordinates, and the importance of hyperparameters."""

from typing import Any

from pbt.report.data.importance import Importance, Influence
from pbt.report.data.parallel import Parallel, ParallelLine
from pbt.report.palette import OTHERS, POPULATION, QUIET, WINNER, cividis
from pbt.report.plotly_figures.common import Figure, axis, layout, short, shorts, text
from pbt.text import number

BINS = 6
"""The number of colors of the lines, from the worst to the best."""
SHORTENED = 18
"""The most characters of a title above an axis."""


def plot_parallel(record: Parallel) -> Figure:
    """The last round above, the means along the ancestries below, over the same axes; colored by rank."""
    data: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    for panel, (title, lines) in enumerate((("last round", record.newest), ("lineage means", record.means))):
        yaxis = "y" if panel == 0 else "y2"
        data += [_bin(lines, index, yaxis, first=panel == 0) for index in range(min(BINS, len(lines)))]
        shapes += [
            {"type": "line", "x0": i, "x1": i, "y0": 0, "y1": 1, "yref": yaxis, "line": {"color": QUIET, "width": 1}}
            for i in range(len(record.axes))
        ]
        corner = {"xref": "paper", "x": 0, "xanchor": "left", "yref": f"{yaxis} domain", "y": 1.16, "yanchor": "bottom"}
        notes.append({"text": f"<b>{title}</b>", "showarrow": False, **corner})
        notes += [note for i, one in enumerate(record.axes) for note in _labels(i, one.title, one.ticks, yaxis)]
    last = len(record.axes) - 1
    hidden: dict[str, Any] = {"visible": False, "range": [-0.02, 1.02], "fixedrange": True}
    x = axis("", range=[-0.25, last + 0.35], visible=False, fixedrange=True)
    made = layout(
        640, xaxis=x, yaxis=hidden | {"domain": [0.56, 0.94]}, yaxis2=hidden | {"domain": [0, 0.38]}, shapes=shapes
    )
    return {
        "data": data,
        "layout": made
        | {
            "annotations": notes,
            "margin": {"l": 30, "r": 50, "t": 56, "b": 20},
            "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.03, "yanchor": "bottom"},
        },
    }


def _bin(lines: tuple[ParallelLine, ...], index: int, yaxis: str, *, first: bool) -> dict[str, Any]:
    """The lines of one color: a share of the ranks."""
    bins = min(BINS, len(lines))
    low, high = len(lines) * index // bins, len(lines) * (index + 1) // bins
    x: list[int | None] = []
    y: list[float | None] = []
    refs: list[list[int] | None] = []
    for line in lines[low:high]:
        x += [*range(len(line.heights)), None]
        y += [*line.heights, None]
        refs += [list(line.ref)] * len(line.heights) + [None]
    best, worst = index == bins - 1, index == 0
    color = WINNER if best else cividis(0.2 + 0.75 * index / max(1, bins - 1))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "marker": {"size": 4},
        "name": "best" if best else "worst" if worst else f"group {index + 1}",
        "legendgroup": str(index),
        "showlegend": first,
        "x": x,
        "y": shorts(y),
        "customdata": refs,
        "hovertemplate": "member %{customdata[0]}, round %{customdata[1]}<extra></extra>",
        "connectgaps": False,
        "line": {"color": color, "width": 1.6 if best else 1},
        "opacity": 0.95 if best else 0.6,
        "yaxis": yaxis,
    }


def _labels(index: int, title: str, ticks: tuple[tuple[float, str], ...], yaxis: str) -> list[dict[str, Any]]:
    name = title if len(title) <= SHORTENED else f"{title[: SHORTENED - 1]}…"
    above = {"text": text(name), "x": index, "y": 1.02, "yref": yaxis, "yanchor": "bottom", "font": {"size": 11}}
    beside = [
        {"text": text(label), "x": index, "y": short(height), "yref": yaxis, "xanchor": "left", "xshift": 4}
        | {"font": {"size": 10}}
        for height, label in ticks
    ]
    return [{"showarrow": False, **note} for note in (above, *beside)]


def plot_importance(record: Importance) -> Figure:
    """Bars per hyperparameter, the one that goes most with the score on top, and the level of chance."""
    rows = list(reversed(record.rows))
    names = [text(row.axis.name)[:40] for row in rows]
    score = text(record.score)
    chance = {
        "type": "bar",
        "orientation": "h",
        "name": "reached by chance in one round",
        "y": names,
        "x": shorts(row.chance * (1 if row.axis.options else 2) for row in rows),
        "base": shorts(0.0 if row.axis.options else -row.chance for row in rows),
        "marker": {"color": QUIET},
        "width": 0.9,
        "hoverinfo": "skip",
    }
    data = [
        chance,
        _dots(rows, names, "score", f"with the {score} after the round", POPULATION),
        _dots(rows, names, "gain", "with the improvement during the round", WINNER),
    ]
    title = "mean rank correlation within rounds (larger values with better results: to the right)"
    made = layout(
        170 + 34 * len(rows),
        xaxis=axis(title, range=[-1, 1], zeroline=True, zerolinecolor=OTHERS),
        yaxis=axis("", type="category"),
        barmode="overlay",
    )
    return {"data": data, "layout": made}


def _dots(rows: list[Influence], names: list[str], which: str, name: str, color: str) -> dict[str, Any]:
    values = [getattr(row, which) for row in rows]
    labels = [
        f"{text(row.axis.name)}: {'undefined' if value is None else number(value, 2)}"
        + (", a choice: without direction" if row.axis.options else "")
        + f"\n{row.rounds} rounds compared\nby chance in one round: {number(row.chance, 2)}"
        for row, value in zip(rows, values, strict=True)
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": shorts(values),
        "y": names,
        "text": [label.replace("\n", "<br>") for label in labels],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": color, "size": 11, "symbol": "circle" if which == "score" else "diamond"},
    }
