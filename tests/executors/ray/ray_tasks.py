"""Tasks for workers on other nodes. In a module of their own, so that a worker starts without pytest."""

import os
import time
from pathlib import Path

import numpy as np

from pbt import Folder


def walk(hparams, state, steps, ctx):
    """A keyed random walk whose state is too large for its record, so that it travels by itself."""
    place = np.ones(10_000) if state is None else state["place"]
    for step in range(ctx.first_step, ctx.first_step + steps):
        draws = np.random.default_rng(ctx.key("walk", ctx.member, step)).standard_normal(len(place))
        place += hparams["lr"] * (0.1 * draws - place)
        ctx.report(step + 1, size=np.abs(place).mean())
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


def folders(hparams, state, steps, ctx):
    """A checkpoint folder with a base that never changes; the score depends on every byte."""
    out = ctx.scratch / "out"
    out.mkdir()
    base = BASE
    total = 0
    if state is not None:
        path = state["checkpoint"].path
        base = (path / "base.bin").read_bytes()
        total = int((path / "total.txt").read_text())
        (path / "base.bin").write_bytes(b"private")
    (out / "base.bin").write_bytes(base)
    (out / "total.txt").write_text(str(total + ctx.member + 1))
    return {"checkpoint": Folder(out)}, hparams["lr"] + sum(base) % 1000 + total


BASE = bytes(range(256)) * 1000


class FallsWithFolders:
    """`folders`, but the process ends once, after the files of the round were written."""

    def __init__(self, mark):
        self.mark = Path(mark)

    def __call__(self, hparams, state, steps, ctx):
        made = folders(hparams, state, steps, ctx)
        if (ctx.member, ctx.round) == (1, 2) and not self.mark.exists():
            self.mark.touch()
            os._exit(3)
        return made


ODD = "PBT_TEST_ODD_NODE"
"""Set in the environment of a node that differs from the others."""


def digits():
    """Data whose examples differ on the odd node, in number and form the same."""
    import torch

    from pbt.pytorch import Data, Split

    inputs = torch.arange(400.0).reshape(100, 4) / 400 + (1 if ODD in os.environ else 0)
    split = Split(inputs, torch.arange(100) % 3)
    return Data(train=split, validation=split)


class Stated:
    """Walks, and states what it is made of; on the odd node of something else."""

    def __init__(self, folder):
        self.folder = folder

    def fingerprint(self):
        if ODD in os.environ:
            (Path(os.environ[ODD]) / "stated").touch()
        return {"the table": os.environ.get(ODD, "")}

    def __call__(self, hparams, state, steps, ctx):
        return Gathers(self.folder)(hparams, state, steps, ctx)


class Misses:
    """Walks, but lacks a file on the odd node; members in `wrong` fail everywhere."""

    def __init__(self, wrong=()):
        self.wrong = wrong

    def __call__(self, hparams, state, steps, ctx):
        if ctx.member in self.wrong and ctx.round == 2:
            raise ValueError("wrong in itself")
        if ODD in os.environ:
            (Path(os.environ[ODD]) / f"round-{ctx.round}-{ctx.member}").touch()
            raise FileNotFoundError(2, "No such file", "/scratch/images.npy")
        return walk(hparams, state, steps, ctx)


def sent_arrays(hparams, state, steps, ctx):
    """Scores by arrays that the driver sent."""
    from pbt import cluster_data

    return walk(hparams, state, steps, ctx)[0], hparams["lr"] + float(cluster_data()["x"].sum())


def sent_folder(hparams, state, steps, ctx):
    """Scores by a file of a folder that the driver sent; leaves the place where it found it."""
    from pbt import cluster_data

    folder = cluster_data()
    (Path(os.environ["PBT_TEST_SEEN"]) / str(folder).replace("/", "+")).touch()
    beside = len(Path("beside.txt").read_text())  # of the working folder that was sent
    return walk(hparams, state, steps, ctx)[0], hparams["lr"] + len((folder / "a/b.bin").read_bytes()) + beside


class Hungry:
    """Walks, but there is no memory for a round while the file exists."""

    def __init__(self, mark):
        self.mark = mark

    def __call__(self, hparams, state, steps, ctx):
        if (ctx.member, ctx.round) == (1, 2) and Path(self.mark).exists():
            np.ones(2**50)
        return walk(hparams, state, steps, ctx)


class Large:
    """States of so many bytes, different in each round."""

    def __init__(self, size):
        self.size = size

    def __call__(self, hparams, state, steps, ctx):
        draws = np.random.default_rng(ctx.key("walk", ctx.member, ctx.first_step))
        return {"place": draws.integers(0, 255, self.size, dtype=np.uint8)}, hparams["lr"]


class Placed(Gathers):
    """`Gathers`, and leaves a file for each round and the node on which it was trained."""

    def __call__(self, hparams, state, steps, ctx):
        import ray

        made = super().__call__(hparams, state, steps, ctx)
        node = ray.get_runtime_context().get_node_id()
        (Path(self.folder) / f"round-{ctx.round}-{ctx.member}-{node}").touch()
        return made
