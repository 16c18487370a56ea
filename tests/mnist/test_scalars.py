"""Which numbers of a report are shown in TensorBoard, under which names, and against what."""

import logging
import sys
from pathlib import Path

import pytest

from pbt.mnist.scalars import WorkerScalars, scalars
from pbt.runs.callbacks import MemberReport
from pbt.space import HParams

HPARAMS: HParams = {"lr": 0.25, "keep_prob": 0.5}


def report(step: int, *, member: int = 3, tested: bool = True, held_out: bool = True) -> MemberReport:
    """What a worker says after a round, every number another one."""
    said = {"train_loss": 0.5, "train_accuracy": 0.6, "rows": [[step - 5, 0.7, 0.1], [step, 0.3, 0.2]]}
    if tested:
        said |= {"test_loss": 0.4, "test_accuracy": 0.8}
    if held_out:
        said |= {"val_loss": 0.45, "val_accuracy": 0.85}
    return MemberReport(
        member=member, round=2, first_step=step - 10, step=step, scores=(0.9,), hparams=HPARAMS, reported=said
    )


OURS = [
    ("train_loss", 0.7, 15),
    ("train_acc", 0.1, 15),
    ("train_loss", 0.3, 20),
    ("train_acc", 0.2, 20),
    ("test_loss", 0.4, 20),
    ("test_acc", 0.8, 20),
    ("val_acc", 0.85, 20),
    ("epoch_loss", 0.5, 2),
    ("epoch_lr", 0.25, 2),
    ("epoch_keep_prob", 0.5, 2),
]


def test_a_worker_shows_losses_and_accuracies_against_steps_and_the_rest_against_epochs() -> None:
    """Every number of a worker is there under our tag, and the original's four under its tags, in its units."""
    found = list(WorkerScalars(10)(report(20)))
    assert found[: len(OURS)] == [(f"{tag}/worker_3", value, place) for tag, value, place in OURS]
    assert found[len(OURS) :] == [
        ("loss_3", 0.5, 1),
        ("lr_3", 0.25, 1),
        ("test_loss_3", 0.4, 1),
        ("test_acc_3", 80.0, 1),
    ]


def test_a_network_alone_needs_no_worker_in_its_tags() -> None:
    """The tags of a single network have no worker; the original's are against iterations, in percent."""
    found = list(WorkerScalars(10, alone=True)(report(20)))
    assert found[: len(OURS)] == OURS
    assert found[len(OURS) :] == [
        ("loss", 0.7, 15),
        ("train_accuracy", 10.0, 15),
        ("loss", 0.3, 20),
        ("train_accuracy", 20.0, 20),
    ]


def test_what_was_not_measured_is_not_shown() -> None:
    """Where a tester of its own tests, or nothing is held out, these tags are left out."""
    tags = {tag for tag, _, _ in WorkerScalars(10, alone=True)(report(20, tested=False, held_out=False))}
    assert tags == {"train_loss", "train_acc", "epoch_loss", "epoch_lr", "epoch_keep_prob", "loss", "train_accuracy"}
    tags = {tag for tag, _, _ in WorkerScalars(10)(report(20, tested=False)) if not tag.endswith("/worker_3")}
    assert tags == {"loss_3", "lr_3"}


@pytest.mark.parametrize(("step", "epoch"), [(4, None), (8, None), (10, 1), (14, None), (20, 2)])
def test_an_epoch_has_one_value(step: int, epoch: int | None) -> None:
    """A checkpoint inside an epoch is shown against its step; only the one at the end is shown against the epoch."""
    found = {tag: place for tag, _, place in WorkerScalars(10, alone=True)(report(step))}
    assert (found["train_loss"], found.get("epoch_loss"), found.get("epoch_lr")) == (step, epoch, epoch)


def test_without_tensorboardx_there_is_a_notice_and_no_observer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where tensorboardX is not installed training goes without scalars, and says so."""
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with caplog.at_level(logging.INFO, "pbt"):
        assert scalars(10) == []
    assert "no TensorBoard scalars" in caplog.text
    assert "tensorboard" in caplog.text


def test_with_tensorboardx_there_is_one_observer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where it is installed there is no notice, and nothing is written before a run starts."""
    with caplog.at_level(logging.INFO, "pbt"):
        assert len(scalars(10, folder=str(tmp_path / "scalars"))) == 1
    assert not caplog.text
    assert not list(tmp_path.iterdir())
