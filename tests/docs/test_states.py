"""docs/states.md: every row of its table is what the codec does."""

import re
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch

import pbt
from pbt import Folder
from pbt.errors import StateError
from pbt.store.codec import decode, digest, encode
from tests.helpers.paths import DOCS

PAGE = (DOCS / "states.md").read_text()
ROWS = [
    tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in re.findall(r"^\|.*`.*\|$", PAGE, re.MULTILINE)
]


class Level(IntEnum):
    LOW = 1


@dataclass
class Settings:
    width: int


Pair = namedtuple("Pair", "x y")

NAMES = {
    "Counter": Counter, "Folder": Folder, "Level": Level, "MappingProxyType": MappingProxyType,
    "OrderedDict": OrderedDict, "Pair": Pair, "Path": Path, "Settings": Settings, "date": date,
    "defaultdict": defaultdict, "deque": deque, "numpy": np, "timedelta": timedelta, "torch": torch,
}  # fmt: skip


@pytest.mark.parametrize(("value", "example", "answer"), ROWS, ids=[row[1] for row in ROWS])
def test_the_table_of_states(
    value: str, example: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a row calls kept or rebuilt comes back with type and digest; the others are refused with the remedy."""
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "weights.bin").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    names = dict(NAMES)
    for module in re.findall(r"\b(jax|optax)\.", example):
        names[module] = pytest.importorskip(module)
    made = eval(example.strip("`"), names)
    if answer.startswith("kept"):
        found = decode(encode([made]))[0]
        assert type(found) is type(made)
        assert digest([found]) == digest([made])
        return
    if answer.startswith("rebuilt"):
        found = decode(encode([made]))
        assert digest(found) == digest([made])
        (rebuilt,) = pbt.restore(found, like=[made])
        assert type(rebuilt) is type(made)
        assert digest([rebuilt]) == digest([made])
        return
    with pytest.raises(StateError) as caught:
        encode({"key": made})
    assert "state['key']" in str(caught.value)
    for remedy in re.findall("`(.*?)`", answer):
        assert remedy in str(caught.value)


def test_the_program_of_folders(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE[PAGE.index("## Folders") :], re.MULTILINE | re.DOTALL)
    exec(program, {})
    assert (Path(capsys.readouterr().out.strip()) / "count.txt").read_text() == "3"


def test_the_table_is_there() -> None:
    """The page has rows of both sorts."""
    assert len(ROWS) > 20
    assert {answer.partition(" ")[0] for _, _, answer in ROWS} >= {"kept", "rebuilt", "write"}
