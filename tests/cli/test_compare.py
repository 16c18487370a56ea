"""`pbt compare`, and `--plan` of `pbt run`, as people meet them: real workers, real signals, real files."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pbt.cli.app import main
from pbt.compare.design import FRESH
from pbt.executors.process_tree import descendants
from pbt.runs.results import Run
from pbt.testing.invariants import violations
from tests.compare.comparisons import write_task
from tests.helpers.paths import SOURCE
from tests.helpers.processes import runs, until


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with a task."""
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path)
    return tmp_path


def compare(*words, code=0):
    """The command, in this process."""
    assert main(["compare", "task.py:experiment", "--workers", "2", *map(str, words)]) == code


def stamps(folder):
    """When each run was last written."""
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("run.db"))}


def test_from_a_task_to_an_answer(folder, capsys):
    """Every plan is trained on every seed, what was asked for is printed and written, and the runs are sound."""
    compare("--plans", "no-evolution,replay", "--seeds", 2, "--out", "out")
    out, progress = capsys.readouterr()
    runs = sorted(str(path.relative_to(folder)) for path in folder.rglob("seed-*"))
    assert runs == [f"out/{plan}/seed-{n}" for plan in ("no-evolution", "pbt", "replay") for n in (0, 1)]
    assert "task.py:experiment: test, higher is better · 2 seeds · 4 members, 3 rounds" in out
    assert "showing any difference takes at least 7 seeds" in " ".join(out.split())  # wherever lines break
    assert progress.splitlines()[-1].startswith("6/6 runs · ")
    plain = json.loads(Path("out/comparison.json").read_text())
    assert plain["metric"] == "test"
    best = Run.open("out/pbt/seed-1").best
    assert plain["plans"]["pbt"]["runs"][1]["values"] == {"score": best.score, "test": best.reported["test"]}
    assert {plan["mean"]["steps"] for plan in plain["plans"].values()} == {4 * 3 * 2}
    assert Path("out/comparison.png").read_bytes().startswith(b"\x89PNG")
    assert [violations(folder / run) for run in runs] == [[]] * 6
    seeds = {name: Run.open(f"out/{name}/seed-1").meta["seed"] for name in ("pbt", "replay")}
    assert seeds == {"pbt": 1, "replay": FRESH + 1}
    assert Run.open("out/replay/seed-1").best_schedule.at(0) == Run.open("out/pbt/seed-1").best_schedule.at(0)

    before = stamps(folder)
    compare("--plans", "no-evolution,replay", "--seeds", 3, "--out", "out", "--json")
    again = json.loads(capsys.readouterr().out)
    assert {path: stamp for path, stamp in stamps(folder).items() if path in before} == before
    assert len(stamps(folder)) == 9
    assert again == json.loads(Path("out/comparison.json").read_text())
    assert again["plans"]["pbt"]["runs"][:2] == plain["plans"]["pbt"]["runs"]

    compare("--seeds", 1, "--out", "out", "--population", 5, code=2)
    assert "out/pbt/seed-0: this run was trained with another population" in capsys.readouterr().err
    compare("--seeds", 1, "--out", "out", "--rounds", 2, code=2)
    assert "another number of rounds" in capsys.readouterr().err
    compare("--seeds", 1, "--out", "out/pbt/seed-0", code=2)
    assert "found a run" in capsys.readouterr().err


def test_runs_that_lose_every_member(tmp_path, monkeypatch, capsys):
    """A run whose members all fail ends, is told, and is not trained again."""
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path, most=0.0)
    compare("--seeds", 1, "--out", "out", code=2)
    assert "plan pbt: expected a run with a finite score" in capsys.readouterr().err
    before = stamps(tmp_path)
    compare("--seeds", 1, "--out", "out", code=2)
    assert stamps(tmp_path) == before
    assert len(before) == 2


