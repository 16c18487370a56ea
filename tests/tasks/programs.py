"""Small programs in the shape of a user's `train.py`, and the commands that run them."""

import sys
from pathlib import Path

import pbt

PYTHON = f"{sys.executable} -S"
"""Without site-packages, which takes most of the time of a start."""

TRAIN = """
import argparse, json, os, pathlib
parser = argparse.ArgumentParser()
for name, kind in (("lr", float), ("resume", str), ("out", str), ("steps", int), ("seed", int)):
    parser.add_argument(f"--{name}", type=kind)
a = parser.parse_args()
state = {"x": 0.0, "step": 0, "seen": []}
if a.resume:
    state = json.loads(pathlib.Path(a.resume, "state.json").read_text())
for _ in range(a.steps):
    state["x"] += a.lr * (1 - state["x"])
    state["step"] += 1
    state["seen"].append(a.lr)
    print(json.dumps({"step": state["step"], "loss": 1 - state["x"]}))
pathlib.Path(a.out, "state.json").write_text(json.dumps(state))
print(json.dumps({"score": state["x"], "depth": len(state["seen"]), "hparams": {"lr": a.lr}}))
"""
"""Moves a number towards 1, keeps the rate of every step, prints a curve, and reads its rate back."""
ARGUMENTS = "--lr {lr} [--resume {start}] --out {out} --steps {steps} --seed {seed}"
SPACE = {"lr": pbt.Float(1e-3, 1e-1, "log")}


def written(folder: Path, text: str = TRAIN, name: str = "train.py") -> Path:
    """A program in this folder."""
    file = folder / name
    file.write_text(text)
    return file


def command(folder: Path, text: str = TRAIN, arguments: str = ARGUMENTS, **options: object) -> pbt.Command:
    """The task of a program that is written into this folder."""
    written(folder, text)
    return pbt.Command(f"{PYTHON} train.py {arguments}", **{"cwd": folder, **options})
