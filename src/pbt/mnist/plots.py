"""The figures of a population: its networks over the hyperparameters, and its hyperparameter schedules."""

import itertools
import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pbt.errors import MissingExtraError
from pbt.mnist.tables import MNIST
from pbt.runs.results import Run
from pbt.store.durable import replacing

WIDTH, HEIGHT, DPI = 8.0, 5.0, 130
PLANE = 3.4, 2.9
"""Width and height in inches of one plane of a grid."""
LOG_SPAN = 10
"""Values that span more than this factor are shown on a logarithmic axis."""
FIRST, LAST, OWN, ANCESTRY, OTHERS = "#d62728", "#111111", "#e07b00", "#0b5fa5", "#aab1ba"
_ANCESTRY_STYLE: dict[str, Any] = {"color": ANCESTRY, "linewidth": 4.0, "alpha": 0.75}
_OWN_STYLE: dict[str, Any] = {"color": OWN, "linewidth": 1.6}
_OTHERS_STYLE: dict[str, Any] = {"color": OTHERS, "linewidth": 0.8}
_COPY_STYLE: dict[str, Any] = {
    "marker": "o",
    "linestyle": "",
    "color": "white",
    "markeredgecolor": ANCESTRY,
    "markeredgewidth": 1.6,
}
_DOT, _SPACING, _REACH = 26.0, 4.6, 14.0
"""Area of a dot in square points; distance between spread dots, and its maximum from the first, in points."""


def plot_results(run: Run, steps_per_epoch: int, path: Path, note: str = "") -> None:
    """Every worker after every epoch as a dot over two hyperparameters, colored by test accuracy.

    One hyperparameter is shown against epochs, three and more as a grid with a plane for each two of them. The first
    and the last epoch are marked. Dots at equal values are spread around them. Without test accuracies the color is the
    validation accuracy.

    Args:
        run: The run.
        steps_per_epoch: Training steps of an epoch.
        path: The PNG file to write.
        note: Note on the data; empty for MNIST itself.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DiskError: The file cannot be written.
    """
    history, names = run.history(), list(run.space)
    epochs = [step / steps_per_epoch for step in history["step"]]
    alone = {"epoch": [round(epoch) for epoch in epochs]} if len(names) == 1 else {}
    columns = alone | {_title(name): history[name] for name in names}
    size = len(columns) - 1
    figure, grid = _figure(size)
    kind, values = _accuracies(run)
    floor = max(min(values), max(values) - 3)
    # The first rounds are far below the rest: without a floor all later dots would have one color.
    color = {"c": values, "cmap": "viridis", "vmin": floor, "vmax": max(values)}
    drawn, dots, spread = [], None, False
    for row, column in itertools.product(range(size), repeat=2):
        axes = grid[row][column]
        if column > row:
            axes.remove()
            continue
        dots, shifted = _panel(axes, columns, (column, row + 1), epochs, color)
        spread = spread or shifted
        drawn.append(axes)
    _head(figure, "Every worker after every epoch", run, note)
    _legend(figure, drawn[0], epochs, spread=spread)
    extend = "min" if min(values) < floor else "neither"
    bar = figure.colorbar(dots, ax=drawn, extend=extend, pad=0.02, aspect=30, shrink=0.9)
    bar.set_label(f"{kind} accuracy, %")
    _save(figure, path)


def plot_schedule(run: Run, name: str, steps_per_epoch: int, path: Path, note: str = "") -> None:
    """One hyperparameter against all epochs: the best network's ancestry, and the schedule of every worker.

    Bold: the values that made the best network, up to the epoch of its state. Colored: the schedule of the worker that
    is best at the end. Thin: all other workers, including those that were replaced or failed.

    Args:
        run: The run.
        name: The hyperparameter.
        steps_per_epoch: Training steps of an epoch.
        path: The PNG file to write.
        note: Note on the data; empty for MNIST itself.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DiskError: The file cannot be written.
    """
    figure, ((axes,),) = _figure(1)
    own, best_at_end, edges = _own_values(run, name), _best_at_end(run), _edges(run, steps_per_epoch)
    for worker, values in own.items():
        if worker != best_at_end:
            _steps(axes, values, edges, alpha=0.8, **_OTHERS_STYLE)
    copies = _draw_ancestry(axes, run, name, steps_per_epoch)
    _steps(axes, own[best_at_end], edges, **_OWN_STYLE)
    if copies:
        axes.scatter(*zip(*copies, strict=True), s=34, color="white", edgecolors=ANCESTRY, linewidths=1.6, zorder=5)
    axes.set_xlim(0, edges[-1])
    axes.xaxis.get_major_locator().set_params(integer=True)
    _scale(axes.yaxis, [value for values in own.values() for value in values], dense=True)
    axes.set_xlabel("epoch")
    axes.set_ylabel(_title(name))
    _head(figure, f"{_title(name).capitalize()} schedules", run, note)
    labels = [
        (_ANCESTRY_STYLE, f"made the best network (worker {run.best.member})"),
        (_OWN_STYLE, f"worker {best_at_end}, best at the end"),
        *([(_OTHERS_STYLE, "all other workers")] if len(own) > 1 else []),
        *([(_COPY_STYLE, "copied by another worker")] if copies else []),
    ]
    for style, label in labels:
        axes.plot([], [], **style, label=label)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    _save(figure, path)


