"""What trackers have in common: everything is sent once and in order, whatever is interrupted or away."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pbt.core.schedule import Schedule
from pbt.runs.callbacks import Callback, CallbackRecord, Copied, MemberReport, RunEnd, RunStart, past
from pbt.runs.callbacks.curves import Curves, numbers, values
from pbt.runs.callbacks.tracker import Ids, Tracker
from pbt.runs.results import Run
from tests.runs.callbacks.hills import CtrlC, hills, uneven


class Place(Tracker):
    """A tracker in memory: what was sent, by the id of the run there."""

    file = "place.json"

    def __init__(self, there: dict[str, list[tuple[CallbackRecord, str]]]) -> None:
        super().__init__()
        self.there = there
        self.away = False
        self.refuses: Any = lambda record: False
        self.tries = 0
        self.ended: list[tuple[str, str | None]] = []

    def begin(self, start: RunStart, ids: Ids) -> None:
        if self.away:
            raise ConnectionError("nobody there")
        if ids.get("run") not in self.there:
            ids.clear()
            ids["run"] = f"run-{len(self.there)}"
            self.there[ids["run"]] = []
        self.run = ids["run"]

    def send(self, record: CallbackRecord, suffix: str) -> None:
        self.tries += 1
        if self.away or self.refuses(record):
            raise ConnectionError("nobody there")
        self.there[self.run].append((record, suffix))

    def finish(self, end: RunEnd, schedule: str | None) -> None:
        self.ended.append((end.outcome, schedule))

    def sent(self) -> list[CallbackRecord]:
        (records,) = self.there.values()
        return [record for record, _ in records]


@pytest.mark.parametrize("kept", [True, False])
def test_everything_is_sent_in_order(kept: bool, tmp_path: Path) -> None:
    """All records of a run, and at the end the schedule of the best network."""
    place = Place({})
    run = hills().run(tmp_path / "run" if kept else None, callbacks=[place])
    assert place.sent() == list(past(run))
    ((outcome, schedule),) = place.ended
    assert outcome == "finished"
    assert Schedule.from_dict(json.loads(schedule or "")) == run.best_schedule


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_resumed_run_goes_on_in_the_same_place(rounds: int, tmp_path: Path) -> None:
    """After Ctrl-C, and in an extended run too, another tracker object goes on under the same id, nothing twice."""
    there: dict[str, Any] = {}
    first = Place(there)
    with pytest.raises(KeyboardInterrupt):
        hills().run(tmp_path / "run", callbacks=[first, CtrlC(rounds)])
    assert first.ended[0][0] == "interrupted"
    assert first.sent() == list(past(Run.open(tmp_path / "run")))
    hills().run(tmp_path / "run", resume=True, callbacks=[Place(there)])
    run = hills(rounds=6).run(tmp_path / "run", resume=True, callbacks=[Place(there)])
    assert Place(there).sent() == list(past(run))
    hills(rounds=6).run(tmp_path / "run", resume=True, callbacks=[Place(there)])
    assert Place(there).sent() == list(past(run))


def test_what_nobody_was_told_is_sent_when_the_run_goes_on(tmp_path: Path) -> None:
    """Rounds that were trained without the tracker, as after a kill, are sent at the next start."""
    there: dict[str, Any] = {}
    hills(rounds=1).run(tmp_path / "run", callbacks=[Place(there)])
    hills(rounds=3).run(tmp_path / "run", resume=True)
    run = hills().run(tmp_path / "run", resume=True, callbacks=[Place(there)])
    assert Place(there).sent() == list(past(run))


def test_one_object_may_track_two_runs(tmp_path: Path) -> None:
    """Used again, it begins anew."""
    place = Place({})
    runs = [hills(seed=seed).run(tmp_path / str(seed), callbacks=[place]) for seed in (1, 2)]
    assert [[record for record, _ in records] for records in place.there.values()] == [list(past(r)) for r in runs]


def test_a_run_that_the_tracker_forgot_is_sent_again(tmp_path: Path) -> None:
    """Where the tracker does not know the id any more a new one gets everything from the start."""
    hills(rounds=2).run(tmp_path / "run", callbacks=[Place({})])
    there: dict[str, Any] = {"another": []}
    run = hills().run(tmp_path / "run", resume=True, callbacks=[Place(there)])
    assert [record for record, _ in there["run-1"]] == list(past(run))


def test_a_tracker_that_is_away_for_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is tried once a round, the run is told once, and what waited is sent in order when it is back."""
    place = Place({})

    class Network(Callback):
        def on_round_end(self, end: Any) -> None:
            place.away = end.round in {1, 2}

    with caplog.at_level(logging.WARNING, "pbt"):
        run = hills().run(tmp_path / "run", callbacks=[place, Network()])
    assert place.sent() == list(past(run))
    assert place.tries == len(place.sent()) + 3  # away, at the end of round 2, and at that of round 3
    assert [("raised in" in record.getMessage()) for record in caplog.records] == [True] * len(caplog.records)
    assert 1 <= len(caplog.records) <= 2


