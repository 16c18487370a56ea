"""From the results of runs to words, a table, a picture and JSON."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import pbt
from pbt.compare.design import Design, Trial
from pbt.compare.figure import plot_comparison
from pbt.compare.output import as_plain, write
from pbt.compare.results import compared
from pbt.compare.sentences import sentences
from pbt.compare.table import comparison_table
from pbt.compare.trials import measured as measured_run
from pbt.errors import RunError
from pbt.report.matplotlib_figures import figure_bytes
from tests.compare.comparisons import comparison, measured

BASE = np.linspace(0.5, 0.7, 10)
NOISE = 0.01 * np.random.default_rng(0).normal(size=10)
CLEAR = {"pbt": BASE + 0.1 + NOISE, "no-evolution": BASE, "tournament": BASE + 0.1}


def table_text(found, width=200):
    """The table as printed."""
    console = Console(file=io.StringIO(), width=width)
    console.print(comparison_table(found, width))
    return console.file.getvalue()


def test_a_clear_difference_is_called_significant():
    """What the numbers show is said of each plan beside the first, with size, interval, p and seeds."""
    said = sentences(comparison(CLEAR))
    assert said[0].startswith("no-evolution is significantly worse than pbt: -0.1")
    assert "p = 0.004, 10 seeds" in said[0]
    assert said[1].startswith("tournament and pbt do not differ significantly: ")
    assert "fresh seeds" in said[1]
    assert said[2].startswith("As a group, the 3 plans differ (Friedman's test, p < 0.001)")


def test_minimizing_turns_better_around():
    """Where the score is a loss, the lower plan is the better one."""
    design = Design(task="nqm", asked=("pbt",), seeds=(0,), out="out")
    loss = replace(design.experiment(), objective="minimize")
    found = comparison(CLEAR, experiment=loss)
    assert found.minimize
    assert sentences(found)[0].startswith("no-evolution is significantly better than pbt: -0.1")
    assert found.friedman.ranks[1] == 1.0
    assert not comparison(CLEAR, metric="test_accuracy", experiment=loss).minimize


@pytest.mark.parametrize("metric", ["test", "test_accuracy"])
def test_what_selection_never_saw_is_compared(metric):
    """Where all runs report a test result plans are compared by it, not by the score that selected."""
    found = comparison(CLEAR, metric=metric)
    assert found.metric == metric
    assert found.plans[0].values[0] == CLEAR["pbt"][0]


def test_a_test_result_that_some_lack_is_not_compared():
    """Half of the runs with one metric and half with another cannot be compared by it."""
    design = Design(task="nqm", asked=("pbt", "own"), seeds=(0,), out="out")
    runs = [measured("pbt", 0, {"score": 1.0, "test": 0.5}), measured("own", 0, {"score": 2.0})]
    assert compared(design, design.experiment(), runs).metric == "score"


def test_few_seeds_show_nothing():
    """Three seeds cannot show any difference, however large, and how many it takes is said."""
    said = sentences(comparison({name: values[:3] for name, values in CLEAR.items()}))
    assert "With 2 comparisons, showing any difference takes at least 7 seeds" in said[0]
    found = comparison({name: values[:1] for name, values in CLEAR.items()})
    assert "(one seed has no interval, p = 1.00, 1 seed). With 2 comparisons" in sentences(found)[0]
    assert " to " not in table_text(found)
    assert as_plain(found)["plans"]["pbt"]["summary"]["low"] is None


def test_a_direction_may_be_clearer_than_a_size():
    """The test is of the direction: where the interval includes 0, the sentence says that the size is uncertain."""
    gain = np.array([0.1, 0.2, 0.4, 0.9, 3.0, 9.0])
    found = comparison({"pbt": BASE[:6], "own": BASE[:6] + gain})
    assert found.plans[1].paired.low < 0
    (said,) = sentences(found)
    assert said.startswith("own is significantly better than pbt: +1.12 in score (95 % interval -")
    assert said.endswith("The size is uncertain: the interval includes 0.")


def test_equal_plans():
    """The same on each seed is said as that."""
    found = comparison({"pbt": BASE, "own": BASE})
    assert sentences(found) == ["own and pbt gave the same score on each of 10 seeds."]
    assert "same" in table_text(found)


def test_a_noisy_difference_says_how_many_seeds_it_takes():
    """What these seeds would have found, and about how many fresh ones find less; never that a difference is small."""
    noise = np.array([1.0, -0.8] * 5) + np.linspace(0, 0.1, 10)
    (said,) = sentences(comparison({"pbt": BASE, "own": BASE + noise}))
    assert "With 10 seeds and this scatter, a true difference of 0.97 would have been found with 80 % prob" in said
    assert "Finding one of the measured size takes about 326 fresh seeds." in said
    none = np.array([1.0, -1.0001] * 5)
    (said,) = sentences(comparison({"pbt": BASE, "own": BASE + none}))
    assert "a true difference of 1.1 would have been found with 80 % probability; a smaller one may exist." in said
    assert "Finding one of half that size takes about 34 fresh seeds." in said


def test_runs_that_lost_every_member_are_told():
    """Their seeds are left out, and that this flatters the plan is said."""
    lost = [None, None, *BASE[2:]]
    found = comparison({"pbt": BASE + 0.2, "own": lost, "tournament": [None] * 10})
    assert found.plans[1].paired.seeds == tuple(range(2, 10))
    assert any("own in 2 runs and tournament in 10 runs" in text and "favors" in text for text in sentences(found))
    assert "tournament" in table_text(found)
    assert len(figure_bytes(plot_comparison(found), "png")) > 1000
    with pytest.raises(RunError, match="plan pbt: expected a run"):
        comparison({"pbt": [None] * 3, "own": [1.0] * 3})


def test_another_budget_is_told():
    """A plan that trained more than the first is named, with how much more."""
    said = sentences(comparison({"pbt": BASE, "own": BASE}, steps={"own": 131}))
    assert "compared with pbt, own took 31 % more training steps of all members" in said[-1]
    assert "the states at the end have the same number of steps" in said[-1]


def test_another_age_is_told():
    """A plan whose states were trained longer is named, whatever was computed."""
    found = comparison({"pbt": BASE, "own": BASE}, state_steps={"own": 8.0})
    assert "compared with pbt, a state of own has 20 % fewer training steps at the end" in sentences(found)[-1]
    assert not any("budgets" in said for said in sentences(found))
    assert as_plain(found)["plans"]["own"]["mean"]["state_steps"] == 8.0
    both = sentences(comparison({"pbt": BASE, "own": BASE}, steps={"own": 131}, state_steps={"own": 8.0}))
    assert len(both) == 3
    assert not any("same number of steps" in said for said in both)


def test_the_age_of_an_asynchronous_run(tmp_path):
    """Members that copy an older state repeat steps: more are computed, and the states have the budget's."""

    def drawn(hparams, state, steps, ctx):
        return {"x": 0.0}, ctx.rng("luck", ctx.member, ctx.round).random()

    plan = pbt.Plan(mode="async", exploit=pbt.truncation(0.5), interval=2)
    experiment = pbt.Experiment(task=drawn, space={"lr": pbt.Float(0.1, 1.0)}, plan=plan, population=4, rounds=5)
    experiment.run(tmp_path / "run")
    found = measured_run(Trial(plan="own", seed=0, path=tmp_path / "run"))
    assert found.state_steps == 10
    assert found.steps > 4 * 10


