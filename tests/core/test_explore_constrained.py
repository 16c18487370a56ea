"""Births and explore rules under a constraint, and the factors of `perturb` by name."""

import pytest

import pbt
from pbt.errors import SpaceError, UsageError
from pbt.runs.results import Run

SPACE = {"batch": pbt.Int(16, 4096, "log"), "part": pbt.Int(8, 2048, "log")}


def larger(hparams):
    return hparams["batch"] >= 2 * hparams["part"]


def enlarged(hparams):
    return {**hparams, "batch": max(hparams["batch"], 2 * hparams["part"])}


def train(hparams, state, steps, ctx):
    if not larger(hparams):
        raise ValueError("a batch must have at least two parts")
    return 1.0, float(hparams["part"])


def run(space, **fields) -> Run:
    return pbt.run(train, space, **{"population": 20, "rounds": 6, **fields})


@pytest.mark.parametrize("constraint", [larger, enlarged])
@pytest.mark.parametrize("explore", [pbt.perturb(), pbt.resample(), pbt.perturb_or_resample(), pbt.jitter()])
def test_nobody_fails_because_of_it(constraint, explore) -> None:
    found = run(pbt.Space(SPACE, constraint), plan=pbt.Plan(explore=explore))
    assert not found.failures()
    assert len(found.history()["round"]) == 120


def test_a_rule_that_is_always_refused_keeps_the_values() -> None:
    """A rule of the user's own that knows nothing of the constraint."""
    plan = pbt.Plan(explore=lambda hparams, member, view, rng: ({**hparams, "batch": 16, "part": 2048}, {"part": 1}))
    found = run(pbt.Space(SPACE, larger), plan=plan)
    assert not found.failures()
    decided = [decision for decision in found.tree.decisions.values() if decision.kind == "exploit"]
    assert decided
    assert all(found.tree.hparams(d.hparams_from, d.round - 1) == d.hparams for d in decided)
    assert not any(decision.draws for decision in decided)


def test_initial_values_may_lack_names() -> None:
    """The others are drawn, so that the constraint holds; a value that cannot be completed is an error."""
    found = run(pbt.Space(SPACE, larger), initial=[{"part": 1024}, {}], rounds=1)
    first = found.tree.births[0].hparams
    assert first["part"] == 1024
    assert first["batch"] >= 2048
    for given, message in (
        ({"batch": 16}, "part"),
        ({"part": 1}, "'part' must be int 8 .. 2048"),
        ({"size": 1}, "unknown name 'size'"),
        ({"batch": 16, "part": 2048}, "constraint larger: refuses"),
    ):
        if message == "part":
            assert run(pbt.Space(SPACE, larger), initial=[given], rounds=1).tree.births[0].hparams["part"] == 8
        else:
            with pytest.raises(SpaceError, match=message):
                run(pbt.Space(SPACE, larger), initial=[given])


def test_a_resumed_run_has_the_same_constraint(tmp_path) -> None:
    run(pbt.Space(SPACE, larger), rounds=1, run_dir=tmp_path / "run")
    with pytest.raises(UsageError, match="constraint"):
        run(pbt.Space(SPACE), rounds=2, run_dir=tmp_path / "run", resume=True)
    found = run(pbt.Space(SPACE, larger), rounds=2, run_dir=tmp_path / "run", resume=True)
    assert found.view.round == 2


def test_factors_by_name() -> None:
    """Those of the name, else those of `*`, else the value stays."""
    space = {name: pbt.Float(1e-9, 1e9, "log", prior=(1.0, 1.0)) for name in ("lr", "wd", "eps")}

    def moves(factors):
        plan = pbt.Plan(exploit=pbt.truncation(0.5), explore=pbt.perturb(factors))
        found = pbt.run(lambda h, s, n, c: (1.0, float(c.member)), space, plan=plan, population=40, rounds=2)
        copies = [m.hparams for m in found.view.members if found.tree.decisions[m.id, 2].kind == "exploit"]
        assert copies
        return {name: {one[name] for one in copies} for name in space}

    assert moves({"lr": (0.5, 2.0), "*": (0.8, 1.25)}) == {"lr": {0.5, 2.0}, "wd": {0.8, 1.25}, "eps": {0.8, 1.25}}
    assert moves({"wd": (3.0,)}) == {"lr": {1.0}, "wd": {3.0}, "eps": {1.0}}
    with pytest.raises(UsageError, match="no hyperparameter is named 'l_r'"):
        moves({"l_r": (0.5, 2.0)})
    with pytest.raises(UsageError, match="'lr': expected one or more positive factors"):
        moves({"lr": ()})
