"""What the pictures of a report show, as plain records."""

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import pbt
from pbt.core.events import Born, Decided, Decision, Reported
from pbt.core.population import StateRef
from pbt.report.data import fitness as fitness_module
from pbt.report.data import plane as plane_module
from pbt.report.data import states as states_module
from pbt.report.data import tree as tree_module
from pbt.report.data.axes import Curve, axis_of, extent, log_ticks, quantile, thin
from pbt.report.data.exploits import exploits
from pbt.report.data.figures import Pictures, pictures
from pbt.report.data.fitness import fitness
from pbt.report.data.founders import founders
from pbt.report.data.health import health
from pbt.report.data.members import member_record, member_table
from pbt.report.data.plane import plane
from pbt.report.data.schedules import schedules
from pbt.report.data.states import state_table
from pbt.report.data.tree import tree
from pbt.report.read import read_snapshot
from pbt.report.snapshot import RunSnapshot, snapshot_of
from pbt.runs.results import Run
from pbt.store.logs import log_tail
from pbt.store.memory import MemoryStore
from tests.report.histories import INTERVAL, history, rising, told, went_back


def pieces(curve: Curve) -> list[list[tuple[float, float]]]:
    """The parts of a curve between its gaps."""
    points = zip(curve.x, curve.y, strict=True)
    return [list(part) for there, part in itertools.groupby(points, key=lambda p: p[0] is not None) if there]


def test_fitness_is_the_best_so_far_and_quantiles_per_step() -> None:
    """Best never gets worse, and median and band are those of the states with so many steps."""
    record = fitness(told([[1, 2, 3], [5, 1, 0], [4, 4, 1]]))
    assert record.steps == (10, 20, 30)
    assert record.best == (3, 5, 5)
    assert record.median == (2, 1, 4)
    assert record.high == pytest.approx([2.8, 4.2, 4.0])
    assert pieces(record.winner) == [[(10, 1), (20, 5)]]


def test_fitness_of_a_loss_is_as_the_task_returned_it() -> None:
    """Where less is better the best is the smallest, and a loss that falls over decades has a logarithmic axis."""
    record = fitness(told([[1.0, 2.0], [0.001, 0.5]], objective="minimize"))
    assert record.best == (1.0, 0.001)
    assert record.minimize
    assert record.log
    assert not fitness(told([[1.0, 2.0], [0.5, 0.5]], objective="minimize")).log


def test_the_first_rounds_do_not_press_the_others_together() -> None:
    """Scores of the first round far below the rest are left out of the axis, and counted."""
    scores = [[-1000.0] * 4, *([round_ / 10 + m / 100 for m in range(4)] for round_ in range(30))]
    record = fitness(told(scores))
    assert record.window is not None
    assert record.window[0] > -1
    assert record.hidden == 4
    assert fitness(told(scores[1:])).window is None


def test_copies_are_marked_at_the_state_that_was_copied() -> None:
    """A mark stands at the steps and the score of the donor's state."""
    record = fitness(told(rising(3, 3), copies={(2, 0): 2, (3, 1): 2}))
    assert pieces(record.marks) == [[(10, 0.02), (20, 1.02)]]
    assert record.copies == 2


def test_no_line_goes_backwards(climbed: Run, apart: Run) -> None:
    """Along every unbroken line of every picture the steps never decrease, whatever was copied from whom."""
    for run in (climbed, apart, went_back()):
        snapshot = read_snapshot(run)
        shown, made = fitness(snapshot), schedules(snapshot)
        tree_ = tree(snapshot)
        assert made is not None
        assert tree_ is not None
        curves = [shown.members, shown.winner, tree_.dead, tree_.living, tree_.winner]
        curves += [curve for panel in made.panels for curve in (panel.members, panel.winner)]
        for piece in itertools.chain.from_iterable(map(pieces, curves)):
            assert [x for x, _ in piece] == sorted(x for x, _ in piece)


