"""The two figures of a population run: where in the hyperparameter plane it went, and the schedule it found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pbt.errors import MissingExtraError
from pbt.runs.results import Run

WIDTH, HEIGHT, DPI = 8.0, 5.0, 130
LOG_SPAN = 20
"""Values that span more than this factor are shown on a logarithmic axis."""


def plot_results(run: Run, steps_per_epoch: int, path: Path, note: str = "") -> None:
    """The hyperparameter plane: every worker and epoch a dot colored by test accuracy, first and last epoch marked.

    With one hyperparameter the second axis is the epoch.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, axes = _figure()
    history = run.history()
    names = list(run.space)
    epochs = [step / steps_per_epoch for step in history["step"]]
    x, x_name = history[names[0]], names[0]
    y, y_name = (history[names[1]], names[1]) if len(names) > 1 else (epochs, "epoch")
    accuracy = [100 * value for value in history["test_accuracy"]]
    # The first rounds are far below the rest: without a floor all later dots would have one color.
    floor = max(min(accuracy), max(accuracy) - 3)
    dots = axes.scatter(
        x, y, c=accuracy, vmin=floor, vmax=max(accuracy), cmap="viridis", s=26, linewidths=0, alpha=0.85
    )
    for label, marker, color, when in (
        ("first epoch", "o", "#d62728", min(history["round"])),
        ("last epoch", "s", "#111111", max(history["round"])),
    ):
        rows = [i for i, round_ in enumerate(history["round"]) if round_ == when]
        axes.scatter(
            [x[i] for i in rows],
            [y[i] for i in rows],
            s=80,
            marker=marker,
            facecolors="none",
            edgecolors=color,
            linewidths=1.4,
            label=label,
        )
    _scale(axes.set_xscale, x)
    if len(names) > 1:
        _scale(axes.set_yscale, y)
    axes.set_xlabel(_title(x_name))
    axes.set_ylabel(_title(y_name))
    axes.set_title("Every worker after every epoch" + (f"\n{note}" if note else ""), loc="left")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.27), ncols=2, frameon=False)
    bar = figure.colorbar(dots, ax=axes, extend="min" if min(accuracy) < floor else "neither", pad=0.02)
    bar.set_label("test accuracy, %")
    _save(figure, path)


def plot_schedule(run: Run, name: str, steps_per_epoch: int, path: Path, note: str = "") -> None:
    """One hyperparameter against epochs along the ancestry of the best member, over those of all the others.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, axes = _figure()
    # Who failed in every round has no ancestry.
    for member in sorted({ref.member for ref in run.tree.reports}):
        _steps(axes, run.lineage(member), name, steps_per_epoch, color="#b8bec6", linewidth=0.8, alpha=0.7)
    winner = run.lineage()
    _steps(axes, winner, name, steps_per_epoch, color="#0b5fa5", linewidth=2.4)
    axes.plot([], [], color="#0b5fa5", linewidth=2.4, label=f"ancestry of the best member ({run.best.member})")
    axes.plot([], [], color="#b8bec6", linewidth=0.8, label="ancestries of the others")
    before = None
    for link in winner:
        if before is not None and link.member != before:
            axes.axvline(link.first_step / steps_per_epoch, color="#d08c2b", linewidth=0.8, linestyle=":")
        before = link.member
    axes.plot([], [], color="#d08c2b", linewidth=0.8, linestyle=":", label="handed over to another worker")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _scale(axes.set_yscale, run.history()[name])
    axes.set_xlabel("epoch")
    axes.set_ylabel(_title(name))
    axes.set_title(f"The {_title(name)} schedule that was found" + (f"\n{note}" if note else ""), loc="left")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.27), ncols=3, frameon=False)
    _save(figure, path)


def _steps(axes: Any, links: Sequence[Any], name: str, steps_per_epoch: int, **style: Any) -> None:
    edges = [link.first_step / steps_per_epoch for link in links] + [links[-1].last_step / steps_per_epoch]
    axes.stairs([link.hparams[name] for link in links], edges, baseline=None, **style)


def _figure() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing figures", "mnist") from error
    # Without pyplot: no global state, no window, no backend to choose.
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e8eb", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _scale(set_scale: Any, values: Sequence[Any]) -> None:
    if min(values) > 0 and max(values) / min(values) > LOG_SPAN:
        set_scale("log")


def _title(name: str) -> str:
    return {"lr": "learning rate", "keep_prob": "keep probability"}.get(name, name.replace("_", " "))


def _save(figure: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    figure.savefig(temporary)
    temporary.replace(path)
