"""The run that the tests of trackers track: members climb, one fails in round 2, and the weak copy the strong."""

from typing import Any

import pbt
from pbt.runs.callbacks import Callback, RoundEnd

SPACE = {"rate": pbt.Float(0.1, 1.0), "rule": pbt.Choice(("a", "b"))}


def climb(hparams: Any, state: Any, steps: int, ctx: Any) -> Any:
    """Climbs; member 1 falls in round 2."""
    if (ctx.member, ctx.round) == (1, 2):
        raise ValueError("fell")
    height = (state or {"height": 0.0})["height"] + steps * hparams["rate"]
    for step in range(ctx.first_step + 1, ctx.first_step + steps + 1):
        ctx.report(step, loss=1 / step, rate=ctx.member + 0.5)
    return {"height": height}, {"score": height, "val/acc": height / 10, "odd:name": 1.0, "word": "w", "rows": [[1, 2]]}


def hills(**changes: Any) -> pbt.Experiment:
    """A population of 3, for 4 rounds of 5 steps."""
    plan = pbt.Plan(exploit=pbt.truncation(0.4), interval=5)
    return pbt.Experiment(
        **{"task": climb, "space": SPACE, "plan": plan, "population": 3, "rounds": 4, "seed": 3, **changes}
    )


class CtrlC(Callback):
    """Ends a run after a round."""

    def __init__(self, round_: int) -> None:
        self._round = round_

    def on_round_end(self, end: RoundEnd) -> None:
        """Press it."""
        if end.round == self._round:
            raise KeyboardInterrupt


def level(hparams: Any, state: Any, steps: int, ctx: Any) -> Any:
    """Members differ by their number, so that those behind are copied too."""
    return {}, {"score": ctx.member + ctx.round / 100}


def uneven(**changes: Any) -> pbt.Experiment:
    """An asynchronous population with rounds of 3 to 6 steps, whose members copy others that have fewer."""
    plan = pbt.Plan(exploit=pbt.binary_tournament(), mode="async", interval=lambda step: step + 3 + step % 4)
    return pbt.Experiment(**{"task": level, "space": SPACE, "plan": plan, "population": 4, "rounds": 8, **changes})
