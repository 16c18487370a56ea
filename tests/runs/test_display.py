"""What a run shows in a notebook, and the model that it gives back."""

from dataclasses import replace

import pytest
import torch

import pbt
from pbt.errors import TaskError, UsageError
from pbt.runs import display
from pbt.runs.columns import History
from pbt.runs.results import Run
from tests.pytorch.tasks import NET, Duel, make_data

SPACE = {"lr": pbt.Float(0.01, 0.5, "log"), "p": pbt.Float(0.1, 0.6), "smoothing": pbt.Float(0.0, 0.2)}


def constant(hparams, state, steps, ctx):
    return 1.0, hparams["lr"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run of a network with dropout, a label smoothing and an average."""
    folder = tmp_path_factory.mktemp("display") / "<b>run"
    task = replace(NET, ema=0.9)
    return pbt.run(task, SPACE, plan=pbt.Plan(interval=4), population=3, rounds=2, objective="minimize", run_dir=folder)


def test_the_model_has_the_score_of_its_state(run) -> None:
    """Of every member: the network that `model` of the task builds, with the averaged weights that were scored."""
    data = make_data()
    for member in run.view.members:
        network = run.model(member)
        assert not network.training
        assert {type(layer) for layer in network.modules() if "Dropout" in type(layer).__name__} == {torch.nn.Dropout}
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(network(data.validation.inputs), data.validation.targets)
        assert float(loss) == pytest.approx(run.reports([member.state])[member.state].scores[0], abs=1e-6)


def test_hyperparameters_of_the_network_are_set(run) -> None:
    layers = [layer for layer in run.model().modules() if isinstance(layer, torch.nn.Dropout)]
    assert {layer.p for layer in layers} == {run.best.hparams["p"]}


def test_a_run_that_is_opened_needs_its_task(run) -> None:
    with pytest.raises(TaskError, match=r"Run\.open\(path, task="):
        Run.open(run.path).model()
    again = Run.open(run.path, task=NET).model().state_dict()
    assert all(torch.equal(value, again[name]) for name, value in Run.open(run.path, NET).model().state_dict().items())


def test_tasks_without_a_model_of_their_own() -> None:
    """A function has none, and of two networks none is the one; both errors name `load_state`."""
    function = pbt.run(constant, {"lr": pbt.Float(0, 1)}, rounds=1)
    space = {name: pbt.Float(1e-3, 1e-2) for name in Duel.bind}
    two = pbt.run(Duel(), space, plan=pbt.Plan(interval=2), population=2, rounds=1)
    for found in (function, two):
        with pytest.raises(TaskError, match=r"run\.load_state\(\)"):
            found.model()


def test_a_run_in_short(run) -> None:
    """Its directory, its population, and the best score with its hyperparameters; names are text."""
    shown = run._repr_html_()
    assert "&lt;b&gt;run" in shown
    assert "3 members, 2 of 2 rounds" in shown
    assert f"member {run.best.member}, round {run.best.round}" in shown
    assert all(f"its {name}" in shown for name in SPACE)


def test_a_history_in_short() -> None:
    """The first six and the last four rows, with a gap; nothing is markup."""
    shown = History({"round": list(range(100)), "<i>": ["<x>"] * 100})._repr_html_()
    cells = shown.replace("<tr>", "\n").split("\n")[2:]
    assert [row[4:].partition("<")[0] for row in cells] == [*"012345", "…", "96", "97", "98", "99"]
    assert "<i>" not in shown
    assert "<x>" not in shown
    assert "100 rows, 2 columns" in shown
    assert History({})._repr_html_().endswith("<p>0 rows, 0 columns</p>")


def test_figures(run) -> None:
    """Each is a picture for a notebook; one that has nothing to draw says why."""
    assert run.plot.fitness()._repr_png_().startswith(b"\x89PNG")
    names = [name for name in vars(display.RunPlots) if not name.startswith("_") and name != "run"]
    assert len(names) == 10
    with pytest.raises(UsageError, match="curves"):
        run.plot.curves()


def test_progress_is_shown_where_it_is_wanted(capsys) -> None:
    """A line per round where there is no terminal; nothing by default."""
    for progress, lines in ((None, 0), (False, 0), (True, 2)):
        pbt.run(
            lambda hparams, state, steps, ctx: (1.0, hparams["lr"]),
            {"lr": pbt.Float(0, 1)},
            rounds=2,
            progress=progress,
        )
        printed = capsys.readouterr()
        assert (len(printed.err.splitlines()), printed.out) == (lines, "")
