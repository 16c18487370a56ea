"""The figure of numbers reported during the rounds: of members, of the winner, and of rounds in progress."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pbt.core.events import Ended, Reported
from pbt.errors import UsageError
from pbt.report import plot_curves, write_report
from pbt.report.content import content
from pbt.report.data import curves as data
from pbt.report.data.axes import Curve
from pbt.report.data.curves import PointLines, curves
from pbt.report.data.figures import pictures
from pbt.report.matplotlib_figures import figure_bytes
from pbt.report.matplotlib_figures import plot_curves as draw
from pbt.report.plotly_figures import plot_curves as plot
from pbt.report.read import read_snapshot
from pbt.report.snapshot import RunSnapshot, snapshot_of
from pbt.report.tables import table
from pbt.store.base import JournalEntry
from pbt.store.live import LivePoints
from pbt.store.points import Points, to_plain
from tests.report.histories import history, rising

Noted = Mapping[tuple[int, int], Points]


def notes(points: Noted) -> list[JournalEntry]:
    return [
        JournalEntry(id=i, kind="curve", details={"member": m, "round": r, "points": to_plain(found)}, clock=0.0)
        for i, ((m, r), found) in enumerate(points.items(), 1)
    ]


def loss(*points: tuple[int, float]) -> Points:
    return {"loss": points}


def reported(points: Noted, live: Sequence[LivePoints] = (), rounds: int = 2, **more: Any) -> RunSnapshot:
    """Two members; member 1 is the better one."""
    run = history(rising(rounds, 2), **more)
    if live:
        # Its last round is in progress.
        over = [
            isinstance(event, Ended) or (isinstance(event, Reported) and event.round == rounds) for event in run.events
        ]
        run.events = [event for event, left_out in zip(run.events, over, strict=True) if not left_out]
    return snapshot_of(run, notes(points), writing=True, live=live)


def made(snapshot: RunSnapshot) -> PointLines:
    found = curves(snapshot)
    assert found is not None
    return found


POINTS = {
    (0, 1): loss((5, 8.0), (10, 7.0)),
    (1, 1): loss((5, 6.0), (10, 5.0)),
    (0, 2): loss((15, 4.0), (20, 3.0)),
    (1, 2): loss((15, 2.0), (20, 1.0)),
}


def test_a_line_goes_on_where_a_member_goes_on() -> None:
    """A member's rounds are one line; the winner's ancestry is another one."""
    (panel,) = made(reported(POINTS)).panels
    assert panel.members == Curve((5, 10, 15, 20, None, 5, 10, 15, 20), (8.0, 7.0, 4.0, 3.0, None, 6.0, 5.0, 2.0, 1.0))
    assert panel.winner == Curve((5, 10, 15, 20), (6.0, 5.0, 2.0, 1.0))
    assert (panel.ends, panel.odd, panel.log, panel.sparse) == ((6.0, 1.0), 0, False, False)


def test_a_line_breaks_where_a_member_copied_another() -> None:
    """Its last points belong to another state."""
    (panel,) = made(reported(POINTS, copies={(2, 0): 1})).panels
    assert panel.members.x == (5, 10, None, 15, 20, None, 5, 10, 15, 20)


def test_what_is_not_finite_is_a_gap() -> None:
    """It is counted, and does not set the axis."""
    snapshot = reported({**POINTS, (1, 2): loss((15, math.nan), (18, math.inf), (20, 0.01))})
    (panel,) = made(snapshot).panels
    assert panel.winner.y == (6.0, 5.0, None, None, 0.01)
    assert (panel.odd, panel.log) == (2, True)
    text = content(snapshot, pictures(snapshot)).sections[1].shows
    assert "loss went from 6 to 0.01" in text
    assert "2 points of loss, NaN or infinite" in text


def test_a_single_point_is_marked() -> None:
    """A line of one point would not be seen."""
    found = made(reported({(0, 1): loss((5, 8.0))}))
    assert found.panels[0].sparse
    assert all("markers" in trace["mode"] for trace in plot(found)["data"])


def test_rounds_in_progress_continue_their_start() -> None:
    """The live line starts at the last point of the start state; rounds that are over or unknown are left out."""
    live = [
        LivePoints(member=0, round=2, points=loss((13, 4.5))),
        LivePoints(member=1, round=1, points=loss((3, 99.0))),
        LivePoints(member=9, round=1, points=loss((3, 99.0))),
    ]
    snapshot = reported({ref: points for ref, points in POINTS.items() if ref[1] == 1}, live, copies={(2, 0): 1})
    found = made(snapshot)
    assert found.training == 1
    assert found.panels[0].live == Curve((10, 13), (5.0, 4.5))
    assert found.panels[0].training == (0, 0)
    assert "1 round in progress reports" in content(snapshot, pictures(snapshot)).sections[1].shows
    names = [trace["name"] for trace in plot(found)["data"]]
    assert names == ["members", "the winner's ancestry", "in progress"]
    assert figure_bytes(draw(found), "png").startswith(b"\x89PNG")


def test_the_first_round_is_seen_while_it_runs() -> None:
    """Before any score there is one section: the curves."""
    snapshot = reported({}, [LivePoints(member=0, round=1, points=loss((3, 1.0), (4, 0.5)))], rounds=1)
    found = content(snapshot, pictures(snapshot))
    assert [section.name for section in found.sections] == ["curves"]
    assert "curves" in found.lead
    assert found.sections[0].drawn
    assert found.sections[0].table is None
    assert made(snapshot).panels[0].winner == Curve()
    plot(made(snapshot))


def test_nothing_in_progress_after_the_end() -> None:
    """Without a writer there are no rounds in progress, whatever lies in the folder."""
    run = history([[1.0]])
    run.events = run.events[:1]
    live = [LivePoints(member=0, round=1, points=loss((3, 1.0)))]
    assert snapshot_of(run, writing=True, live=live).live != ()
    assert snapshot_of(run, writing=False, live=live).live == ()


def test_absent_without_reports(tmp_path: Path) -> None:
    """No section mentions the figure, and drawing it says how to get one."""
    run = history(rising(2, 2))
    snapshot = snapshot_of(run)
    assert curves(snapshot) is None
    assert "curves" not in [section.name for section in content(snapshot, pictures(snapshot)).sections]
    page = write_report(run, tmp_path / "report.html").read_text()
    assert 'id="figure-fitness"' in page
    assert 'id="figure-curves"' not in page
    with pytest.raises(UsageError, match=r"ctx\.report"):
        plot_curves(run)


def test_four_numbers_are_drawn() -> None:
    """In the order in which they were first reported; the note says how many there are."""
    many = {(0, 1): dict.fromkeys("fcabed", ((5, 1.0), (6, 2.0)))}
    found = made(reported(many))
    assert [panel.name for panel in found.panels] == ["f", "c", "a", "b"]
    assert found.note == "4 of 6 reported numbers"


def test_many_points_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points first, then members; the note says so, and the winner's line keeps its ends."""
    monkeypatch.setattr(data, "POINTS", 200)
    series = tuple((step, 1.0 + step) for step in range(100))
    run = history(rising(4, 20))
    snapshot = snapshot_of(run, notes({(m, r): loss(*series) for m in range(20) for r in range(1, 5)}))
    found = made(snapshot)
    assert len(found.panels[0].members) <= 250
    assert "members' lines" in found.note or "points" in found.note
    assert found.panels[0].winner.y[0] == 1.0
    assert found.panels[0].winner.y[-1] == 100.0


def test_helpers_are_left_out() -> None:
    """Only members of the population are drawn, and only rounds of the log."""
    assert curves(reported({(0, 7): loss((5, 1.0)), (9, 1): loss((5, 1.0))})) is None


def test_the_table_has_the_winners_numbers() -> None:
    """One row per step, by step."""
    snapshot = reported({**POINTS, (1, 2): {**POINTS[1, 2], "acc": ((20, 0.5),)}})
    found = table("curves", pictures(snapshot), snapshot)
    assert found is not None
    assert found.head == ("step", "member", "loss", "acc")
    assert [row[:3] for row in found.rows] == [("5", "1", "6"), ("10", "1", "5"), ("15", "1", "2"), ("20", "1", "1")]
    assert [row[3] == "0.5" for row in found.rows] == [False, False, False, True]


def test_a_run_in_memory_has_its_curves(climbed: Any) -> None:
    """Read from the journal of the run, wherever it is."""
    assert [panel.name for panel in made(read_snapshot(climbed)).panels] == ["loss", "odd"]
