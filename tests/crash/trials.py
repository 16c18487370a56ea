"""One trial: begin a run, strike it, go on with it, and tell in what it differs from the undisturbed one.

A trial has a name, `EXECUTOR/TASK/KIND:...`, which is all that it takes to repeat it:

call:NAME:N        killed before its N-th system call NAME
workercall:NAME:N  its first worker killed before that worker's N-th system call NAME; for odd N the rest is killed then
instant:I          killed at random instants, once to three times, with its workers or without
workers:I          random workers are killed all the time, while they start too; the run itself never is
child:I            random processes of programs are killed all the time, and their workers; for the task `program`
stop:I             SIGINT or SIGTERM at a random instant, in a process of its own
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from pbt.store.reader import RunReader
from tests.crash.children import (
    PATIENCE,
    Ledger,
    begin,
    gone,
    memory,
    programs,
    programs_left,
    semaphores,
    worker_of,
    workers,
)
from tests.crash.picture import Picture, damage, differences, ended, read
from tests.crash.tasks import MARKS, NAP, STRUCK, UNTIRING, warm

CALLS = (
    "openat", "mkdir", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "rename", "unlink", "link", "symlink",
)  # fmt: skip
"""The system calls that change what is on disk; `openat` where it makes a file."""
TRACED = f"trace={','.join(CALLS)}"
# Imported, and not run as a file: the task has the same name as in the other runs. While Python imports, Ctrl-C ends it
# as SIGTERM does: some libraries swallow what Python's own handler raises in them.
COMMAND = """import os, pathlib, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
pathlib.Path(sys.argv[1] + ".began").touch()
from tests.crash.children import mark_semaphores
mark_semaphores(os.getpid())
from tests.crash.tasks import main
sys.exit(main(*sys.argv[1:]))"""
LINE = re.compile(r"^(\w+)\((.*)$")
TRIES = 5
"""How often a trial at a random instant is begun anew where it struck nothing."""
STOP_SECONDS = 5.0
LATE = 0.5
"""What a busy machine may add to the five seconds."""


@dataclass(frozen=True)
class Verdict:
    """What came of a trial."""

    struck: bool
    """Whether it was struck before its end; where not, it ran undisturbed."""
    wrong: list = field(default_factory=list)
    strikes: int = 0
    lost: int = 0
    """Rounds of members that were trained and had to be trained again, at most after one strike."""
    seconds: float = 0.0
    early: bool = False
    """Whether it was struck before there was a run directory: such a trial shows nothing, and is not counted."""


class Bench:
    """Where trials are done: a folder, what undisturbed runs look like, and how long they take.

    Args:
        folder: For run directories; those of trials that went wrong stay there.
        seed: Of everything random.
        timed: Whether a signal must end a run within seconds, which only a machine with free cores can show.
    """

    def __init__(self, folder, seed=0, *, timed=True):
        self.folder = folder
        self.seed = seed
        self.timed = timed
        self.ledger = Ledger()
        self._undisturbed = {}
        self._calls = {}

    def undisturbed(self, executor, task):
        """A picture of the run that nobody disturbs, and the seconds it takes from its first write."""
        if (executor, task) not in self._undisturbed:
            path = self.folder / f"undisturbed-{executor}-{task}"
            warm(task)
            self.ledger.clear()
            child = begin(path, task, executor, self.ledger)
            until_writing(child, path)
            started = time.monotonic()
            if child.wait() != 0:
                raise RuntimeError(f"the undisturbed run failed: {path.with_suffix('.log').read_text()}")
            picture = Picture.of(path)
            self._undisturbed[executor, task] = picture, time.monotonic() - started
            wrong = differences(path, picture)
            if wrong:
                raise RuntimeError(f"the undisturbed run is not whole: {wrong}")
        return self._undisturbed[executor, task]

    def calls(self, executor, task, *, worker=False):
        """The system calls of an undisturbed run that persist something, in order, as (name, which of that name)."""
        if (executor, task, worker) not in self._calls:
            path = self.folder / f"traced-{executor}-{task}-{worker}"
            warm(task)
            out = path.with_suffix(".trace")
            self.ledger.clear()
            if worker:
                out = self._marks(path) / "trace"
                child = begin(path, task, executor, self.ledger, environment=self._watch(path, TRACED))
            else:
                child = begin(path, task, executor, self.ledger, traced=[TRACED], out=out)
            if child.wait() != 0:
                raise RuntimeError(f"the traced run failed: {path.with_suffix('.log').read_text()}")
            gone(child.pid)
            self._calls[executor, task, worker] = persisting(out.read_text(), path)
        return self._calls[executor, task, worker]

    def trace_of(self, executor, task):
        """The text of strace over an undisturbed run, and its directory."""
        self.calls(executor, task)
        path = self.folder / f"traced-{executor}-{task}-False"
        return path.with_suffix(".trace").read_text(), path

    def names(self, executor, task, kind, count):
        """The names of the trials of a kind: all there are, or `count`."""
        if kind in ("call", "workercall"):
            found = [f"{name}:{which}" for name, which in self.calls(executor, task, worker=kind == "workercall")]
        else:
            found = [str(i) for i in range(count or 0)]
        if count is not None and count < len(found):
            # Spread evenly: the beginning, the rounds and the end each have their share.
            found = [found[i * len(found) // count] for i in range(count)]
        return [f"{executor}/{task}/{kind}:{name}" for name in found]

    def do(self, name):
        """Do the trial of this name."""
        executor, task, what = name.split("/")
        kind, *rest = what.split(":")
        expected, seconds = self.undisturbed(executor, task)
        path = self.folder / re.sub(r"\W+", "-", name)
        started = time.monotonic()
        strike = {
            "call": self._call,
            "workercall": self._worker_call,
            "instant": self._instant,
            "workers": self._workers,
            "child": self._child,
            "stop": self._stop,
        }[kind]
        rng, leaders = random.Random(f"{self.seed}/{name}"), []
        for _ in range(TRIES if kind == "instant" else 1):
            self._forget(path)
            self.ledger.clear()
            wrong, strikes, own = strike(path, executor, task, seconds, rng, *rest)
            leaders += own
            if wrong or strikes:
                break
        early = not path.is_dir()
        wrong = [*wrong, *self._finish(path, executor, task, expected, leaders)]
        lost = self.ledger.lost()
        for own in lost:
            if len({round_ for _, round_ in own}) > 1:
                wrong.append(f"more than one round was lost at once: {sorted(own)}")
        if not wrong:
            self._forget(path)
        return Verdict(
            early=early,
            struck=strikes > 0,
            wrong=wrong,
            strikes=strikes,
            lost=max(map(len, lost)),
            seconds=time.monotonic() - started,
        )

    def _forget(self, path):
        """Remove a run directory, and what lies beside it."""
        for old in [path, *self.folder.glob(f"{path.name}[.-]*")]:
            if old.is_dir():
                shutil.rmtree(old)
            elif old.exists():
                old.unlink()

    # How a run is struck: each gives what was wrong, how often it was struck, and the processes it began.

    def _call(self, path, executor, task, seconds, rng, name, which):
        inject = f"inject={name}:signal=KILL:when={which}"
        out = path.with_suffix(".trace")
        child = begin(path, task, executor, self.ledger, traced=[f"trace={name}", inject], out=out)
        code = child.wait()
        child.tracer.wait()
        wrong = [] if code in (0, -signal.SIGKILL) else [f"ended with {code}"]
        return wrong, int(code != 0), [child.pid]

    def _worker_call(self, path, executor, task, seconds, rng, name, which):
        marks = self._marks(path)
        environment = self._watch(path, f"trace={name} inject={name}:signal=KILL:when={which}")
        child = begin(path, task, executor, self.ledger, environment=environment)
        struck, deadline = False, time.monotonic() + 60
        while not struck and child.poll() is None and time.monotonic() < deadline:
            struck = _has_died(marks / "trace")
            time.sleep(0.001)
        if struck and int(which) % 2:
            child.kill(group=True)
            return [], 1, [child.pid]
        code = child.wait()
        struck = struck or _has_died(marks / "trace")
        return ([] if code == 0 else [f"ended with {code}"]), int(struck), [child.pid]

    def _instant(self, path, executor, task, seconds, rng, which):
        strikes, leaders = 0, []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            child = begin(path, task, executor, self.ledger)
            leaders.append(child.pid)
            until_writing(child, path)
            deadline = time.monotonic() + rng.uniform(0, seconds)
            while child.poll() is None and time.monotonic() < deadline:
                time.sleep(min(0.0005, max(0.0, deadline - time.monotonic())))
            running = child.poll() is None
            # Without its workers: they end by themselves, perhaps while the run goes on already.
            child.kill(group=rng.random() < 0.5)
            if child.code not in (0, -signal.SIGKILL):
                return [f"ended with {child.code}"], strikes, leaders
            if not running:
                break
            strikes += 1
            self.ledger.attempt += 1
        return [], strikes, leaders

    def _workers(self, path, executor, task, seconds, rng, which):
        """Random workers die all the time, some of them while they start, but no more than what comes back allows."""
        marks = self._marks(path)
        child = begin(path, task, executor, self.ledger, environment={MARKS: str(marks), NAP: "0.2", UNTIRING: "1"})
        killed = 0
        pause = time.monotonic() + rng.uniform(0.5, 2.5)
        deadline = time.monotonic() + (240 if self.timed else 3600)
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
            ready = {int(mark.name) for mark in marks.iterdir() if mark.name.isdecimal()}
            there = [pid for pid in workers(child.pid) if pid in ready or rng.random() < 0.01]
            # On a busy machine a start takes longer than a pause: two at a time get through at least one round.
            if time.monotonic() > pause and there and killed < 2 + self.ledger.count():
                os.kill(rng.choice(there), signal.SIGKILL)
                killed += 1
                pause = time.monotonic() + rng.uniform(0.5, 2.5)
        code = child.wait(1)
        wrong = [] if code == 0 else [f"ended with {code}"]
        return [*wrong, *_miscounted(path, killed, executor)], killed, [child.pid]

    def _child(self, path, executor, task, seconds, rng, which):
        """Random processes of programs die all the time; thrice in a round would be a failure by intent."""
        child = begin(path, task, executor, self.ledger, environment={NAP: "0.3"})
        killed, pause = 0, time.monotonic() + rng.uniform(0, 1.5)
        deadline = time.monotonic() + (240 if self.timed else 3600)
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
            there = programs(path) if time.monotonic() > pause else []
            there += [pid for pid in workers(child.pid) if pid in {worker_of(own) for own in there}]
            if there:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(there), signal.SIGKILL)
                    killed += 1
                pause = time.monotonic() + rng.uniform(1, 2.5)
        code = child.wait(1)
        return ([] if code == 0 else [f"ended with {code}"]), killed, [child.pid]

    def _stop(self, path, executor, task, seconds, rng, which):
        number = rng.choice((signal.SIGINT, signal.SIGTERM))
        before = memory()
        words = [sys.executable, "-c", COMMAND, str(path), task, executor]
        with path.with_suffix(".log").open("ab") as log:
            program = subprocess.Popen(
                words,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, NAP: "0.1", "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        # Some at the start, where imports take most of the time, and most of them once the run is there.
        there = read if rng.random() < 0.7 else _began
        while not there(path) and program.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 2.5 if executor != "inline" else 1.5))
        logged = read(path)
        started = time.monotonic()
        try:
            (os.killpg if rng.random() < 0.5 else os.kill)(program.pid, number)
            code = program.wait(PATIENCE)
        except ProcessLookupError:
            code = program.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            code = program.wait()
        took = time.monotonic() - started
        wrong = []
        finished = ended(path)
        # Before the command has taken over signals and after it has let go of them, the system's own answer, which a
        # shell tells as the same number.
        accepted = {128 + number, *([-number] if finished or not logged else []), *([0] if finished else [])}
        if code not in accepted:
            wrong.append(f"{number.name} gave the exit code {code}: {path.with_suffix('.log').read_text()[-500:]}")
        if logged and not finished and "Traceback" in path.with_suffix(".log").read_text():
            wrong.append(f"{number.name} was told with a traceback: {path.with_suffix('.log').read_text()[-2000:]}")
        if self.timed and took > STOP_SECONDS + LATE:
            wrong.append(f"{number.name} took {took:.1f} s")
        left = gone(program.pid, *([2.0] if self.timed else []))
        if left:
            wrong.append(f"{number.name} left the processes {left}")
        shared = semaphores(program.pid) | (memory() - before)
        if shared:
            wrong.append(f"{number.name} left {shared} in shared memory")
        self.ledger.attempt += 1
        return wrong, int(not finished), [program.pid]

    # What comes after.

    def _finish(self, path, executor, task, expected, leaders):
        """Go on with the run to its end, and tell in what it differs."""
        self.ledger.attempt += 1
        # What was killed is whole as it lies there, before anybody mends anything; a file too many may lie around.
        before = damage(path, strays=True)
        child = begin(path, task, executor, self.ledger)
        code = child.wait()
        left = [pid for leader in [*leaders, child.pid] for pid in gone(leader)] + programs_left(path)
        wrong = [*before, *([f"processes that never end: {left}"] if left else [])]
        if code is None:
            return [*wrong, "hangs when it is resumed"]
        if code != 0:
            return [*wrong, f"cannot be resumed ({code}): {path.with_suffix('.log').read_text()[-2000:]}"]
        return [*wrong, *differences(path, expected, strays=executor in ("processes", "programs", "ray"))]

    def _marks(self, path):
        marks = path.with_name(f"{path.name}-marks")
        marks.mkdir(exist_ok=True)
        return marks

    def _watch(self, path, expressions):
        return {MARKS: str(self._marks(path)), STRUCK: expressions}


def persisting(trace, path):
    """The calls in strace's text that change something in a run directory, as (name, which of that name)."""
    seen, found = Counter(), []
    for line in trace.splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        name, rest = match.groups()
        seen[name] += 1
        if name == "mkdir" and f'"{path}"' in rest:
            continue  # before it there is no run
        if str(path) in rest and (name != "openat" or "O_CREAT" in rest):
            found.append((name, seen[name]))
    return found


