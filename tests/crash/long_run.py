"""A run of many short rounds that measures itself: `python -m tests.crash.long_run RUN_DIR ROUNDS`, as JSON."""

# ruff: noqa: T201 (a program that prints)

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from pbt import Experiment, Float, Plan, truncation
from pbt.runs.engine import Observer

POINTS = 20
PAGE = os.sysconf("SC_PAGE_SIZE")


def drift(hparams, state, steps, ctx):
    """Next to no work; the state of one member is worth a file."""
    place = np.zeros(6000 if ctx.member == 0 else 4) if state is None else state["place"]
    place = np.resize(place, 6000 if ctx.member == 0 else 4)
    place[0] += hparams["lr"] * np.random.default_rng(ctx.key("drift", ctx.member, ctx.first_step)).standard_normal()
    return {"place": place}, -abs(float(place[0]))


def experiment(rounds):
    return Experiment(
        task=drift,
        space={"lr": Float(0.001, 0.1, "log")},
        plan=Plan(exploit=truncation(0.25), interval=1),
        population=4,
        rounds=rounds,
        seed=3,
    )


class Measures(Observer):
    """What the run holds, at some points of it."""

    def __init__(self, rounds):
        self._every = max(1, rounds // POINTS)
        self.found = []

    def on_commit(self, engine, events):
        if engine.view.round % self._every == 0:
            gc.collect()
            path = engine.store.path
            files = [entry.stat().st_size for entry in (path / "states").iterdir()]
            self.found.append(
                {
                    "round": engine.view.round,
                    "memory": int(Path("/proc/self/statm").read_text().split()[1]) * PAGE,
                    "descriptors": len(list(Path("/proc/self/fd").iterdir())),
                    "files": len(files),
                    "states": sum(files),
                    "database": (path / "run.db").stat().st_size,
                }
            )


def main(path, rounds):
    measures = Measures(rounds)
    started = time.monotonic()
    experiment(rounds).run(path, observers=[measures])
    took = time.monotonic() - started
    # Another process, that has read nothing yet; what it needs to start Python is not counted.
    again = "import sys, time, pathlib; from tests.crash import long_run; e = long_run.experiment(int(sys.argv[2])); "
    again += "t = time.monotonic(); e.run(pathlib.Path(sys.argv[1]), resume=True); print(time.monotonic() - t)"
    found = subprocess.run(
        [sys.executable, "-c", again, str(path), str(rounds)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    print(json.dumps({"points": measures.found, "seconds": took, "resume": float(found.stdout)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
