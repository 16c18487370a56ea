"""Long runs of many members: what a look at a run and a resume cost, from its checkpoint and from its whole log.

A run of 10,000 members without training is grown to 20 rounds. `pbt status` and a resume with one more round are
measured as processes, in CPU seconds (imports included) and peak memory. References: fixed limits; the same on a copy
whose checkpoint was removed, so that the whole log is folded; a run of 5 rounds, for a cost that does not grow. Then
what commands take before they answer, and states of a gigabyte.
"""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import large_states
from benchmarks.base import Options, Row
from benchmarks.sides import run_folder

MEMBERS, ROUNDS, FEW = 10_000, 20, 5

_RUN = """
import sys, pbt
from pbt.testing.problems import NQM_SPACE

def nothing(hparams, *_):
    return None, hparams["lr"]

pbt.run(nothing, NQM_SPACE, population=int(sys.argv[2]), rounds=int(sys.argv[3]), run_dir=sys.argv[1], resume=True)
"""


# A process begins with the peak memory of the one that starts it, so a small one stands between.
_LAUNCH = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
kilobyte = 1 if sys.platform == "darwin" else 1024
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * kilobyte / 1e6, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a process used."""

    seconds: float
    """CPU seconds."""
    megabytes: float
    """Peak memory."""


def measure(options: Options) -> Iterator[Row]:
    """Measure `pbt status` and a resume."""
    with run_folder() as folder:
        short, long, old = (folder.with_name(name) for name in ("short", "long", "old"))
        _train(long, FEW)
        shutil.copytree(long, short)
        _train(long, ROUNDS)
        shutil.copytree(long, old)
        _drop_checkpoint(old)
        yield from _status(short, long, old, options.repeats)
        yield _resume(long, old)
        yield from _first_second(options.repeats)
    yield from large_states.measure(options)


def _status(short: Path, long: Path, old: Path, repeats: int) -> list[Row]:
    few, many = ([_look(path) for _ in range(repeats)] for path in (short, long))
    whole = _look(old)
    work = f"`pbt status`, {MEMBERS:,} members x {ROUNDS} rounds"
    seconds, memory = (median(getattr(one, name) for one in many) for name in ("seconds", "megabytes"))
    before = median(one.seconds for one in few)
    return [
        Row(
            work=work,
            measured=f"{seconds:.2f} s of CPU",
            against=f"its limit; from the whole log {whole.seconds:.1f} s",
            value=seconds,
            limit=1.5,
            unit=" s",
        ),
        Row(
            work=work,
            measured=f"{memory:.0f} MB",
            against=f"its limit; from the whole log {whole.megabytes:.0f} MB",
            value=memory,
            limit=150,
            unit=" MB",
        ),
        Row(
            work=work,
            measured=f"{seconds:.2f} s of CPU",
            against=f"{FEW} rounds: {before:.2f} s",
            value=seconds / before,
            limit=1.3,
            aim=1.0,
        ),
    ]


def _resume(long: Path, old: Path) -> Row:
    seconds, whole = (_train(path, ROUNDS + 1).seconds for path in (long, old))
    return Row(
        work=f"resume of {MEMBERS:,} members x {ROUNDS} rounds with one more round, without training",
        measured=f"{seconds:.2f} s of CPU",
        against=f"its limit; from the whole log {whole:.1f} s",
        value=seconds,
        limit=5.0,
        unit=" s",
    )


def _first_second(repeats: int) -> Iterator[Row]:
    """What commands take before they answer."""
    for words, limit in ((["--version"], 0.25), (["status", "--help"], 0.4)):
        taken = median(_spent([sys.executable, "-m", "pbt", *words]).seconds for _ in range(repeats))
        yield Row(
            work=f"`pbt {' '.join(words)}`",
            measured=f"{taken:.2f} s of CPU",
            against="its limit",
            value=taken,
            limit=limit,
            unit=" s",
        )


def _train(path: Path, rounds: int) -> Spent:
    return _spent([sys.executable, "-c", _RUN, str(path), str(MEMBERS), str(rounds)])


def _look(path: Path) -> Spent:
    return _spent([sys.executable, "-m", "pbt", "status", str(path)])


def _spent(command: Sequence[str]) -> Spent:
    done = subprocess.run([sys.executable, "-c", _LAUNCH, *command], capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, done.stderr.split()[-2:])
    return Spent(seconds, megabytes)


def _drop_checkpoint(path: Path) -> None:
    connection = sqlite3.connect(path / "run.db")
    with connection:
        connection.execute("DELETE FROM checkpoints")
        connection.execute("DELETE FROM seals WHERE what = 'checkpoint'")
    connection.close()