def test_a_copy_of_a_younger_state_cuts_a_members_line() -> None:
    """A member that copies a state with fewer steps than its own begins a new piece there, in scores and values."""
    snapshot = read_snapshot(went_back())
    assert pieces(fitness(snapshot).members) == [[(10, 1), (20, 1.5), (30, 1.5)], [(20, 3)], [(10, 2)]]
    record = schedules(snapshot)
    assert record is not None
    own = [(0, 0.1), (10, 0.1), (20, 0.1), (30, 0.1)]
    assert pieces(record.panels[0].members) == [own, [(10, 0.5), (20, 0.5)], [(0, 0.5), (10, 0.5)]]
    assert pieces(record.panels[0].winner) == [[(0, 0.5), (10, 0.5), (20, 0.5)]]
    assert pieces(record.panels[0].handovers) == [[(10, 0.5)]]


def test_the_winners_line_is_the_schedule_that_was_found(climbed: Run) -> None:
    """At every step the bold line of a panel is at the value of `run.best_schedule`."""
    record = schedules(read_snapshot(climbed))
    assert record is not None
    best = climbed.best_schedule
    for panel in record.panels:
        line = {step: y for piece in pieces(panel.winner) for step, y in piece[:-1]}
        for segment in best.segments:
            if segment.start in line:
                assert line[segment.start] == panel.axis.place(segment.hparams.get(panel.axis.name))
        values = [segment.hparams.get(panel.axis.name) for segment in best.segments]
        assert (panel.first, panel.last) == (values[0], values[-1])
        assert panel.changes == sum(a != b for a, b in itertools.pairwise(values))


def test_every_point_names_its_state(climbed: Run, apart: Run) -> None:
    """A point of a line, a mark or a dot is the state that it stands for: its member, its round, its score or value."""
    for run in (climbed, apart, went_back()):
        snapshot = read_snapshot(run)
        shown, made, drawn = fitness(snapshot), schedules(snapshot), tree(snapshot)
        assert made is not None
        assert drawn is not None
        for curve in (shown.members, shown.winner, shown.marks):
            for step, score, ref in zip(curve.x, curve.y, curve.refs, strict=True):
                if ref is not None:
                    assert (snapshot.states[ref].step, snapshot.states[ref].score) == (step, score)
        for panel in made.panels:
            for curve in (panel.members, panel.winner):
                for step, place, ref in zip(curve.x, curve.y, curve.refs, strict=True):
                    if ref is not None:
                        state = snapshot.states[ref]
                        assert step in {state.first_step, state.step}
                        assert place == panel.axis.place(state.hparams.get(panel.axis.name))
        assert {ref for ref in shown.members.refs if ref} == {state.state for state in snapshot.counted}
        assert {ref for ref in drawn.failed.refs if ref} == {(f.member, f.round) for f in snapshot.failures}


def test_the_table_of_states_says_where_each_came_from() -> None:
    """A row per state: start, kind and values; a failed round with its message; no NaN, which JSON lacks."""
    made = state_table(told([[1.0, math.inf], [2.0, None]], copies={(2, 0): 1})).plain()
    rows = list(zip(made["member"], made["round"], made["step"], made["score_of"], made["start"], strict=True))
    assert rows == [(0, 1, 10, 1.0, None), (1, 1, 10, "inf", None), (0, 2, 20, 2.0, [1, 1])]
    assert [made["kinds"][kind] for kind in made["kind"]] == ["born", "born", "exploit"]
    assert made["failures"] == [[1, 2, "score: nan"]]
    assert made["values"] == [[0.1, 0.1, 0.1]]
    assert state_table(told(rising(2, 2))).plain()["start"] == [None, None, 0, 0]


