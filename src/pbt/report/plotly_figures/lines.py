"""Curves over training: fitness, schedules, health."""

from typing import Any

from pbt.report.data.axes import Curve, Number, extent, spread
from pbt.report.data.curves import PointLines
from pbt.report.data.fitness import Fitness
from pbt.report.data.health import Health
from pbt.report.data.schedules import Panel, ScheduleLines
from pbt.report.palette import BAND, FAILED, OTHERS, POPULATION, QUIET, RING, WINNER
from pbt.report.plotly_figures.common import (
    Figure,
    axis,
    count_axis,
    dots,
    hparam_axis,
    layout,
    line,
    short,
    shorts,
    step_axis,
    text,
)

PANEL = 150
"""Height of a panel in pixels."""
GAP = 46
"""Pixels between two panels, with room for a title."""
SMOOTH = {"smooth": True}
"""A line that the reader may smooth."""
TOP, BOTTOM = 64, 52
"""Margins in pixels."""


def plot_fitness(record: Fitness) -> Figure:
    """The scores of all members, their 10 to 90 % band and median, the best so far, and the winner's ancestry."""
    points = "markers" if len(record.steps) == 1 else "lines"
    steps = tuple(record.steps)
    rounds = list(record.by_round.rounds)
    names = ("low", "high", "median", "best")
    meta = {name: {"rounds": {"x": rounds, "y": shorts(getattr(record.by_round, name))}} for name in names}
    band = {"fill": "tonexty", "fillcolor": BAND, "hoverinfo": "skip"}
    data = [
        line(record.members, "members", QUIET, width=1, meta=SMOOTH, mode=points),
        line(Curve(steps, record.low), "10 %", BAND, width=0, showlegend=False, hoverinfo="skip", meta=meta["low"]),
        line(Curve(steps, record.high), "10 to 90 %", BAND, width=0, meta=meta["high"], **band),
        line(Curve(steps, record.median), "median", POPULATION, width=2, mode=points, meta=meta["median"] | SMOOTH),
        line(Curve(steps, record.best), "best so far", RING, width=1.5, dash="dot", shape="hv", mode=points)
        | {"meta": meta["best"]},
        line(record.winner, "the winner's ancestry", WINNER, width=3, mode=points, meta=SMOOTH),
    ]
    if record.marks.x:
        data.append(dots(record.marks, "copied states", WINNER, size=5, opacity=0.55, symbol="circle-open"))
    y = axis(text(record.score), log=record.log, span=extent(record.members.y, log=record.log))
    if record.window is not None:
        y["range"] = shorts(record.window)
    made = layout(440, xaxis=step_axis(record.members.x), yaxis=y)
    return {"data": data, "layout": made | {"meta": {"controls": ["rounds", "scale-x", "scale-y", "smooth"]}}}


def plot_curves(record: PointLines) -> Figure:
    """One panel per reported number, over a common axis of steps."""
    data: list[dict[str, Any]] = []
    axes, titles = _stack([panel.name for panel in record.panels])
    for index, panel in enumerate(record.panels):
        name = _axis_name(index)
        mode = "lines+markers" if panel.sparse else "lines"
        more: dict[str, Any] = {"yaxis": f"y{name}", "mode": mode, "marker": {"size": 4}, "meta": SMOOTH}
        data += [
            line(panel.members, "members", QUIET, width=1, **more),
            line(panel.winner, "the winner's ancestry", WINNER, width=2, **more),
            line(panel.live, "in progress", POPULATION, width=1.5, customdata=list(panel.training), **more)
            | {"hovertemplate": "member %{customdata}: %{y} at step %{x}<extra></extra>"},
        ]
        seen = (*panel.members.y, *panel.winner.y, *panel.live.y)
        ticks = {} if panel.log else {"nticks": 5}
        axes[f"yaxis{name}"] |= axis("", log=panel.log, span=extent(seen, log=panel.log), **ticks)
    steps = [x for panel in record.panels for x in (*panel.members.x, *panel.live.x)]
    return {
        "data": _toggled_together([row for row in data if row["x"]]),
        "layout": _stacked(axes, titles, steps) | {"meta": {"controls": ["scale-x", "scale-y", "smooth"]}},
    }


def plot_schedules(record: ScheduleLines) -> Figure:
    """One panel per hyperparameter, over a common axis of steps."""
    data: list[dict[str, Any]] = []
    axes, titles = _stack([panel.axis.title for panel in record.panels])
    for index, panel in enumerate(record.panels):
        name = _axis_name(index)
        more = {"yaxis": f"y{name}", "shape": "hv"}
        rows = [
            line(panel.members if panel.axis.log else spread(panel.members), "members", QUIET, width=1, **more),
            line(panel.winner, "the winner's ancestry", WINNER, width=3, **more),
        ]
        if panel.handovers.x:
            marks = {"size": 7, "symbol": "circle-open"}
            rows.append(dots(panel.handovers, "handed over", WINNER, yaxis=more["yaxis"], **marks))
        data += rows
        axes[f"yaxis{name}"] |= hparam_axis(panel.axis, (*panel.members.y, *panel.winner.y)) | _ticks(panel)
    steps = [x for panel in record.panels for x in panel.members.x]
    return {
        "data": _toggled_together(data),
        "layout": _stacked(axes, titles, steps) | {"meta": {"controls": ["rounds", "scale-x", "scale-y"]}},
    }


