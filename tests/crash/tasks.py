"""Runs that are killed. Started as a program: `python -m tests.crash.tasks RUN_DIR TASK EXECUTOR`."""

import contextlib
import ctypes
import functools
import importlib
import multiprocessing
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from pbt import Command, Experiment, Float, Folder, Placement, Plan, truncation
from pbt.executors import processes
from pbt.executors.retry import Limits
from pbt.terminal.exit import exit_code_of

NAP = "CRASH_NAP"
"""The variable that says how many seconds a round of `walk` sleeps."""
MARKS = "CRASH_MARKS"
"""The variable that names a folder in which every worker marks that it trains."""
UNTIRING = "CRASH_UNTIRING"
"""The variable with which workers may die while they start, thrice in a row and more, which is an error otherwise."""
STRUCK = "CRASH_STRUCK"
"""The variable with what strace shall do to the first worker that trains, as one `-e` each; needs MARKS."""
TRACES = 60.0
"""Seconds until a tracer must have taken hold."""


def walk(hparams, state, steps, ctx):
    """A keyed walk; every second state of a member is worth a file; one round of one member fails."""
    enlist()
    time.sleep(float(os.environ.get(NAP, "0")))
    place = np.zeros(100) if state is None else state["place"]
    for step in range(ctx.first_step, ctx.first_step + steps):
        place += hparams["lr"] * np.random.default_rng(ctx.key("walk", ctx.member, step)).standard_normal(100)
        # Written at once, so that a kill may also meet the file of live points.
        ctx.recorder._next_write = 0.0
        ctx.report(step + 1, size=np.abs(place).mean())
    if (ctx.member, ctx.round) == (2, 2):
        raise ValueError("meant to fail")
    # Drawn from a global generator, which is seeded for each round.
    # Of one round half of the states are files, and of two rounds every worker has written one.
    luck = np.random.random(6000 if (ctx.member + ctx.round) % 2 else 1)  # noqa: NPY002
    return {"place": place, "luck": luck}, -float(np.abs(place).mean())


def folders(hparams, state, steps, ctx):
    """The walk, with its state in a checkpoint folder: one file never changes, one only sometimes, one always."""
    if state is not None:
        path = state["checkpoint"].path
        inner = {"place": np.load(path / "place.npy")}
        few = (path / "deep" / "few.txt").read_text()
        if (path / "base.bin").read_bytes() != BASE or few != f"{(ctx.round - 1) // 2}":
            raise RuntimeError("another checkpoint than the one that was stored")
    else:
        inner = None
    state, score = walk(hparams, inner, steps, ctx)
    out = ctx.scratch / "out"
    (out / "deep").mkdir(parents=True)
    (out / "base.bin").write_bytes(BASE)
    (out / "deep" / "few.txt").write_text(f"{ctx.round // 2}")
    np.save(out / "place.npy", state["place"])
    return {"checkpoint": Folder(out), "luck": state["luck"]}, score


BASE = bytes(range(256)) * 200

PROGRAM = """
import json, os, subprocess, sys, time
lr, steps, first, out = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"])
time.sleep(float(os.environ.get("CRASH_NAP", "0")))
state = json.load(open(sys.argv[5] + "/state.json")) if sys.argv[5:] else {"place": 0.0, "seen": []}
for step in range(first, first + steps):
    state["place"] += lr * ((step * 7919 + int(os.environ["PBT_MEMBER"]) * 104729) % 1000 / 500 - 1)
    state["seen"].append(lr)
    print(json.dumps({"step": step + 1, "place": state["place"]}))
json.dump(state, open(out + "/state.json", "w"))
open(out + "/base.bin", "wb").write(bytes(range(256)) * 200)
print(json.dumps({"score": -abs(state["place"]), "hparams": {"lr": lr}}))
"""
"""The walk as a program, which leaves a process behind that never ends by itself."""


def program():
    """The walk as a program; its text is an argument, so that it needs no file."""
    text = PROGRAM.replace("{", "{{").replace("}", "}}")
    return Command([sys.executable, "-S", "-c", text, "{lr}", "{steps}", "{first_step}", "{out}", ["{start}"]])


def net():
    from torch import nn

    enlist()
    # Wide enough that with Adam's moments each state is worth a file.
    return nn.Sequential(nn.Linear(4, 500), nn.BatchNorm1d(500), nn.ReLU(), nn.Dropout(0.5), nn.Linear(500, 2))


def data():
    import torch

    from pbt.pytorch import Data, Split

    x = torch.randn(96, 4)
    y = (x.sum(dim=1) > 0).long()
    return Data(train=Split(x[:64], y[:64]), validation=Split(x[64:], y[64:]))


