"""Scalars for TensorBoard: the event files say what the log says, each value once."""

import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event as Written
from tensorboardX.record_writer import masked_crc32c

import pbt
from pbt.core.events import Event, Reported
from pbt.engine import Engine, Observer
from pbt.errors import MissingExtraError
from pbt.integrations.tensorboard import FOLDER, TensorBoard, everything
from pbt.results import Run
from pbt.space import Choice, Float, HParams

Point = tuple[str, int, float]


def climb(hparams: HParams, state: Any, steps: int, ctx: Any) -> tuple[Any, dict[str, Any]]:
    """Adds the rate at each step; reports numbers, and things that are none."""
    height = (state or {"height": 0.0})["height"] + steps * float(str(hparams["rate"]))
    said = {"height": height, "lucky": True, "name": "hill", "path": [1.0, 2.0], "count": 3}
    return {"height": height}, {"score": height / 2, **said}


def experiment(rounds: int = 4) -> pbt.Experiment:
    return pbt.Experiment(
        task=climb,
        space={"rate": Float(0.1, 1.0), "kind": Choice(("a", "b"))},
        plan=pbt.Plan(interval=5),
        population=3,
        rounds=rounds,
        seed=1,
    )


def points_in(folder: Path) -> Counter[Point]:
    """Every scalar in the event files of a folder, after the checksums were checked."""
    found: Counter[Point] = Counter()
    for path in folder.iterdir():
        assert "tfevents" in path.name
        blob, at = path.read_bytes(), 0
        while at < len(blob):
            (length,) = struct.unpack_from("<Q", blob, at)
            data = blob[at + 12 : at + 12 + length]
            assert struct.unpack_from("<I", blob, at + 8)[0] == masked_crc32c(blob[at : at + 8])
            assert struct.unpack_from("<I", blob, at + 12 + length)[0] == masked_crc32c(data)
            event = Written.FromString(data)
            found.update((value.tag, event.step, value.simple_value) for value in event.summary.value)
            at += 16 + length
    return found


def single(value: float) -> float:
    """The value with the 24 bits that an event file keeps."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def expected(run: Run) -> Counter[Point]:
    """What the log says, as points."""
    reports = [event for event in run.events if isinstance(event, Reported)]
    found: Counter[Point] = Counter()
    for report in reports:
        numbers = {
            "score": report.scores[0],
            "height": report.reported["height"],
            "count": 3,
            "rate": run.tree.hparams(report.member, report.round)["rate"],
        }
        found.update((f"{tag}/member_{report.member}", report.step, single(value)) for tag, value in numbers.items())
    return found


class Interrupt(Observer):
    """Ends a run after some commits."""

    def __init__(self, commits: int) -> None:
        self._left = commits

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


def test_every_number_of_the_log_is_shown_once(tmp_path: Path) -> None:
    """Score, reported numbers and numeric hyperparameters of every member and round are in the files, and no more."""
    run = experiment().run(tmp_path / "run", observers=[TensorBoard()])
    found = points_in(tmp_path / "run" / FOLDER)
    assert found == expected(run)
    assert len(found) == 3 * 4 * 4
    assert set(found.values()) == {1}


@pytest.mark.parametrize("commits", [1, 3])
def test_a_resumed_run_shows_every_number_once(tmp_path: Path, commits: int) -> None:
    """After an interruption the files are written anew from the log: nothing is missing, nothing is there twice."""
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        experiment().run(path, observers=[TensorBoard(), Interrupt(commits)])
    assert len(Run.open(path).tree.reports) == 3 * commits
    for file in (path / FOLDER).iterdir():
        file.rename(file.with_name("events.out.tfevents.1.earlier"))  # names have a second's resolution
    run = experiment().run(path, resume=True, observers=[TensorBoard()])
    assert points_in(path / FOLDER) == expected(run)
    assert len(expected(run)) == 3 * 4 * 4


def test_a_run_without_scalars_gets_them_when_it_is_resumed(tmp_path: Path) -> None:
    """What was logged while nobody wrote scalars is written by whoever does."""
    path = tmp_path / "run"
    experiment(rounds=2).run(path)
    run = experiment(rounds=3).run(path, resume=True, observers=[TensorBoard()])
    assert points_in(path / FOLDER) == expected(run)


def test_other_scalars_go_into_another_folder(tmp_path: Path) -> None:
    """A function of report and hyperparameters decides what is shown; files of other names are left alone."""

    def one(report: Reported, hparams: HParams) -> Iterable[tuple[str, float, int]]:
        yield "rate", float(str(hparams["rate"])), report.round

    path = tmp_path / "run"
    run = experiment(rounds=2).run(path, observers=[TensorBoard(one, f"{FOLDER}/mine"), TensorBoard(folder="theirs")])
    assert points_in(path / "theirs") == expected(run)
    reports = run.tree.reports.values()
    rates = Counter(("rate", r.round, single(float(str(run.tree.hparams(r.member, r.round)["rate"])))) for r in reports)
    assert points_in(path / FOLDER / "mine") == rates


def test_a_run_in_memory_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a run directory nothing is written anywhere, and nothing fails."""
    monkeypatch.chdir(tmp_path)
    run = experiment().run(observers=[TensorBoard()])
    assert len(run.tree.reports) == 12
    assert not list(tmp_path.iterdir())


def test_scalars_do_not_change_a_run(tmp_path: Path) -> None:
    """A run that is watched has the log of one that is not."""
    plain = experiment().run(tmp_path / "plain")
    assert experiment().run(tmp_path / "watched", observers=[TensorBoard()]).events == plain.events


def test_truth_values_and_texts_are_no_scalars(tmp_path: Path) -> None:
    """What is no number has no tag."""
    run = experiment(rounds=1).run(tmp_path / "run")
    (report, *_) = run.tree.reports.values()
    tags = [tag for tag, _, _ in everything(report, {"rate": 0.5, "kind": "a", "on": True})]
    assert sorted(tags) == [f"{name}/member_{report.member}" for name in ("count", "height", "rate", "score")]


def test_without_tensorboardx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tensorboardX is not installed the observer cannot be made, and the error names the extra."""
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'population-based-training\[mnist\]'"):
        TensorBoard()


def test_the_module_loads_without_tensorboardx() -> None:
    """Importing it, as the application does, loads neither tensorboardX nor torch."""
    code = "import sys, pbt.integrations.tensorboard as t; print({'tensorboardX', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
