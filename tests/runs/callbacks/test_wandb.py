"""A run in W&B, offline: what its files hold, read back record by record. No account, no network."""

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pbt.core.schedule import Schedule
from pbt.errors import MissingExtraError
from pbt.runs.callbacks import MemberReport, RoundEnd, past
from pbt.runs.callbacks.wandb import WandB
from tests.helpers.processes import until
from tests.runs.callbacks.hills import CtrlC, hills, uneven

pytestmark = pytest.mark.filterwarnings("ignore")  # what a tracker warns of is its own


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B without a network, and without files elsewhere."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))


def blobs(path: Path) -> Iterator[bytes]:
    """The records of an offline file: a head of 7 bytes, then blocks of 32 KiB with pieces of records in them."""
    content, at, parts = path.read_bytes(), 7, []
    while at + 7 <= len(content):
        rest = 32_768 - at % 32_768
        if rest < 7:
            at += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in {1, 4}:  # whole, or the last piece
            yield b"".join(parts)
            parts = []


class Read:
    """The offline files of a folder, in the order of time: by run id, what it is and what was logged to it."""

    def __init__(self, folder: Path) -> None:
        # W&B closes its files in a process of its own, shortly after it says so.
        until(lambda: self._read(folder) == len(list(folder.glob("wandb/offline-run-*"))))

    def _read(self, folder: Path) -> int:
        """Read the files; returns how many are closed."""
        from wandb.proto import wandb_internal_pb2

        self.runs: dict[str, Any] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.codes: dict[str, list[int]] = {}
        self.artifacts: list[Any] = []
        for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
            id_ = ""
            for data in blobs(path):
                record = wandb_internal_pb2.Record()
                record.ParseFromString(data)
                match record.WhichOneof("record_type"):
                    case "run":
                        id_ = record.run.run_id
                        self.runs[id_] = record.run
                    case "history":
                        items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                        kept = {name: value for name, value in items.items() if not name.startswith("_")}
                        self.rows.setdefault(id_, []).append(kept)
                    case "exit":
                        self.codes.setdefault(id_, []).append(record.exit.exit_code)
                    case "artifact":
                        self.artifacts.append(record.artifact)
                    case "request":
                        if record.request.WhichOneof("request_type") == "log_artifact":
                            self.artifacts.append(record.request.log_artifact.artifact)
        return sum(map(len, self.codes.values()))

    def part(self, name: str) -> tuple[Any, list[dict[str, Any]]]:
        (id_,) = (id_ for id_, run in self.runs.items() if run.display_name == name)
        return self.runs[id_], self.rows.get(id_, [])


def check(folder: Path, run: Any) -> Read:
    """What is in the files is what the log says, once."""
    found = Read(folder)
    names = [f"member_{i}" for i in range(3)]
    assert sorted(there.display_name for there in found.runs.values()) == [*names, "population"]
    (group,) = {there.run_group for there in found.runs.values()}
    assert group.startswith(f"{folder.name}-")
    assert set(found.runs) == {f"{group}-{name}" for name in [*names, "population"]}
    assert {there.project for there in found.runs.values()} == {"hills"}
    population, rows = found.part("population")
    config = {item.key: json.loads(item.value_json) for item in population.config.update}
    assert population.job_type == "population"
    assert (config["seed"], config["population"], config["rounds"]) == (3, 3, 4)
    assert set(config["space"]) == {"rate", "rule"}
    ends = [record for record in past(run) if isinstance(record, RoundEnd)]
    assert rows == [{"round": end.round, "best_score": end.best.score} for end in ends if end.best]
    reports = [record for record in past(run) if isinstance(record, MemberReport)]
    for member, name in enumerate(names):
        there, rows = found.part(name)
        assert there.job_type == "member"
        own = [
            {
                "step": report.step,
                "score": report.score,
                **report.hparams,
                **{name: value for name, value in report.reported.items() if name != "rows"},
            }
            for report in reports
            if report.member == member
        ]
        assert [row for row in rows if "score" in row] == own
        points = [(step, value) for r in reports if r.member == member for step, value in r.points["loss"]]
        shown = [{"step": step, "loss": value, "curve.rate": member + 0.5} for step, value in points]
        assert [row for row in rows if "loss" in row] == shown
        assert len(shown) == 5 * len(own)
        copies = [(r, d.donor) for (m, r), d in run.tree.decisions.items() if m == member and d.donor is not None]
        assert [(row["round"], row["donor"]) for row in rows if "donor" in row] == copies
        assert [row["round"] for row in rows if "failed" in row] == ([2] if member == 1 else [])
    return found


