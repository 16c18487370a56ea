"""Tasks that report numbers while they train. In a module of their own, so that a worker starts without pytest."""

import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from pbt.store.live import read_live, read_newest


def descend(hparams, state, steps, ctx):
    """A descent, whose loss is reported at every step."""
    place = 1.0 if state is None else state["place"]
    for step in range(ctx.first_step + 1, ctx.first_step + steps + 1):
        place *= 1 - hparams["lr"]
        ctx.report(step, loss=place, **({"even/loss": math.nan} if step % 2 == 0 else {}))
    return {"place": place}, -place


@dataclass(frozen=True)
class Killed:
    """Descends, but in one round of one member the worker is killed after some points, as often as `times`."""

    folder: str
    times: int = 1

    def __call__(self, hparams, state, steps, ctx):
        if (ctx.member, ctx.round) == (1, 2):
            tries = len(list(Path(self.folder).iterdir()))
            if tries < self.times:
                (Path(self.folder) / f"try{tries}").touch()
                ctx.report(1, loss=99.0, lost=1.0)
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
        return descend(hparams, state, steps, ctx)


@dataclass(frozen=True)
class Watched:
    """Descends, and returns what a reader of the run directory sees before and after its points are written."""

    run: str

    def __call__(self, hparams, state, steps, ctx):
        path = Path(self.run)
        before = [live.round for live in read_live(path) if live.member == ctx.member]
        state, score = descend(hparams, state, steps, ctx)
        ctx.recorder._next_write = 0.0
        ctx.report(ctx.first_step + steps, done=1.0)
        (seen,) = (live for live in read_live(path) if live.member == ctx.member)
        newest = read_newest(path, [ctx.member])[ctx.member]
        found = {"before": before, "round": seen.round, "steps": [step for step, _ in seen.points["loss"]]}
        return state, {"score": score, "seen": found, "step": newest.step, "done": newest.values["done"]}


def fail_at_times(hparams, state, steps, ctx):
    """Descends, but the second round of member 1 fails after its points."""
    done = descend(hparams, state, steps, ctx)
    if (ctx.member, ctx.round) == (1, 2):
        raise ValueError("diverged")
    return done
