"""Steps through many small whole numbers."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pbt
from pbt.core.explore import RESAMPLED, jitter, keep
from pbt.core.population import Member, View
from pbt.core.rng import Rng
from pbt.core.strategy import Plan
from pbt.domains import Choice, Float, Int
from pbt.errors import UsageError
from pbt.space import Space
from pbt.strategies.augmentation import augmentation_step
from pbt.testing.invariants import violations
from pbt.testing.strategies import StrategyContract

POLICY = Space({"level": Int(0, 10, prior=(0, 0))})
MIXED = Space(
    {
        "lr": Float(1e-4, 1.0, "log"),
        "operation": Choice(("turn", "shear")),
        "angle": Int(0, 9, when=("operation", "turn")),
        "level": Int(-2, 10),
        "more": Float(0.0, 1.0, when=("level", 10)),
    }
)


class TestContract(StrategyContract):
    space = MIXED

    def make_strategy(self):
        return Plan(explore=augmentation_step())


class Every:
    """A generator that takes every course: `path` says which branch each draw takes, `weight` how likely that is."""

    def __init__(self, path):
        self.path, self.weight, self.fans = path, 1.0, []

    def _branch(self, weights):
        place = len(self.fans)
        self.fans.append(len(weights))
        taken = self.path[place] if place < len(self.path) else 0
        self.weight *= weights[taken]
        return taken

    def random(self):
        """Below 0.2 or above: all that is asked of it here."""
        return (0.0, 0.2)[self._branch((0.2, 0.8))]

    def below(self, n):
        return self._branch((1 / n,) * n)

    def choice(self, options):
        return options[self.below(len(options))]


def distribution(start):
    """How likely each result of one step from this value is, by taking every course of draws."""
    found, paths = Counter(), [()]
    while paths:
        path = paths.pop()
        rng = Every(path)
        result, _ = augmentation_step(rule=keep())(
            {"level": start}, Member(id=0, hparams={}), View(seed=0, space=POLICY), rng
        )
        for depth in range(len(path), len(rng.fans)):
            known = (*path, *(0,) * (depth - len(path)))
            paths += [(*known, other) for other in range(1, rng.fans[depth])]
        found[result["level"]] += rng.weight
    return found


@pytest.mark.parametrize(
    ("start", "expected"),
    [(5, {5: 0.218182, 4: 0.118182, 6: 0.118182, 9: 0.018182}), (0, {0: 0.518182, 1: 0.118182})],
)
def test_constants(start, expected):
    """The published step on 0 .. 10, exactly: how likely each result is from 5 and from 0."""
    found = distribution(start)
    assert sum(found.values()) == pytest.approx(1)
    assert {value: found[value] for value in expected} == pytest.approx(expected, abs=1e-6)


def explored(rule, hparams, space=MIXED, seed=0):
    """New values and what was drawn."""
    return rule(hparams, Member(id=0, hparams=hparams), View(seed=0, space=space), Rng("explored", seed))


@given(
    start=st.integers(0, 10_000).map(lambda seed: MIXED.sample(Rng("start", seed))),
    seed=st.integers(0, 10_000),
    rule=st.sampled_from([keep, jitter(0.3), pbt.perturb()]),
)
def test_inside_the_space(start, seed, rule):
    """Whatever is drawn, the values are in the space, whole numbers whole, and what depends on others is settled."""
    values, draws = explored(augmentation_step(rule=rule), start, seed=seed)
    assert MIXED.contains(values)
    assert type(values["level"]) is int
    assert draws.keys() <= start.keys()
    assert {"level"} <= draws.keys()


def test_draws_say_what_was_done():
    """A move by a drawn amount, clipped, or a new draw."""
    seen = set()
    for seed in range(300):
        values, draws = explored(augmentation_step(), {"level": 9}, POLICY, seed)
        seen.add(draws["level"])
        if draws["level"] != RESAMPLED:
            assert values["level"] == min(9 + draws["level"], 10)
    assert seen == {-3, -2, -1, 0, 1, 2, 3, RESAMPLED}


def test_the_others_by_their_rule():
    """What is no whole number changes by the given rule, and not at all under `keep`."""
    start = {"lr": 0.01, "operation": "shear", "level": 3}
    kept, draws = explored(augmentation_step(rule=keep()), start)
    assert (kept["lr"], kept["operation"]) == (0.01, "shear")
    assert draws.keys() == {"level"}
    moved, draws = explored(augmentation_step(rule=pbt.perturb((2.0,))), start)
    assert moved["lr"] == 0.02
    assert draws["lr"] == 2.0


@pytest.mark.parametrize(
    "settings",
    [{"probability": -0.1}, {"probability": 1.1}, {"amounts": ()}, {"amounts": (1, -1)}, {"amounts": (0.5,)}],
)
def test_refused(settings):
    """Settings outside their ranges are refused."""
    with pytest.raises(UsageError, match="augmentation_step: expected"):
        augmentation_step(**settings)


def in_step(hparams, state, steps, ctx):
    """A task that wants its level to rise slowly: the score is how often it was in step."""
    hits = (0 if state is None else state["hits"]) + (abs(hparams["level"] - ctx.round / 2) <= 1)
    return {"hits": hits}, float(hits)


def test_a_schedule_is_found_and_stretched(tmp_path):
    """From a policy of zeros a rising schedule is found; it stretches to any length."""
    # All start alike, so a tie must copy.
    plan = Plan(exploit=pbt.truncation(0.25, ties="copy"), explore=augmentation_step())
    run = pbt.run(in_step, POLICY, plan=plan, population=16, rounds=16, run_dir=tmp_path / "run")
    assert {hparams["level"] for hparams in (run.tree.hparams(id_, 1) for id_ in range(16))} == {0}
    assert run.best.score > 10
    schedule = run.best_schedule.stretched(160)
    assert schedule.steps == 160
    assert schedule.at(159) == run.best.hparams
    assert violations(tmp_path / "run") == []
