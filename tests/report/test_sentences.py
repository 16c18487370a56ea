"""What a report says in words: computed from histories whose story is known."""

import random

import pytest

import pbt
from pbt.report.advice import advice, correlations
from pbt.report.data.figures import NAMES, pictures
from pbt.report.facts import described, environment, results, setting
from pbt.report.read import read_snapshot
from pbt.report.sentences import HOW, TITLES, shows
from pbt.report.snapshot import RunSnapshot
from pbt.report.tables import table
from pbt.runs.results import Run
from pbt.text import count, distinct, listed, number, percent, span, times
from tests.report.histories import rising, told


def said(name: str, snapshot: RunSnapshot) -> str:
    return shows(name, pictures(snapshot), snapshot)


def warned(snapshot: RunSnapshot) -> str:
    return "\n".join(one.text for one in advice(snapshot))


def quiet(rounds: int = 8, members: int = 12) -> RunSnapshot:
    """A history without anything to warn of: a stable order, several donors, two founders to the end."""
    copies = {(2, 0): 11, (2, 1): 10, (3, 2): 11, (3, 3): 10}
    values = {(2, 0): {"lr": 0.2}, (rounds, members - 1): {"lr": 0.3}}
    copies |= {(4, 11): 10, (4, 10): 11}
    return told(rising(rounds, members), copies=copies, values=values)


def test_each_picture_has_a_title_and_says_how_to_read_it() -> None:
    """Every name has a heading and one sentence on how to read the picture."""
    assert set(TITLES) == set(HOW) == set(NAMES)
    assert all(how.endswith(".") and how.count(". ") == 0 for how in HOW.values())


def test_fitness_in_words() -> None:
    """From where to where the best and the median went, who was best, and when half of the gain was there."""
    assert said("fitness", told([[0.5, 0.7], [0.6, 0.72], [0.9, 0.8], [0.85, 0.86]])) == (
        "The best score went from 0.7 after the first round to 0.9 (member 0, step 30), and the median from 0.6 to "
        "0.855. Half of the gain was reached by step 30 of 40."
    )
    assert said("fitness", told([[0.5], [0.6]])) == "The score went from 0.5 to 0.6 (step 20)."
    assert said("fitness", told([[0.5, 0.7]])) == "After one round, the best score is 0.7 and the median is 0.6."


def test_schedules_in_words() -> None:
    """Each hyperparameter's way along the winner's ancestry, and whether it ended at a bound."""
    space = {"lr": pbt.Float(0.001, 1.0, "log"), "rule": pbt.Choice(("a", "b")), "drop": pbt.Float(0.0, 0.5)}
    first = {"lr": 0.1, "rule": "a", "drop": 0.25}
    values = {(1, 0): first, (2, 0): first | {"lr": 0.5}, (3, 0): first | {"lr": 1.0}}
    assert said("schedules", told(rising(3, 1), values=values, space=space)) == (
        "Along the winner's ancestry, lr went from 0.1 to 1 in 2 changes and ended at its upper bound; rule and drop "
        "never changed."
    )


def test_schedules_that_return_or_end_inactive_in_words() -> None:
    """A value that ends where it began is said to return there, and a value that does not exist is inactive."""
    space = {"depth": pbt.Int(1, 4), "decay": pbt.Float(0.0, 1.0)}
    values = {(1, 0): {"depth": 1, "decay": 0.5}, (2, 0): {"depth": 2}, (3, 0): {"depth": 1}}
    assert said("schedules", told(rising(3, 1), values=values, space=space)) == (
        "Along the winner's ancestry, depth changed twice and returned to 1, its lower bound; decay went from 0.5 to "
        "inactive in 1 change."
    )


