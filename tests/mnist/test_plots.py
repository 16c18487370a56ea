"""The figures: what is in them, not how they look."""

import itertools
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pbt.errors import DiskError, MissingExtraError
from pbt.mnist import plots
from pbt.mnist.config.record import Config
from pbt.mnist.plots import DPI, HEIGHT, WIDTH, plot_results, plot_schedule
from pbt.runs.results import History, Run

Trained = Callable[..., Run]
Configure = Callable[..., Config]
STEPS = 10


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would have been saved."""
    figures: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    return figures


@pytest.mark.parametrize("name", ["results.png", "lr.png", "keep_prob.png"])
def test_figures_are_whole_pictures(finished: Run, name: str) -> None:
    """Each figure of a run is a PNG file, complete to its end, of the size that was asked for."""
    assert finished.path is not None
    blob = (finished.path / name).read_bytes()
    assert blob.startswith(b"\x89PNG\r\n\x1a\n")
    assert blob.endswith(b"IEND\xaeB`\x82")
    assert struct.unpack(">II", blob[16:24]) == (WIDTH * DPI, HEIGHT * DPI)


def places_of(marks: Any) -> list[list[float]]:
    """Where marks stand: at the values, wherever they are shown."""
    return [[float(x), float(y)] for x, y in marks.get_offsets().tolist()]


def shifts_of(marks: Any) -> list[tuple[float, float]]:
    """By how many points each mark is moved on the paper."""
    side = float(np.sqrt(marks.get_sizes()[0]))
    middles = [path.get_extents() for path in marks.get_paths()]
    return [(side * (box.x0 + box.x1) / 2, side * (box.y0 + box.y1) / 2) for box in middles]


def planes_of(figure: Any) -> list[Any]:
    return [axes for axes in figure.axes if axes.collections and axes.get_label() != "<colorbar>"]


def test_the_plane_has_a_dot_per_worker_and_epoch_colored_by_test_accuracy(
    finished: Run, drawn: list[Any], tmp_path: Path
) -> None:
    """Dots are at both hyperparameters, their color is the test accuracy in percent; axes, data and run are named."""
    plot_results(finished, STEPS, tmp_path / "r.png", "not MNIST")
    axes, bar = drawn[0].axes
    history = finished.history()
    dots = axes.collections[0]
    assert places_of(dots) == [list(p) for p in zip(history["lr"], history["keep_prob"], strict=True)]
    assert dots.get_array().tolist() == [100 * value for value in history["test_accuracy"]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning rate", "keep probability")
    assert "test accuracy" in bar.get_ylabel()
    assert finished.path is not None
    assert f"not MNIST · {finished.path.name}" in drawn[0].get_suptitle()


def test_without_tests_dots_are_colored_by_validation(
    finished: Run, drawn: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose test images were left out is drawn all the same, and the scale says what the color is."""
    history = finished.history()
    untested = History({name: history[name] for name in history if not name.startswith("test_")})
    monkeypatch.setattr(finished, "history", lambda: untested)
    plot_results(finished, STEPS, tmp_path / "r.png")
    axes, bar = drawn[0].axes
    assert axes.collections[0].get_array().tolist() == [100 * value for value in history["score"]]
    assert bar.get_ylabel() == "validation accuracy, %"
    assert "MNIST" in drawn[0].get_suptitle()


def test_the_plane_marks_the_first_and_the_last_epoch(finished: Run, drawn: list[Any], tmp_path: Path) -> None:
    """Rings are around the dots of the first epoch, smaller squares over them around those of the last."""
    plot_results(finished, STEPS, tmp_path / "r.png")
    dots, first, last = drawn[0].axes[0].collections
    assert (places_of(first), places_of(last)) == (places_of(dots)[:4], places_of(dots)[-4:])
    moves = shifts_of(dots)
    for marks, own in ((first, moves[:4]), (last, moves[-4:])):
        assert np.allclose(shifts_of(marks), own)
        assert len(marks.get_facecolors()) == 0  # what is under them is seen
    assert first.get_sizes()[0] > 2 * last.get_sizes()[0]
    words = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert words[:2] == ["first epoch (1)", "last epoch (3)"]


