"""States of a gigabyte: what storing and loading one takes, beside a durable copy of its file.

Each measurement is a process of its own: it stores a state and loads it again, as at a hand-over, and copies the file
with an fsync at the end, in turns.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.base import Options, Row
from benchmarks.sides import run_folder

MEGABYTES = 1024

_MEASURE = """
import json, os, resource, shutil, sys, time
from pathlib import Path
from statistics import median
import torch
from pbt.core.population import StateRef
from pbt.store.files import StateFiles, file_name

folder, size, repeats = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
files, ref = StateFiles(folder), StateRef(0, 1)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(call):
    begun = time.perf_counter()
    found = call()
    return time.perf_counter() - begun, found


def copy():
    with (folder / file_name(ref)).open("rb") as source, (folder / "copy").open("wb") as target:
        shutil.copyfileobj(source, target, 8 << 20)
        target.flush()
        os.fsync(target.fileno())


warm = files.put(StateRef(0, 2), {"w": torch.ones(4 << 20)})
files.get(StateRef(0, 2), warm.digest)
state = {f"w{i}": torch.rand((size << 20) // 32) for i in range(8)}
with_state = peak()
turns = []
for turn in range(repeats):
    put, stored = timed(lambda: files.put(ref, state))
    if not turn:
        storing = peak() - with_state
        del state
        # The memory of the first state is used again, so that a second one beside it shows.
        before = peak()
    get, state = timed(lambda: files.get(ref, stored.digest))
    if not turn:
        loading = peak() - before
    turns.append((put, get, timed(copy)[0]))
print(json.dumps({"storing": storing, "loading": loading, "turns": turns}))
"""


def measure(options: Options) -> Iterator[Row]:
    """Measure the memory and the time of a hand-over."""
    with run_folder() as folder:
        yield from _rows(folder, options.repeats)


def _rows(folder: Path, repeats: int) -> Iterator[Row]:
    folder.mkdir(exist_ok=True)
    words = [sys.executable, "-c", _MEASURE, str(folder), str(MEGABYTES), str(repeats)]
    found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    for work in ("storing", "loading"):
        yield Row(
            work=f"{work} a state of {MEGABYTES:,} MiB",
            measured=f"{found[work]:.0f} MiB beside it",
            against="its limit",
            value=found[work],
            limit=64,
            unit=" MiB",
        )
    put, get, copy = (sorted(column)[len(column) // 2] for column in zip(*found["turns"], strict=True))
    ratios = sorted((put + get) / copy for put, get, copy in found["turns"])
    yield Row(
        work=f"hand-over of a state of {MEGABYTES:,} MiB",
        measured=f"stored in {put:.2f} s, loaded in {get:.2f} s",
        against=f"a durable copy of its file: {copy:.2f} s",
        value=ratios[len(ratios) // 2],
        limit=1.5,
    )