def test_a_loss_is_compared_as_one(tmp_path, monkeypatch, capsys):
    """Where the objective is minimized scores are shown as the task returned them, and lower is better."""
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path, objective="minimize")
    compare("--seeds", 1, "--plans", "own", "--out", "out", "-q")
    plain = json.loads(Path("out/comparison.json").read_text())
    assert plain["better"] == "lower"
    assert plain["plans"]["own"]["runs"][0]["values"]["score"] == Run.open("out/own/seed-0").best.score > 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nqn"], "did you mean 'nqm'"),
        (["nqm", "--plans", "pbt,replya"], "did you mean 'replay'"),
        (["nqm", "--seeds", "0"], "--seeds: expected at least 1"),
        (["nqm", "--workers", "0"], "--workers: expected at least 1"),
        (["nqm", "--plans", "mf-pbt"], "plan mf-pbt: MultipleFrequencies: expected a population"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(tmp_path, monkeypatch, capsys, words, message):
    """Exit code 2, one line, no directory."""
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def start(folder, line):
    """The command in a process group of its own, with two runs begun."""
    words = [sys.executable, "-m", "pbt", *shlex.split(line)[1:]]
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    process = subprocess.Popen(words, cwd=folder, env=env, text=True, stderr=subprocess.PIPE, start_new_session=True)
    while len(list(folder.glob("out/*/seed-*/run.db"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


@pytest.mark.long
def test_ctrl_c_stops_it_and_the_printed_line_goes_on(tmp_path, monkeypatch):
    """Afterwards nothing runs any more; the line that it prints leads to the runs of an undisturbed comparison."""
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path, pace=30.0)
    line = "pbt compare task.py:experiment --plans own,no-evolution --seeds 1 --out out --workers 2"
    process = start(tmp_path, line)
    children = descendants([process.pid])
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    until(lambda: not any(runs(pid) for pid, _ in children))
    told = re.search(r"^pbt: stopped; state kept; resume with: (.*)$", error, re.MULTILINE)
    assert told, error
    assert "Traceback" not in error
    assert shlex.split(told[1])[1:] == shlex.split(line)[1:]

    write_task(tmp_path)
    assert main(shlex.split(told[1])[1:]) == 0
    assert main(["run", "task.py:experiment", "--out", "alone", "--threads", "1", "-q"]) == 0
    assert Run.open("out/own/seed-0").events == Run.open("alone").events
    assert violations(tmp_path / "out/own/seed-0") == []


@pytest.mark.long
def test_workers_end_with_their_parent(tmp_path, monkeypatch):
    """Where the command is killed its workers end by themselves, in the middle of a run."""
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path, pace=60.0)
    process = start(tmp_path, "pbt compare task.py:experiment --plans own,no-evolution --seeds 1 --out out --workers 2")
    children = descendants([process.pid])
    process.kill()
    process.communicate(timeout=30)
    assert len(children) >= 2
    until(lambda: not any(runs(pid) for pid, _ in children))


@pytest.mark.long
def test_a_worker_that_dies_is_told(folder, capsys):
    """The comparison ends with the remedy, and goes on when it is called again."""
    text = Path("task.py").read_text()
    Path("task.py").write_text(text.replace("    time.sleep(PACE)", "    __import__('os')._exit(3)"))
    compare("--seeds", 1, "--out", "out", code=1)
    assert "a worker died" in capsys.readouterr().err
    Path("task.py").write_text(text)
    compare("--seeds", 1, "--out", "out", "-q")


@pytest.mark.long
def test_a_run_whose_creation_was_interrupted_is_trained(folder):
    """A worker may die before its run is there: the comparison begins it again."""
    half = Path("out/no-evolution/seed-0")
    half.mkdir(parents=True)
    (half / "run.db").touch()
    compare("--seeds", 1, "--out", "out", "-q")
    assert violations(folder / half) == []


def test_one_run_under_another_plan(folder, capsys):
    """`--plan` trains under another plan, which the run remembers: it goes on under it, without being told again."""
    assert main(["run", "task.py:experiment", "--plan", "no-evolution", "--out", "random", "-q"]) == 0
    assert all(d.donor is None for d in Run.open("random").tree.decisions.values())
    assert main(["resume", "random", "task.py:experiment", "--rounds", "4", "-q"]) == 0
    assert Run.open("random").meta["plan"]["exploit"]["name"] == "Never"
    assert main(["run", "task.py:experiment", "--plan", "constant", "--of", "random", "--out", "held", "-q"]) == 0
    Path("random").rename("moved")
    assert main(["resume", "held", "task.py:experiment", "--rounds", "5", "-q"]) == 0
    held, random = Run.open("held"), Run.open("moved")
    assert {birth.hparams["lr"] for birth in held.tree.births.values()} == {random.best.hparams["lr"]}
    assert held.view.round == 5
    assert violations(folder / "held") == []


def test_a_problem_can_be_run_by_name(folder):
    """What comes with pbt is trained, and goes on, without a file; a plan with a horizon keeps that of the start."""
    assert main(["run", "nqm", "--rounds", "2", "--plan", "ipbt", "--out", "one", "-q"]) == 0
    assert main(["resume", "one", "nqm", "--rounds", "3", "-q"]) == 0
    assert (Run.open("one").view.round, Run.open("one").meta["plan"]["horizon"]) == (3, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan", "pbd"], "did you mean 'pbt'"),
        (["--plan", "replay"], "--plan replay requires --of RUN"),
        (["--of", "somewhere"], "--of requires --plan with one of constant, replay, final"),
        (["--plan", "replay", "--of", "somewhere"], "somewhere: expected a run directory"),
    ],
)
def test_flags_that_do_not_fit(folder, capsys, words, message):
    """Exit code 2, one message, no run."""
    assert main(["run", "task.py:experiment", "--out", "one", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("one").exists()


def test_a_plan_is_not_made_of_a_run_that_is_still_open(folder, capsys):
    """A run that is not finished has not found anything yet."""
    text = Path("task.py").read_text()
    Path("task.py").write_text(text.replace("    time.sleep(PACE)", "    if ctx.round == 2: raise KeyboardInterrupt"))
    assert main(["run", "task.py:experiment", "--out", "open", "-q"]) == 130
    assert main(["run", "task.py:experiment", "--plan", "replay", "--of", "open", "--out", "one"]) == 2
    assert "expected a finished run, got one that is interrupted" in capsys.readouterr().err
