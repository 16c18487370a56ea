"""Tracking in MLflow: a parent run, and a child run for every member."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pbt.errors import MissingExtraError
from pbt.runs.callbacks import CallbackRecord, Copied, MemberFailure, MemberReport, RoundEnd, RunEnd, RunStart
from pbt.runs.callbacks.curves import numbers, points, values
from pbt.runs.callbacks.tracker import Ids, Tracker

_PARENT = "run"
_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_ODD = re.compile(r"[^\w\-. /]", re.ASCII)
_LONGEST = 250
_Point = tuple[int, str, float]
"""(step, name, value)."""
_MOST = 500
"""Maximal number of metrics per call, and characters of a parameter that every version accepts."""


class MLflow(Tracker):
    """Tracks a run in MLflow.

    The parent run has the settings, the best score after each round and, at the end, `schedule.json`. A member's child
    run has score, hyperparameters and reported numbers against training steps, hyperparameters that are not numbers
    as tags, and for every copy a tag and the metric `donor`, against rounds.

    Args:
        experiment: The experiment in MLflow; created if absent.
        name: Name of the parent run; None: that of the run directory.
        tracking_uri: Tracking server or file; None: `MLFLOW_TRACKING_URI`, or else `mlflow.db`.

    Raises:
        MissingExtraError: MLflow is not installed.
    """

    file = "mlflow.json"

    def __init__(self, experiment: str = "pbt", *, name: str | None = None, tracking_uri: str | None = None) -> None:
        super().__init__()
        try:
            import mlflow
        except ImportError as error:
            raise MissingExtraError("the MLflow callback", "mlflow") from error
        self._mlflow: Any = mlflow
        self._experiment = experiment
        self._name = name
        self._uri = tracking_uri
        self._client: Any = None
        self._experiment_id = ""
        self._runs: Ids = {}

    def begin(self, start: RunStart, ids: Ids) -> None:
        """Find or create the parent run."""
        self._client = self._mlflow.MlflowClient(tracking_uri=self._uri)
        self._runs = ids
        found = self._found(ids.get(_PARENT))
        if found is not None:
            self._experiment_id = found.info.experiment_id
            for run in ids.values():
                self._client.update_run(run, status="RUNNING")
        else:
            ids.clear()
            self._experiment_id = self._experiment_of(self._experiment)
            name = self._name or (start.run.path.name if start.run.path is not None else "pbt")
            ids[_PARENT] = self._made(name, {})
            for key, value in _settings(start.run.meta).items():
                self._client.log_param(ids[_PARENT], key, value)
        # Not a parameter, which MLflow never changes: a run may be extended.
        self._client.set_tag(ids[_PARENT], "rounds", str(start.rounds))

    def send(self, record: CallbackRecord, suffix: str) -> None:
        """Send a record to its run."""
        if isinstance(record, RoundEnd):
            if record.best is not None:
                self._log(self._runs[_PARENT], [(record.round, "best_score", record.best.score)])
            return
        run = self._child(record.member)
        match record:
            case MemberReport():
                found = values(record)
                drawn = numbers(found)
                chosen = {name: str(found[name]) for name in found if name not in drawn and _is_of(record, name)}
                rows = [*points(record), (record.step, drawn)]
                self._log(run, [(step, f"{name}{suffix}", v) for step, row in rows for name, v in row.items()], chosen)
            case Copied():
                text = f"{record.kind}: member {record.donor}, step {record.first_step}"
                donor = record.round, "donor", float(record.donor)
                self._log(run, [donor], {f"copied.round_{record.round}": text})
            case MemberFailure():
                self._client.set_tag(run, f"failed.round_{record.round}", f"{record.cause}: {record.message}"[:_MOST])

    def finish(self, end: RunEnd, schedule: str | None) -> None:
        """Send the schedule and the final status."""
        try:
            if schedule is not None:
                self._client.log_text(self._runs[_PARENT], schedule, "schedule.json")
        finally:
            for run in reversed(list(self._runs.values())):
                self._client.set_terminated(run, _STATUS[end.outcome])

    def _found(self, run: str | None) -> Any:
        if run is None:
            return None
        try:
            found = self._client.get_run(run)
        except self._mlflow.exceptions.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return found if found.info.lifecycle_stage == "active" else None

    def _experiment_of(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name))

    def _made(self, name: str, tags: Mapping[str, str]) -> str:
        return str(self._client.create_run(self._experiment_id, run_name=name, tags=dict(tags)).info.run_id)

    def _child(self, member: int) -> str:
        key = f"member_{member}"
        if key not in self._runs:
            parent = {"mlflow.parentRunId": self._runs[_PARENT], "member": str(member)}
            self._runs[key] = self._made(f"member {member}", parent)
        return self._runs[key]

    def _log(self, run: str, points: Sequence[_Point], tags: Mapping[str, str] | None = None) -> None:
        now, kinds = int(time.time() * 1000), self._mlflow.entities
        metrics = [kinds.Metric(_key(name), value, now, step) for step, name, value in points]
        for first in range(0, len(metrics), _MOST):
            self._client.log_batch(run, metrics=metrics[first : first + _MOST])
        if tags:
            self._client.log_batch(run, tags=[kinds.RunTag(_key(name), value[:_MOST]) for name, value in tags.items()])


def _is_of(report: MemberReport, name: str) -> bool:
    """Whether this is the name of a hyperparameter."""
    return name.removeprefix("hparams.") in report.hparams


def _key(name: str) -> str:
    """A name valid in MLflow: no refused characters, and no ambiguous path."""
    parts = (part for part in _ODD.sub("_", name).split("/") if part not in {"", ".", ".."})
    return "/".join(parts)[:_LONGEST] or "_"


def _settings(meta: Mapping[str, Any]) -> dict[str, str]:
    names = ("seed", "population", "objective", "task", "plan", "space")
    plain = {name: meta[name] for name in names if name in meta}
    return {
        name: (value if isinstance(value, str) else json.dumps(value, default=str))[:_MOST]
        for name, value in plain.items()
    }