def test_a_large_table_of_states_has_those_that_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit the table has the states of the plane and of the best state's ancestry, and says so."""
    monkeypatch.setattr(states_module, "STATES", 50)
    monkeypatch.setattr(plane_module, "POINTS", 40)
    monkeypatch.setattr(plane_module, "FRAMES", 4)
    snapshot = told(rising(20, 20), copies={(20, 0): 19})
    table, shown = state_table(snapshot), plane(told(rising(20, 20), copies={(20, 0): 19}))
    assert shown is not None
    named = {state.state for state in table.states}
    assert {ref for frame in shown.frames for ref in frame.refs} <= named
    assert {link.state for link in snapshot.path} <= named
    assert table.note == f"{len(named)} of 400 states"


class TestMembers:
    """The table of members, and the record of one."""

    def test_a_row_is_the_last_state_with_its_counts(self) -> None:
        """Member, status, round, step, scores, founder, copies, failures, values."""
        snapshot = told([[1, 2, 3], [5, 2.5, None]], copies={(2, 0): 2})
        table = member_table(snapshot)
        assert table.rows == (
            (0, "live", 2, 20, 5, 5, 2, 1, 0, 0, 0.1),
            (1, "live", 2, 20, 2.5, 2.5, 1, 0, 0, 0, 0.1),
            (2, "failed", 1, 10, 3, 3, 2, 0, 1, 1, 0.1),
        )
        assert table.head[:2] == ("member", "status")

    def test_a_record_has_decisions_ancestry_schedule_and_failures(self, climbed: Run) -> None:
        """All of it agrees with the run, and goes through JSON."""
        snapshot = read_snapshot(climbed)
        member = snapshot.failures[-1].member
        record = member_record(snapshot, member)
        assert record is not None
        assert json.loads(json.dumps(record, allow_nan=False)) == record
        ends = [state.round for state in snapshot.by_member[member]]
        failed = [failure.round for failure in snapshot.failures if failure.member == member]
        assert [row[0] for row in record["rounds"]] == sorted((*ends, *failed), reverse=True)
        for round_, _, _, kind, origin, why, _ in record["rounds"]:
            opening = snapshot.tree.opening(member, round_)
            assert (kind, why) == (getattr(opening, "kind"), getattr(opening, "why", ""))  # noqa: B009
            donor = getattr(opening, "donor", None)
            assert origin == donor if donor is not None else not isinstance(origin, int)
        newest = snapshot.by_member[member][-1]
        parts = record["ancestry"]
        assert (parts[0][0], parts[0][2], parts[0][4]) == (newest.member, newest.round, newest.step)
        assert (parts[-1][0], parts[-1][3]) == (newest.founder, 0)
        assert [row[:2] for row in record["schedule"]] == [
            [segment.start, segment.stop] for segment in climbed.tree.schedule(newest.state).segments
        ]
        assert f"round {failed[-1]}: " in record["failures"][0]["title"]
        assert "ValueError: too fast" in record["failures"][0]["trace"]
        assert member_record(snapshot, 99) is None

    def test_the_end_of_a_log_is_read_and_no_link_is_followed(self, tmp_path: Path) -> None:
        """The newest log of the member itself, its last lines, without control characters."""
        logs = tmp_path / "logs"
        logs.mkdir()
        (logs / "000001-000002.log").write_text("old")
        (logs / "000001-000010.log").write_text("x" * 9000 + "\nloss \x1b[31m3\nend\n")
        (logs / "000011-000099.log").write_text("another")
        found = log_tail(tmp_path, 1)
        assert found is not None
        assert (found.name, found.text) == ("logs/000001-000010.log", "loss ?[31m3\nend")
        (logs / "000001-000011.log").symlink_to(logs / "000011-000099.log")
        assert log_tail(tmp_path, 1) is None
        assert log_tail(tmp_path, 2) is None
        assert log_tail(tmp_path / "nothing", 1) is None


