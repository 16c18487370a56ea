"""What goes to a terminal or a spreadsheet is data, from every command."""

import contextlib
import csv
import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pbt
from pbt.cli.app import main
from pbt.core.schedule import Schedule, Segment
from pbt.runs.export import csv_text, jsonl_text
from pbt.runs.schedule_io import FORMATS, schedule_of, schedule_text
from pbt.terminal.console import console_for
from pbt.terminal.exit import StderrHandler
from tests.hostile.mutations import reading

EVIL = "=\x1b[31m\x9b2J\x7f\x07\u202e\u2066\u200b\r\t\x00x"
OUT = "evil \x1b[31m\u202e"


def train(hparams, state, steps, ctx):
    if ctx.member == 1:
        raise ValueError(EVIL)
    ctx.report(1, loss=0.5)
    return {"x": 1}, {"score": float(ctx.member), EVIL: EVIL, "test_accuracy": EVIL}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run whose every text controls terminals."""
    path = tmp_path_factory.mktemp("terminal")
    with contextlib.chdir(path):
        space = {"lr": pbt.Float(0.1, 1.0), "kind": pbt.Choice((EVIL, EVIL + "2"), ordered=True)}
        experiment = pbt.Experiment(task=train, space=space, population=4, rounds=3)
        texts = dict.fromkeys(("note", "score", "object", "command"), EVIL) | {"files": {EVIL: EVIL}}
        experiment.run(f"runs/{OUT}", application=texts)
        yield path


def test_no_command_controls_the_terminal(folder: Path) -> None:
    """All that they print is printable, but for line ends: tables, JSON, CSV, errors, tracebacks, names of files."""
    commands = [*reading(Path(f"runs/{OUT}"), folder / "out")]
    commands += [["resume", f"runs/{OUT}"], ["replay", f"runs/{OUT}"], ["status", f"runs/{EVIL[1:5]}"], ["ls", EVIL]]
    for words in commands:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            main(words)
        bad = {char for char in out.getvalue() if not (char.isprintable() or char == "\n")}
        assert (words, bad) == (words, set())


def test_the_console_and_logs_are_the_gate(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever prints through them."""
    console_for().print(f"one{EVIL}", soft_wrap=True)
    console_for().print(f"one{EVIL}\nline")
    logger, handler = logging.getLogger("tests.terminal"), StderrHandler()
    logger.addHandler(handler)
    try:
        logger.warning("note %s", EVIL)
    finally:
        logger.removeHandler(handler)
    seen = capsys.readouterr()
    text = seen.out + seen.err
    assert "one=" in text
    assert "note =" in text
    assert [char for char in text if not (char.isprintable() or char == "\n")] == []


def test_formulas_are_neutralized_and_numbers_are_not_touched() -> None:
    """By the rule of the page; `raw` writes what is there."""
    texts = ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "\uff1d1", "\x1b=1", "a=1", "1", "", "two\nlines"]
    columns = {"=n": [-1.5] * len(texts), "text": texts}
    rows = list(csv.reader(io.StringIO(csv_text(columns))))
    assert rows[0] == ["'=n", "text"]
    assert {row[0] for row in rows[1:]} == {"-1.5"}
    shown = ["'=1+1", "'+1", "'-1", "'@x", "'?=1", "'?=1", "' =1", "'\uff1d1", "?=1", "a=1", "1", "", "two\nlines"]
    assert [row[1] for row in rows[1:]] == shown
    raw = list(csv.reader(io.StringIO(csv_text(columns, raw=True), newline="")))
    assert [row[1] for row in raw[1:]] == texts
    assert json.loads(jsonl_text({"a": ["\x7f"]})) == {"a": "\x7f"}
    assert "\x7f" not in jsonl_text({"a": ["\x7f"]})


def test_raw_is_for_programs(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It keeps every text, and is refused for a terminal and other formats."""
    words = ["export", f"runs/{OUT}", "--format", "csv", "--raw"]
    assert main([*words, "--out", "raw.csv"]) == 0
    assert EVIL in (folder / "raw.csv").read_bytes().decode()
    assert main(["export", f"runs/{OUT}", "--format", "jsonl", "--raw"]) == 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(words) == 2
    assert "--raw requires --out" in capsys.readouterr().err


@pytest.mark.parametrize("format_", FORMATS)
def test_a_schedule_keeps_every_text(format_: str) -> None:
    """It escapes what controls a terminal and quotes formulas, and reads back what was written."""
    values = {"a": EVIL, "b": "=1+1", "c": "\U000e0041\x85", "d": "-x", "e": -1.5}
    schedule = Schedule((Segment(start=0, stop=2, hparams=values),))
    text = schedule_text(schedule, format_)
    assert [char for char in text if not (char.isprintable() or char == "\n")] == []
    assert schedule_of(text, format_) == schedule
    if format_ == "csv":
        cells = next(csv.reader([text.splitlines()[1]]))
        assert [cell for cell in cells if cell.startswith(("=", "+", "@"))] == []
        assert cells[-1] == "-1.5"