def plot_health(record: Health) -> Figure:
    """Up to four panels over a common axis of rounds; what never happened or was not recorded has none."""
    panels = [name for name in HEALTH if name == "founders" or any(getattr(record, name))]
    rounds = tuple(record.rounds)
    axes, notes = _stack([HEALTH[name] for name in panels])
    data: list[dict[str, Any]] = []
    for index, name in enumerate(panels):
        key = _axis_name(index)
        data += _health_rows(name, record, rounds, f"y{key}")
        numbers = getattr(record, name)
        counted = name in {"founders", "failed"}
        more: dict[str, Any] = {"rangemode": "tozero", "nticks": 4}
        axes[f"yaxis{key}"] |= count_axis("", (0, *numbers), **more) if counted else axis("", **more)
    last = _axis_name(len(panels) - 1)
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": PANEL / _inner(len(panels)), "yanchor": "bottom"}
    return {
        "data": data,
        "layout": layout(
            _height(len(panels)), xaxis=count_axis("round of the member", rounds, anchor=f"y{last}"), **axes
        )
        | {"annotations": notes, "legend": legend, "bargap": 0.1, "margin": {"l": 60, "r": 20, "t": TOP, "b": BOTTOM}},
    }


HEALTH = {
    "founders": "founders with descendants",
    "copied": "started from a copy, %",
    "failed": "failed rounds",
    "slowest": "seconds per round",
}
"""Titles of the panels by the record's field that they depend on."""


def _health_rows(name: str, record: Health, rounds: tuple[int, ...], yaxis: str) -> list[dict[str, Any]]:
    if name == "founders":
        curve = Curve(rounds, tuple(record.founders))
        return [line(curve, "founders", POPULATION, yaxis=yaxis, shape="hv", width=2, showlegend=False)]
    if name == "copied":
        return [_bars(rounds, tuple(100 * share for share in record.copied), "copied, %", POPULATION, yaxis)]
    if name == "failed":
        return [_bars(rounds, tuple(record.failed), "failed", FAILED, yaxis)]
    return [
        line(Curve(rounds, record.slowest), "slowest", OTHERS, yaxis=yaxis, width=1),
        line(Curve(rounds, record.seconds), "median", POPULATION, yaxis=yaxis, width=2),
    ]


def _bars(x: tuple[int, ...], y: tuple[float, ...], name: str, color: str, yaxis: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "x": list(x),
        "y": shorts(y),
        "name": name,
        "marker": {"color": color, "line": {"width": 0}},
        "yaxis": yaxis,
        "showlegend": False,
    }


def _ticks(panel: Panel) -> dict[str, Any]:
    return {} if panel.axis.options or panel.axis.log else {"nticks": 5}


def _toggled_together(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The traces, with one legend entry per name, which toggles its traces in all panels."""
    first = {row["name"]: index for index, row in reversed(list(enumerate(rows)))}
    return [row | {"legendgroup": row["name"], "showlegend": first[row["name"]] == i} for i, row in enumerate(rows)]


def _stacked(axes: dict[str, dict[str, Any]], titles: list[dict[str, Any]], steps: list[Number]) -> dict[str, Any]:
    """The layout of stacked panels over a common axis of steps."""
    panels = len(axes)
    return (
        layout(_height(panels), xaxis=step_axis(steps, anchor=f"y{_axis_name(panels - 1)}"), **axes)
        | {"annotations": titles, "margin": {"l": 60, "r": 20, "t": TOP, "b": BOTTOM}}
        | {"legend": _above(panels)}
    )


def _axis_name(index: int) -> str:
    return "" if index == 0 else str(index + 1)


def _inner(panels: int) -> int:
    return panels * PANEL + (panels - 1) * GAP


def _height(panels: int) -> int:
    return _inner(panels) + TOP + BOTTOM


def _above(panels: int) -> dict[str, Any]:
    return {"orientation": "h", "x": 1, "xanchor": "right", "y": 1 + 6 / _inner(panels), "yanchor": "bottom"}


def _stack(titles: list[str]) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Stacked axes, the first on top, each with a title above its left corner."""
    inner, axes, notes = _inner(len(titles)), {}, []
    for index, title in enumerate(titles):
        top = 1 - index * (PANEL + GAP) / inner
        axes[f"yaxis{_axis_name(index)}"] = {"domain": [short(max(0.0, top - PANEL / inner)), short(top)]}
        corner = {"xref": "paper", "x": 0, "xanchor": "left", "yref": "paper", "y": short(top), "yanchor": "bottom"}
        notes.append({"text": f"<b>{text(title)}</b>", "showarrow": False, **corner})
    return axes, notes
