"""Scalars for TensorBoard: the event files say what the log says, each value once."""

import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event as Written
from tensorboardX.record_writer import masked_crc32c

import pbt
from pbt.core.events import Event, Reported
from pbt.core.exploit import Copy, Stay
from pbt.core.population import StateRef
from pbt.domains import Choice, Float
from pbt.errors import MissingExtraError
from pbt.runs.callbacks import MemberReport, RoundEnd, past
from pbt.runs.callbacks.tensorboard import FOLDER, TensorBoard, everything
from pbt.runs.engine import Engine, Observer
from pbt.runs.results import Run
from pbt.space import HParams

Point = tuple[str, int, float]


def climb(hparams: HParams, state: Any, steps: int, ctx: Any) -> tuple[Any, dict[str, Any]]:
    """Adds the rate at each step; reports numbers, and things that are none."""
    height = (state or {"height": 0.0})["height"] + steps * float(str(hparams["rate"]))
    for step in (ctx.first_step + 2, ctx.first_step + 4):
        ctx.report(step, loss=1 / step, count=ctx.member)
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
    return Counter(ordered_points(folder))


def ordered_points(folder: Path) -> list[Point]:
    """The same, in the order in which they were written."""
    found: list[Point] = []
    for path in folder.iterdir():
        assert "tfevents" in path.name
        blob, at = path.read_bytes(), 0
        while at < len(blob):
            (length,) = struct.unpack_from("<Q", blob, at)
            data = blob[at + 12 : at + 12 + length]
            assert struct.unpack_from("<I", blob, at + 8)[0] == masked_crc32c(blob[at : at + 8])
            assert struct.unpack_from("<I", blob, at + 12 + length)[0] == masked_crc32c(data)
            event = Written.FromString(data)
            found.extend((value.tag, event.step, value.simple_value) for value in event.summary.value)
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
        points = [
            (step, name, value)
            for step in (report.step - 3, report.step - 1)
            for name, value in (("loss", 1 / step), ("curve.count", report.member))
        ]
        found.update((f"{name}/member_{report.member}", step, single(value)) for step, name, value in points)
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
    run = experiment().run(tmp_path / "run", callbacks=[TensorBoard()])
    found = points_in(tmp_path / "run" / FOLDER)
    assert found == expected(run)
    assert len(found) == 3 * 4 * (4 + 4)
    assert set(found.values()) == {1}


@pytest.mark.parametrize("commits", [1, 3])
def test_a_resumed_run_shows_every_number_once(tmp_path: Path, commits: int) -> None:
    """After an interruption the files are written anew from the log: nothing is missing, nothing is there twice."""
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        experiment().run(path, callbacks=[TensorBoard()], observers=[Interrupt(commits)])
    assert len(Run.open(path).tree.reports) == 3 * commits
    for file in (path / FOLDER).iterdir():
        file.rename(file.with_name("events.out.tfevents.1.earlier"))  # names have a second's resolution
    run = experiment().run(path, resume=True, callbacks=[TensorBoard()])
    assert points_in(path / FOLDER) == expected(run)
    assert len(expected(run)) == 3 * 4 * (4 + 4)


def test_a_run_without_scalars_gets_them_when_it_is_resumed(tmp_path: Path) -> None:
    """What was logged while nobody wrote scalars is written by whoever does."""
    path = tmp_path / "run"
    experiment(rounds=2).run(path)
    run = experiment(rounds=3).run(path, resume=True, callbacks=[TensorBoard()])
    assert points_in(path / FOLDER) == expected(run)


def test_other_scalars_go_into_another_folder(tmp_path: Path) -> None:
    """A function of report and hyperparameters decides what is shown; files of other names are left alone."""

    def one(report: MemberReport) -> Iterable[tuple[str, float, int]]:
        yield "rate", float(str(report.hparams["rate"])), report.round

    path = tmp_path / "run"
    run = experiment(rounds=2).run(path, callbacks=[TensorBoard(one, f"{FOLDER}/mine"), TensorBoard(folder="theirs")])
    assert points_in(path / "theirs") == expected(run)
    reports = run.tree.reports.values()
    rates = Counter(("rate", r.round, single(float(str(run.tree.hparams(r.member, r.round)["rate"])))) for r in reports)
    assert points_in(path / FOLDER / "mine") == rates


