"""The figures: what is in them, not how they look."""

import itertools
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pbt.errors import MissingExtraError
from pbt.mnist import plots
from pbt.mnist.config.record import Config
from pbt.mnist.plots import DPI, HEIGHT, WIDTH, plot_results, plot_schedule
from pbt.runs.results import Run

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


def test_the_plane_has_a_dot_per_worker_and_epoch_colored_by_test_accuracy(
    finished: Run, drawn: list[Any], tmp_path: Path
) -> None:
    """Dots are at both hyperparameters, their color is the test accuracy in percent, and the axes are named."""
    plot_results(finished, STEPS, tmp_path / "r.png", "not MNIST")
    axes, bar = drawn[0].axes
    history = finished.history()
    dots = axes.collections[0]
    assert dots.get_offsets().tolist() == [list(p) for p in zip(history["lr"], history["keep_prob"], strict=True)]
    assert dots.get_array().tolist() == [100 * value for value in history["test_accuracy"]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning rate", "keep probability")
    assert "test accuracy" in bar.get_ylabel()
    assert "not MNIST" in axes.get_title(loc="left")


def test_the_plane_marks_the_first_and_the_last_epoch(finished: Run, drawn: list[Any], tmp_path: Path) -> None:
    """Rings with a label each are around the dots of the first and of the last epoch, and around no others."""
    plot_results(finished, STEPS, tmp_path / "r.png")
    axes = drawn[0].axes[0]
    dots = axes.collections[0].get_offsets().tolist()
    rings = {ring.get_label(): ring.get_offsets().tolist() for ring in axes.collections[1:]}
    assert rings == {"first epoch": dots[:4], "last epoch": dots[-4:]}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["first epoch", "last epoch"]


def test_one_hyperparameter_is_shown_against_epochs(
    trained: Trained, configured: Configure, drawn: list[Any], tmp_path: Path
) -> None:
    """With a single evolving value the second axis is the epoch."""
    run = trained(tmp_path / "run", configured(PBT_keep_prob=None, num_worker_tot=2, num_epochs_tot=2))
    plot_results(run, STEPS, tmp_path / "r.png")
    axes = drawn[0].axes[0]
    assert axes.get_ylabel() == "epoch"
    assert axes.collections[0].get_offsets()[:, 1].tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize(("lrs", "scale"), [("0.0001,0.1,0.01", "log"), ("0.1,0.09,0.08", "linear")])
def test_values_over_a_wide_span_are_on_a_logarithmic_axis(
    trained: Trained, configured: Configure, drawn: list[Any], tmp_path: Path, lrs: str, scale: str
) -> None:
    """Learning rates over orders of magnitude get a logarithmic axis, close ones a linear one."""
    run = trained(tmp_path / "run", configured(PBT_lr=lrs, num_worker_tot=6, num_epochs_tot=1))
    plot_results(run, STEPS, tmp_path / "r.png")
    plot_schedule(run, "lr", STEPS, tmp_path / "s.png")
    values = run.history()["lr"]
    assert (max(values) / min(values) > plots.LOG_SPAN) == (scale == "log")
    assert drawn[0].axes[0].get_xscale() == drawn[1].axes[0].get_yscale() == scale


def test_the_schedule_is_the_one_along_the_winners_ancestry(
    trained: Trained, configured: Configure, drawn: list[Any], tmp_path: Path
) -> None:
    """The last line drawn has the learning rates of the best state's ancestry, each over the epochs it was used.

    With this seed the best worker is not the first, and has its state from two others.
    """
    run = trained(tmp_path / "run", configured(seed=11, num_epochs_tot=4))
    plot_schedule(run, "lr", STEPS, tmp_path / "s.png", "not MNIST")
    axes = drawn[0].axes[0]
    stairs = [patch.get_data() for patch in axes.patches]
    assert len(stairs) == 4 + 1
    links = run.lineage()
    assert stairs[-1].values.tolist() == [link.hparams["lr"] for link in links]
    assert stairs[-1].edges.tolist() == [0, *(link.last_step / STEPS for link in links)]
    epochs = np.arange(links[-1].last_step) / STEPS
    rates = [stairs[-1].values[np.searchsorted(stairs[-1].edges, at, side="right") - 1] for at in epochs]
    assert rates == [run.best_schedule.at(step)["lr"] for step in range(links[-1].last_step)]
    handed_over = [b.first_step / STEPS for a, b in itertools.pairwise(links) if a.member != b.member]
    marks = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) and line.get_linestyle() == ":"]
    assert marks == handed_over
    assert f"best member ({run.best.member})" in axes.get_legend().get_texts()[0].get_text()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "learning rate")
    assert "not MNIST" in axes.get_title(loc="left")


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
    with pytest.raises(OSError, match="no room"):
        plot_schedule(finished, "lr", STEPS, path)
    assert path.read_bytes() == b"the old picture"


def test_without_matplotlib_the_error_names_the_extra(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where matplotlib is not installed the message says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"population-based-training\[mnist\]"):
        plot_results(finished, STEPS, tmp_path / "r.png")
