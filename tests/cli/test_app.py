"""The command line: output, exit codes and files. Signals, streams and installed scripts use real processes."""

import importlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pbt.cli.app import main
from pbt.runs.catalog import APPLICATIONS, own_command
from pbt.runs.results import Run
from pbt.store.sqlite import RunStore
from pbt.store.verify import verify_run
from pbt.terminal.exit import PATIENCE
from tests.helpers.command import environment, pbt
from tests.helpers.processes import until as until_true

TASK = """
import pathlib
import time

import pbt


def train(hparams, state, steps, ctx):
    state = dict(state or {"theta": 0.0})
    for _ in range(steps):
        state["theta"] += hparams["lr"] * (1 - state["theta"])
    return state, {"score": state["theta"], "test_accuracy": 0.9 * state["theta"]}


def wait(hparams, state, steps, ctx):
    while ctx.round > 1 and not pathlib.Path("open").exists():
        time.sleep(0.01)
    return train(hparams, state, steps, ctx)


def fail_at_the_end(hparams, state, steps, ctx):
    if ctx.member == 1 and ctx.round == 3:
        raise ValueError("no luck")
    return train(hparams, state, steps, ctx)


def diverge(hparams, state, steps, ctx):
    return state, float("nan")


def careless(hparams, state, steps, ctx):
    return state, "high"


def make(task=train, **changes):
    return pbt.Experiment(**{"task": task, "space": {"lr": pbt.Float(1e-3, 1e-1, "log")}, "population": 4,
                             "rounds": 3, "plan": pbt.Plan(interval=5), **changes})


def crash():
    raise RuntimeError("no experiment today")


class Thing:
    pass


experiment = make()
waiting = make(wait)
failing = make(fail_at_the_end)
lost = make(diverge)
unscored = make(careless)
closure = make(lambda hparams, state, steps, ctx: (state, 1.0))
number = 3
"""


PBT = [sys.executable, "-m", "pbt"]
IMPATIENT = (
    "import sys\nfrom pbt.terminal import exit\nexit.PATIENCE = 0.5\nfrom pbt.cli.app import main\nsys.exit(main())"
)
"""The command, where an orderly end may take half a second."""


