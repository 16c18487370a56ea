"""Commands that show, take away and repeat: ls, status --watch, lineage, schedule, replay, export."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

import pbt
from pbt.cli.app import main
from pbt.core.population import StateRef
from pbt.runs.catalog import resume_command
from pbt.runs.results import Run
from pbt.store.sqlite import RunStore
from pbt.terminal.trees import branches
from tests.helpers.paths import SOURCE

TASK = """
import random, time
import pbt

PACE = 0.0


def train(hparams, state, steps, ctx):
    state = dict(state or {"theta": ctx.rng("init", ctx.member).random()})
    time.sleep(PACE)
    for _ in range(steps):
        state["theta"] -= hparams["lr"] * state["theta"] * random.random()
    return state, {"score": state["theta"], "test_accuracy": 0.5}


def slow(hparams, state, steps, ctx):
    time.sleep(0.1)
    return train(hparams, state, steps, ctx)


def unlucky(hparams, state, steps, ctx):
    if (ctx.member, ctx.round) == (1, 2):
        raise ValueError("no \\x1b luck")
    return train(hparams, state, steps, ctx)


plan = pbt.Plan(exploit=pbt.truncation(0.4), interval=5)
shared = {"space": {"lr": pbt.Float(1e-3, 1e-1, "log")}, "population": 5, "plan": plan, "objective": "minimize"}
experiment = pbt.Experiment(task=train, rounds=6, seed=4, **shared)
failing = pbt.Experiment(task=unlucky, rounds=3, **shared)
watched = pbt.Experiment(task=slow, rounds=8, **shared)
"""
Call = Callable[..., str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run, one that has only begun, and one of an older format; to be looked at only."""
    folder = tmp_path_factory.mktemp("looking")
    (folder / "task.py").write_text(TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "task.py:experiment", "--out", "runs/one", "-q"]) == 0
    meta = {**Run.open(folder / "runs/one").meta, "application": {}}
    RunStore.create(folder / "runs/begun", meta).close()
    RunStore.create(folder / "other/old", meta).close()
    with closing(sqlite3.connect(folder / "other/old/run.db")) as connection:
        connection.execute("PRAGMA user_version = 0")
    return folder


