"""Initial values: evenly spread designs, and those of earlier runs and studies."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import qmc

import pbt
from pbt import Choice, Float, Int, Plan, Space, truncation
from pbt.errors import RunError, SpaceError, UsageError
from pbt.initial import _shifted, from_optuna, from_run, latin_hypercube, sobol
from pbt.runs.results import Run

SPACE = Space(
    {
        "lr": Float(1e-4, 1.0, "log"),
        "decay": Float(0, 1, step=0.25),
        "layers": Int(1, 8),
        "rule": Choice(["relu", (1, 2)]),
        "extra": Float(0.0, 1.0, when=("rule", "relu")),
    }
)
DESIGNS = {"sobol": sobol, "latin": latin_hypercube}


@pytest.fixture(params=DESIGNS.values(), ids=DESIGNS)
def design(request):
    return request.param


def climb(hparams, state, steps, ctx):
    height = (0.0 if state is None else state["height"]) + steps * hparams["lr"]
    if ctx.member == 2 and ctx.round == 3:
        raise ValueError("lost")
    return {"height": height}, height


def test_the_sequence_is_that_of_sobol():
    """Without a shift the points are those of SciPy, which has the direction numbers of Joe and Kuo too."""
    ours = np.array(list(itertools.islice(_shifted([0] * 40), 512)))
    assert (ours == qmc.Sobol(40, scramble=False, bits=30).random(512)).all()


def test_a_design_is_even_in_every_value(design):
    """Of 16 points each sixteenth of a scale has one, each option half of them, and values are of their domains."""
    points = design(SPACE, 16, seed=3)
    assert all(SPACE.contains(point) for point in points)
    assert sorted(int(16 * math.log10(point["lr"] * 1e4) / 4) for point in points) == list(range(16))
    assert sorted(point["layers"] for point in points) == sorted(2 * list(range(1, 9)))
    assert [point["rule"] for point in points].count("relu") == 8
    assert all(("extra" in point) == (point["rule"] == "relu") for point in points)


def test_a_sobol_sequence_is_even_in_pairs():
    """Of 16 points each of the 16 squares of the first two values has one; a shift keeps that."""
    flat = {"a": Float(0, 1), "b": Float(0, 1)}
    for seed in range(5):
        squares = {(int(4 * point["a"]), int(4 * point["b"])) for point in sobol(flat, 16, seed)}
        assert len(squares) == 16


def test_a_design_is_its_seed(design):
    """Equal seeds give equal points, another seed gives others, and a longer Sobol sequence continues a shorter one."""
    assert design(SPACE, 5, 1) == design(SPACE, 5, 1) != design(SPACE, 5, 2)
    assert sobol(SPACE, 9, 1)[:5] == sobol(SPACE, 5, 1)


def test_a_design_under_a_constraint(design):
    """Refused points are replaced, repaired ones kept; a constraint that refuses all is named."""
    flat = {"a": Float(0, 1), "b": Float(0, 1)}
    points = design(Space(flat, lambda hparams: hparams["a"] < hparams["b"]), 20)
    assert len(points) == 20
    assert all(point["a"] < point["b"] for point in points)
    points = design(Space(flat, lambda hparams: {**hparams, "b": hparams["a"]}), 7)
    assert all(point["a"] == point["b"] for point in points)

    def never(hparams):
        return hparams["a"] > 2

    with pytest.raises(SpaceError, match="constraint never: refused all"):
        design(Space(flat, never), 1)


def test_what_no_design_can_be(design):
    """A count that is no positive whole number is refused; any number of values is spread."""
    for count in (0, -1, 2.5, True):
        with pytest.raises(UsageError, match=rf"at least 1, got {count!r}"):
            design(SPACE, count)
    for number in (0, 50):
        assert [len(point) for point in design({f"x{i}": Float(0, 1) for i in range(number)}, 4)] == [number] * 4


def test_the_values_of_an_earlier_run(tmp_path):
    """`last` is the living population, best first; `best` the distinct values that led to the best scores."""
    plan = Plan(exploit=truncation(0.4))
    run = pbt.run(climb, SPACE, plan=plan, population=5, rounds=4, run_dir=tmp_path / "run")
    newest = sorted(run.tree.newest.values(), key=lambda state: -state.score)
    assert from_run(run) == [dict(state.hparams) for state in newest]
    assert from_run(tmp_path / "run", 2) == from_run(run)[:2]
    best = from_run(Run.open(tmp_path / "run"), of="best")
    assert best[0] == dict(run.best.hparams)
    assert len(best) == 5 == len({repr(point) for point in best})
    after = pbt.run(climb, SPACE, population=3, rounds=1, initial=from_run(tmp_path / "run", 3))
    assert [state.hparams for state in after.tree.states.values()] == from_run(run)[:3]


def test_a_minimized_run_has_its_lowest_score_first():
    """Best first is in the sense of the run's objective."""
    run = pbt.run(climb, SPACE, plan=Plan(exploit=pbt.never()), population=4, rounds=1, objective="minimize")
    rates = [point["lr"] for point in from_run(run)]
    assert rates == sorted(rates)


def test_a_run_without_values():
    """A run in which no member has finished a round, and an unknown choice, are refused."""
    with pytest.raises(UsageError, match="of='last' or of='best', got 'first'"):
        from_run("nowhere", of="first")
    with pytest.raises(RunError, match="nowhere"):
        from_run("nowhere")


def trial(value, state="COMPLETE", **params):
    return SimpleNamespace(value=value, params=params, state=SimpleNamespace(name=state))


def study(trials, *directions, front=()):
    return SimpleNamespace(
        trials=trials, directions=[SimpleNamespace(name=name) for name in directions], best_trials=list(front)
    )


def test_the_best_trials_of_a_study():
    """Completed trials, best first in the study's direction, each set once, under the names of the space.

    A stand-in with the documented attributes of `optuna.Study` and `FrozenTrial`; the next test has the package.
    """
    trials = [
        trial(3.0, rate=0.3, rule="relu"),
        trial(1.0, rate=np.float64(0.1), rule="relu"),
        trial(None, "PRUNED", rate=0.9, rule="relu"),
        trial(2.0, rate=0.1, rule="relu"),
        trial(None, "FAIL", rate=0.8, rule="relu"),
    ]
    lowest = [{"lr": 0.1, "rule": "relu"}, {"lr": 0.3, "rule": "relu"}]
    assert from_optuna(study(trials, "MINIMIZE"), names={"rate": "lr"}) == lowest
    assert from_optuna(study(trials, "MAXIMIZE"), 1, {"rate": "lr"}) == lowest[1:]
    assert from_optuna(study(trials, "MAXIMIZE", "MINIMIZE", front=trials[3:4]), names={"rate": "lr"}) == lowest[:1]
    with pytest.raises(UsageError, match="completed trials, found none"):
        from_optuna(study(trials[2:3], "MINIMIZE"))
    with pytest.raises(UsageError, match=r"expected an optuna.Study, got 'study\.db'"):
        from_optuna("study.db")


@pytest.mark.needs("optuna")
def test_a_study_of_optuna():
    """The same with Optuna itself, where it is installed."""
    optuna = __import__("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    made.optimize(lambda one: -((one.suggest_float("lr", 1e-4, 1.0, log=True) - 0.1) ** 2), n_trials=8)
    found = from_optuna(made)
    assert found[0] == made.best_params
    assert len(found) == 8
    pbt.run(climb, SPACE, population=2, rounds=1, initial=found[:2])