def begin(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PBT, *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until this file exists."""
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def begin_waiting(folder: Path, answer: str) -> subprocess.Popen[str]:
    """A run whose second round waits for a signal, and answers KeyboardInterrupt with this statement."""
    (folder / "waiting.py").write_text(
        "import pathlib, sys, time, pbt\n"
        "def train(hparams, state, steps, ctx):\n"
        "    while ctx.round > 1:\n"
        "        try: pathlib.Path('training').touch(); time.sleep(60)\n"
        f"        except KeyboardInterrupt: {answer}\n"
        "    return {}, 1.0\n"
        "x = pbt.Experiment(task=train, space={'lr': pbt.Float(0, 1)}, population=2)\n"
    )
    process = begin(folder, "run", "waiting.py:x", "--out", "a")
    until(folder / "training", process)
    return process


def until_reported(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the run at this path has finished a round."""
    while True:
        assert process.poll() is None, process.communicate()
        if (path / "run.db").is_file() and (path / "lock").is_file():
            try:
                if Run.open(path).tree.reports:
                    return
            except Exception:  # noqa: BLE001 (in the middle of its creation)
                pass
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text(TASK)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run, to be looked at only."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "task.py").write_text(TASK)
    pbt(folder, "run", "task.py:experiment", "--out", "runs/one")
    return folder


def split_notes(text: str) -> tuple[list[str], list[str]]:
    """The notes of a run, and the other lines."""
    lines = text.splitlines()
    return [x for x in lines if x.startswith("pbt: note: ")], [x for x in lines if not x.startswith("pbt: note: ")]


class TestRun:
    def test_leaves_a_dated_directory_and_a_link_to_it(self, folder: Path) -> None:
        """A run without --out is kept under the file's name and the time, and `latest` points to it."""
        done = pbt(folder, "run", "task.py:experiment")
        (path,) = [path for path in (folder / "runs").iterdir() if not path.is_symlink()]
        assert re.fullmatch(r"task-\d{8}-\d{6}-[0-9a-f]{4}", path.name)
        assert (folder / "runs" / "latest").resolve() == path
        assert Run.open(path).view.ended == "finished"
        assert f"Files in runs/{path.name}" in done.stdout
        assert "validation score" in done.stdout
        assert "test accuracy" in done.stdout
        assert "Schedule of the best member" in done.stdout
        notes, (first, *rounds) = split_notes(done.stderr)
        assert first == f"pbt: runs/{path.name}: loading task.py:experiment"
        assert [line.split(" · ")[0] for line in rounds] == [f"round {i}/3" for i in (1, 2, 3)]
        assert any("4 members" in note for note in notes)
        assert any("not read back" in note and "lr" in note for note in notes)

    def test_the_second_run_moves_the_link(self, folder: Path) -> None:
        """The link `latest` names the newest run, and a folder of that name is left alone."""
        pbt(folder, "run", "task.py:experiment", "-q")
        first = (folder / "runs" / "latest").resolve()
        pbt(folder, "run", "task.py:experiment", "-q")
        assert (folder / "runs" / "latest").resolve() != first
        (folder / "runs" / "latest").unlink()
        (folder / "runs" / "latest").mkdir()
        pbt(folder, "run", "task.py:experiment", "-q")
        assert (folder / "runs" / "latest").is_dir()

    def test_flags_win_over_the_file(self, folder: Path) -> None:
        """Population, rounds, seed and threads of the command line replace those of the experiment."""
        words = ("--population", "5", "--rounds", "2", "--seed", "7", "--threads", "1", "--out", "there/run")
        pbt(folder, "run", "task.py:make", *words)
        meta = Run.open(folder / "there" / "run").meta
        assert (meta["population"], meta["rounds"], meta["seed"], meta["place"]["threads"]) == (5, 2, 7, 1)
        assert meta["application"] == {"name": "file", "object": "task.py:make", "population": 4}

    def test_processes_equal_inline_from_an_installed_command(self, folder: Path) -> None:
        """The command works where each worker imports the installed script again, with the same results."""
        script = folder / "pbt"
        script.write_text(
            "import sys\nfrom pbt.cli.app import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
        )
        words = ["run", "task.py:experiment", "--executor", "processes", "--workers", "2", "--out", "a", "-q"]
        subprocess.run([sys.executable, script, *words], cwd=folder, env=environment(), check=True, timeout=120)
        pbt(folder, "run", "task.py:experiment", "--out", "b", "-q")
        assert Run.open(folder / "a").events == Run.open(folder / "b").events

    def test_json_is_all_of_stdout(self, folder: Path) -> None:
        """With --json stdout is one document with the best member, its schedule and every member."""
        found = json.loads(pbt(folder, "run", "task.py:experiment", "--json").stdout)
        assert found["state"] == "finished"
        assert len(found["members"]) == 4
        assert found["best"]["score"] == max(member["score"] for member in found["members"])
        assert found["best"]["reported"].keys() == {"test_accuracy"}
        assert [found["schedule"][0]["start"], found["schedule"][-1]["stop"]] == [0, 15]

    def test_quiet_prints_nothing(self, folder: Path) -> None:
        """With -q a run that goes well prints nothing, with --no-progress only its result."""
        done = pbt(folder, "run", "task.py:experiment", "-q")
        assert (done.stdout, done.stderr) == ("", "")
        done = pbt(folder, "run", "task.py:experiment", "--no-progress")
        assert split_notes(done.stderr)[1] == []
        assert "Population after round 3" in done.stdout

    def test_failed_members_at_the_end_give_three(self, folder: Path) -> None:
        """A run that ends with a failed member exits with 3 and names it."""
        done = pbt(folder, "run", "task.py:failing", code=3)
        assert "member 1 failed in round 3: ValueError: no luck" in done.stderr
        assert "failed" in done.stdout

    @pytest.mark.parametrize(
        ("task", "reason"),
        [("lost", "not a finite number"), ("unscored", "'score' must be a number, got 'high'")],
    )
    def test_a_lost_population_gives_one(self, folder: Path, task: str, reason: str) -> None:
        """A run whose members all fail exits with 1 and one line, and its directory stays, to be looked at."""
        done = pbt(folder, "run", f"task.py:{task}", "--out", "gone", "-q", code=1)
        (line,) = done.stderr.splitlines()
        assert "every member failed" in line
        assert "member 0 in round 1" in line
        assert reason in line
        assert "lost" in pbt(folder, "status", "gone").stdout

    def test_a_reader_that_goes_away_ends_nothing(self, folder: Path) -> None:
        """A closed pipe at stdout or stderr leaves no traceback, and the run goes on to its end."""
        line = f"{sys.executable} -m pbt run task.py:experiment --rounds 30 --out a 2>&1 | head -n 4"
        done = subprocess.run(
            line, shell=True, cwd=folder, env=environment(), capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        first, second = split_notes(done.stdout)[1]
        assert (first, second.split(" · ")[0]) == ("pbt: a: loading task.py:experiment", "round 1/30")
        until_true(lambda: Run.open(folder / "a").view.ended == "finished")

    @pytest.mark.parametrize("closing", ["| true", ">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
    def test_closed_streams(self, finished: Path, closing: str) -> None:
        """No command needs its standard streams."""
        line = f"{sys.executable} -m pbt status runs/one {closing}; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", line], cwd=finished, env=environment(), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
    def test_a_full_disk_is_told(self, finished: Path) -> None:
        """An output that cannot be written is an error message, not a traceback."""
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "pbt", "status", "runs/one"],
                cwd=finished,
                env=environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "No space left" in done.stderr


BAD = [
    (["runn"], ['Did you mean "run"', "pbt --help"]),
    (["run"], ["FILE.py:object", "pbt run --help"]),
    (["run", "task.py"], ["expected task.py:object", "task.py:experiment"]),
    (["run", "experiment"], ["expected FILE.py:object", "got 'experiment'"]),
    (["run", "taks.py:experiment"], ["taks.py: expected a Python file", "did you mean 'task.py'"]),
    (["run", "nowhere/task.py:experiment"], ["expected a Python file, found none"]),
    (["run", "notes.txt:experiment"], ["expected FILE.py:object", "notes.txt"]),
    (["run", "task.py:experimnt"], ["named 'experimnt', found none", "task.py:experiment"]),
    (["run", "task.py:number"], ["expected a pbt.Experiment", "found int 3", "task.py:failing"]),
    (["run", "task.py:Thing"], ["found a class"]),
    (["run", "task.py:train"], ["hparams, state, steps, ctx", "pbt.Experiment(task=train"]),
    (["run", "task.py:Thing.x"], ["named 'Thing.x', found none"]),
    (["run", "task.py:crash"], ["line 41 raised RuntimeError: no experiment today"]),
    (["run", "empty.py:x"], ["empty.py has no pbt.Experiment"]),
    (["run", "broken.py:x"], ["syntax error in line 2"]),
    (["run", "raising.py:x"], ["line 2 raised ZeroDivisionError"]),
    (["run", "lacking.py:x"], ["line 1 raised ModuleNotFoundError", "no_such_module"]),
    (["run", "leaving.py:x"], ["line 2 raised SystemExit"]),
    (["run", "spaceless.py:x"], ["low < high"]),
    (["run", "task.py:experiment", "--rouns", "3"], ["--rouns", "Did you mean --rounds"]),
    (["run", "task.py:experiment", "--rounds", "x"], ["--rounds", '"x"']),
    (["run", "task.py:experiment", "--rounds", "0"], ["at least 1 round, got 0"]),
    (["run", "task.py:experiment", "--population", "0"], ["at least 1 member, got 0"]),
    (["run", "task.py:experiment", "--workers", "0"], ["at least 1 of workers, got 0"]),
    (["run", "task.py:experiment", "--executor", "inlne"], ["inlne", "inline"]),
    (["run", "task.py:experiment", "--device", "cuda:99"], ["device 'cuda:99' does not exist"]),
    (["run", "task.py:experiment", "--resume"], ["--out RUN_DIR", "pbt resume RUN task.py:experiment"]),
    (["run", "task.py:experiment", "--out", "task.py"], ["task.py: expected a new or empty directory"]),
    (["run", "task.py:experiment", "--out", "task.py/run"], ["task.py/run"]),
    (["run", "task.py:closure", "--executor", "processes"], ["cannot be sent to another process", "inline"]),
    (["resume", "nowhere"], ["nowhere: expected a run directory, found nothing"]),
    (["resume", "task.py"], ["task.py: expected a run directory, found a file"]),
    (["status", "nowhere"], ["nowhere: expected a run directory, found nothing"]),
    (["status", "."], ["expected a run directory with run.db, found a folder without it"]),
    (["verify", "."], ["expected a run directory"]),
    (["status"], ["RUN", "pbt status --help"]),
    (["demo", "--seed", "x"], ["--seed", "pbt demo --help"]),
]


class TestBadInput:
    @pytest.mark.parametrize(("words", "expected"), BAD, ids=[" ".join(words) for words, _ in BAD])
    def test_is_one_message_and_two(self, folder: Path, words: list[str], expected: list[str]) -> None:
        """Wrong input is one or two lines that say what was expected and found, exit code 2, and nothing is left."""
        (folder / "empty.py").write_text("y = 1\n")
        (folder / "broken.py").write_text("x = 1\nx = = 2\n")
        (folder / "raising.py").write_text("x = 1\nx = x / 0\n")
        (folder / "lacking.py").write_text("import no_such_module\n")
        (folder / "leaving.py").write_text("import sys\nsys.exit(0)\n")
        (folder / "spaceless.py").write_text("import pbt\nx = pbt.Float(2, 1)\n")
        before = sorted(folder.rglob("*"))
        done = pbt(folder, *words, code=2)
        assert done.stdout == ""
        # A member's failure may be told above the error.
        assert 1 <= len(done.stderr.splitlines()) <= 3
        assert "pbt: error: " in done.stderr
        for part in expected:
            assert part in done.stderr
        assert sorted(folder.rglob("*")) == before

    def test_a_run_that_is_there_is_not_touched(self, finished: Path) -> None:
        """To run into a directory with a run is refused with the line that goes on with it."""
        before = (finished / "runs/one/run.db").read_bytes()
        done = pbt(finished, "run", "task.py:experiment", "--out", "runs/one", code=2)
        assert "pbt resume runs/one task.py:experiment" in done.stderr
        assert (finished / "runs/one/run.db").read_bytes() == before

    def test_an_interrupted_creation_is_begun_again(self, folder: Path) -> None:
        """Where a run was killed before it was there nothing is to resume, and the same command begins it."""
        (folder / "half").mkdir()
        (folder / "half" / "run.db").touch()
        assert "start it again" in pbt(folder, "resume", "half", "task.py:experiment", code=2).stderr
        pbt(folder, "run", "task.py:experiment", "--out", "half", "-q")
        (folder / "half-replay").mkdir()
        (folder / "half-replay" / "run.db").touch()
        pbt(folder, "replay", "half", "task.py:experiment", "--out", "half-replay", "-q")
        assert Run.open(folder / "half-replay").view.ended == "finished"

    def test_a_strange_database(self, folder: Path) -> None:
        """A folder whose run.db is no database, or no run of this package, is refused by every command."""
        (folder / "odd").mkdir()
        (folder / "odd" / "run.db").write_bytes(b"no database" * 100)
        RunStore.create(folder / "bare", {}).close()
        for name in ("odd", "bare"):
            for words in (["status", name], ["resume", name, "task.py:experiment"]):
                done = pbt(folder, *words, code=2)
                assert name in done.stderr

    def test_text_of_a_run_cannot_command_a_terminal(self, folder: Path) -> None:
        """What a stranger's run directory says is printed without control characters."""
        meta = {"seed": 0, "population": 1, "rounds": 1, "space": {}, "application": {"object": "\x1b]0;x\x07.py:y"}}
        RunStore.create(folder / "odd", meta).close()
        done = pbt(folder, "resume", "odd", code=2)
        assert "?]0;x?.py:y" in done.stderr
        assert "\x1b" not in done.stderr + pbt(folder, "status", "odd").stdout


class TestStops:
    @pytest.mark.long
    @pytest.mark.parametrize("executor", ["inline", "processes"])
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signals_keep_the_state(self, folder: Path, executor: str, number: int) -> None:
        """Ctrl-C and SIGTERM end a run in good order; the printed line goes on to an undisturbed run's events."""
        words = ("--rounds", "12", "--executor", executor, "--out", "a run")
        process = begin(folder, "run", "task.py:waiting", *words)
        until_reported(folder / "a run", process)
        # To the whole group, as a terminal does; a scheduler's SIGTERM too.
        os.killpg(process.pid, number)
        _, errors = process.communicate()
        assert process.returncode == 128 + number
        assert "Traceback" not in errors
        assert errors.splitlines()[-1] == ("pbt: stopped; state kept; resume with: pbt resume 'a run' task.py:waiting")
        assert Run.open(folder / "a run").view.ended is None
        assert "interrupted" in pbt(folder, "status", "a run").stdout
        (folder / "open").touch()
        pbt(folder, "resume", "a run", "task.py:waiting", "-q")
        pbt(folder, "run", "task.py:experiment", "--rounds", "12", "--out", "b", "-q")
        assert Run.open(folder / "a run").events == Run.open(folder / "b").events
        assert not [problem for problem in verify_run(folder / "a run") if not problem.harmless]

    def test_an_interrupt_that_the_task_turns_into_an_exit(self, folder: Path) -> None:
        """Ctrl-C is no failure of the member whose task answers it with `sys.exit(1)`: the run stops and can go on."""
        process = begin_waiting(folder, "sys.exit(1)")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        assert process.returncode == 130
        assert errors.splitlines()[-1] == "pbt: stopped; state kept; resume with: pbt resume a waiting.py:x"
        assert Run.open(folder / "a").failures() == []

    def test_a_second_signal_ends_at_once(self, folder: Path) -> None:
        """A task that swallows Ctrl-C is ended by the second one, before the time for an orderly exit is over."""
        process = begin_waiting(folder, "pathlib.Path('swallowed').touch()")
        process.send_signal(signal.SIGINT)
        until(folder / "swallowed", process)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        assert process.returncode == 130
        # The end that time forces prints the line that resumes.
        assert "stopped" not in errors

    def test_an_end_that_does_not_come_is_forced(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A task that swallows SIGTERM is ended within 5 s all the same, with the line that resumes."""
        assert PATIENCE < 5
        monkeypatch.setitem(globals(), "PBT", [sys.executable, "-c", IMPATIENT])
        process = begin_waiting(folder, "pass")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
        assert process.returncode == 143
        assert "pbt resume a waiting.py:x" in errors


class TestResume:
    def test_a_finished_run_is_extended(self, folder: Path) -> None:
        """More rounds extend a run to the events of a longer one; the seed and population are the recorded ones."""
        pbt(folder, "run", "task.py:experiment", "--seed", "5", "--population", "6", "--out", "a", "-q")
        pbt(folder, "resume", "a", "task.py:experiment", "--rounds", "5", "-q")
        pbt(
            folder, "run", "task.py:experiment", "--seed", "5", "--population", "6", "--rounds", "5", "--out", "b", "-q"
        )
        extended = [event for event in Run.open(folder / "a").events if event.kind != "ended"]
        assert extended == [event for event in Run.open(folder / "b").events if event.kind != "ended"]

    def test_a_finished_run_is_left_as_it_is(self, finished: Path) -> None:
        """To resume a finished run without more rounds shows its result and trains nothing."""
        before = Run.open(finished / "runs/one").events
        done = pbt(finished, "resume", "runs/one", "task.py:experiment")
        assert "Population after round 3" in done.stdout
        assert Run.open(finished / "runs/one").events == before

    def test_the_file_must_be_named_again(self, finished: Path) -> None:
        """A run of a user's file is not resumed from its own record; the error is the line to type."""
        done = pbt(finished, "resume", "runs/one", code=2)
        assert done.stderr.splitlines()[-1].strip() == "pbt resume runs/one task.py:experiment"

    def test_fewer_rounds_are_refused(self, finished: Path) -> None:
        """A run cannot be made shorter."""
        done = pbt(finished, "resume", "runs/one", "task.py:experiment", "--rounds", "2", code=2)
        assert "at least 3, as recorded in runs/one" in done.stderr

    def test_another_experiment_is_refused(self, finished: Path) -> None:
        """A run goes on with the space it was begun with."""
        (finished / "other.py").write_text(TASK.replace("1e-1", "2e-1"))
        assert "space" in pbt(finished, "resume", "runs/one", "other.py:experiment", code=2).stderr

    def test_another_population_in_the_file_is_refused(self, finished: Path, tmp_path: Path) -> None:
        """A file that has another population than when the run was begun is refused, not overruled."""
        finished = shutil.copytree(finished, tmp_path / "own")
        (finished / "task.py").write_text(TASK.replace('"population": 4', '"population": 5'))
        done = pbt(finished, "resume", "runs/one", "task.py:experiment", code=2)
        assert "population of 4" in done.stderr

    def test_a_changed_plan_is_a_flag(self, finished: Path, tmp_path: Path) -> None:
        """Another plan in the file is refused by its field, and accepted with --changed-plan."""
        finished = shutil.copytree(finished, tmp_path / "own")
        (finished / "task.py").write_text(TASK.replace("pbt.Plan(interval=5)", "pbt.Plan(interval=7)"))
        words = ("resume", "runs/one", "task.py:experiment", "--rounds", "4")
        done = pbt(finished, *words, code=2)
        assert "plan.interval = 5" in done.stderr
        assert "--changed-plan" in done.stderr
        pbt(finished, *words, "--changed-plan", "-q")
        assert Run.open(finished / "runs/one").meta["changed_plan"][0]["now"] == 7
        assert "--resume" in pbt(finished, "run", "task.py:experiment", "--changed-plan", code=2).stderr

    def test_no_code_that_a_run_names_is_imported(self, folder: Path) -> None:
        """An application outside the registry is never imported, whatever the record says."""
        (folder / "evil.py").write_text("import pathlib\npathlib.Path('owned').touch()\ndef resume(*a, **k): pass\n")
        for application in ({"name": "evil:resume"}, {"name": "evil"}, {"name": "file", "object": "evil.py:resume"}):
            meta = {"seed": 0, "population": 1, "rounds": 1, "space": {}, "application": application}
            RunStore.create(folder / "strange", meta).close()
            pbt(folder, "resume", "strange", code=2)
            shutil.rmtree(folder / "strange")
        assert not (folder / "owned").exists()

    def test_an_application_goes_on_by_its_name(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run of a registered application is handed to its function, with the place that it was begun in."""
        (folder / "toy_application.py").write_text(
            "import pbt, task\ncalls = []\n"
            "def resume(path, *, rounds, placement, observers):\n"
            "    calls.append((rounds, placement))\n"
            "    return task.make(rounds=rounds or 4).run(path, resume=True, observers=observers)\n"
        )
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.chdir(folder)
        monkeypatch.setitem(APPLICATIONS, "toy", "toy_application:resume")  # type: ignore[misc]
        toy = importlib.import_module("toy_application")
        toy.task.make().run(folder / "a", application={"name": "toy", "note": "toy data"})
        assert main(["resume", "a", "--rounds", "4", "-q"]) == 0
        assert main(["resume", "a", "--workers", "2", "-q"]) == 0
        assert toy.calls[0] == (4, None)
        assert (toy.calls[1][1].executor, toy.calls[1][1].workers) == ("inline", 2)
        assert Run.open(folder / "a").view.round == 4

    def test_the_registry_names_functions_that_are_there(self) -> None:
        """Every application that a run may name can be found."""
        for place in APPLICATIONS.values():
            module, _, function = place.partition(":")
            found = importlib.util.find_spec(module)
            assert found is not None
            assert found.origin is not None
            assert f"def {function}(" in Path(found.origin).read_text()


class TestStatus:
    def test_of_a_finished_run(self, finished: Path) -> None:
        """Status shows state, population, winner, schedule and files, and changes no byte."""
        before = {p: p.read_bytes() for p in sorted((finished / "runs/one").rglob("*")) if p.is_file()}
        text = pbt(finished, "status", "runs/one").stdout
        for part in ("finished, 3 of 3 rounds done", "member", "founder", "Best: member", "run.db"):
            assert part in text
        assert {p: p.read_bytes() for p in sorted((finished / "runs/one").rglob("*")) if p.is_file()} == before

    def test_json_equals_what_the_run_says(self, finished: Path) -> None:
        """The JSON of status is that of the run, by name in `runs` as well as by path."""
        found = json.loads(pbt(finished, "status", "one", "--json").stdout)
        run = Run.open(finished / "runs/one")
        assert found["best"]["score"] == run.best.score
        assert found["schedule"] == run.best_schedule.to_dict()["segments"]
        assert found["run"] == "runs/one"

    def test_of_a_folder_lists_its_runs(self, finished: Path) -> None:
        """A folder that holds runs is answered by a list of them."""
        text = pbt(finished, "status", "runs").stdout
        assert re.search(r"runs/one +finished +3/3 +4 +0\.\d+", text)
        (found,) = json.loads(pbt(finished, "status", "runs", "--json").stdout)
        assert found["state"] == "finished"

    def test_of_a_run_that_is_being_written(self, folder: Path) -> None:
        """A running run is shown as running, again and again, and does not notice."""
        process = begin(folder, "run", "task.py:waiting", "--out", "a", "--json")
        try:
            until_reported(folder / "a", process)
            for _ in range(3):
                found = json.loads(pbt(folder, "status", "a", "--json").stdout)
                assert found["state"] == "running"
            assert found["rounds_done"] >= 1
            assert "already" not in pbt(folder, "resume", "a", "task.py:waiting", code=2).stdout
        finally:
            (folder / "open").touch()
            out, errors = process.communicate()
        assert process.returncode == 0, errors
        assert json.loads(out)["state"] == "finished"


class TestVerify:
    def test_a_sound_run(self, finished: Path) -> None:
        """A sound run is said to be sound, with exit code 0."""
        assert "intact" in pbt(finished, "verify", "runs/one").stdout

    def test_a_flipped_byte_is_found(self, finished: Path, tmp_path: Path) -> None:
        """One flipped byte in a kept state gives exit code 1 and the name of what is damaged."""
        path = tmp_path / "run"
        shutil.copytree(finished / "runs/one", path)
        flip(path)
        done = pbt(finished, "verify", str(path), code=1)
        assert re.search(r"^damaged  ", done.stdout, re.MULTILINE)


def flip(path: Path) -> None:
    """Change one byte of a state, in its file or where the database holds it."""
    files = sorted((path / "states").iterdir())
    if files:
        content = bytearray(files[0].read_bytes())
        content[-1] ^= 1
        files[0].chmod(0o644)
        files[0].write_bytes(bytes(content))
        return
    run = Run.open(path)
    ref = run.best.state
    with RunStore.open(path) as store:
        blob = store.stored(ref).blob
    assert blob is not None
    content = bytearray((path / "run.db").read_bytes())
    place = content.index(blob)
    content[place + len(blob) - 1] ^= 1
    (path / "run.db").write_bytes(bytes(content))


class TestHelp:
    @pytest.mark.parametrize("command", ["run", "resume", "status", "verify", "doctor", "demo"])
    def test_shows_an_example(self, tmp_path: Path, command: str) -> None:
        """The help of every command shows a line that can be typed."""
        assert f"Example: pbt {command}" in pbt(tmp_path, command, "--help").stdout

    def test_lists_the_commands_and_exit_codes(self, tmp_path: Path) -> None:
        """Without arguments, and with --help, every command is listed."""
        text = pbt(tmp_path, "--help").stdout
        assert text == pbt(tmp_path).stdout
        for word in ("run", "resume", "status", "verify", "doctor", "demo", "Example: pbt run", "130"):
            assert word in text

    def test_version(self, tmp_path: Path) -> None:
        """The version is that of this distribution, not of PyPI's `pbt`."""
        assert pbt(tmp_path, "--version").stdout.startswith("pbt ")

    def test_imports_nothing_heavy(self, tmp_path: Path) -> None:
        """Neither help nor status imports torch or matplotlib."""
        code = (
            "import sys\nfrom pbt.cli.app import main\n"
            "assert main(['--help']) == 0\nassert main(['status', 'nowhere']) == 2\n"
            "assert not {'torch', 'matplotlib', 'pandas', 'ray'} & set(sys.modules)\n"
        )
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), check=True, capture_output=True)


def test_a_printed_command_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the shell would not find this installation's `pbt`, the lines that are printed name it by its path."""
    assert own_command() == "pbt"
    monkeypatch.setenv("PATH", "/nowhere")
    own = Path(sys.executable).with_name("pbt")
    monkeypatch.chdir(tmp_path)
    assert own_command() == str(own)
    monkeypatch.chdir(own.parents[1])
    assert own_command() == f"{own.parent.name}/pbt"
