"""Parts shared by the plotly figures: a layout without colors of its own, axes, short numbers."""

import html
import math
from collections.abc import Iterable
from typing import Any

from pbt.report.data.axes import STEPS_TITLE, Axis, Curve, Number, extent, is_few, log_ticks
from pbt.text import number, printable

Figure = dict[str, Any]
"""A plotly figure: `data`, `layout`, and `frames` if it has a slider."""

CLEAR = "rgba(0,0,0,0)"
HEAD = 48
"""Pixels above a figure for its title."""
STATE = "member %{customdata[0]}, round %{customdata[1]}<br>%{y} at step %{x}<extra></extra>"
"""The hover text of a point that stands for a state."""


def text(untrusted: object) -> str:
    """Escape untrusted text: plotly interprets HTML tags."""
    return html.escape(printable(untrusted))


def short(value: Number) -> Number:
    """A number rounded to eight significant digits; None for None, NaN and infinities."""
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.8g}")


def shorts(values: Iterable[Number]) -> list[Number]:
    """Numbers rounded to eight significant digits."""
    return [short(value) for value in values]


def line(curve: Curve, name: str, color: str, **more: Any) -> dict[str, Any]:
    """The line trace of a curve; `width`, `shape` and `dash` style the line."""
    style = {key: more.pop(key) for key in ("width", "shape", "dash") if key in more}
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": shorts(curve.x),
        "y": shorts(curve.y),
        "line": {"color": color, **style},
        **_refs(curve),
        **more,
    }


def dots(curve: Curve, name: str, color: str, **more: Any) -> dict[str, Any]:
    """The marker trace of a curve; `size`, `symbol` and `opacity` style the markers."""
    style = {key: more.pop(key) for key in ("size", "symbol", "opacity") if key in more}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": shorts(curve.x),
        "y": shorts(curve.y),
        "marker": {"color": color, **style},
        **_refs(curve),
        **more,
    }


def _refs(curve: Curve) -> dict[str, Any]:
    """Member and round of each point; the page adds the rest from the table of states."""
    if not curve.refs:
        return {}
    return {"customdata": [None if ref is None else list(ref) for ref in curve.refs], "hovertemplate": STATE}


def titled(figure: Figure, title: str, caption: str) -> Figure:
    """The figure with a title and, below it, the run; the page, which has headings, removes them from the screen."""
    shown = figure["layout"]
    heading = {
        "text": f"<b>{text(title)}</b>",
        "subtitle": {"text": text(caption), "font": {"size": 12}},
        "x": 0.01,
        "xanchor": "left",
        "y": 0.99,
        "yref": "container",
        "yanchor": "top",
        "font": {"size": 15},
    }
    margin = shown["margin"]
    return figure | {
        "layout": shown
        | {
            "title": heading,
            "height": shown["height"] + HEAD,
            "margin": margin | {"t": margin["t"] + HEAD},
            "meta": {**shown.get("meta", {}), "head": HEAD},
        }
    }


def layout(height: int, **more: Any) -> dict[str, Any]:
    """A layout for light and dark backgrounds: the page adds the colors of text and grid."""
    return {
        "height": height,
        "margin": {"l": 60, "r": 20, "t": 64, "b": 52},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "hovermode": "closest",
        "hoverdistance": 60,
        "legend": {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "traceorder": "normal"},
        **more,
    }


def axis(title: str, *, log: bool = False, span: tuple[float, float] = (0, 1), **more: Any) -> dict[str, Any]:
    """An axis.

    Args:
        title: The title, escaped.
        log: Make the axis logarithmic.
        span: The range of a logarithmic axis, in decades.
        more: Further properties of the axis.
    """
    common = {"title": {"text": title, "standoff": 8}, "zeroline": False, "automargin": True, **more}
    if not log:
        return common
    values = log_ticks(*span)
    return {**common, "type": "log", "tickvals": values, "ticktext": [number(value, 3) for value in values]}


def count_axis(title: str, counts: Iterable[Number], **more: Any) -> dict[str, Any]:
    """An axis over whole numbers, with ticks at whole numbers only.

    Automatic ticks of a short range are fractions, and a format that rounds would label two of them alike; so a short
    range has a tick at each whole number, and the format does not round.
    """
    return axis(title, tickformat=",~f", **more) | ({"dtick": 1} if is_few(counts) else {})


def step_axis(steps: Iterable[Number], **more: Any) -> dict[str, Any]:
    """The axis of training steps in a state."""
    return count_axis(STEPS_TITLE, steps, **more)


def hparam_axis(hparam: Axis, values: Iterable[Number], *, title: str = "") -> dict[str, Any]:
    """The axis of a hyperparameter, fitted to these values."""
    low, high = extent(values, log=hparam.log)
    ends = [short(high), short(low)] if hparam.flipped else [short(low), short(high)]
    made = axis(title, log=hparam.log, span=(low, high), range=ends)
    if hparam.options:
        # Without enough room, plotly omits some of the labels; hovering shows the option.
        labels = [number(option)[:14] for option in hparam.options]
        made |= {"tickvals": list(range(len(labels))), "ticktext": [html.escape(label) for label in labels]}
    return made