@pytest.mark.parametrize("from_the_start", [True, False])
def test_a_tracker_that_stays_away(from_the_start: bool, tmp_path: Path) -> None:
    """The run is trained to its end; when it is resumed with the tracker there, all is sent."""
    there: dict[str, Any] = {}
    place = Place(there)
    if from_the_start:
        place.away = True
    else:
        place.refuses = lambda record: record.round == 2
    run = hills().run(tmp_path / "run", callbacks=[place])
    assert len(there.get("run-0", [])) < len(list(past(run)))
    assert len(place.ended) == (0 if from_the_start else 1)
    assert (place.tries == 0) == from_the_start
    hills().run(tmp_path / "run", resume=True, callbacks=[Place(there)])
    assert Place(there).sent() == list(past(run))


def test_a_damaged_file_is_reported_and_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The tracker does not begin a second run by itself: the warning says what to remove."""
    there: dict[str, Any] = {}
    hills(rounds=1).run(tmp_path / "run", callbacks=[Place(there)])
    for text in ("", "[]", '{"ids": 3}', '{"ids": {}, "sent": {"0": "x"}}'):
        (tmp_path / "run" / "place.json").write_text(text)
        with caplog.at_level(logging.WARNING, "pbt"):
            hills(rounds=1).run(tmp_path / "run", resume=True, callbacks=[Place(there)])
        assert "delete it to start anew" in caplog.text
        caplog.clear()
        assert (tmp_path / "run" / "place.json").read_text() == text
    assert len(there) == 1


def test_curves_break_off_at_the_same_place_after_a_resume(tmp_path: Path) -> None:
    """The suffix of a member's curves depends on all that was before, also on what an earlier process sent."""
    there: dict[str, Any] = {}
    for rounds in (4, 8):
        run = uneven(rounds=rounds).run(tmp_path / "run", resume=True, callbacks=[Place(there)])
    curves = Curves()
    expected = [curves.suffix(record) if isinstance(record, MemberReport) else "" for record in past(run)]
    (found,) = there.values()
    assert found == list(zip(past(run), expected, strict=True))
    late = {suffix for record, suffix in found if isinstance(record, MemberReport) and record.round > 4}
    assert late & {f".from_round_{early}" for early in (2, 3, 4)}


def test_names_of_values() -> None:
    """A name that is taken gets a longer one; what is no number is not drawn."""
    report = MemberReport(
        member=0,
        round=1,
        first_step=0,
        step=1,
        scores=(1.5, 9.0),
        hparams={"lr": 0.1, "score": 2, "rule": "a"},
        reported={"lr": 3, "score": True, "loss": 4.0, "huge": 10**400},
    )
    found = values(report)
    assert found == {
        "score": 1.5,
        "lr": 0.1,
        "hparams.score": 2,
        "rule": "a",
        "reported.lr": 3,
        "reported.score": True,
        "loss": 4.0,
        "huge": 10**400,
    }
    assert numbers(found) == {"score": 1.5, "lr": 0.1, "hparams.score": 2.0, "reported.lr": 3.0, "loss": 4.0}


def test_copies_and_the_rounds_that_they_begin_keep_their_order(tmp_path: Path) -> None:
    """Interrupted between a copy and its report, the report is sent and the copy not again."""
    there: dict[str, Any] = {}

    class Stop(Callback):
        def on_exploit(self, copied: Copied) -> None:
            if copied.round == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hills().run(tmp_path / "run", callbacks=[Place(there), Stop()])
    run = hills().run(tmp_path / "run", resume=True, callbacks=[Place(there)])
    assert Place(there).sent() == list(past(run))
    assert any(isinstance(record, Copied) and record.round == 3 for record in past(run))
