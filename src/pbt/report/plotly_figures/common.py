"""What all plotly figures share: a layout without colors of its own, axes, short numbers."""

import html
import math
from collections.abc import Iterable
from typing import Any

from pbt.report.data.axes import Axis, Curve, Number, extent, log_ticks
from pbt.text import number, printable

Figure = dict[str, Any]
"""A plotly figure: `data`, `layout`, and where there is a slider `frames`."""

STEPS = "training steps in the state (lineage steps)"
CLEAR = "rgba(0,0,0,0)"


def text(words: object) -> str:
    """Words of somebody else's for plotly, which reads tags."""
    return html.escape(printable(words))


def short(value: Number) -> Number:
    """A number with eight significant digits; None: what is no number."""
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.8g}")


def shorts(values: Iterable[Number]) -> list[Number]:
    """Numbers with eight significant digits."""
    return [short(value) for value in values]


def line(curve: Curve, name: str, color: str, **more: Any) -> dict[str, Any]:
    """A trace of a curve; `width`, `shape` and `dash` are the line's."""
    style = {key: more.pop(key) for key in ("width", "shape", "dash") if key in more}
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": shorts(curve.x),
        "y": shorts(curve.y),
        "line": {"color": color, **style},
        **more,
    }


def dots(curve: Curve, name: str, color: str, **more: Any) -> dict[str, Any]:
    """A trace of points; `size` and `symbol` are the marker's."""
    style = {key: more.pop(key) for key in ("size", "symbol", "opacity") if key in more}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": shorts(curve.x),
        "y": shorts(curve.y),
        "marker": {"color": color, **style},
        **more,
    }


def layout(height: int, **more: Any) -> dict[str, Any]:
    """A layout for any ground: colors of text and grid come with the page."""
    return {
        "height": height,
        "margin": {"l": 60, "r": 20, "t": 64, "b": 52},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "traceorder": "normal"},
        **more,
    }


def axis(title: str, *, log: bool = False, span: tuple[float, float] = (0, 1), **more: Any) -> dict[str, Any]:
    """An axis; `title` is plotly's text already, `span` what a logarithmic one covers, in decades."""
    found = {"title": {"text": title, "standoff": 8}, "zeroline": False, "automargin": True, **more}
    if not log:
        return found
    values = log_ticks(*span)
    return {**found, "type": "log", "tickvals": values, "ticktext": [number(value, 3) for value in values]}


def step_axis(**more: Any) -> dict[str, Any]:
    """The axis that most pictures have in common."""
    return axis(STEPS, tickformat=",d", **more)


def hparam_axis(hparam: Axis, values: Iterable[Number], *, title: str = "") -> dict[str, Any]:
    """The axis of a hyperparameter around these values: logarithmic, upside down or with words, as it is."""
    low, high = extent(values, log=hparam.log)
    ends = [short(high), short(low)] if hparam.flipped else [short(low), short(high)]
    found = axis(title, log=hparam.log, span=(low, high), range=ends)
    if hparam.options:
        # Where there is no room, some of the words are left out; hovering tells.
        words = [number(option)[:14] for option in hparam.options]
        found |= {"tickvals": list(range(len(words))), "ticktext": [html.escape(word) for word in words]}
    return found