def _panel(
    axes: Any, columns: Mapping[str, Any], place: tuple[int, int], epochs: Sequence[float], color: Any
) -> tuple[Any, bool]:
    """Draw one plane of the grid; returns its dots, and whether any was moved.

    Args:
        axes: The axes.
        columns: The values of every column by title.
        place: Number of the column on the x axis, and of that on the y axis.
        epochs: The epoch of each dot.
        color: Colors of the dots, as arguments of `scatter`.
    """
    size, titles = len(columns) - 1, list(columns)
    (across, x), (up, y) = ((titles[number], columns[titles[number]]) for number in place)
    zoom = 1.0 if size == 1 else 0.65
    shifts = _shifts(x, y, zoom, across=across != "epoch")
    dots = _plane(axes, (x, y, shifts), epochs, color, zoom)
    if across == "epoch":
        axes.xaxis.get_major_locator().set_params(integer=True)
    else:
        _scale(axes.xaxis, x, dense=size == 1)
    _scale(axes.yaxis, y, dense=size == 1)
    is_bottom, is_left = place[1] == size, place[0] == 0
    axes.tick_params(labelbottom=is_bottom, labelleft=is_left)
    axes.set_xlabel(across if is_bottom else "")
    axes.set_ylabel(up if is_left else "")
    return dots, any(shift != (0.0, 0.0) for shift in shifts)


def _draw_ancestry(axes: Any, run: Run, name: str, steps_per_epoch: int) -> list[tuple[float, Any]]:
    """Draw the values that made the best network; returns epoch and value of each copy between workers."""
    links = run.lineage()
    edges = [link.first_step / steps_per_epoch for link in links] + [links[-1].step / steps_per_epoch]
    _steps(axes, [link.hparams[name] for link in links], edges, **_ANCESTRY_STYLE)
    pairs = itertools.pairwise(links)
    return [(b.first_step / steps_per_epoch, b.hparams[name]) for a, b in pairs if a.member != b.member]


def _accuracies(run: Run) -> tuple[str, list[float]]:
    """The kind and values, in percent, of the accuracies that color the dots: of the test if all are known."""
    history = run.history()
    shares = history.get("test_accuracy", [None])
    kind, shares = ("validation", history["score"]) if None in shares else ("test", shares)
    return kind, [100 * share for share in shares]


def _plane(axes: Any, places: tuple[Any, Any, Any], epochs: Sequence[float], colors: Any, zoom: float) -> Any:
    """Draw dots, and marks around those of the first and the last epoch; the former are the larger ones."""
    axes.margins(0.08 if zoom == 1 else 0.12)
    dots = _marks(axes, *places, _DOT * zoom, linewidths=0, alpha=0.85, **colors)
    for when, area, marker, color, width in (
        (min(epochs), 130.0, "o", FIRST, 1.7),
        (max(epochs), 52.0, "s", LAST, 1.2),
    ):
        rows = [number for number, epoch in enumerate(epochs) if epoch == when]
        x, y, shifts = ([values[number] for number in rows] for values in places)
        style = {"facecolors": "none", "edgecolors": color, "linewidths": width}
        _marks(axes, x, y, shifts, area * zoom, marker=marker, **style)
    return dots


