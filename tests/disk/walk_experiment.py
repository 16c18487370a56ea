"""A tiny run without torch, whose states of even members are files. `python walk_experiment.py RUN_DIR` trains it."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from pbt import Experiment, Float, Folder, Plan, truncation

SIZE = 5000


def walk(hparams, state, steps, ctx):
    """A keyed walk."""
    size = SIZE if ctx.member % 2 == 0 else 4
    place = np.zeros(size) if state is None else np.resize(state["place"], size)
    for step in range(ctx.first_step, ctx.first_step + steps):
        place = place + hparams["lr"] * np.random.default_rng(ctx.key("walk", ctx.member, step)).standard_normal(size)
    return {"place": place}, -float(np.abs(place).mean())


def in_folders(hparams, state, steps, ctx):
    """The same walk in a checkpoint folder, beside a file that all states share."""
    place = {"place": np.load(state["checkpoint"].path / "place.npy")} if state is not None else None
    made, score = walk(hparams, place, steps, ctx)
    out = ctx.scratch / "out"
    out.mkdir()
    np.save(out / "place.npy", made["place"])
    (out / "shared.bin").write_bytes(bytes(range(256)) * 400)
    return {"checkpoint": Folder(out)}, score


experiment = Experiment(
    task=walk,
    space={"lr": Float(0.001, 0.1, "log")},
    plan=Plan(exploit=truncation(0.4), interval=2),
    population=4,
    rounds=int(os.environ.get("DISK_ROUNDS", "3")),
    seed=7,
)

folders = replace(experiment, task=in_folders)

if __name__ == "__main__":
    experiment.run(Path(sys.argv[1]), resume=True)