def test_ancestry_in_words() -> None:
    """How many founders are left, the last common ancestor, and how often the best state was handed over."""
    snapshot = told(rising(4, 4), copies={(2, 0): 3, (2, 1): 3, (2, 2): 3, (3, 3): 2})
    assert said("tree", snapshot) == (
        "The 4 living states descend from 1 of 4 initial members, and share one ancestor: member 3 after step 10. The "
        "best state was handed over twice and passed through 2 members."
    )
    assert said("founders", snapshot) == "From round 2 (step 20) on, all members descend from member 3."
    both = told(rising(4, 3), copies={(2, 0): 2})
    assert said("founders", both) == "2 of 3 founders still have descendants: members 2 and 1."
    assert said("founders", told(rising(4, 3))) == "All 3 founders still have descendants."


def test_copies_in_words() -> None:
    """How many copies there were, who was copied most, and who never."""
    snapshot = told(rising(4, 4), copies={(2, 0): 3, (3, 0): 3, (4, 1): 2})
    assert said("exploits", snapshot) == (
        "3 copies were made. Member 3 was copied most often, twice (67 % of all). 2 members were never copied."
    )
    assert said("exploits", told(rising(4, 4))) == "No member copied another."


def test_the_plane_in_words() -> None:
    """Where the better half of the members stands at the end, against where everybody stood at first."""
    values = {(1, m): {"lr": 0.1 * (m + 1)} for m in range(4)} | {(3, m): {"lr": 0.5 + m / 10} for m in range(4)}
    assert said("plane", told(rising(3, 4), values=values)) == (
        "In the last round, the better half of the members has lr between 0.7 and 0.8 (first round: between 0.1 and "
        "0.4)."
    )


def test_health_in_words() -> None:
    """Copies per round, failures and times, those that are known."""
    snapshot = told([[1, 2, 3, 4], [1, None, 3, 4]], copies={(2, 0): 3})
    assert said("health", snapshot) == "On average, 25 % of the members start a round from a copy. 1 round failed."
    assert said("health", told(rising(3, 2))) == "No member copied. No round failed."


def test_a_quiet_run_is_not_warned_of() -> None:
    """Where nothing is wrong nothing is said."""
    assert warned(quiet()) == ""


def test_an_early_take_over_is_warned_of() -> None:
    """One founder that has everything by half time is named, with the round and the step."""
    copies = {(3, m): 11 for m in range(11)}
    text = warned(told(rising(8, 12), copies=copies))
    assert "from round 3 of 8 (step 30) on, all members descend from member 11" in text
    late = {(7, m): 11 for m in range(11)}
    assert "took over" not in warned(told(rising(8, 12), copies=late))


@pytest.mark.parametrize(
    ("domain", "value", "text"),
    [
        (pbt.Float(0.001, 1.0, "log"), 1.0, "upper bound of 1 in the best state and all 12 living states"),
        (pbt.Float(0.001, 1.0, "log"), 0.001, "lower bound of 0.001 in the best state and all 12"),
        (pbt.Float(0.9, 0.999, "one_minus_log"), 0.999, "upper bound of 0.999 in the best state and all 12"),
        (pbt.Float(0.9, 0.999, "one_minus_log"), 0.9, "lower bound of 0.9 in the best state and all 12"),
        (pbt.Float(0.0, 0.5), 0.0, "lower bound of 0 in the best state and all 12"),
        (pbt.Int(1, 8), 8, "upper bound of 8 in the best state and all 12"),
        (pbt.Int(1, 8), 7, ""),
        (pbt.Choice((1, 8)), 8, ""),
    ],
)
def test_a_hyperparameter_at_its_bound_is_warned_of(domain, value, text: str) -> None:
    """Which bound, its value, and in how many of the living states; a choice has no bounds."""
    values = {(1, m): {"x": value} for m in range(12)}
    found = warned(told(rising(8, 12), values=values, space={"x": domain}))
    assert text in found if text else "bound" not in found


