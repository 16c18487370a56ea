"""Mutations of the contents of a run, with its checksums made right again, and all commands that read runs."""

import copy
import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbt.store import checksums, tables

FLOAT = {"float": "nan"}
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 1 << 31, 1 << 53, 1 << 63, -(1 << 63), 10**300, 10**4000, 1.5, -0.0, 1e308,
    -1e308, 5e-324, float("nan"), float("inf"), FLOAT, {"float": "inf"}, {"float": [1]}, {"float": "x"}, "", "x", "lr",
    "nan", "finished", "\x1b[31m\u202e", "=1+1", "x" * 5000, "\ud800", [], [0], [[0, 1]], [0, 1], [1, 2], [None], {},
    {"a": {}}, {"name": []}, {"lr": 0.01}, {"all": None}, [{}], [[[[]]]],
)  # fmt: skip
"""The values that take the place of others."""


@dataclass(slots=True)
class Contents:
    """All rows of a run database."""

    meta: dict[str, Any]
    events: list[list[Any]]
    """Round, member, kind, clock and data of each event."""
    journal: list[list[Any]]
    """Kind, clock and data of each entry."""
    checkpoints: list[list[Any]]
    states: list[list[Any]]


def read(path: Path) -> Contents:
    """The contents of a run, decoded as JSON."""
    with closing(sqlite3.connect(path / "run.db")) as db:
        return Contents(
            meta={key: json.loads(text) for key, text in db.execute("SELECT key, value FROM meta ORDER BY key")},
            events=[[*row[1:5], json.loads(row[5])] for row in checksums.read_lines(db, checksums.EVENTS)],
            journal=[[*row[1:3], json.loads(row[3])] for row in checksums.read_lines(db, checksums.JOURNAL)],
            checkpoints=[[last, json.loads(text)] for last, text in db.execute("SELECT last, data FROM checkpoints")],
            states=[list(row) for row in db.execute("SELECT * FROM states")],
        )