@pytest.fixture
def call(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls `pbt` in that folder; answers what it printed on stdout."""
    monkeypatch.chdir(finished)
    monkeypatch.setenv("COLUMNS", "140")

    def _call(*words: str) -> str:
        capsys.readouterr()
        code = main(list(words))
        seen = capsys.readouterr()
        assert code == 0, seen.err
        return seen.out

    return _call


@pytest.fixture
def run(finished: Path) -> Run:
    return Run.open(finished / "runs/one")


class TestLs:
    def test_shows_each_run(self, call: Call, run: Run) -> None:
        """A line per run: name, state, rounds, members, best score as the task returned it, and when."""
        text = call("ls")
        row = rf"^runs/one +finished +6/6 +5 +{run.best.score:#.4g} +20\d\d-\d\d-\d\d \d\d:\d\d"
        assert re.search(row, text, re.MULTILINE)
        assert re.search(r"^runs/begun +interrupted +0/6 +5 +- +-", text, re.MULTILINE)
        assert call("ls", "runs") == text
        assert call("status", "runs") == text

    def test_json(self, call: Call, run: Run) -> None:
        """The JSON has the same, with times in seconds; the run that was changed last is the last one."""
        begun, one = json.loads(call("ls", "--json"))
        assert begun["best"] is begun["changed"] is None
        assert (one["run"], one["state"], one["rounds_done"], one["population"]) == ("runs/one", "finished", 6, 5)
        assert one["best"] == run.best.score
        assert one["began"] <= one["changed"] <= time.time()

    def test_one_that_cannot_be_read_hides_no_other(
        self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A run of an older format and one with strange values are unreadable, with the reason on stderr."""
        shutil.copytree(finished / "other/old", tmp_path / "a run" / "old")
        shutil.copytree(finished / "runs/one", tmp_path / "a run" / "strange")
        with sqlite3.connect(tmp_path / "a run" / "strange" / "run.db") as connection:
            connection.execute("UPDATE meta SET value = '\"x\"' WHERE key = 'seed'")
        shutil.copytree(finished / "runs/one", tmp_path / "a run" / "it's [new]")
        monkeypatch.chdir(tmp_path)
        assert main(["ls", "a run"]) == 0
        seen = capsys.readouterr()
        assert re.search(r"old +unreadable", seen.out)
        assert re.search(r"strange +unreadable", seen.out)
        assert re.search(r"it's \[new\] +finished", seen.out)
        assert "the older format 0" in seen.err
        assert re.search(r"strange: recorded seed: expected a whole number, found 'x'", seen.err)
        for words in (["ls", "a run", "--json"], ["status", "a run", "--json"]):
            assert main(words) == 0
            found = {Path(item["run"]).name: item["state"] for item in json.loads(capsys.readouterr().out)}
            assert found == {"old": "unreadable", "strange": "unreadable", "it's [new]": "finished"}


class TestWatch:
    def test_shows_every_round_until_the_end(self, tmp_path: Path) -> None:
        """A run that is written is shown again whenever it grew, and no more when it has ended."""
        (tmp_path / "task.py").write_text(TASK)
        surroundings = {**os.environ, "PYTHONPATH": str(SOURCE)}
        words = [sys.executable, "-m", "pbt"]
        training = subprocess.Popen(
            [*words, "run", "task.py:watched", "--out", "a", "-q"], cwd=tmp_path, env=surroundings
        )
        try:
            deadline = time.monotonic() + 60
            while not (tmp_path / "a/lock").is_file() and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.3)
            told = [
                subprocess.run(
                    [*words, "status", "a", "--watch", *flags],
                    cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=True, timeout=60,
                ).stdout.splitlines()
                for flags in ((), ("--json",))
            ]  # fmt: skip
        finally:
            assert training.wait(60) == 0
        lines, documents = told
        assert len(lines) >= 3
        assert "running" in lines[0]
        assert lines[-1].startswith("a: finished, 8 of 8 rounds done, best ")
        done = [int(re.findall(r"(\d) of 8", line)[0]) for line in lines]
        assert done == sorted(done)
        assert json.loads(documents[-1])["state"] == "finished"

    def test_of_a_run_that_has_ended(self, call: Call) -> None:
        """A finished run is shown once."""
        assert call("status", "one", "-w").count("finished, 6 of 6 rounds done") == 1
        (document,) = call("status", "one", "--watch", "--json").splitlines()
        assert json.loads(document)["rounds_done"] == 6


