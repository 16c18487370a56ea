"""Anything well sealed but impossible is one line: random mutations of runs, and every command that reads them.

`PBT_FUZZ_MUTATIONS` and `PBT_FUZZ_SEED` set the number of mutations and the seed of the long test.
"""

import asyncio
import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.types import ASGIApp, Message

from pbt.cli.app import main
from pbt.core.fold import empty_view
from pbt.dashboard.app import dashboard
from pbt.dashboard.cache import ResponseCache
from pbt.dashboard.payload import run_page
from pbt.dashboard.watch import Watch
from pbt.errors import CorruptError
from pbt.mnist.commands import population
from pbt.runs.catalog import list_runs
from pbt.runs.folding import fold_log
from pbt.runs.results import Run
from pbt.store.reader import RunReader
from pbt.store.verify import verify_run
from tests.hostile.mutations import Contents, Mutator, digits, read, reading, slow, training, write
from tests.mnist.conftest import SMALL, write_digits

FEW, MANY = 4, 400
"""Mutations by default, and with `--all` (five minutes on two cores)."""
TASK = """
import pbt

SPACE = {
    "lr": pbt.Float(1e-4, 1e-1, "log"), "n": pbt.Int(1, 8), "kind": pbt.Choice(("a", "b")),
    "m": pbt.Float(0, 1, when=("kind", "a")),
}


def train(hparams, state, steps, ctx):
    x = (state or {"x": 0.0})["x"] + hparams["lr"]
    if hparams["n"] == 3 and ctx.member == 2:
        raise ValueError("fails")
    ctx.report(1, loss=1 - x)
    return {"x": x}, {"score": x, "test_accuracy": x / 2, "curve": [1.0, 2.0]}


sync = pbt.Experiment(task=train, space=SPACE, population=4, rounds=4, seed=3, plan=pbt.Plan(interval=2))
unsync = pbt.Experiment(
    task=train, space=SPACE, population=5, rounds=4, seed=2, plan=pbt.Plan(mode="async"), objective="minimize"
)
"""
KINDS = ("sync", "unsync")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, with a finished run of each kind."""
    path = tmp_path_factory.mktemp("mutated")
    (path / "task.py").write_text(TASK)
    Image.new("L", (28, 28)).save(path / "digit.png")
    with contextlib.chdir(path):
        for kind in KINDS:
            assert main(["run", f"task.py:{kind}", "--out", kind, "--quiet"]) in (0, 3)
        yield path


def tracebacks(
    kind: str, contents: Contents, ids: range | None = None, *, train: bool = True, all_commands: bool = False
) -> list[str]:
    """The errors that were not one line, of the commands and the dashboard."""
    shutil.rmtree("t", ignore_errors=True)
    bad = Path("t/bad")
    write(Path(kind), bad, contents, ids)
    found = []
    words_of_all = [*reading(bad, Path("t/out"))]
    words_of_all += slow(bad, f"task.py:{kind}", Path("t/out")) if all_commands and kind != "mnist" else ()
    if kind == "mnist":
        words_of_all += digits(bad, Path("digits.json"))
    elif train:
        words_of_all += training(bad, f"task.py:{kind}", 6, Path("t/out"))
    for words in words_of_all:
        err = io.StringIO()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
                assert called(words) in (0, 1, 2, 3)
        except Exception as error:  # noqa: BLE001 (what is looked for)
            found.append(f"{' '.join(words)}: {error!r}")
        if "Traceback" in err.getvalue() or "something else (" in err.getvalue():
            found.append(f"{' '.join(words)}: {err.getvalue()}")
        if words[0] == "verify":  # before a command has changed the run
            problems = [listed.problem for place in (bad, bad.parent) for listed in Watch(place).look()]
            problems.append(run_page(bad, "v").texts["problem"])
            found += asyncio.run(answered(bad))
            found += [text for text in problems if "something else (" in text or "cannot be drawn" in text]
    return found


def called(words: list[str]) -> int:
    """The exit code of a command, or of `main_PBT.py`."""
    return population(words[1:]) if words[0] == "main_PBT.py" else main(words)


async def answered(bad: Path) -> list[str]:
    """The paths of a run that the dashboard does not answer with 200 or 404."""
    app = dashboard(ResponseCache(Watch(bad.parent)), lambda: "")
    (key,) = [run["key"] for run in json.loads((await get(app, "/api/runs"))[1])["runs"]]
    paths = [f"/api/run/{key}{rest}" for rest in ("", "/series", "/member/0", "/member/1", "/member/9999")]
    found = []
    for path in paths:
        try:
            status, body = await get(app, path)
        except Exception as error:  # noqa: BLE001 (what is looked for)
            found.append(f"GET {path}: {error!r}")
        else:
            found += [f"GET {path}: {status} {body[:200]!r}"] * (status not in (200, 404))
    return found


async def get(app: ASGIApp, path: str) -> tuple[int, bytes]:
    """The status and the body of an answer, without a server in between."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@pytest.mark.parametrize("kind", KINDS)