def test_a_conditional_hyperparameter_leaves_a_gap() -> None:
    """Where a hyperparameter does not exist its line is interrupted."""
    space = {"rule": pbt.Choice(("a", "b")), "lr": pbt.Float(0.001, 1.0, when=("rule", "a"))}
    on, off = {"rule": "a", "lr": 0.5}, {"rule": "b"}
    record = schedules(told(rising(3, 1), values={(1, 0): on, (2, 0): off, (3, 0): on}, space=space))
    assert record is not None
    assert pieces(record.panels[1].winner) == [[(0, 0.5), (10, 0.5)], [(20, 0.5), (30, 0.5)]]


def edges_of(snapshot: RunSnapshot) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    record = tree(snapshot)
    assert record is not None
    drawn = [*pieces(record.dead), *pieces(record.living), *pieces(record.winner)]
    return list(dict.fromkeys(edge for piece in drawn for edge in itertools.pairwise(piece)))


def test_the_tree_has_one_edge_for_every_state(climbed: Run, apart: Run) -> None:
    """Every state hangs on the one it started from or on its member's birth, and is drawn once."""
    for run in (climbed, apart):
        snapshot = read_snapshot(run)
        edges = edges_of(snapshot)
        assert len(edges) == len(snapshot.states)
        assert len({end for _, end in edges}) == len(edges)
        assert sorted(end[0] for _, end in edges) == sorted(state.step for state in snapshot.states.values())
        assert sorted(begin[0] for begin, _ in edges) == sorted(state.first_step for state in snapshot.states.values())


def test_no_two_lines_of_the_tree_cross(climbed: Run, apart: Run) -> None:
    """Between two steps the order of the lines from top to bottom stays, except where they come from one state."""
    for run in (climbed, apart):
        spans: dict[tuple[float, float], list[tuple[float, float]]] = {}
        for (x0, y0), (x1, y1) in edges_of(read_snapshot(run)):
            spans.setdefault((x0, x1), []).append((y0, y1))
        for lines in spans.values():
            for (a0, a1), (b0, b1) in itertools.combinations(lines, 2):
                assert a0 == b0 or (a0 < b0) == (a1 < b1)


def test_the_tree_knows_who_survived() -> None:
    """Branches without living descendants are dead; births, living states and the winner's way are marked."""
    record = tree(told(rising(3, 3), copies={(2, 0): 2}))
    assert record is not None
    assert [piece[-1][0] for piece in pieces(record.dead)] == [INTERVAL]
    assert len(record.initial) == 3
    assert len(record.final) == 3
    assert record.passed[0] == "birth of member 2"
    assert record.passed[-1].startswith("member 2 after round 3")


def test_a_failed_round_is_marked_where_it_began() -> None:
    """The cross of a failure stands on the state that the round started from, or on the birth."""
    record = tree(told([[1, None, 2], [1, 2, None], [1, 2, 3]], copies={(2, 1): 0, (3, 2): 1}))
    assert record is not None
    assert [x for piece in pieces(record.failed) for x, _ in piece] == [0, 10]


def test_shares_of_founders_add_up(climbed: Run, apart: Run) -> None:
    """At every step the shares sum to one, and the last ones are those of the lineage."""
    for run in (climbed, apart):
        record = founders(read_snapshot(run))
        assert record is not None
        assert np.sum([share.parts for share in record.shares], axis=0) == pytest.approx(1)
        left = run.tree.founders([member.state for member in run.view.ranking])
        assert set(record.left) == set(left)


@pytest.mark.parametrize("round_", [2, 3, 5])
def test_a_take_over_is_found_at_its_round(round_: int) -> None:
    """From the round on in which the last stranger copies, everybody descends from one founder."""
    record = founders(told(rising(6, 2), copies={(round_, 0): 1}))
    assert record is not None
    assert record.taken_over == (round_, round_ * INTERVAL)
    assert record.alive == (2,) * (round_ - 1) + (1,) * (7 - round_)


def test_without_a_take_over_there_is_none() -> None:
    """Where two founders have descendants to the end nobody took over."""
    record = founders(told(rising(6, 3), copies={(2, 0): 1}))
    assert record is not None
    assert record.taken_over is None
    assert set(record.left) == {1, 2}