def test_equal_values_lie_beside_each_other(
    trained: Trained, configured: Configure, drawn: list[Any], tmp_path: Path
) -> None:
    """Each of several dots at the same values is moved to a place of its own, near them; the legend says so."""
    run = trained(tmp_path / "run", configured(PBT_lr="0.01,0.02,0.03", PBT_keep_prob="0.5,0.6,0.7"))
    plot_results(run, STEPS, tmp_path / "r.png")
    dots = drawn[0].axes[0].collections[0]
    places = [tuple(place) for place in places_of(dots)]
    assert len(set(places)) < len(places)
    shown = {(place, round(x, 3), round(y, 3)) for place, (x, y) in zip(places, shifts_of(dots), strict=True)}
    assert len(shown) == len(places)
    assert max(np.hypot(x, y) for x, y in shifts_of(dots)) < 16
    assert drawn[0].legends[0].get_texts()[-1].get_text() == "equal values are spread"


def test_one_hyperparameter_is_shown_against_whole_epochs(
    trained: Trained, configured: Configure, drawn: list[Any], tmp_path: Path
) -> None:
    """With a single evolving value the first axis is the epoch, with whole numbers only; equal values keep theirs."""
    keys = {"PBT_lr": "0.01,0.02,0.03", "PBT_keep_prob": None, "num_worker_tot": 4, "num_epochs_tot": 2}
    run = trained(tmp_path / "run", configured(**keys))
    plot_results(run, STEPS, tmp_path / "r.png")
    drawn[0].canvas.draw()
    axes = drawn[0].axes[0]
    dots = axes.collections[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "learning rate")
    assert [x for x, _ in places_of(dots)] == [1] * 4 + [2] * 4
    assert [x for x, _ in shifts_of(dots)] == pytest.approx([0] * 8, abs=1e-6)
    shown = {(*place, round(y, 3)) for place, (_, y) in zip(places_of(dots), shifts_of(dots), strict=True)}
    assert len(shown) == 8
    assert all(tick == int(tick) for tick in axes.get_xticks())


@pytest.mark.parametrize("count", [3, 4])
def test_more_hyperparameters_are_a_grid_of_planes(
    trained: Trained, configured: Configure, drawn: list[Any], tmp_path: Path, count: int
) -> None:
    """Each two of three or more evolving values have a plane with all dots; none is dropped."""
    more = {"PBT_weight_decay": "0.00001,0.001", "PBT_label_smoothing": "0,0.1"}
    keys = dict(list(more.items())[: count - 2])
    run = trained(tmp_path / "run", configured(num_worker_tot=3, num_epochs_tot=1, **keys))
    plot_results(run, STEPS, tmp_path / "r.png")
    planes = planes_of(drawn[0])
    history, names = run.history(), list(run.space)
    expected = [
        [list(place) for place in zip(history[x], history[y], strict=True)]
        for at, y in enumerate(names)
        for x in names[:at]
    ]
    assert len(expected) == count * (count - 1) / 2
    assert [places_of(axes.collections[0]) for axes in planes] == expected
    titles = {"lr": "learning rate", "keep_prob": "keep probability"}
    words = [titles.get(name, name.replace("_", " ")) for name in names]
    assert [axes.get_ylabel() for axes in planes if axes.get_ylabel()] == words[1:]
    assert [axes.get_xlabel() for axes in planes if axes.get_xlabel()] == words[:-1]


