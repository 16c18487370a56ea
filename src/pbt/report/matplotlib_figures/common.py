"""Parts shared by the matplotlib figures: style, sheet, axes, curves, and conversion to bytes."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, wraps
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt

from pbt.errors import MissingExtraError
from pbt.report.data.axes import Axis, Curve, Number, extent, log_ticks
from pbt.text import number, printable

WIDTH, DPI = 8.0, 150
"""Width of a figure in inches, and dots per inch."""
DATELESS: Mapping[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
SETTINGS: dict[Any, Any] = {
    # Names are untrusted, so a dollar sign starts no formula. Equal figures give equal bytes. Publishers accept fonts
    # of type 42.
    "text.parse_math": False,
    "svg.hashsalt": "pbt",
    "pdf.fonttype": 42,
    "font.size": 10.0,
    "axes.formatter.useoffset": False,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "legend.frameon": False,
}

Arguments = ParamSpec("Arguments")
Drawing = Any
"""A matplotlib figure."""


def isolated_style(plot: Callable[Arguments, Drawing]) -> Callable[Arguments, Drawing]:
    """Decorate a plotting function to use `SETTINGS` instead of the user's matplotlib settings."""

    @wraps(plot)
    def drawn(*args: Arguments.args, **more: Arguments.kwargs) -> Drawing:
        with _settings():
            return plot(*args, **more)

    return drawn


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtraError("drawing figures", "report") from error
    with mpl.rc_context(), warnings.catch_warnings():
        # A glyph that the font lacks is drawn as a box; a warning would add nothing.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        yield


def figure_bytes(figure: Drawing, suffix: str) -> bytes:
    """Save a figure as `png`, `svg` or `pdf`; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with _settings():
        figure.savefig(buffer, format=suffix, dpi=DPI, metadata=DATELESS[suffix])
    return buffer.getvalue()


@cache
def _figure_class() -> Any:
    from matplotlib.figure import Figure

    class Sheet(Figure):
        """A figure that every notebook shows as the value of a cell, also without pyplot."""

        def _repr_png_(self) -> bytes:
            return figure_bytes(self, "png")

    return Sheet


def sheet(height: float, rows: int = 1, columns: int = 1, **more: Any) -> tuple[Drawing, Any]:
    """A figure and its axes, as an array of rows and columns."""
    # Without pyplot there is no global state, no window and no backend to choose.
    figure = _figure_class()(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **more)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(color="#e6e8eb", linewidth=0.6)
        one.set_axisbelow(True)
    return figure, axes


@isolated_style
def captioned(figure: Drawing, caption: str) -> Drawing:
    """The figure with a line above it that names the run."""
    line = printable(caption)
    heading = figure.get_suptitle()
    if heading:
        figure.suptitle(f"{heading}\n{line}", x=0.01, ha="left", fontsize=10, fontweight="bold")
    else:
        figure.suptitle(line, x=0.01, ha="left", fontsize=9)
    return figure


def legend(figure: Drawing, axes: Any, columns: int) -> None:
    """Add a legend of these axes below all panels."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def points(curve: Curve) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A curve as two arrays, with NaN for gaps."""
    return values(curve.x), values(curve.y)


def values(numbers: Iterable[Number]) -> npt.NDArray[np.float64]:
    """Numbers as an array, with NaN for None."""
    return np.array([np.nan if value is None else value for value in numbers], dtype=np.float64)


def scaled(axes: Any, side: str, seen: Iterable[Number], *, log: bool, flipped: bool = False) -> None:
    """Fit the x or y axis of a subplot to the values drawn on it, with ticks at round values."""
    low, high = extent(seen, log=log)
    if log:
        getattr(axes, f"set_{side}scale")("log")
        getattr(axes, f"{side}axis").set_minor_locator(_nowhere())
        ticks = log_ticks(low, high)
        getattr(axes, f"set_{side}ticks")(ticks, [number(value, 3) for value in ticks])
        low, high = 10**low, 10**high
    getattr(axes, f"set_{side}lim")((high, low) if flipped else (low, high))


def hparam(axes: Any, side: str, axis: Axis, seen: Iterable[Number]) -> None:
    """Set up the x or y axis of a subplot for a hyperparameter."""
    scaled(axes, side, seen, log=axis.log, flipped=axis.flipped)
    if axis.options:
        labels = [number(option)[:14] for option in axis.options]
        getattr(axes, f"set_{side}ticks")(range(len(labels)), labels)


def count_ticks(axes: Any, side: str) -> None:
    """Put the ticks of the x or y axis of a subplot at whole numbers, written as `12,000`."""
    from matplotlib.ticker import MaxNLocator

    axis = getattr(axes, f"{side}axis")
    # With the default of at least two ticks, an axis around a single whole number would get fractions.
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1))
    axis.set_major_formatter("{x:,.0f}")


def _nowhere() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