def test_the_matrix_counts_every_copy(climbed: Run) -> None:
    """A cell is how often its member copied its donor, and all of them are all copies."""
    record = exploits(read_snapshot(climbed))
    assert record is not None
    decided = [event.decision for event in climbed.events if isinstance(event, Decided)]
    pairs = Counter((d.donor, d.member) for d in decided if d.donor is not None)
    assert {
        (int(donor), int(member)): count
        for donor, row in zip(record.members, record.copies, strict=True)
        for member, count in zip(record.members, row, strict=True)
        if count
    } == pairs
    assert record.total == pairs.total()
    assert exploits(told(rising(3, 3))) is None


def test_a_large_matrix_puts_members_together() -> None:
    """With more members than cells a cell stands for several, nothing is lost, and it is said."""
    record = exploits(told(rising(2, 250), copies={(2, m): 249 - m for m in range(100)}))
    assert record is not None
    assert record.members[0] == "0 to 2"
    assert len(record.members) <= 100
    assert sum(map(sum, record.copies)) == record.total == 100
    assert "each a group of members" in record.note


def test_the_plane_is_of_the_first_two_hyperparameters_that_vary() -> None:
    """A hyperparameter with one value for all is passed over; with one that varies the other axis is the score."""
    space = {name: pbt.Float(0.0, 1.0) for name in "abc"}
    values = {(1, m): {"a": 0.5, "b": m / 4, "c": 1 - m / 4} for m in range(4)}
    both = plane(told(rising(3, 4), values=values, space=space))
    assert both is not None
    assert both.y is not None
    assert (both.x.name, both.y.name, both.others) == ("b", "c", ("a",))
    assert [frame.round for frame in both.frames] == [1, 2, 3]
    one = plane(told(rising(3, 4), values={(1, m): {"lr": 0.1 + m / 10} for m in range(4)}))
    assert one is not None
    assert one.y is None
    assert one.frames[-1].y == one.frames[-1].scores


def test_health_counts_copies_and_failures_per_round() -> None:
    """Per round: founders, the share that began with a copy, and what failed."""
    record = health(told([[1, 2, 3, 4], [1, None, 3, 4], [1, 2, 3, 4]], copies={(2, 0): 3, (3, 1): 3}))
    assert record.rounds == (1, 2, 3)
    assert record.founders == (4, 2, 2)
    assert record.copied == (0, 0.25, 0.25)
    assert record.failed == (0, 1, 0)
    assert record.worst == (("score: nan", 1),)
    assert record.seconds == (None, None, None)


def test_times_are_those_of_the_journal(climbed: Run) -> None:
    """The seconds of a round are the ones that its worker measured."""
    record = health(read_snapshot(climbed))
    assert all(seconds is not None and seconds >= 0 for seconds in record.seconds)
    assert record.total_seconds is not None


def test_nothing_scored_means_no_picture() -> None:
    """Before a member has finished a round there is nothing that could be shown."""
    assert pictures(snapshot_of(Run(MemoryStore({"seed": 1, "space": {}})))) == Pictures()


def test_a_population_of_one_has_no_tree() -> None:
    """One member: its curves and schedules are there, and nothing that takes two."""
    found = pictures(told(rising(5, 1)))
    assert found.fitness is not None
    assert found.schedules is not None
    assert (found.tree, found.founders, found.exploits, found.plane) == (None, None, None, None)


