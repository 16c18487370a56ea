"""The public comparison of plans: which runs it trains, and its table."""

import json

import pytest

from benchmarks.zoo import COMPARED, PROBLEMS, Zoo, ranked, report, table
from pbt.errors import UsageError

TINY = """
import pbt

def tiny():
    return pbt.Experiment(
        task=lambda hparams, state, steps, ctx: ((state or 0.0) + steps * hparams["rate"],) * 2,
        space={"rate": pbt.Float(0.0, 1.0)},
        plan=pbt.Plan(exploit=pbt.truncation(0.5), interval=1),
        population=2,
        rounds=2,
    )
"""


@pytest.fixture
def zoo(tmp_path):
    """Makes a comparison on the tiny problem, always with the same results."""
    (tmp_path / "tiny.py").write_text(TINY, encoding="utf-8")

    def made(*plans, problems=("tiny",), seeds=2):
        return Zoo(out=tmp_path / "out", problems=problems, plans=plans, seeds=seeds, file=tmp_path / "tiny.py")

    return made


def runs(lines):
    return [(line["plan"], line["seed"]) for line in lines]


def test_finished_runs_are_not_trained_again(zoo, capsys):
    """Neither their own nor, beyond what a control needs, those that a new control follows."""
    first = zoo("pbt", "no-evolution")
    lines = list(first.train())
    assert runs(lines) == [("pbt", 0), ("no-evolution", 0), ("pbt", 1), ("no-evolution", 1)]
    assert all(line["values"]["score"] > 0 and line["steps"] == 4 for line in lines)
    assert not list(first.train())
    more = zoo("pbt", "no-evolution", "final")
    assert runs(more.train()) == [("final", 0), ("final", 1)]
    assert [path.name for path in (more.out / "runs").iterdir()] == []
    assert len(more.results.read_text(encoding="utf-8").splitlines()) == 6
    report(more)
    assert "6 runs" in capsys.readouterr().out


def test_results_of_another_size_are_refused(zoo):
    of = zoo("pbt", "no-evolution", seeds=1)
    of.out.mkdir()
    line = {"problem": "tiny", "plan": "pbt", "seed": 0, "population": 2, "rounds": 3}
    of.results.write_text(json.dumps(line) + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"results\.jsonl.*tiny.*remove"):
        list(of.train())


def line(plan, seed, score):
    counts = dict.fromkeys(("steps", "state_steps", "copies", "founders", "failures", "seconds"), 4)
    values = {"score": score}
    return {"problem": "tiny", "plan": plan, "seed": seed, "trained_with": seed, "path": "", "values": values} | counts


def test_marks_are_those_of_the_comparison(zoo):
    """Bold is significantly better than the first plan, italics worse; pb2-mix is pb2 where nothing is a choice."""
    of = zoo("pbt", "no-evolution", "fire", "pb2", "pb2-mix", seeds=10)
    scores = {"pbt": 0.0, "no-evolution": -1.0, "fire": 1.0, "pb2": 0.0}
    found = [line(plan, seed, score + seed) for plan, score in scores.items() for seed in range(10)]
    of.out.mkdir()
    of.results.write_text("".join(json.dumps(each) + "\n" for each in found), encoding="utf-8")
    comparisons = [of.comparison("tiny")] * 2
    cells = [row.strip("| ").split(" | ") for row in table(comparisons, ("a", "b"))[2:]]
    assert cells == [
        ["`fire`", "1.0", "2", "0", "**5.5**", "**5.5**", "1.00"],
        ["`pbt`", "3.0", "", "", "4.5", "4.5", "1.00"],
        ["`pb2`", "3.0", "0", "0", "4.5", "4.5", "1.00"],
        ["`pb2-mix`", "3.0", "0", "0", "4.5", "4.5", "1.00"],
        ["`no-evolution`", "5.0", "0", "2", "*3.5*", "*3.5*", "1.00"],
    ]
    test = ranked(comparisons)
    assert test is not None
    assert test.ranks == (3.0, 5.0, 1.0, 3.0, 3.0)
    assert ranked(comparisons[:1]) is None


@pytest.mark.slow
def test_every_plan_fits_every_problem(tmp_path):
    """As checked before a comparison."""
    of = Zoo(out=tmp_path)
    assert COMPARED[0] == "pbt"
    for problem in PROBLEMS:
        design = of.design(problem, [0])
        experiment = design.experiment()
        assert experiment.population == 16
        design.check(experiment)