@pytest.mark.parametrize(("lrs", "scale"), [("0.0001,0.1,0.01", "log"), ("0.1,0.09,0.08", "linear")])
def test_values_over_a_wide_span_are_on_a_logarithmic_axis(
    trained: Trained, configured: Configure, drawn: list[Any], tmp_path: Path, lrs: str, scale: str
) -> None:
    """Learning rates over orders of magnitude get a logarithmic axis with plain numbers, close ones a linear one."""
    run = trained(tmp_path / "run", configured(PBT_lr=lrs, num_worker_tot=6, num_epochs_tot=1))
    plot_results(run, STEPS, tmp_path / "r.png")
    plot_schedule(run, "lr", STEPS, tmp_path / "s.png")
    values = run.history()["lr"]
    assert (max(values) / min(values) > plots.LOG_SPAN) == (scale == "log")
    for figure, axis in ((drawn[0], drawn[0].axes[0].xaxis), (drawn[1], drawn[1].axes[0].yaxis)):
        figure.canvas.draw()
        assert axis.get_scale() == scale
        shown = [label.get_text() for label in axis.get_ticklabels() if label.get_text()]
        assert len(shown) > 2
        assert all(float(text) > 0 for text in shown)  # no mathematics, as $10^{-3}$ would be


def stairs_in(axes: Any) -> list[tuple[list[float], list[float]]]:
    return [(patch.get_data().values.tolist(), patch.get_data().edges.tolist()) for patch in axes.patches]


def test_schedules_over_all_epochs(trained: Trained, configured: Configure, drawn: list[Any], tmp_path: Path) -> None:
    """All workers' own values over all epochs, the best one's at the end above the ancestry of the best network.

    With this seed the best worker has its state from another, which had it from a third.
    """
    run = trained(tmp_path / "run", configured(seed=7, num_epochs_tot=4))
    plot_schedule(run, "lr", STEPS, tmp_path / "s.png", "not MNIST")
    axes = drawn[0].axes[0]
    *others, ancestry, own = stairs_in(axes)
    links = run.lineage()
    assert ancestry == (
        [link.hparams["lr"] for link in links],
        [0, *(link.step / STEPS for link in links)],
    )
    steps = range(links[-1].step)
    rates = [ancestry[0][np.searchsorted(ancestry[1], step / STEPS, side="right") - 1] for step in steps]
    assert rates == [run.best_schedule.at(step)["lr"] for step in steps]
    last = [report for ref, report in run.tree.reports.items() if ref.round == 4]
    best = max(last, key=lambda report: (report.scores[0], -report.reported["val_loss"])).member
    values = {w: [run.tree.hparams(w, round_)["lr"] for round_ in (1, 2, 3, 4)] for w in range(4)}
    epochs = [0, 1, 2, 3, 4]
    assert own == (values[best], epochs)
    assert others == [(values[w], epochs) for w in range(4) if w != best]
    handed_over = [
        [b.first_step / STEPS, b.hparams["lr"]] for a, b in itertools.pairwise(links) if a.member != b.member
    ]
    assert handed_over, "expected a seed whose winner was copied on its way"
    assert places_of(axes.collections[0]) == handed_over
    widths = [patch.get_linewidth() for patch in axes.patches]
    assert widths[-2] > widths[-1] > max(widths[:-2])
    words = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert f"worker {run.best.member}" in words[0]
    assert words[1] == f"worker {best}, best at the end"
    assert axes.get_xlim() == (0, 4)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "learning rate")
    assert "not MNIST · run" in drawn[0].get_suptitle()


def test_a_figure_is_replaced_whole_or_not_at_all(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing that fails half-way leaves the figure that was there."""
    from matplotlib.figure import Figure

    def fail(self: Figure, path: Path, **how: Any) -> None:
        path.write_bytes(b"half a picture")
        raise OSError("no room")

    monkeypatch.setattr(Figure, "savefig", fail)
    path = tmp_path / "lr.png"
    path.write_bytes(b"the old picture")
    with pytest.raises(DiskError, match="no room"):
        plot_schedule(finished, "lr", STEPS, path)
    assert path.read_bytes() == b"the old picture"


def test_without_matplotlib_the_error_names_the_extra(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where matplotlib is not installed the message says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"the extra 'mnist'"):
        plot_results(finished, STEPS, tmp_path / "r.png")