class TestLineage:
    def test_is_a_tree(self, call: Call, run: Run) -> None:
        """One line per birth or copy, below the line it was copied from; one of them holds the best state."""
        lines = call("lineage", "one").splitlines()
        known = branches(run)
        assert len(lines) == len(known) == 5 + len([c for c in run.history()["donor"] if c is not None])
        assert sum(line.startswith("member") for line in lines) == 5
        assert [line for line in lines if "best" in line] == [
            line for line in lines if f"member {run.best.member} ·" in line and "best" in line
        ]
        stack: list[str] = []
        for line in lines:
            depth, _, rest = line.partition("member ")
            stack[len(depth) // 3 :] = [rest.split(" ")[0]]
            copied = re.search(r"from round (\d+)", rest)
            assert bool(copied) == (len(stack) > 1)
            if copied:
                first = re.search(r" rounds? (\d+)", rest.replace(copied[0], ""))
                assert first
                decision = run.tree.decisions[int(stack[-1]), int(first[1])]
                assert decision.start == StateRef(int(stack[-2]), int(copied[1]))

    def test_json_of_the_tree(self, call: Call, run: Run) -> None:
        """Every round that was trained is in one branch; living members end one each."""
        found = json.loads(call("lineage", "one", "--json"))
        assert sum(b["last_round"] - b["first_round"] + 1 for b in found) == len(run.tree.reports)
        assert sorted(b["member"] for b in found if b["end"] == "live") == [0, 1, 2, 3, 4]
        (best,) = [b for b in found if b["best"]]
        assert best["member"] == run.best.member
        assert {b["end"] for b in found} == {"live", "replaced"}

    def test_of_one_member(self, call: Call, run: Run) -> None:
        """The ancestry of a member, from step 0 to its last step, in text and as JSON."""
        for member in range(5):
            links = run.lineage(member)
            found = json.loads(call("lineage", "one", str(member), "--json"))
            assert [(x["member"], x["round"], x["hparams"]) for x in found] == [
                (link.member, link.round, link.hparams) for link in links
            ]
            assert [x["score"] for x in found] == [link.score for link in links]
            text = call("lineage", "one", str(member))
            assert f"Ancestry of member {member} after round 6" in text
            rows = [line.split() for line in text.splitlines()[3:]]
            assert {int(row[0]) for row in rows} == {link.member for link in links}
            assert [rows[0][2], rows[-1][3]] == ["0", "30"]

    def test_of_failures(self, tmp_path: Path) -> None:
        """A branch that failed says so, and is no longer alive once it was replaced."""

        def fail(hparams, state, steps, ctx):
            if ctx.member == 1 and ctx.round == 2:
                raise ValueError("no luck")
            return {}, float(ctx.member)

        run = pbt.run(fail, {"lr": pbt.Float(0, 1)}, population=3, rounds=3)
        ends = [(branch.segment.member, branch.end) for branch in branches(run)]
        assert (1, "failed") in ends
        assert (1, "live") in ends


class TestSchedule:
    def test_is_data_on_stdout(self, call: Call, run: Run, tmp_path: Path) -> None:
        """Each format on stdout, written to a file, is read back as the schedule."""
        assert json.loads(call("schedule", "one")) == run.best_schedule.to_dict()
        assert tomllib.loads(call("schedule", "one", "--format", "toml")) == run.best_schedule.to_dict()
        for format_ in ("json", "csv", "toml"):
            file = tmp_path / f"schedule.{format_}"
            file.write_text(call("schedule", "one", "--format", format_, "--member", "2"))
            assert pbt.read_schedule(file) == run.schedule(2)
        assert run.schedule() == run.best_schedule


class TestReplay:
    def test_repeats_the_winner(self, call: Call, run: Run, tmp_path: Path) -> None:
        """The same weights round by round, a run directory of its own, and no other link to the newest run."""
        out = str(tmp_path / "again")
        text = call("replay", "one", "task.py:experiment", "--out", out)
        assert f"identical, bit by bit, after each of {len(run.lineage())} rounds" in text
        assert re.search(rf"winner +4 +{run.best.score:#.4g}", text)
        assert Run.open(out).best.score == run.best.score
        assert Run.open(out).best_schedule == run.best_schedule
        assert not (Path("runs") / "latest").exists()
        assert call("replay", "one", "task.py:experiment", "--out", out, "--resume", "-q") == ""

    def test_json_with_another_seed(self, call: Call, run: Run, tmp_path: Path) -> None:
        """JSON has both beside each other; another seed gives other weights along the same rounds."""
        words = ["--out", str(tmp_path / "again"), "--seed", "9", "--member", "3", "--json"]
        found = json.loads(call("replay", "one", "task.py:experiment", *words))
        assert (found["rounds"], found["same_rounds"], found["identical"]) == (6, 0, False)
        assert found["original"]["score"] == run.tree.reports[StateRef(3, 6)].scores[0]
        assert found["replayed"]["seed"] == 9
        assert found["replayed"]["step"] == found["original"]["step"] == 30
        assert found["replayed"]["reported"]["test_accuracy"] == 0.5

    def test_is_kept_in_runs(self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without --out a replay is a new directory in `runs`, named after the run."""
        shutil.copytree(finished, tmp_path / "there")
        monkeypatch.chdir(tmp_path / "there")
        assert main(["replay", "one", "task.py:experiment", "-q"]) == 0
        assert len(list(Path("runs").glob("one-replay-*"))) == 1

    def test_the_line_that_goes_on(self, call: Call, tmp_path: Path) -> None:
        """A replay goes on with the line that names its run, file, seed and directory; `pbt resume` says so."""
        out = tmp_path / "a replay"
        call("replay", "one", "task.py:experiment", "--seed", "9", "--out", str(out), "-q")
        line = resume_command(out, Run.open(out).meta["application"])
        assert line.endswith(f"replay runs/one task.py:experiment --seed=9 --out '{out}' --resume")
        assert main(["resume", str(out), "task.py:experiment"]) == 2

    def test_of_an_application(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run of an application is replayed without a file, from what it recorded of itself."""
        task = pytest.importorskip("pbt.mnist.task")
        monkeypatch.chdir(tmp_path)
        asked = []

        def supervised(config: object, *, test: bool) -> object:
            asked.append((config, test))
            return _climb

        monkeypatch.setattr(task, "supervised", supervised)
        monkeypatch.setattr(task, "find_data", lambda section: SimpleNamespace(line="of a test"))
        monkeypatch.setattr("pbt.mnist.config.record.Config.from_dict", _Config)
        experiment = pbt.Experiment(task=_climb, space={"lr": pbt.Float(0, 1)}, population=3, rounds=2)
        for name, test in (("mnist", True), ("mnist-single", False)):
            experiment.run(tmp_path / name, application={"name": name, "config": {"a": 1}})
            assert main(["replay", name, "-q"]) == 0
            assert asked[-1] == (_Config({"a": 1}), test)


class _Config(dict):  # type: ignore[type-arg]
    train = None


def _climb(hparams, state, steps, ctx):
    return {}, hparams["lr"]


class TestExport:
    def test_texts_on_stdout_and_in_files(self, call: Call, tmp_path: Path) -> None:
        """Texts go to stdout, or into a new file that is named."""
        for format_ in ("csv", "jsonl", "newick"):
            text = call("export", "one", "--format", format_)
            assert (
                call("export", "one", "--format", format_, "--out", str(tmp_path / format_))
                == f"{tmp_path / format_}\n"
            )
            assert (tmp_path / format_).read_text() == text
        assert (tmp_path / "csv").read_text().startswith("member,round,step,score,kind,donor,lr,test_accuracy\n")
        assert (tmp_path / "newick").read_text().endswith(")one;\n")

    def test_policies_go_into_a_folder(self, call: Call, tmp_path: Path) -> None:
        """For Ray a folder is made, with a file for the best and each member, and its names are printed."""
        told = call("export", "one", "--format", "ray", "--out", str(tmp_path / "there/policies")).splitlines()
        assert sorted(told) == sorted(map(str, (tmp_path / "there/policies").iterdir()))
        assert len(told) == 6


BAD = [
    (["ls", "nowhere"], ["nowhere: expected a folder with runs in it, found nothing there"]),
    (["ls", "task.py"], ["found a file"]),
    (["ls", "runs/one"], ["a run itself; `pbt status` shows it"]),
    (["ls", "odd [name] 'x'\x1b"], ["expected a folder with runs in it, found none"]),
    (["status", "runs", "--watch"], ["expected a run directory", "runs in it: begun, one"]),
    *[([*words, "begun"], ["begun"]) for words in (["lineage"], ["schedule"])],
    (["lineage", "begun", "0"], ["no member has finished a round yet"]),
    (["schedule", "begun", "--member", "0"], ["no member has finished a round yet"]),
    (["replay", "begun", "task.py:experiment"], ["no member has finished a round yet"]),
    *[(["export", "begun", "--format", f], ["found none yet"]) for f in ("csv", "jsonl", "newick")],
    (["export", "begun", "--format", "ray", "--out", "x"], ["found none yet"]),
    (["lineage", "one", "9"], ["member 9 does not exist", "members: 0 .. 4"]),
    (["lineage", "one", "-1"], ["-1"]),
    (["lineage", "one", "x"], ["MEMBER", "pbt lineage --help"]),
    (["schedule", "one", "--member", "9"], ["member 9 does not exist"]),
    (["schedule", "one", "--format", "yaml"], ["json", "csv", "toml"]),
    (["replay", "one", "task.py:experiment", "--member", "9"], ["member 9 does not exist"]),
    (["replay", "one"], ["code named in a run is never executed", "replay runs/one task.py:experiment"]),
    (["replay", "one", "tusk.py:experiment"], ["did you mean 'task.py'"]),
    (["replay", "one", "task.py:experiment", "--resume"], ["--resume requires --out"]),
    (["replay", "one", "task.py:experiment", "--out", "runs/one"], ["one already contains a run", "resume it with: "]),
    (["replay", "one", "task.py:experiment", "--out", "runs/one", "--resume"], ["started with"]),
    (["replay", "one", "task.py:experiment", "--out", "other"], ["new or empty directory"]),
    (["replay", "one", "task.py:experiment", "--device", "cuda:99"], ["cuda:99"]),
    (["replay", "one", "task.py:experiment", "--executor", "vectorized", "--out", "x"], ["SupervisedTask"]),
    (["replay", "one", "task.py:experiment", "--workers", "2"], ["a replay trains one network"]),
    (["export", "one"], ["--format"]),
    (["export", "one", "--format", "xml"], ["parquet"]),
    (["export", "one", "--format", "ray"], ["--format ray requires --out FOLDER"]),
    (["export", "one", "--format", "parquet"], ["--format parquet requires --out NEW_FILE"]),
    (["export", "one", "--format", "csv", "--out", "task.py"], ["task.py already exists", "new file name"]),
    *[
        ([*words, where], [what])
        for words in (["lineage"], ["schedule"], ["replay"], ["export", "--format", "csv"], ["status", "--watch"])
        for where, what in (("other/old", "older format 0"), ("nowhere", "expected a run directory"), ("a\x1bb", "a?b"))
    ],
]


class TestBad:
    @pytest.mark.parametrize(
        ("words", "expected"), BAD, ids=[" ".join(words).encode("unicode_escape").decode() for words, _ in BAD]
    )
    def test_input_is_one_message_and_two(
        self,
        finished: Path,
        words: list[str],
        expected: list[str],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Wrong input is a line or two that say what was expected and found, exit code 2, and nothing is left."""
        monkeypatch.chdir(finished)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        if words[1].startswith("odd"):
            Path(words[1]).mkdir()
        before = sorted(finished.rglob("*"))
        assert main(words) == 2
        seen = capsys.readouterr()
        assert seen.out == ""
        assert 1 <= len(seen.err.splitlines()) <= 2
        assert seen.err.startswith("pbt: error: ")
        assert "\x1b" not in seen.err
        for part in expected:
            assert part in seen.err
        assert sorted(finished.rglob("*")) == before


@pytest.mark.parametrize("command", ["ls", "status", "lineage", "schedule", "replay", "export"])
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help of every command shows a line that can be typed."""
    assert main([command, "--help"]) == 0
    assert f"Example: pbt {command} runs" in capsys.readouterr().out


def test_looking_imports_nothing_heavy(finished: Path) -> None:
    """Lists, trees, schedules and exports of a run import neither torch nor matplotlib nor a frame library."""
    code = (
        "import sys\nfrom pbt.cli.app import main\n"
        "for words in (['ls'], ['lineage', 'one'], ['schedule', 'one'], ['export', 'one', '--format', 'csv']):\n"
        "    assert main(words) == 0\n"
        "assert not {'torch', 'matplotlib', 'pandas', 'polars', 'ray', 'plotly'} & set(sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=finished, env={**os.environ, "PYTHONPATH": str(SOURCE)}, check=True, capture_output=True, timeout=60,
    )  # fmt: skip


def test_errors_of_a_run(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`status --errors` prints each failed round with its place and traceback; a run without failures says so."""
    monkeypatch.chdir(finished)
    path = str(tmp_path / "run")
    assert main(["run", "task.py:failing", "--out", path, "-q"]) == 0
    capsys.readouterr()
    line = TASK[: TASK.index("raise ValueError")].count("\n") + 1
    assert main(["status", path, "--errors"]) == 0
    shown = capsys.readouterr().out
    assert f"member 1, round 2: ValueError: no ? luck (task.py:{line} in unlucky)" in shown
    assert f"task.py:{line}" in shown.splitlines()[1]
    assert "Traceback (most recent call last)" in shown
    assert main(["status", path, "--errors", "--json"]) == 0
    (failure,) = json.loads(capsys.readouterr().out)
    assert (failure["member"], failure["round"], failure["cause"], failure["line"]) == (1, 2, "exception", line)
    assert failure["traceback"].endswith("luck\n")
    assert main(["status", "runs/one", "--errors"]) == 0
    assert capsys.readouterr().out == "no round failed\n"
    assert main(["status", path, "--errors", "--watch"]) == 2