def test_a_run_in_memory_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a run directory nothing is written anywhere, and nothing fails."""
    monkeypatch.chdir(tmp_path)
    run = experiment().run(callbacks=[TensorBoard()])
    assert len(run.tree.reports) == 12
    assert not list(tmp_path.iterdir())


def test_scalars_do_not_change_a_run(tmp_path: Path) -> None:
    """A run that is watched has the log of one that is not."""
    plain = experiment().run(tmp_path / "plain")
    assert experiment().run(tmp_path / "watched", callbacks=[TensorBoard()]).events == plain.events


def test_truth_values_and_texts_are_no_scalars(tmp_path: Path) -> None:
    """What is no number has no tag."""
    run = experiment(rounds=1).run(tmp_path / "run")
    (report, *_) = (record for record in past(run) if isinstance(record, MemberReport))
    report = replace(report, hparams={"rate": 0.5, "kind": "a", "on": True, "long": 10**400}, points={})
    tags = [tag for tag, _, _ in everything(report)]
    assert sorted(tags) == [f"{name}/member_{report.member}" for name in ("count", "height", "rate", "score")]


def test_without_tensorboardx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tensorboardX is not installed the observer cannot be made, and the error names the extra."""
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingExtraError, match=r"the extra 'tensorboard'"):
        TensorBoard()


def test_the_module_loads_without_tensorboardx() -> None:
    """Importing it, as the application does, loads neither tensorboardX nor torch."""
    code = "import sys, pbt.runs.callbacks.tensorboard as t; print({'tensorboardX', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def lagging(hparams: HParams, state: Any, steps: int, ctx: Any) -> tuple[Any, dict[str, Any]]:
    """Later members are better, so that those before copy them."""
    return {}, {"score": ctx.member + ctx.round / 100}


class Backwards:
    """Exploits the state that member 2 had one round earlier, from round 2 on, for member 0."""

    def __call__(self, member: Any, view: Any, rng: Any) -> Any:
        if member.id != 0 or member.round != 3:
            return Stay()
        return Copy(donor=2, state=view.history[2][0].state, why="older")

    def describe(self) -> dict[str, Any]:
        return {"name": "backwards"}


def test_no_curve_runs_backwards(tmp_path: Path) -> None:
    """Where a member goes on from a state with fewer steps than its own, its curves go on under another name; along the
    lineage of every state steps grow."""
    plan = pbt.Plan(exploit=Backwards(), explore=pbt.keep(), interval=5, lookback=3)
    run = pbt.run(
        lagging,
        {"rate": Float(0.1, 1.0)},
        plan=plan,
        population=3,
        rounds=6,
        run_dir=tmp_path / "run",
        callbacks=[TensorBoard()],
    )
    assert [run.tree.reports[StateRef(0, i)].step for i in range(1, 7)] == [5, 10, 15, 10, 15, 20]
    curves: dict[str, list[int]] = {}
    for tag, place, _ in ordered_points(tmp_path / "run" / FOLDER):
        curves.setdefault(tag, []).append(place)
    assert curves["score/member_0"] == [5, 10, 15]
    assert curves["score/member_0.from_round_4"] == [10, 15, 20]
    assert curves["rate/member_0.from_round_4"] == [10, 15, 20]
    assert curves["score/member_1"] == curves["score/member_2"] == [5, 10, 15, 20, 25, 30]
    for ref in run.tree.reports:
        steps = [link.step for link in run.tree.ancestry(ref)]
        assert steps == sorted(set(steps))


def test_an_asynchronous_run_has_no_curve_that_runs_backwards(tmp_path: Path) -> None:
    """Members that copy others with other step counts, over several seeds: every curve grows, also over a resume."""
    broken = 0
    for seed in range(4):
        path = tmp_path / str(seed)
        plan = pbt.Plan(exploit=pbt.binary_tournament(), mode="async", interval=lambda step: step + 3 + step % 4)
        settings = {"plan": plan, "population": 4, "seed": seed, "callbacks": [TensorBoard()]}
        for rounds in (4, 8):
            run = pbt.run(lagging, {"rate": Float(0.1, 1.0)}, **settings, rounds=rounds, run_dir=path, resume=True)
        curves: dict[str, list[int]] = {}
        for tag, place, _ in ordered_points(path / FOLDER):
            curves.setdefault(tag, []).append(place)
        assert all(places == sorted(set(places)) for places in curves.values())
        points = sum(len(places) for tag, places in curves.items() if tag.startswith("score"))
        assert points == len(run.history()["step"])
        broken += sum("from_round" in tag for tag in curves)
    assert broken


def test_readers_see_every_round(tmp_path: Path) -> None:
    """After each round the files hold all of it, while the run still writes."""
    found = []

    class Look(pbt.Callback):
        def on_round_end(self, end: RoundEnd) -> None:
            found.append(len(points_in(tmp_path / "run" / FOLDER)))

    experiment().run(tmp_path / "run", callbacks=[TensorBoard(), Look()])
    assert found == [24, 48, 72, 96]


def test_one_object_writes_two_runs(tmp_path: Path) -> None:
    """Used again it begins anew, also where curves break off."""
    scalars = TensorBoard()
    for name in ("first", "second"):
        run = experiment().run(tmp_path / name, callbacks=[scalars])
        assert points_in(tmp_path / name / FOLDER) == expected(run)
    experiment().run(callbacks=[scalars])
