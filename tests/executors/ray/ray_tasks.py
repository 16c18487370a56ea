"""Tasks for workers on other nodes. In a module of their own, so that a worker starts without pytest."""

import os
import time
from pathlib import Path

import numpy as np


def walk(hparams, state, steps, ctx):
    """A keyed random walk whose state is too large for its record, so that it travels by itself."""
    place = np.ones(10_000) if state is None else state["place"]
    for step in range(ctx.first_step, ctx.first_step + steps):
        draws = np.random.default_rng(ctx.key("walk", ctx.member, step)).standard_normal(len(place))
        place += hparams["lr"] * (0.1 * draws - place)
    return {"place": place}, -float(np.abs(place).mean())


class Slow:
    """Walks, and takes its time, so that something can happen meanwhile."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, hparams, state, steps, ctx):
        time.sleep(self.seconds)
        return walk(hparams, state, steps, ctx)


class Gathers:
    """Walks, but waits at round 2 until the folder holds a file `open`; each worker that waits has a file there."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, hparams, state, steps, ctx):
        if ctx.round == 2:
            folder = Path(self.folder)
            (folder / f"worker-{os.getpid()}").touch()
            while not (folder / "open").exists():
                time.sleep(0.02)
        return walk(hparams, state, steps, ctx)


class Falls:
    """Walks, but the worker of one member dies at one round, so many times."""

    def __init__(self, folder, member, round_, times):
        self.folder, self.member, self.round, self.times = folder, member, round_, times

    def __call__(self, hparams, state, steps, ctx):
        if (ctx.member, ctx.round) == (self.member, self.round):
            tries = len(list(Path(self.folder).iterdir()))
            if tries < self.times:
                (Path(self.folder) / f"try{tries}").touch()
                os._exit(3)
        return walk(hparams, state, steps, ctx)


def hang(hparams, state, steps, ctx):
    """Member 1 stops its process at its first try."""
    import signal

    mark = Path(hparams["folder"]) / "hung"
    if ctx.member == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return walk(hparams, state, steps, ctx)
