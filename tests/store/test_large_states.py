"""Large states: written and read in pieces, hashed meanwhile, never held a second time."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pbt.core.population import StateRef
from pbt.errors import CorruptError, DiskError
from pbt.store.codec import decode_checked, digest, encode
from pbt.store.encoded_bytes import PIECE, InFile, InMemory
from pbt.store.files import LARGE, StateFiles, file_name
from tests.helpers.paths import SOURCE

REF = StateRef(3, 1)
MEASURED = """
import resource, sys
from pathlib import Path
import torch
from pbt.core.population import StateRef
from pbt.store.files import StateFiles

files, ref, other = StateFiles(Path(sys.argv[1])), StateRef(0, 1), StateRef(0, 2)
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
small = files.put(other, {"w": torch.ones(2 << 20)})
files.get(other, small.digest)
if sys.argv[2] == "put":
    state = {name: torch.full((12 << 20,), 0.5) for name in "abc"}
    before = used()
    print(files.put(ref, state).digest, used() - before)
else:
    before = used()
    state = files.get(ref, sys.argv[2])
    print(float(sum(tensor.sum() for tensor in state.values())), used() - before)
"""


def large() -> dict[str, Any]:
    """A state of several pieces, whose names are in another order than its keys."""
    values = torch.arange(LARGE, dtype=torch.float32)
    array = np.arange(PIECE // 4, dtype=np.int32).reshape(2, -1)
    return {"z": values, "a": {"array": array, "half": values.half()}, "bytes": b"xyz", "n": np.float32(0.5)}


@pytest.mark.long
def test_a_large_state_takes_no_memory_beside_itself(tmp_path: Path) -> None:
    """Storing 144 MiB takes less than 64 MiB above the state, and so does loading it."""

    def measured(word: str) -> tuple[str, int]:
        line = subprocess.run(
            [sys.executable, "-c", MEASURED, str(tmp_path), word],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout.split()
        return line[0], int(line[1])

    stored, above = measured("put")
    assert above < 64
    total, above = measured(stored)
    assert float(total) == 3 * (12 << 20) * 0.5
    assert above < 144 + 64


def test_it_is_stored_under_the_digest_of_its_content(tmp_path: Path) -> None:
    """The digest that a thread computes during the writing is that of the whole; file and memory decode alike."""
    files, state = StateFiles(tmp_path), large()
    stored = files.put(REF, state)
    assert stored.digest == digest(state)
    assert stored.size == len(encode(state)) == (tmp_path / file_name(REF)).stat().st_size > 2 * PIECE
    for found in (files.get(REF, stored.digest), files.get(REF, stored.digest, files.read(REF))):
        assert digest(found) == stored.digest
        assert list(found) == list(state)
        found["a"]["array"] += 1  # writable, and its own
        found["a"]["array"].resize((4, PIECE // 16), refcheck=False)
    assert digest(files.get(REF, stored.digest)) == stored.digest


@pytest.mark.parametrize("place", [0.1, 0.5, 0.99])
def test_a_changed_byte_is_noticed(tmp_path: Path, place: float) -> None:
    """Wherever a byte of a large file differs, nothing is handed out."""
    files = StateFiles(tmp_path)
    stored = files.put(REF, large())
    with (tmp_path / file_name(REF)).open("r+b") as file:
        file.seek(int(place * stored.size))
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(CorruptError, match=f"{file_name(REF)}: expected content with SHA-256 {stored.digest}"):
        files.get(REF, stored.digest)


@pytest.mark.parametrize("failing", [1, 2])
def test_no_failed_write_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """A file is moved to the disk while it is written; the system reports an error once, and none is passed over."""
    calls: list[int] = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(DiskError, match=rf"{file_name(REF)} .*Input/output error"):
        StateFiles(tmp_path).put(REF, large())
    assert len(calls) >= failing
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_becomes_shorter_is_corrupt(tmp_path: Path) -> None:
    """Bytes that are gone after the header was read are an error, not zeros."""
    path = tmp_path / "state"
    state = large()
    path.write_bytes(encode(state))
    with path.open("r+b") as file:
        content = InFile(file.fileno())
        file.truncate(PIECE)
        with pytest.raises(CorruptError, match="found an invalid structure"):
            decode_checked(content, digest(state))


def test_both_contents_read_alike(tmp_path: Path) -> None:
    """Bytes in memory and in a file have one interface."""
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(100)))
    with path.open("rb") as file:
        for content in (InMemory(path.read_bytes()), InFile(file.fileno())):
            assert content.size == 100
            assert content.read(3, 6) == bytes([3, 4, 5])
            buffer = bytearray(4)
            content.fill(90, memoryview(buffer))
            assert buffer == bytes([90, 91, 92, 93])
            with pytest.raises(ValueError, match=r"expected|different"):
                content.fill(98, memoryview(buffer))