def until_writing(child, path):
    """Wait until the child has the lock of its run, or has ended: before that it has nothing to lose."""
    holder = f"pid {child.pid} ".encode()
    while child.poll() is None:
        with contextlib.suppress(OSError):
            if (path / "run.db").exists() and (path / "lock").read_bytes().startswith(holder):
                return
        time.sleep(0.0005)


def _began(path):
    return path.with_name(f"{path.name}.began").exists()


def _has_died(trace):
    return trace.exists() and "+++ killed by SIGKILL" in trace.read_text()


def _miscounted(path, killed, executor):
    """Whether the journal tells of every worker that was killed, and of every attempt that this cost."""
    rounds = 2 if executor == "programs" else 1  # that a worker trains at once, of four members in two workers
    with RunReader(path) as reader:
        journal = reader.journal()
    lost = [entry.details for entry in journal if entry.kind == "worker lost"]
    # The last ones may have been idle, or have died when there was nothing left to do.
    wrong = []
    if not killed - 2 <= len(lost) <= killed * rounds:
        why = "; ".join(str(note["message"]) for note in lost)
        wrong.append(f"{killed} workers were killed, the journal tells of {len(lost)}: {why}")
    tries = Counter((note["member"], note["round"]) for note in lost if note["member"] is not None)
    for entry in journal:
        if entry.kind in ("round", "failure"):
            own, attempt = (entry.details["member"], entry.details["round"]), entry.details["attempt"]
            if attempt != tries[own] + 1:
                wrong.append(f"member {own[0]}, round {own[1]}: attempt {attempt} after {tries[own]} losses")
    return wrong
