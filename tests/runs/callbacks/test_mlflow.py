"""A run in MLflow, read back with its own client from a local SQLite store: no server, no network."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pbt.core.events import Failed
from pbt.core.schedule import Schedule
from pbt.errors import MissingExtraError
from pbt.runs.callbacks import Callback, MemberReport, RoundEnd, past
from pbt.runs.callbacks.mlflow import MLflow, _key
from tests.runs.callbacks.hills import CtrlC, hills, uneven

pytestmark = pytest.mark.filterwarnings("ignore")  # what a tracker warns of is its own


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables, which MLflow takes a second to make."""
    import mlflow

    folder = tmp_path_factory.mktemp("empty")
    mlflow.MlflowClient(tracking_uri=uri(folder)).search_experiments()
    return folder


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: Path) -> Any:
    """A client of a store of its own."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    shutil.copy(empty / "mlflow.db", tmp_path)
    return mlflow.MlflowClient(tracking_uri=uri(tmp_path))


def uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def runs_of(client: Any) -> tuple[Any, dict[int, Any]]:
    """The parent run and those of the members."""
    experiment = client.get_experiment_by_name("hills")
    found = client.search_runs([experiment.experiment_id])
    (parent,) = (run for run in found if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in found if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    members = {int(run.data.tags["member"]): run for run in children}
    assert len(members) == len(children)
    return parent, members


def curve(client: Any, run: Any, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]


def check(client: Any, run: Any) -> None:
    """What is in the store is what the log says, once."""
    parent, members = runs_of(client)
    assert parent.info.status == "FINISHED"
    assert {member.info.status for member in members.values()} == {"FINISHED"}
    assert parent.data.params["seed"] == "3"
    assert json.loads(parent.data.params["space"])["rate"]
    assert sorted(members) == [0, 1, 2]
    reports = [record for record in past(run) if isinstance(record, MemberReport)]
    for member, there in members.items():
        own = [report for report in reports if report.member == member]
        assert curve(client, there, "score") == [(report.step, report.score) for report in own]
        assert curve(client, there, "rate") == [(report.step, report.hparams["rate"]) for report in own]
        assert curve(client, there, "val/acc") == [(report.step, report.reported["val/acc"]) for report in own]
        assert curve(client, there, "odd_name") == [(report.step, 1.0) for report in own]
        points = [(step, value) for report in own for step, value in report.points["loss"]]
        assert len(points) == 5 * len(own)
        assert curve(client, there, "loss") == points
        assert curve(client, there, "curve.rate") == [(step, member + 0.5) for step, _ in points]
        assert there.data.tags["rule"] == own[-1].hparams["rule"]
        assert "word" not in there.data.metrics | there.data.tags
        copies = {r: d for (m, r), d in run.tree.decisions.items() if m == member and d.donor is not None}
        assert curve(client, there, "donor") == [(r, d.donor) for r, d in copies.items()]
        tags = {name: text for name, text in there.data.tags.items() if name.startswith("copied")}
        assert tags == {f"copied.round_{r}": f"{d.kind}: member {d.donor}, step {d.step}" for r, d in copies.items()}
    (failure,) = (event for event in run.events if isinstance(event, Failed))
    assert members[1].data.tags["failed.round_2"] == f"exception: {failure.message}"
    assert {len([n for n in m.data.tags if n.startswith("failed")]) for i, m in members.items() if i != 1} == {0}
    ends = [record for record in past(run) if isinstance(record, RoundEnd)]
    assert curve(client, parent, "best_score") == [(end.round, end.best.score) for end in ends if end.best]
    (artifact,) = client.list_artifacts(parent.info.run_id)
    text = Path(client.download_artifacts(parent.info.run_id, artifact.path)).read_text()
    assert Schedule.from_dict(json.loads(text)) == run.best_schedule


@pytest.mark.needs("mlflow")
def test_a_run_is_a_parent_with_a_child_per_member(client: Any, tmp_path: Path) -> None:
    """Scores, hyperparameters, copies, failures, settings and the schedule are there, each once."""
    check(client, hills().run(tmp_path / "run", callbacks=[MLflow("hills", tracking_uri=uri(tmp_path))]))
    parent, members = runs_of(client)
    assert parent.info.run_name == "run"
    assert members[2].info.run_name == "member 2"


@pytest.mark.slow
@pytest.mark.needs("mlflow")
def test_a_resumed_and_extended_run_goes_on_in_the_same_runs(client: Any, tmp_path: Path) -> None:
    """After Ctrl-C, and given more rounds later, it is still one parent and one child per member, nothing twice."""
    tracker = MLflow("hills", name="mine", tracking_uri=uri(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        hills().run(tmp_path / "run", callbacks=[tracker, CtrlC(2)])
    parent, members = runs_of(client)
    assert {run.info.status for run in (parent, *members.values())} == {"KILLED"}
    assert (parent.info.run_name, parent.data.tags["rounds"]) == ("mine", "4")
    hills().run(tmp_path / "run", resume=True, callbacks=[MLflow("hills", tracking_uri=uri(tmp_path))])
    run = hills(rounds=5).run(tmp_path / "run", resume=True, callbacks=[tracker])
    check(client, run)
    assert runs_of(client)[0].data.tags["rounds"] == "5"


@pytest.mark.long
@pytest.mark.needs("mlflow")
def test_no_curve_runs_backwards(client: Any, tmp_path: Path) -> None:
    """Curves of members that copy others with fewer steps go on under another name."""
    run = uneven().run(callbacks=[MLflow("hills", tracking_uri=uri(tmp_path))])
    _, members = runs_of(client)
    scores = [
        curve(client, there, name) for there in members.values() for name in there.data.metrics if "score" in name
    ]
    assert len(scores) > 4
    assert sum(map(len, scores)) == len(run.history()["step"])
    for points in scores:
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps))


@pytest.mark.long
@pytest.mark.needs("mlflow")
def test_a_resumed_run_is_running(client: Any, tmp_path: Path) -> None:
    """While it goes on, parent and children have the status that says so."""
    statuses = []

    class Look(Callback):
        def on_round_end(self, end: RoundEnd) -> None:
            parent, members = runs_of(client)
            statuses.append({run.info.status for run in (parent, *members.values())})

    tracker = MLflow("hills", tracking_uri=uri(tmp_path))
    hills(rounds=1).run(tmp_path / "run", callbacks=[tracker])
    hills(rounds=2).run(tmp_path / "run", resume=True, callbacks=[tracker, Look()])
    assert statuses == [{"RUNNING"}]


@pytest.mark.slow
@pytest.mark.needs("mlflow")
def test_a_deleted_run_is_not_revived(client: Any, tmp_path: Path) -> None:
    """Where the parent was deleted in MLflow, or another store is asked, a new one gets everything."""
    tracker = MLflow("hills", tracking_uri=uri(tmp_path))
    hills(rounds=2).run(tmp_path / "run", callbacks=[tracker])
    parent, members = runs_of(client)
    for there in (parent, *members.values()):
        client.delete_run(there.info.run_id)
    check(client, hills().run(tmp_path / "run", resume=True, callbacks=[tracker]))
    other = tmp_path / "other"
    other.mkdir()
    run = hills().run(tmp_path / "run", resume=True, callbacks=[MLflow("hills", tracking_uri=uri(other))])
    import mlflow

    check(mlflow.MlflowClient(tracking_uri=uri(other)), run)


@pytest.mark.needs("mlflow")
def test_a_run_that_fails_and_one_in_memory(client: Any, tmp_path: Path) -> None:
    """The status says it; without a run directory there is no file and every run is a new one."""

    def lost(hparams: Any, state: Any, steps: int, ctx: Any) -> Any:
        raise ValueError

    with pytest.raises(Exception, match="every member failed"):
        hills(task=lost).run(callbacks=[MLflow("hills", tracking_uri=uri(tmp_path))])
    parent, members = runs_of(client)
    assert {run.info.status for run in (parent, *members.values())} == {"FAILED"}
    assert client.list_artifacts(parent.info.run_id) == []


@pytest.mark.long
@pytest.mark.needs("mlflow")
def test_a_tracker_that_cannot_be_reached_does_not_stop_the_run(client: Any, tmp_path: Path) -> None:
    """A store that is no store: the run is trained, with a warning."""
    assert hills().run(callbacks=[MLflow(tracking_uri=f"sqlite:///{tmp_path}/no/such/folder/x.db")]).best


def test_without_mlflow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed the callback cannot be made, and the error names the extra."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"the extra 'mlflow'"):
        MLflow()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a.b-c_d", "a.b-c_d"),
        ("val/acc", "val/acc"),
        ("../a//b/", "a/b"),
        ("ä=1", "__1"),
        ("", "_"),
        ("x" * 300, "x" * 250),
    ],
)
def test_names_that_mlflow_refuses_are_changed(name: str, key: str) -> None:
    """Other signs become underscores; paths are written in one way only."""
    assert _key(name) == key