def _shifts(x: Sequence[Any], y: Sequence[Any], zoom: float, *, across: bool) -> list[tuple[float, float]]:
    """The shift of each dot, in points, that puts equal dots beside each other.

    The first stays; the others surround it in a spiral, or lie above and below where `across` is False.
    """
    places = list(zip(x, y, strict=True))
    counts = Counter(places)
    turns: Counter[tuple[Any, Any]] = Counter()
    found = []
    for place in places:
        turn, count = turns[place], counts[place]
        turns[place] += 1
        if across:
            radius = min(_SPACING, _REACH / math.sqrt(count)) * math.sqrt(turn)
            angle = turn * math.pi * (3 - math.sqrt(5))
        else:
            radius = min(_SPACING, 2 * _REACH / count) * ((turn + 1) // 2)
            angle = math.pi * (turn + 0.5)
        # Without the rounding the sine of half a turn is not zero.
        found.append((round(zoom * radius * math.cos(angle), 6), round(zoom * radius * math.sin(angle), 6)))
    return found


def _marks(axes: Any, x: Any, y: Any, shifts: Any, area: float, *, marker: str = "o", **style: Any) -> Any:
    """A scatter whose marks are drawn shifted by points; their values are not changed."""
    from matplotlib.markers import MarkerStyle
    from matplotlib.transforms import Affine2D

    marks = axes.scatter(x, y, s=area, marker=marker, **style)
    form = MarkerStyle(marker)
    shape, side = form.get_path().transformed(form.get_transform()), math.sqrt(area)
    marks.set_paths([shape.transformed(Affine2D().translate(dx / side, dy / side)) for dx, dy in shifts])
    return marks


def _own_values(run: Run, name: str) -> dict[int, list[Any]]:
    """The values of every worker by round, including failed rounds."""
    rounds: dict[int, list[int]] = {}
    for member, round_ in (*run.tree.reports, *run.tree.failures):
        rounds.setdefault(member, []).append(round_)
    return {member: [run.tree.hparams(member, r)[name] for r in sorted(rounds[member])] for member in sorted(rounds)}


def _edges(run: Run, steps_per_epoch: int) -> list[float]:
    """The epochs at which the rounds begin and end."""
    ends = {ref.round: report.step / steps_per_epoch for ref, report in run.tree.reports.items()}
    return [0.0, *(ends[round_] for round_ in sorted(ends))]


def _best_at_end(run: Run) -> int:
    """The worker with the highest score in the last round; among equal scores, the lowest validation loss wins."""
    last = max(ref.round for ref in run.tree.reports)
    reports = [report for ref, report in run.tree.reports.items() if ref.round == last]
    return max(reports, key=lambda report: (report.scores[0], -report.reported.get("val_loss", 0.0))).member


def _steps(axes: Any, values: Sequence[Any], edges: Sequence[float], **style: Any) -> None:
    axes.stairs(values, edges[: len(values) + 1], baseline=None, **style)


def _figure(size: int) -> tuple[Any, Any]:
    """A figure with a square grid of axes."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing figures", "mnist") from error
    # Without pyplot: no global state, no window, no backend to choose.
    inches = (WIDTH, HEIGHT) if size == 1 else (PLANE[0] * size + 1.4, PLANE[1] * size + 1.0)
    figure = Figure(figsize=inches, dpi=DPI, layout="constrained")
    grid = figure.subplots(size, size, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e8eb", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, grid


def _head(figure: Any, text: str, run: Run, note: str) -> None:
    name = run.path.resolve().name if run.path is not None else ""
    under = textwrap.wrap(" · ".join(filter(None, [note or MNIST, name])), int(11 * figure.get_size_inches()[0]))
    figure.suptitle("\n".join([text, *under]), x=0.02, ha="left", fontsize="large")


def _legend(figure: Any, axes: Any, epochs: Sequence[float], *, spread: bool) -> None:
    first, last = (f"{when:g}" for when in (min(epochs), max(epochs)))
    shape: dict[str, Any] = {"linestyle": "", "markerfacecolor": "none"}
    axes.plot([], [], marker="o", markersize=11, markeredgecolor=FIRST, **shape, label=f"first epoch ({first})")
    axes.plot([], [], marker="s", markersize=7, markeredgecolor=LAST, **shape, label=f"last epoch ({last})")
    if spread:
        axes.plot([], [], linestyle="", label="equal values are spread")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)


def _scale(axis: Any, values: Sequence[Any], *, dense: bool) -> None:
    """Make the axis of values over a wide span logarithmic, with ticks as plain numbers."""
    if min(values) <= 0 or max(values) / min(values) <= LOG_SPAN:
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    decades = math.log10(max(values) / min(values))
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if dense and decades < 4 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _title(name: str) -> str:
    return {"lr": "learning rate", "keep_prob": "keep probability"}.get(name, name.replace("_", " "))


def _save(figure: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    with replacing(path, temporary):
        figure.savefig(temporary)