def test_the_share_of_states_at_a_bound() -> None:
    """The best state is named where it is at the bound, and so are the living ones: some, all or the only one."""
    space = {"x": pbt.Float(0.0, 1.0)}

    def at_bound(members: int, values: dict[tuple[int, int], dict[str, float]]) -> str:
        inside = {(1, m): {"x": 0.5} for m in range(members)}
        return warned(told(rising(3, members), values=inside | values, space=space))

    assert "x is at its upper bound of 1 in the best state and 1 of the 6 living states." in at_bound(
        6, {(1, 5): {"x": 1.0}}
    )
    assert "x is at its lower bound of 0 in 2 of the 6 living states." in at_bound(
        6, {(1, 0): {"x": 0.0}, (1, 1): {"x": 0.0}}
    )
    assert "in the best state and the only living state." in at_bound(1, {(1, 0): {"x": 1.0}})
    assert "bound" not in at_bound(6, {(1, 0): {"x": 0.0}})


def test_scores_that_are_noise_are_warned_of() -> None:
    """Where the order after one round says nothing about the next the interval looks too short."""
    rng = random.Random(1)
    noise = [[rng.random() for _ in range(12)] for _ in range(20)]
    copies = {(2, 0): 11, (2, 1): 10}
    assert "interval looks too short" in warned(told(noise, copies=copies))
    assert "interval" not in warned(told(rising(20, 12), copies=copies)).replace("a longer interval", "")
    assert "interval looks" not in warned(told(noise))


def test_rank_correlations_are_spearmans() -> None:
    """One for the same order, minus one for the opposite one; equal scores have no order."""
    up, down, flat = [1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 4.0, 3.0, 2.0, 1.0], [1.0] * 5
    assert correlations(told([up, up, down, flat])) == [(2, pytest.approx(1)), (3, pytest.approx(-1))]
    assert correlations(told([[1.0, 2.0, 2.0, 3.0, 4.0], up])) == [(2, pytest.approx(0.9747, abs=1e-4))]


def test_no_evolution_is_told() -> None:
    """No copies at all, a winner that never changed, and a winner that only explored are three things."""
    assert "No member ever copied another" in warned(told(rising(4, 12)))
    unmoved = warned(told(rising(4, 12), copies={(2, 0): 11}))
    assert "member 11 trained the best state alone, with its initial hyperparameters" in unmoved
    explored = warned(told(rising(4, 12), copies={(2, 0): 11}, values={(3, 11): {"lr": 0.3}}))
    assert "No copy contributed to the best state: member 11 trained it alone" in explored


def test_small_populations_and_single_donors_are_warned_of() -> None:
    """Fewer than ten members, or fewer than twelve of which only one is ever copied."""
    assert "with 4 members, selection has little" in warned(told(rising(4, 4), copies={(2, 0): 3}))
    assert "with 9 members, selection has little" in warned(told(rising(4, 9), copies={(2, 0): 3}))
    assert "selection has little" not in warned(told(rising(4, 10), copies={(2, 0): 3}))
    single = {(round_, round_ % 7): 7 for round_ in range(2, 8)}
    assert "One donor per round: with 11 members, all copies in each of 6 rounds" in warned(
        told(rising(8, 11), copies=single)
    )
    few = {place: donor for place, donor in single.items() if place[0] < 7}
    assert "One donor per round" not in warned(told(rising(8, 11), copies=few))
    assert "One donor per round" not in warned(told(rising(8, 11), copies=single | {(7, 5): 6}))
    assert "donor per round" not in warned(told(rising(4, 11), copies={(2, 0): 7, (2, 1): 6}))


def test_a_super_parent_is_warned_of() -> None:
    """A donor of more than half of all copies is named, with those that came next."""
    copies = {(r, m): 11 for r in (2, 3, 4) for m in range(4)} | {(5, 0): 10}
    assert "member 11 was the donor of 92 % of all copies; next came member 10" in warned(
        told(rising(6, 12), copies=copies)
    )
    only = {key: donor for key, donor in copies.items() if donor == 11}
    assert "100 % of all copies; no other member was copied" in warned(told(rising(6, 12), copies=only))


