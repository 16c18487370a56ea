"""Tracking in Weights & Biases: a group of runs, one for the population and one for every member."""

import logging
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pbt.errors import MissingExtraError
from pbt.runs.callbacks import CallbackRecord, Copied, MemberFailure, MemberReport, RoundEnd, RunEnd, RunStart
from pbt.runs.callbacks.curves import points, values
from pbt.runs.callbacks.tracker import Ids, Tracker

log = logging.getLogger("pbt")

_GROUP, _POPULATION = "group", "population"


class WandB(Tracker):
    """Tracks a run in Weights & Biases.

    The population's run has the settings, the best score after each round and, at the end, the schedule as an
    artifact. A member's run has score, hyperparameters and reported values against training steps (`step`), and for
    every copy `donor`, for every failure `failed`, against rounds (`round`).

    Args:
        project: The project.
        name: Name of the group; None: that of the run directory. A unique id is appended.
        entity: User or team; None: W&B's setting.
        mode: `"online"`, `"offline"` or `"disabled"`; None: `WANDB_MODE`, or else online.
        folder: Folder of W&B's files; None: the run directory, or for a run in memory W&B's default.

    Raises:
        MissingExtraError: wandb is not installed.
    """

    file = "wandb.json"

    def __init__(
        self,
        project: str = "pbt",
        *,
        name: str | None = None,
        entity: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__()
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("the W&B callback", "wandb") from error
        self._wandb: Any = wandb
        self._where = {"project": project, "entity": entity, "mode": mode}
        self._name = name
        self._folder = folder
        self._group = ""
        self._dir: str | None = None
        self._runs: dict[str, Any] = {}

    def begin(self, start: RunStart, ids: Ids) -> None:
        """Continue the group, or create one."""
        path = start.run.path
        name = self._name or (path.name if path is not None else "pbt")
        ids.setdefault(_GROUP, f"{name}-{secrets.token_hex(4)}")
        self._group, self._runs = ids[_GROUP], {}
        folder = self._folder or path
        # Absolute, because W&B writes from a process of its own with another working directory.
        self._dir = None if folder is None else str(Path(folder).absolute())
        run = self._run(_POPULATION, _settings(start))
        if not run.offline:
            log.info("W&B: %s", run.url)

    def send(self, record: CallbackRecord, suffix: str) -> None:
        """Send a record to its run."""
        if isinstance(record, RoundEnd):
            if record.best is not None:
                self._run(_POPULATION).log({"round": record.round, "best_score": record.best.score})
            return
        run = self._run(f"member_{record.member}", {"member": record.member})
        match record:
            case MemberReport():
                for step, named in points(record):
                    run.log({**{f"{name}{suffix}": value for name, value in named.items()}, "step": step})
                found = {f"{name}{suffix}": value for name, value in values(record).items() if _is_plain(value)}
                run.log({**found, "step": record.step})
            case Copied():
                run.log({"round": record.round, "donor": record.donor})
            case MemberFailure():
                run.log({"round": record.round, "failed": 1})

    def finish(self, end: RunEnd, schedule: str | None) -> None:
        """Send the schedule and the final status."""
        try:
            if schedule is not None:
                artifact = self._wandb.Artifact(f"schedule-{self._group}", type="schedule")
                with artifact.new_file("schedule.json", mode="w", encoding="utf-8") as file:
                    file.write(schedule)
                self._run(_POPULATION).log_artifact(artifact)
        finally:
            while self._runs:
                _, run = self._runs.popitem()
                run.finish(exit_code=0 if end.outcome == "finished" else 1)

    def _run(self, part: str, config: Mapping[str, Any] | None = None) -> Any:
        if part not in self._runs:
            self._runs[part] = self._made(part, config or {})
        return self._runs[part]

    def _made(self, part: str, config: Mapping[str, Any]) -> Any:
        run = self._wandb.init(
            **self._where,
            dir=self._dir,
            group=self._group,
            name=part,
            # The same id in every process, so that a resumed run continues.
            id=f"{self._group}-{part}",
            resume="allow",
            job_type=part.partition("_")[0],
            config=dict(config),
            allow_val_change=True,
            # Separate from the other members' runs and from any run that the user has open.
            reinit="create_new",
            # W&B must not write to the terminal, which may show a live table.
            settings=self._wandb.Settings(console="off", silent=True),
        )
        for name in ("step", "round"):
            run.define_metric(name, hidden=True)
        # W&B's own steps count calls; these metrics have axes of their own.
        run.define_metric("*", step_metric="step")
        for name in ("donor", "failed", "best_score"):
            run.define_metric(name, step_metric="round")
        return run


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _settings(start: RunStart) -> dict[str, Any]:
    names = ("seed", "population", "objective", "task", "plan", "space")
    return {"rounds": start.rounds, **{name: start.run.meta[name] for name in names if name in start.run.meta}}