@pytest.mark.needs("wandb")
def test_a_run_is_a_group_with_a_run_per_member(offline: None, tmp_path: Path) -> None:
    """Scores, hyperparameters, copies, failures and the schedule are in the offline files of the run directory."""
    run = hills().run(tmp_path / "run", callbacks=[WandB("hills", mode="offline")])
    found = check(tmp_path / "run", run)
    assert list(found.codes.values()) == [[0]] * 4
    (artifact,) = found.artifacts
    assert artifact.type == "schedule"
    (entry,) = artifact.manifest.contents
    assert entry.path == "schedule.json"
    assert Schedule.from_dict(json.loads(Path(entry.local_path).read_text())) == run.best_schedule


@pytest.mark.slow
@pytest.mark.needs("wandb")
def test_a_resumed_run_goes_on_in_the_same_group(offline: None, tmp_path: Path) -> None:
    """After Ctrl-C the same ids are used, and both files together hold everything once."""
    with pytest.raises(KeyboardInterrupt):
        hills().run(tmp_path / "run", callbacks=[WandB("hills", mode="offline"), CtrlC(2)])
    assert list(Read(tmp_path / "run").codes.values()) == [[1]] * 4
    # W&B names its folders by the second.
    ended = max(path.name for path in (tmp_path / "run").glob("wandb/offline-run-*"))
    until(lambda: time.strftime("%Y%m%d_%H%M%S") > ended.split("-")[2])
    run = hills().run(tmp_path / "run", resume=True, callbacks=[WandB("hills", mode="offline")])
    found = check(tmp_path / "run", run)
    assert list(found.codes.values()) == [[1, 0]] * 4


@pytest.mark.long
@pytest.mark.needs("wandb")
def test_settings_of_wandb_hold(offline: None, tmp_path: Path) -> None:
    """Where nothing is asked for `WANDB_MODE` decides; a folder and a name can be given; disabled leaves nothing."""
    (tmp_path / "there").mkdir()
    # In another process, because W&B reads its environment once.
    code = """
from tests.runs.callbacks.hills import hills
from pbt.runs.callbacks.wandb import WandB
hills().run(callbacks=[WandB("hills", name="mine", folder="there")])
hills().run("off", callbacks=[WandB("hills", mode="disabled")])
"""
    environment = {**os.environ, "WANDB_MODE": "offline", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == ""
    found = Read(tmp_path / "there")
    assert {there.run_group.rpartition("-")[0] for there in found.runs.values()} == {"mine"}
    assert len(found.runs) == 4
    assert not list((tmp_path / "off").glob("wandb/*run-*"))


@pytest.mark.long
@pytest.mark.needs("wandb")
def test_no_curve_runs_backwards(offline: None, tmp_path: Path) -> None:
    """Curves of members that copy others with fewer steps go on under another name."""
    run = uneven().run(tmp_path / "run", callbacks=[WandB("hills", mode="offline")])
    found = Read(tmp_path / "run")
    curves: dict[tuple[str, str], list[int]] = {}
    for id_, rows in found.rows.items():
        for row in rows:
            for name in row.keys() - {"step", "round", "best_score"}:
                if "score" in name:
                    curves.setdefault((id_, name), []).append(row["step"])
    assert len(curves) > 4
    assert sum(map(len, curves.values())) == len(run.history()["step"])
    assert all(steps == sorted(set(steps)) for steps in curves.values())


@pytest.mark.needs("wandb")
def test_steps_are_the_axis(offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves are against training steps, copies and failures against rounds: not against the order of calls."""
    import wandb

    asked: list[tuple[str, str | None]] = []
    init = wandb.init

    def watched(**options: Any) -> Any:
        run = init(**options)
        define = run.define_metric

        def defined(name: str, step_metric: str | None = None, **more: Any) -> Any:
            asked.append((name, step_metric))
            return define(name, step_metric=step_metric, **more)

        run.define_metric = defined
        return run

    monkeypatch.setattr(wandb, "init", watched)
    hills(rounds=1).run(callbacks=[WandB("hills", mode="offline", folder=str(tmp_path))])
    axes = dict(asked)
    assert axes == {
        "step": None,
        "round": None,
        "*": "step",
        "donor": "round",
        "failed": "round",
        "best_score": "round",
    }


def test_without_wandb_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed the callback cannot be made, and the error names the extra."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"the extra 'wandb'"):
        WandB()