def test_failures_and_an_old_best_are_warned_of() -> None:
    """More than one round of twenty that failed, and a best score from the first half."""
    scores: list[list[float | None]] = [[float(m) for m in range(12)] for _ in range(8)]
    scores[2][0] = scores[2][1] = scores[3][2] = scores[4][3] = scores[5][4] = None
    assert "5 of 96 rounds failed (5 %)" in warned(told(scores))
    falling = [[10.0 - r + m / 100 for m in range(12)] for r in range(8)]
    assert "it was reached at step 10 of 80" in warned(told(falling))


def test_nothing_is_warned_of_before_anything_happened() -> None:
    """One round of one member has nothing that could be wrong."""
    assert advice(told([[1.0]])) == []


def test_the_head_of_a_report(climbed: Run) -> None:
    """Results, what was asked for, and the environment are those of the run."""
    snapshot = read_snapshot(climbed)
    head = results(snapshot)
    assert head["state"] == "finished"
    assert head["members"] == "8"
    assert head["best score"] == number(climbed.best.score, 6)
    assert head["test accuracy of the best"] == number(climbed.best.reported["test_accuracy"], 6)
    scores = [climbed.view.sign * member.score for member in climbed.view.population]
    count = len(climbed.tree.states)
    assert head["mean score of the last states"] == (
        f"{number(sum(scores) / 8, 6)}; the best of {count} scores is expected to be optimistic"
    )
    assert "objective of the best" not in head
    asked = setting(snapshot)
    assert asked["lr"] == "float 0.01 .. 1 (log); not read back"
    assert asked["exploit"] == "Truncation(fraction=0.25, ties=stay)"
    assert environment(snapshot)["executor"] == "inline"


def test_rules_are_described_as_calls() -> None:
    """A recorded rule reads as it was written, and a very long one is cut."""
    assert described({"name": "Perturb", "factors": [0.8, 1.2]}) == "Perturb(factors=[0.8, 1.2])"
    assert described("pbt.core:by_score") == "pbt.core:by_score"
    assert len(described({"name": "Follow", "schedule": list(range(1000))})) <= 200


def test_every_picture_has_its_numbers(climbed: Run) -> None:
    """The table behind a picture has as many cells in every row as in its head, and holds the best score."""
    snapshot = read_snapshot(climbed)
    shown = pictures(snapshot)
    for name in NAMES:
        made = table(name, shown, snapshot)
        assert made is not None
        assert made.rows
        assert {len(row) for row in made.rows} == {len(made.head)}
    fitness = table("fitness", shown, snapshot)
    assert fitness is not None
    assert fitness.rows[-1][2] == number(climbed.best.score, 6)
    lineage = table("tree", shown, snapshot)
    assert lineage is not None
    assert lineage.all_rows == len(climbed.lineage())


def test_words() -> None:
    """Numbers, shares, times and lists as people write them."""
    assert [number(v) for v in (None, 1234567, 0.00012345, 12345.6, "a\x1b[1m", True)] == [
        "–",  # noqa: RUF001 (a dash in a table)
        "1,234,567",
        "0.0001234",
        "12,346",
        "a?[1m",
        "True",
    ]
    assert distinct(0.99831, 0.99832) == ["0.99831", "0.99832"]
    assert [percent(v) for v in (0, 0.001, 0.5, 0.999, 1)] == ["0 %", "under 1 %", "50 %", "over 99 %", "100 %"]
    assert [span(v) for v in (0.0042, 0.37, 7.21, 754, 3720, 200_000)] == [
        "4.2 ms",
        "370 ms",
        "7.2 s",
        "12 min 34 s",
        "1 h 02 min",
        "2 d 07 h",
    ]
    assert [count(1, "member"), count(2, "member"), times(1), times(7)] == ["1 member", "2 members", "once", "7 times"]
    assert [listed([]), listed("a"), listed("ab"), listed("abcdefg")] == ["", "a", "a and b", "a, b, c, d and 3 more"]