def network():
    import torch

    from pbt.pytorch import SupervisedTask, dropout, optimizer

    adam = partial(torch.optim.Adam, lr=0.01)
    return SupervisedTask(
        model=net, data=data, optimizer=adam, bind={"lr": optimizer("lr"), "p": dropout()}, score="loss", batch_size=10
    )


LR = Float(0.001, 0.1, "log")
# The first member starts with a rate at which the loss is no number: it fails, and is replaced.
WIDE = Float(0.001, 1e38, "log", prior=(0.001, 0.1))
LOST = {"lr": 1e38, "p": 0.3}
EXECUTORS = ("inline", "processes", "vectorized", "programs", "ray")
"""`programs`: vectorized, in two worker processes."""
TASKS = ("walk", "folders", "program", "network", "digits")


def experiment(task, executor, **changes):
    """The run that is killed: a failure, hand-overs, states in the database and in files."""
    place = {
        "executor": "vectorized" if executor == "programs" else executor,
        "workers": 1 if executor == "vectorized" else 2,
        "threads": 1,
        "device": "cpu",
        # Workers are killed more often here than patience lasts elsewhere.
        "limits": Limits(attempts=100, silence=20.0),
    }
    torch_free = task in WALKS
    return Experiment(
        task=WALKS[task] if torch_free else network(),
        space={"lr": LR} if torch_free else {"lr": WIDE, "p": Float(0.1, 0.6)},
        initial=() if torch_free else (LOST,),
        **{
            "plan": Plan(exploit=truncation(0.4), interval=3),
            "population": 4,
            "rounds": 4,
            "seed": 7,
            "placement": Placement(**place),
            **changes,
        },
    )


WALKS = {"walk": walk, "folders": folders, "program": program()}


def train(path, task, executor, observers=()):
    """Begin the run or go on with it, to its end."""
    if UNTIRING in os.environ:
        processes.START_ATTEMPTS = 100
    if task == "digits":
        return digits(path, executor, observers)
    return experiment(task, executor).run(path, resume=True, observers=observers)


def warm(task):
    """Import what the task needs, so that runs which are forked from this process begin at once, and all alike."""
    if task not in WALKS:
        import torch

        # The first step of an optimizer imports more than all the rest.
        weights = torch.nn.Parameter(torch.zeros(1))
        weights.grad = torch.zeros(1)
        torch.optim.Adam([weights]).step()


def digits(path, executor, observers):
    """The MNIST application, with every file that it derives but the figures."""
    from pbt.mnist.config.record import Config
    from pbt.mnist.training import prepare

    small = _small_digits()
    folder = path.parent / "digits"
    if not folder.is_dir():
        small.write_digits(folder)
    keys = {**small.SMALL, "data_dir": str(folder), "num_workers_paral": 2, "num_epochs_tot": 3}
    place = Placement(executor=executor, workers=2 if executor == "processes" else 1, threads=1, device="cpu")
    with small.undrawn():
        return prepare(Config.from_dict({"train": keys}), place).train(path, resume=True, observers=observers)


@functools.cache
def _small_digits():
    """What the tests of the application are made with."""
    os.environ["PBT_OFFLINE"] = "1"
    return importlib.import_module("tests.mnist.conftest")


def enlist():
    """Mark that this worker trains; the first one is handed to strace, if that is asked for."""
    folder = os.environ.get(MARKS)
    if folder is None or multiprocessing.parent_process() is None:
        return
    with contextlib.suppress(FileExistsError):
        (Path(folder) / str(os.getpid())).touch(exist_ok=False)
    if STRUCK in os.environ:
        with contextlib.suppress(FileExistsError):
            (Path(folder) / "struck").touch(exist_ok=False)
            trace(os.getpid(), os.environ[STRUCK].split(), Path(folder) / "trace")


def may_be_traced():
    """Let any process trace this one, where only ancestors may (Yama)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(0x59616D61, -1, 0, 0, 0)


def trace(pid, expressions, out):
    """Put strace at a process; returns when it has taken hold, with strace's own process."""
    may_be_traced()
    words = [word for expression in expressions for word in ("-e", expression)]
    tracer = subprocess.Popen(["strace", "-qq", "-y", "-s", "0", "-o", str(out), *words, "-p", str(pid)])
    deadline = time.monotonic() + TRACES
    while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
        if time.monotonic() > deadline or tracer.poll() is not None:
            raise RuntimeError(f"strace did not take hold of {pid}; may this process be traced?")
        time.sleep(0.001)
    return tracer


def main(path, task, executor):
    """As the command `pbt` does it: signals become exit codes."""
    return exit_code_of(lambda: train(Path(path), task, executor) and 0, lambda: "resume")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