def write(source: Path, target: Path, contents: Contents, ids: range | None = None) -> None:
    """A copy of a run with these contents, sealed as the package seals them."""
    shutil.copytree(source, target)
    with closing(sqlite3.connect(target / "run.db", isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        for table in ("meta", "events", "journal", "checkpoints", "states", "seals"):
            db.execute(f"DELETE FROM {table}")
        for key, value in contents.meta.items():
            db.execute("INSERT INTO meta VALUES (?, ?)", (key, text(value)))
        checksums.seal_head(db)
        last = contents.checkpoints[0][0] if contents.checkpoints else 0
        numbers = range(1, len(contents.events) + 1) if ids is None else ids
        lines = [(id_, *row[:4], text(row[4])) for id_, row in zip(numbers, contents.events, strict=True)]
        for part in ([one for one in lines if one[0] <= last], [one for one in lines if one[0] > last]):
            if part:
                tables.append(db, checksums.EVENTS, part)
        if contents.journal:
            entries = [(id_, *row[:2], text(row[2])) for id_, row in enumerate(contents.journal, 1)]
            tables.append(db, checksums.JOURNAL, entries)
        for end, plain in contents.checkpoints:
            tables.write_checkpoint(db, min(end, lines[-1][0] if lines else 0), text(plain))
        db.executemany("INSERT OR IGNORE INTO states VALUES (?, ?, ?, ?, ?)", contents.states)
        db.execute("COMMIT")


def text(value: Any) -> str:
    """A value as JSON, also one that no writer writes."""
    if isinstance(value, str) and value.startswith("\0raw"):
        return value[4:]
    found = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        found.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return found


class Mutator:
    """Mutates contents at random.

    Args:
        seed: The seed.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def mutated(self, contents: Contents) -> tuple[Contents, str, range | None]:
        """A mutated copy, a description of its mutation, and the ids of its events if they are not consecutive."""
        found = copy.deepcopy(contents)
        draw = self._random
        part = draw.choices(("events", "rows", "meta", "journal", "checkpoint", "states"), (6, 3, 3, 1, 4, 1))[0]
        if part == "events":
            index = draw.randrange(len(found.events))
            return found, f"event {index + 1}: {self._inside(found.events[index], 4)}", None
        if part == "rows":
            return self._rows(found)
        if part == "meta":
            key = draw.choice([*found.meta, *found.meta, "x"])
            found.meta.setdefault(key, None)
            done = self._inside(found.meta, key)
            return found, f"meta {key}: {done}", None
        if part == "journal":
            index = draw.randrange(len(found.journal))
            return found, f"note {index + 1}: {self._inside(found.journal[index], 2)}", None
        if part == "checkpoint" and found.checkpoints:
            return found, f"checkpoint: {self._inside(found.checkpoints[0], 1)}", None
        row = draw.choice(found.states)
        place = draw.randrange(5)
        row[place] = draw.choice((0, 1, 2, 99, -1, 1 << 40, "x", b"", b"\x08" + bytes(20), 1.5))
        return found, f"states: column {place} = {row[place]!r:.60}", None

    def mutated_memory(self, contents: Contents) -> tuple[Contents, str]:
        """A copy with a mutation of the strategy's memory as the log has it at its end, and a description."""
        found = copy.deepcopy(contents)
        event = [row[4] for row in found.events if row[2] == "noted"][-1]
        return found, f"memory: {self._inside(event, 'memory')}"

    def _rows(self, found: Contents) -> tuple[Contents, str, range | None]:
        draw, rows = self._random, found.events
        index, other = draw.randrange(len(rows)), draw.randrange(len(rows))
        kind = draw.choice(("delete", "double", "swap", "cut", "column", "gap", "head", "empty"))
        ids = None
        if kind == "delete":
            del rows[index]
        elif kind == "double":
            rows.insert(other, copy.deepcopy(rows[index]))
        elif kind == "swap":
            rows[index], rows[other] = rows[other], rows[index]
        elif kind == "cut":
            del rows[index:]
        elif kind == "head":
            del rows[:index]
        elif kind == "empty":
            rows.clear()
        elif kind == "gap":
            ids = range(index + 1, index + 1 + len(rows))
        else:
            place = draw.randrange(4)
            rows[index][place] = draw.choice((0, 1, 99, -1, 1 << 40, "x", 1e300, -1e300, "reported"))
            kind = f"column {place} = {rows[index][place]!r}"
        if draw.random() < 0.5:
            found.checkpoints.clear()
            kind += ", no checkpoint"
        return found, f"row {index + 1}, {other + 1}: {kind}", ids

    def _inside(self, holder: Any, key: Any) -> str:
        """Change one value somewhere below a place."""
        draw, path = self._random, [key]
        while isinstance(holder[key], (dict, list)) and holder[key] and draw.random() < 0.85:
            holder = holder[key]
            key = draw.choice(list(holder)) if isinstance(holder, dict) else draw.randrange(len(holder))
            path.append(key)
        before = holder[key]
        kind = draw.choices(("value", "delete", "near", "deep", "rename", "raw"), (10, 2, 4, 0.3, 1, 0.3))[0]
        if kind == "delete" and (isinstance(holder, dict) or len(path) > 1):
            del holder[key]
        elif kind == "near" and type(before) in (int, float):
            holder[key] = draw.choice((before + 1, before - 1, -before, before * 2, before * 1e9, float(before)))
        elif kind == "near" and isinstance(before, list) and before:
            holder[key] = draw.choice((before[:-1], before + before[-1:], before[::-1]))
        elif kind == "deep":
            holder[key] = json.loads("[" * 500 + "]" * 500)
        elif kind == "rename" and isinstance(holder, dict):
            holder["x"] = holder.pop(key)
        elif kind == "raw" and len(path) == 1:
            holder[key] = "\0raw" + draw.choice(("", "{", "[" * 100_000, "1" * 5000, "NaN", '{"kind":"born"}', "null"))
        else:
            holder[key] = draw.choice(VALUES)
        after = holder.get(key, "-") if isinstance(holder, dict) else holder[key] if key in range(len(holder)) else "-"
        return f"{kind} at {path}: {before!s:.60} -> {after!s:.60}"


def reading(bad: Path, out: Path) -> Iterator[list[str]]:
    """All commands that read a run."""
    run = str(bad)
    yield ["status", run]
    yield ["status", run, "--json"]
    yield ["status", run, "--errors"]
    yield ["ls", str(bad.parent)]
    yield ["ls", str(bad.parent), "--json"]
    yield ["lineage", run]
    yield ["lineage", run, "--json"]
    yield ["lineage", run, "1"]
    yield ["lineage", run, "0", "--json"]
    for name in ("json", "csv", "toml"):
        yield ["schedule", run, "--format", name]
    yield ["schedule", run, "--member", "2"]
    for name in ("csv", "jsonl", "newick"):
        yield ["export", run, "--format", name]
    yield ["export", run, "--format", "parquet", "--out", str(out / "history.parquet")]
    yield ["export", run, "--format", "ray", "--out", str(out / "ray")]
    yield ["report", run, "--out", str(out / "report.html")]
    yield ["note", run, "--json"]
    yield ["mnist", "predict", "digit.png", "--model", run]
    yield ["mnist", "export", run, str(out / "model.safetensors")]
    yield ["verify", run]


def slow(bad: Path, file: str, out: Path) -> Iterator[list[str]]:
    """The commands that take seconds: they draw with matplotlib, or find the run as one of a comparison."""
    yield ["report", str(bad), "--png", "--out", str(out / "figures")]
    shutil.copytree(bad, out / "compared" / "own" / "seed-0")
    plans = ["--plans", "own,no-evolution", "--seeds", "1", "--workers", "1"]
    yield ["compare", file, *plans, "--out", str(out / "compared"), "--no-progress"]


def digits(bad: Path, config: Path) -> Iterator[list[str]]:
    """All commands that test or continue a run of the MNIST application."""
    for mode in ("test", "val"):
        yield ["main_PBT.py", str(config), "--mode", mode, "--train-dir", str(bad.parent), "--device", "cpu"]
    yield ["resume", str(bad), "--rounds", "3", "--executor", "inline", "--device", "cpu", "--quiet"]


def training(bad: Path, file: str, rounds: int, out: Path) -> Iterator[list[str]]:
    """All commands that train from a run; the last ones continue it."""
    run = str(bad)
    yield ["replay", run, file, "--out", str(out / "replay"), "--quiet"]
    yield ["run", file, "--plan", "replay", "--of", run, "--population", "1", "--out", str(out / "of"), "--quiet"]
    yield ["resume", run, file, "--rounds", str(rounds), "--quiet"]
    yield ["resume", run, file, "--repair", "--rounds", str(rounds), "--quiet"]