def test_thinning_keeps_both_ends_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of very much shows a part of it, the first and the last of everything included, and tells."""
    assert thin(range(101), 5) == [0, 25, 50, 75, 100]
    assert thin(range(5), 5) == [0, 1, 2, 3, 4]
    monkeypatch.setattr(fitness_module, "GENERATIONS", 10)
    monkeypatch.setattr(fitness_module, "POINTS", 50)
    snapshot = told(rising(40, 20))
    record = fitness(snapshot)
    assert (record.steps[0], record.steps[-1], len(record.steps)) == (10, 400, 10)
    assert len(pieces(record.members)) == 5
    assert record.note == "5 of 20 members' lines; 10 of 40 rounds"


def test_a_thinned_tree_still_leads_from_births_to_the_living(monkeypatch: pytest.MonkeyPatch) -> None:
    """With rounds and dead branches left out, living states still hang together with their founders."""
    snapshot = told(rising(40, 12), copies={(r, m): 11 for r in range(2, 41) for m in range(2)})
    monkeypatch.setattr(tree_module, "GENERATIONS", 9)
    monkeypatch.setattr(tree_module, "EDGES", 8)
    record = tree(snapshot)
    assert record is not None
    assert "9 of 40 rounds" in record.note
    assert "extinct branches" in record.note
    assert pieces(record.winner)[0][-1] == (400, record.winner.y[-1])
    ends = {piece[-1] for piece in pieces(record.living)}
    assert {point for piece in pieces(record.final) for point in piece} <= ends


def test_a_member_that_starts_from_anothers_state_is_no_founder() -> None:
    """A member that is born with a state descends from whoever made it."""
    events = [
        Born(member=0, hparams={"lr": 0.1}),
        Reported(member=0, round=1, step=10, scores=(1.0,), state=StateRef(0, 1), digest=""),
        Born(member=1, hparams={"lr": 0.2}, start=StateRef(0, 1), round=2),
        Decided(decision=Decision(member=0, round=2, start=StateRef(0, 1), step=10, hparams={"lr": 0.1})),
        Reported(member=0, round=2, step=20, scores=(2.0,), state=StateRef(0, 2), digest=""),
        Reported(member=1, round=2, step=20, scores=(3.0,), state=StateRef(1, 2), digest=""),
    ]
    run = history(rising(1, 1))
    run.events = events
    snapshot = snapshot_of(run)
    assert {state.founder for state in snapshot.states.values()} == {0}
    record = tree(snapshot)
    assert record is not None
    assert len(record.initial) == 1


@pytest.mark.parametrize(
    ("domain", "value", "place"),
    [
        (pbt.Float(0.1, 1.0), 0.5, 0.5),
        (pbt.Float(0.9, 0.999, "one_minus_log"), 0.99, pytest.approx(0.01)),
        (pbt.Int(1, 9), 3, 3),
        (pbt.Choice(("a", 1, True, None)), True, 2),
        (pbt.Choice(("a", 1, True, None)), None, 3),
        (pbt.Float(0.1, 1.0), None, None),
    ],
)
def test_values_have_a_place_on_their_axis(domain, value, place) -> None:
    """Numbers stand at themselves, those near one at their distance from it, options at their number."""
    assert axis_of("x", domain).place(value) == place


def test_axes_are_logarithmic_where_the_domain_is() -> None:
    """By its scale, or because its bounds are more than two decades apart."""
    assert axis_of("x", pbt.Float(0.1, 1.0, "log")).log
    assert axis_of("x", pbt.Float(0.9, 0.999, "one_minus_log")).log
    assert axis_of("x", pbt.Float(0.0001, 0.1)).log
    assert not axis_of("x", pbt.Float(0.0, 1000.0)).log
    assert not axis_of("x", pbt.Int(1, 9)).log


def test_quantiles_are_numpys() -> None:
    """Interpolated between neighbors, as numpy does it."""
    values = sorted([3.0, 1.0, 4.0, 1.5, 9.0])
    for share in (0, 0.1, 0.5, 0.77, 1):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share))


@pytest.mark.parametrize("ends", [(1e-4, 1e-1), (1e-9, 1e3), (0.5, 1.1), (0.93, 1.1), (0.95, 0.951), (2e-5, 3e-5)])
def test_logarithmic_axes_have_a_few_names(ends: tuple[float, float]) -> None:
    """Between two and ten values are named on a logarithmic axis, all of them on it."""
    low, high = extent(ends, log=True)
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 10
    assert all(10**low <= tick <= 10**high for tick in ticks)
