"""Hyperparameters whose values are tuples, and numbers of NumPy, wherever values travel."""

import csv
import io
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

import pbt
from pbt import Choice, Float, Int, Plan, truncation
from pbt.core.events import Ended
from pbt.core.fold import empty_view, fold
from pbt.core.rng import Rng
from pbt.errors import SpaceError
from pbt.runs.export import csv_text, jsonl_text, write_parquet
from pbt.runs.results import Run
from pbt.strategies.registry import named
from pbt.testing.invariants import violations

FAST = ("own", "backtracking", "pb2-mix", "gpbt-pl")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("mf-pbt", "ipbt", "pb2", "fire")]
BETAS = ((0.9, 0.999), (0.8, 0.99), (0.5, 0.9))
SPACE = {
    "lr": Float(0.01, 1.0, "log"),
    "betas": Choice([list(BETAS[0]), np.array(BETAS[1]), BETAS[2]], ordered=True),
    "layers": Choice([(64, 64), [128], None]),
    "more": Float(0, 1, when=("layers", [128])),
}
OWN = Plan(exploit=truncation(0.4), explore=pbt.perturb_or_resample(), interval=2, lookback=1)


def climb(hparams, state, steps, ctx):
    assert all(type(value) in (float, int, tuple, type(None)) for value in hparams.values())
    height = (state or {"height": 0.0})["height"] + steps * hparams["lr"] * hparams["betas"][0]
    return {"height": height}, {
        "score": height + len(hparams["layers"] or ()),
        "series": [height, height + 1, height + 2],
    }


def trained(plan, rounds, **options):
    return pbt.run(climb, SPACE, plan=plan, population=16, rounds=rounds, seed=3, **options)


@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_a_run_with_tuples_resumes_as_if_it_had_not_stopped(name, tmp_path):
    """Tuples are read from the log and from checkpoints of its fold as the tuples that the members trained with."""
    plan = named(name, OWN, rounds=8)
    first = {"betas": [0.5, 0.9], "layers": np.array([64, 64])}
    trained(plan, 2, initial=[first], run_dir=tmp_path / "run")
    parts = trained(plan, 4, initial=[first], run_dir=tmp_path / "run", resume=True)
    whole = trained(plan, 4, initial=[first])
    assert parts.history() == whole.history()
    assert [e for e in parts.events if type(e) is not Ended] == [e for e in whole.events if type(e) is not Ended]
    assert parts.history()["betas"][0] == (0.5, 0.9)
    assert {type(value) for value in parts.history()["betas"]} == {tuple}
    assert fold(parts.events, empty_view(parts.meta)).population == whole.view.population
    assert violations(tmp_path / "run") == []


def test_tuples_in_tables(tmp_path):
    """A tuple is a JSON list in CSV, JSON lines and Parquet, and a value in a frame."""
    run = trained(OWN, 3)
    history = run.history()
    rows = list(csv.DictReader(io.StringIO(csv_text(history))))
    assert [tuple(json.loads(row["betas"])) for row in rows] == history["betas"]
    rows = [json.loads(line) for line in jsonl_text(history).splitlines()]
    assert [tuple(row["betas"]) for row in rows] == history["betas"]
    polars = pytest.importorskip("polars")
    write_parquet(history, tmp_path / "history.parquet")
    read = polars.read_parquet(tmp_path / "history.parquet")
    assert [tuple(json.loads(text)) for text in read["betas"]] == history["betas"]
    assert [tuple(value) for value in history.to_frame()["betas"]] == history["betas"]


@pytest.mark.parametrize("option", [(1, (2,)), ({"a": 1},), (float("nan"), 1), {1: 2}])
def test_tuples_that_no_log_could_hold(option):
    """A nested tuple, a mapping and NaN, which differs from itself, are no options."""
    with pytest.raises(SpaceError, match="expected strings, numbers, booleans, None or tuples"):
        Choice([option])


def test_tuples_are_compared_with_their_types():
    """(1, 0), (True, False) and (1.0, 0.0) are three options, as 1, True and 1.0 are."""
    choice = Choice([(1, 0), (True, False), (1.0, 0.0)], ordered=True)
    assert [choice.place(option) for option in choice.options] == [0, 1, 2]
    assert [type(choice.perturb((True, False), factor, Rng(0))[0]) for factor in (0.5, 2)] == [int, float]
    with pytest.raises(SpaceError, match="distinct"):
        Choice([(1, 0), [1, 0]])


@dataclass(frozen=True, kw_only=True)
class OfNumPy(Plan):
    """Births and decisions with numbers of NumPy."""

    def begin(self, view, population, initial):
        proposal = Plan.begin(self, view, population, initial)
        return replace(proposal, starts=[replace(b, hparams=_with_numpy(b.hparams)) for b in proposal.starts])

    def decide(self, view, ready):
        proposal = Plan.decide(self, view, ready)
        return replace(proposal, decisions=[d._replace(hparams=_with_numpy(d.hparams)) for d in proposal.decisions])


def _with_numpy(hparams):
    return {"lr": np.float64(hparams["lr"]), "n": np.int64(hparams["n"]), "pair": np.array(hparams["pair"])}


def numpy_explore(hparams, member, view, rng):
    factor = np.float32(0.5)
    return {**_with_numpy(hparams), "lr": np.float32(max(0.125, hparams["lr"] * factor))}, {"lr": factor}


def exact(hparams, state, steps, ctx):
    assert [type(value) for value in hparams.values()] == [float, int, tuple]
    return {"at": ctx.round}, np.float32(hparams["lr"])


@pytest.mark.parametrize(
    "plan",
    [
        OfNumPy(exploit=truncation(0.5)),
        Plan(exploit=truncation(0.5), explore=numpy_explore, interval=np.int64(2)),
        Plan(exploit=truncation(np.float64(0.5)), explore=pbt.perturb(np.array([0.5, 2], dtype=np.float32))),
    ],
    ids=["strategy", "explore", "settings"],
)
def test_numbers_of_numpy_are_numbers(plan, tmp_path):
    """Whoever gives a number of NumPy, the members and the log have one of Python."""
    space = {
        "lr": Float(np.float32(0.125), np.float64(1), prior=(np.float32(0.25), np.float32(0.5))),
        "n": Int(np.int32(1), np.int64(8)),
        "pair": Choice([np.array([1, 2]), np.array([3, 4])], ordered=True),
    }
    first = {"lr": np.float32(0.25), "n": np.int16(3), "pair": np.array([3, 4])}
    run = pbt.run(exact, space, plan=plan, initial=[first], population=4, rounds=3, run_dir=tmp_path / "run")
    assert run.events == Run.open(tmp_path / "run").events
    assert {type(value) for value in run.history()["lr"]} == {float}