def test_mutations_give_one_line(folder: Path, kind: str) -> None:
    """A few mutations, always the same."""
    mutate(kind, FEW, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(0)
def test_many_mutations_give_one_line(folder: Path, kind: str) -> None:
    """Many of them."""
    mutate(kind, int(os.environ.get("PBT_FUZZ_MUTATIONS", MANY)), int(os.environ.get("PBT_FUZZ_SEED", "2")))


def mutate(kind: str, count: int, seed: int) -> None:
    contents, mutator, many = read(Path(kind)), Mutator(seed), count > FEW
    for number in range(count):
        mutated, what, ids = mutator.mutated(contents)
        found = tracebacks(kind, mutated, ids, train=many or number == 0, all_commands=many and number % 10 == 0)
        assert not found, f"seed {seed}, mutation {number}: {what}\n" + "\n".join(found)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_mutations_of_a_run_on_mnist_give_one_line(folder: Path) -> None:
    """The same for a run of the application, and its commands."""
    config = {"train": {**SMALL, "num_epochs_tot": 2, "data_dir": str(write_digits(folder / "digits")), "gpus": ""}}
    Path("digits.json").write_text(json.dumps(config))
    assert population(["digits.json", "--out", "mnist", "--executor", "inline", "--debug", "--no-progress"]) == 0
    mutate("mnist", int(os.environ.get("PBT_FUZZ_MUTATIONS", MANY // 4)), int(os.environ.get("PBT_FUZZ_SEED", "3")))


Edit = Callable[[list[Any], dict[str, Any], dict[str, Any]], object]
"""Changes the rows, given the first decision and the first report."""


def deep() -> Any:
    """A list within a list, and so on."""
    return json.loads("[" * 400 + "]" * 400)


def retired_twice(rows: list[Any], *_: dict[str, Any]) -> None:
    """Add two retirements of one member."""
    last = max(row[0] for row in rows)
    rows += [[last, 1, "retired", 1.0, {"kind": "retired", "member": 1, "round": last, "why": ""}]] * 2


def after(rows: list[Any], report: dict[str, Any]) -> int:
    """The place behind the report."""
    return next(i for i, row in enumerate(rows, 1) if row[4] is report)


EDITS: Mapping[str, Edit] = {
    "deleted birth": lambda rows, _, __: rows.pop(1),
    "deleted decision": lambda rows, one, _: rows.pop(after(rows, one) - 1),
    "doubled report": lambda rows, _, one: rows.insert(after(rows, one), rows[after(rows, one) - 1]),
    "unknown donor": lambda _, one, __: one.update(donor=99),
    "unknown state": lambda _, one, __: one.update(start=[0, 99]),
    "another step": lambda _, one, __: one.update(step=one["step"] + 1),
    "no step forward": lambda _, __, one: one.update(step=0),
    "outside its domain": lambda _, one, __: one["hparams"].update(lr=5.0),
    "huge": lambda _, one, __: one["hparams"].update(n=10**4000),
    "nan": lambda _, one, __: one["hparams"].update(lr={"float": "nan"}),
    "wrong type": lambda _, one, __: one["hparams"].update(lr=[1]),
    "no score": lambda _, __, one: one.update(scores=[]),
    "more scores": lambda rows, _, one: rows[after(rows, one)][4].update(scores=[0.5, 0.5]),
    "nested": lambda _, __, one: one["reported"].update(x=deep()),
    "a text that no file holds": lambda _, __, one: one.update(digest="\ud800"),
    "retired twice": retired_twice,
    "gap": lambda *_: None,
}


def edited(folder: Path, edit: str) -> Path:
    """A run with one edit, sealed."""
    contents = read(folder / "sync")
    rows = contents.events
    decided, reported = (next(row[4] for row in rows if row[2] == kind) for kind in ("decided", "reported"))
    EDITS[edit](rows, decided, reported)
    contents.checkpoints.clear()
    path = folder / "edited" / edit.replace(" ", "-")
    write(folder / "sync", path, contents, range(2, len(rows) + 2) if edit == "gap" else None)
    return path


@pytest.mark.parametrize("edit", EDITS)
def test_what_cannot_have_happened_is_refused_with_the_event_named(folder: Path, edit: str) -> None:
    """The fold, the whole log, the list of runs, `verify` and the dashboard's page say so."""
    path = edited(folder, edit)
    with RunReader(path) as reader, pytest.raises(CorruptError, match=r"event \d+: expected"):
        fold_log(reader, empty_view(reader.meta))
    with pytest.raises(CorruptError, match=r"event \d+: expected"):
        _ = Run.open(path).events
    assert any(not problem.harmless and "event" in problem.what for problem in verify_run(path))
    assert "event " in run_page(path, "").texts["problem"]
    (entry,) = [entry for entry in list_runs(path.parent) if entry.path == path]
    assert str(path) in entry.problem
    assert "event " in entry.problem


CHECKPOINTS: Mapping[str, Callable[[dict[str, Any]], object]] = {
    "best": lambda plain: plain["best"].__setitem__(1, [3, 99]),
    "type": lambda plain: plain["best"].__setitem__(0, "x"),
    "members": lambda plain: plain.update(members={}),
    "recent": lambda plain: plain["recent"].__setitem__(0, [[1, 99]]),
    "nested": lambda plain: plain.update(memory=deep()),
    "huge": lambda plain: plain.update(round=10**4000),
}


def edited_checkpoint(folder: Path, edit: str) -> Path:
    """A run with a checkpoint that is sealed and says something else than the log."""
    contents = read(folder / "sync")
    CHECKPOINTS[edit](contents.checkpoints[0][1])
    path = folder / "checkpoints" / edit
    write(folder / "sync", path, contents)
    return path


@pytest.mark.parametrize("edit", CHECKPOINTS)
def test_a_checkpoint_that_is_not_the_logs_is_not_used_or_named(folder: Path, edit: str) -> None:
    """Values that are no fold are left out, so that the log is read; names that the log lacks are an error."""
    path = edited_checkpoint(folder, edit)
    assert "checkpoint" in [problem.what for problem in verify_run(path)]
    if edit == "best":
        with pytest.raises(CorruptError, match=r"checkpoint: expected the fold of this log, found member 3, round 99"):
            _ = Run.open(path).tree
    else:
        assert Run.open(path).view == Run.open(folder / "sync").view


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "x"), ("population", 0), ("rounds", -1), ("rounds", 1e9), ("objective", []), ("space", {"lr": {}}),
        ("space", []), ("application", {"name": []}), ("place", {"threads": 10**300}), ("plan", None),
    ],
)  # fmt: skip
def test_recorded_values_have_the_form_that_runs_record(folder: Path, name: str, value: object) -> None:
    """Any other is an error that names the value."""
    contents = read(folder / "sync")
    contents.meta[name] = value
    shutil.rmtree("t", ignore_errors=True)
    write(folder / "sync", Path("t/bad"), contents)
    with pytest.raises(CorruptError, match=f"recorded {name}: expected"):
        Run.open("t/bad")


def test_a_run_that_was_not_changed_is_read_as_before(folder: Path) -> None:
    """The same contents, sealed again, are intact, with and without the checkpoint."""
    for kind in KINDS:
        for name in ("whole", "plain"):
            contents = read(folder / kind)
            if name == "plain":
                contents.checkpoints.clear()
            path = folder / "same" / kind / name
            write(folder / kind, path, contents)
            assert verify_run(path) == []
            assert Run.open(path).view == Run.open(folder / kind).view
            assert Run.open(path).tree.states == Run.open(folder / kind).tree.states
