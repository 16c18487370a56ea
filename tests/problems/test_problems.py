"""All problems by name: each loads, runs, leaves a sound run, and trains the same bits wherever rounds are cut."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest

import pbt
from pbt.core.events import Reported
from pbt.core.population import StateRef
from pbt.errors import MissingExtraError, UsageError
from pbt.executors.transport import check_sendable
from pbt.problems import PROBLEMS, images, load
from pbt.runs.task_forms import trainable
from pbt.store.codec import digest
from pbt.testing.invariants import violations

TOYS = {"fig2", "nqm", "toy-plain", "toy-deceptive"}
ALONE = pbt.Plan(exploit=pbt.never(), explore=pbt.keep())
ONE_THREAD = pbt.Placement(threads=1)
"""So small networks gain nothing from more, and lose where the machine is busy."""

each = pytest.mark.parametrize("name", PROBLEMS)


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch):
    monkeypatch.setenv("PBT_OFFLINE", "1")


@each
def test_a_problem_runs(name, tmp_path):
    """Two rounds of four members under its own plan: finite scores, a test score where the score is noisy."""
    experiment = replace(load(name), placement=ONE_THREAD, rounds=2, population=2 if name == "fig2" else 4)
    run = experiment.run(tmp_path / "run")
    assert violations(tmp_path / "run") == []
    reports = [event for event in run.events if isinstance(event, Reported)]
    assert len(reports) == 2 * experiment.population
    assert all(math.isfinite(report.scores[0]) for report in reports)
    shown = {"test", "test_accuracy"} & set(run.best.reported) or {"test_loss"} & set(run.best.reported)
    assert len(shown) == (0 if name in TOYS else 1)
    check_sendable(trainable(experiment.task))


def last_state(name, steps, rounds):
    """The digest of what one member has become after so many rounds of so many steps."""
    plan = replace(ALONE, interval=steps)
    run = replace(load(name), plan=plan, population=1, rounds=rounds, seed=3, initial=(), placement=ONE_THREAD).run()
    return digest(run.load_state(StateRef(0, rounds)))


@each
def test_where_rounds_end_changes_no_bit(name):
    """One round of 42 steps, which is more than an epoch, and rounds of 7 give the same state."""
    long, short = (6, 2) if name == "cartpole" else (42, 7)
    assert last_state(name, long, 1) == last_state(name, short, long // short)


@pytest.mark.parametrize("name", ["toy-plain", "toy-deceptive"])
def test_toys_return_their_curves(name):
    """One point per step, for algorithms that compare curves."""
    run = replace(load(name), rounds=1).run()
    assert {len(event.series) for event in run.events if isinstance(event, Reported)} == {20}


def test_an_unknown_name_is_refused_with_the_nearest():
    """The error names what was probably meant."""
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        load("digit")


@pytest.mark.parametrize("name", ["digits", "digits-centred", "vae"])
def test_what_is_not_installed_is_named_before_the_start(name, monkeypatch):
    """Without scikit-learn the problem is refused with the line that installs it."""
    images.images.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"the extra 'problems'"):
        load(name)


def test_the_list_loads_nothing():
    """Importing the names imports neither torch nor scikit-learn nor the MNIST application."""
    code = "import sys, pbt.problems; print({'torch', 'sklearn', 'pbt.mnist', 'gymnasium'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_cartpole_needs_nothing_but_numpy():
    """The agent trains a round without torch and without gymnasium."""
    code = (
        "import sys, dataclasses, pbt.problems as p; dataclasses.replace(p.load('cartpole'), rounds=1).run(); "
        "print({'torch', 'gymnasium', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_mnist_fc_is_bounded():
    """However many images are there, an epoch is short; the splits share no image."""
    data = load("mnist-fc").task.data()
    assert len(data.train) == 2000
    assert 500 <= len(data.validation) <= 1000
    assert 500 <= len(data.test) <= 1000
    rows = [split.inputs.flatten(1).tolist() for split in (data.train, data.validation, data.test)]
    train, validation, test = ({tuple(row) for row in part} for part in rows)
    assert not train & validation
    assert not train & test