def test_plans_made_of_runs_are_told():
    """What another run found cost that run's steps too."""
    said = sentences(comparison({"pbt": BASE, "replay": BASE}))[-1]
    assert "replay (pbt) follows the run" in said
    assert "the steps of that run are not included" in said


def test_the_table_has_everything():
    """Every plan, interval, difference, p-value, and what it cost."""
    text = table_text(comparison(CLEAR))
    for part in ("no-evolution", "95 %", "0.004", "worse", "not shown", "copies", "founders", "10 seeds", "higher"):
        assert part in text
    assert "too narrow" in table_text(comparison(CLEAR), 90)


def test_the_files(tmp_path):
    """JSON that any reader takes, with every run in it, and pictures; the same comparison gives the same bytes."""
    found = comparison(CLEAR)
    files = write(found, tmp_path)
    assert [file.name for file in files] == ["comparison.json", "comparison.png", "comparison.svg"]
    plain = json.loads(files[0].read_text())
    assert plain == as_plain(found)
    assert plain["plans"]["no-evolution"]["difference"]["significant"] is True
    assert [run["values"]["score"] for run in plain["plans"]["pbt"]["runs"]] == list(CLEAR["pbt"])
    assert plain["sentences"] == sentences(found)
    before = [file.read_bytes() for file in files]
    write(found, tmp_path)
    assert [file.read_bytes() for file in files] == before
    assert b"no-evolution" in before[2] or b"<svg" in before[2]


def test_a_result_that_is_no_number_is_left_out():
    """A test result that is NaN or infinite counts as none, is told, and is null in the JSON."""
    found = comparison({"pbt": [1.0, 2.0], "own": [float("inf"), 2.0]}, metric="test")
    assert found.metric == "test"
    assert found.plans[1].paired.seeds == (1,)
    assert any("test was not finite, for own in 1 run." in text for text in sentences(found))
    assert json.loads(json.dumps(as_plain(found), allow_nan=False))["plans"]["own"]["runs"][0]["values"]["test"] is None


@pytest.mark.parametrize(
    "results",
    [
        pytest.param(CLEAR, id="linear"),
        pytest.param({"pbt": -BASE / 100, "own": -BASE * 10}, id="negative, over decades"),
        pytest.param({"pbt": BASE * 100, "own": BASE / 10}, id="positive, over decades"),
        pytest.param({"pbt": [0.0] * 3, "own": [0.0] * 3}, id="all zero"),
        pytest.param({"pbt": [0.5]}, id="one run"),
    ],
)
def test_the_picture(results):
    """Whatever the numbers: a light picture with a row of dots per plan, inside its axes."""
    found = comparison(results)
    figure = plot_comparison(found)
    picture = Image.open(io.BytesIO(figure_bytes(figure, "png"))).convert("RGB")
    assert picture.getpixel((2, 2)) == (255, 255, 255)
    left = figure.axes[0]
    low, high = left.get_xlim()
    dots = [dot for rows in left.collections for dot in rows.get_offsets()[:, 0]]
    assert sorted(dots) == pytest.approx(sorted(v for values in results.values() for v in values))
    assert low < min(dots) <= max(dots) < high
    assert [text.get_text() for text in left.get_yticklabels()] == list(results)
    assert len(figure.axes) == 1 + (len(results) > 1)


@pytest.mark.parametrize(("objective", "names"), [("minimize", {"score", "test_loss"}), ("maximize", {"score"})])
def test_a_test_loss_counts_where_the_score_is_minimized(tmp_path, objective, names):
    """Plans that maximize another score are not compared by a loss that nothing selects by."""

    def lossy(hparams, state, steps, ctx):
        return {"x": 0.0}, {"score": hparams["lr"], "test_loss": 1.0}

    experiment = pbt.Experiment(
        task=lossy, space={"lr": pbt.Float(0.1, 1.0)}, population=2, rounds=1, objective=objective
    )
    experiment.run(tmp_path / "run")
    assert measured_run(Trial(plan="pbt", seed=0, path=tmp_path / "run")).values.keys() == names
