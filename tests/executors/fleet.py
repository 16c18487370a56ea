"""Tasks that do bad things to their worker. In a module of their own, so that a worker starts without pytest."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def walk(hparams, state, steps, ctx):
    """A keyed random walk; its score prefers a small lr."""
    place = np.ones(4) if state is None else state["place"]
    for step in range(ctx.first_step, ctx.first_step + steps):
        place -= hparams["lr"] * place
        place += 0.1 * hparams["lr"] * np.random.default_rng(ctx.key("walk", ctx.member, step)).standard_normal(4)
    # A second generator, global: seeded for each round.
    return {"place": place, "luck": float(np.random.random())}, -float(np.abs(place).sum())  # noqa: NPY002


@dataclass(frozen=True)
class Doomed:
    """Walks, but at one round of one member a signal hits the worker: the first `times` times."""

    folder: str
    member: int
    round: int
    signal: int = signal.SIGKILL
    times: int = 1

    def __call__(self, hparams, state, steps, ctx):
        if (ctx.member, ctx.round) == (self.member, self.round):
            tries = len(list(Path(self.folder).iterdir()))
            if tries < self.times:
                (Path(self.folder) / f"try{tries}").touch()
                os.kill(os.getpid(), self.signal)
                time.sleep(60)
        return walk(hparams, state, steps, ctx)


def exit_hard(hparams, state, steps, ctx):
    """Ends the process below Python's feet."""
    if ctx.member == 1:
        os._exit(5)
    return walk(hparams, state, steps, ctx)


def oversleep(hparams, state, steps, ctx):
    """Member 1 takes a minute."""
    if ctx.member == 1:
        time.sleep(60)
    return walk(hparams, state, steps, ctx)


def stay_busy(hparams, state, steps, ctx):
    """Computes for ever (member 0), sleeps for ever (others), if it is given a folder to write its process id to."""
    if "folder" not in hparams:
        time.sleep(0.05)
        return None, 1.0
    (Path(hparams["folder"]) / str(os.getpid())).touch()
    while True:
        if ctx.member:
            time.sleep(60)


def own_pid(hparams, state, steps, ctx):
    """Tells where it runs."""
    return None, {"score": 1.0, "pid": os.getpid()}


def nap(hparams, state, steps, ctx):
    """Sleeps for two seconds, and tells when it begins."""
    (Path(hparams["folder"]) / str(os.getpid())).touch()
    time.sleep(2)
    return None, 1.0


def shout(hparams, state, steps, ctx):
    """Prints four megabytes on each of the two streams."""
    for stream in (sys.stdout, sys.stderr):
        for _ in range(64):
            stream.write("x" * 65536)
        stream.flush()
    return walk(hparams, state, steps, ctx)


def with_helpers(hparams, state, steps, ctx):
    """Has a thread, a program and a forked process work for it."""
    results = []
    thread = threading.Thread(target=results.append, args=(1,))
    thread.start()
    thread.join()
    program = subprocess.run([sys.executable, "-c", "print(2)"], capture_output=True, text=True, check=True)
    results.append(int(program.stdout))
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=theirs.send, args=(3,))
    process.start()
    results.append(ours.recv())
    process.join()
    return {"place": np.ones(4)}, {"score": 1.0, "results": results}


def leave_a_child(hparams, state, steps, ctx):
    """Dies, but leaves a forked child that holds the worker's pipe open."""
    if ctx.member == 1:
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
            os._exit(0)
        (Path(hparams["folder"]) / str(pid)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return walk(hparams, state, steps, ctx)


def stop_afterwards(hparams, state, steps, ctx):
    """Member 0's worker is stopped a moment after its round was told."""
    if ctx.member == 0:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGSTOP)).start()
    return {"place": np.ones(4)}, 1.0


def imports_torch(hparams, state, steps, ctx):
    """Draws from torch's global generator, which is imported only here."""
    import torch

    return None, {"score": 1.0, "draws": torch.rand(3).tolist()}


class DeadlyToOpen:
    """Whoever unpickles it dies."""

    def __reduce__(self):
        return os._exit, (7,)

    def __call__(self, hparams, state, steps, ctx):
        raise NotImplementedError


class FailsToOpen:
    """A task that cannot be opened."""

    def trainer(self, device, threads):
        raise FileNotFoundError("no data here")

    def check(self, hparams):
        return


@dataclass(frozen=True)
class Wrapped:
    """A task of this module around a function of another."""

    inner: object

    def __call__(self, hparams, state, steps, ctx):
        return self.inner(hparams, state, steps, ctx)
