"""docs/states.md: every row of its table is what the codec does."""

import re
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch

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


NAMES = {
    "Counter": Counter, "Folder": Folder, "Level": Level, "MappingProxyType": MappingProxyType,
    "OrderedDict": OrderedDict, "Path": Path, "Settings": Settings, "date": date, "defaultdict": defaultdict,
    "deque": deque, "numpy": np, "timedelta": timedelta, "torch": torch,
}  # fmt: skip


@pytest.mark.parametrize(("value", "example", "answer"), ROWS, ids=[row[1] for row in ROWS])
def test_the_table_of_states(
    value: str, example: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a row calls kept comes back with its type and its digest; the others are refused with the remedy."""
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "weights.bin").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    made = eval(example.strip("`"), dict(NAMES))
    if answer.startswith("kept"):
        found = decode(encode([made]))[0]
        assert type(found) is type(made)
        assert digest([found]) == digest([made])
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
    assert {answer.startswith("kept") for _, _, answer in ROWS} == {True, False}
