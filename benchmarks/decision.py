"""Cost of a round besides training for large populations: reports, decisions, the new population.

Folds 100,000 reports into the population, decides on every member, and folds the decisions. References: a fixed limit;
ten times the seconds of a tenth of the population, the result for a constant cost per member.
"""

import time
from collections.abc import Sequence
from statistics import median

import pbt
from benchmarks.base import Options, Row
from pbt.core.events import Decided, Event, Reported
from pbt.core.fold import apply
from pbt.core.population import StateRef, View
from pbt.core.rng import Rng
from pbt.core.strategy import Plan
from pbt.runs.engine import uncollected
from pbt.space import Space

LARGE, SMALL = 100_000, 10_000
PLAN = Plan(exploit=pbt.truncation(0.2), explore=pbt.perturb((0.8, 1.2)))
SPACE = Space({"lr": pbt.Float(1e-4, 1e-1, scale="log"), "keep_prob": pbt.Float(0.5, 0.99)})


def measure(options: Options) -> Sequence[Row]:
    """Measure the seconds of the decisions of one round."""
    large, small = (beginning(members) for members in (LARGE, SMALL))
    turns = [(seconds(*large), seconds(*small)) for _ in range(options.repeats)]
    most, few = (median(of) for of in zip(*turns, strict=True))
    work = f"decisions of one round, {LARGE:,} members, truncation and perturb"
    return [
        Row(
            work=work,
            measured=f"{most:.2f} s",
            against="its limit",
            value=most,
            limit=2.0,
            aim=0.5,
            unit=" s",
        ),
        Row(
            work=work,
            measured=f"{most:.2f} s",
            against=f"{SMALL:,} members, each {LARGE // SMALL} times: {few * LARGE / SMALL:.2f} s",
            value=median(one / two for one, two in turns) * SMALL / LARGE,
            limit=1.5,
            aim=1.1,
        ),
    ]


def beginning(members: int) -> tuple[View, list[Event]]:
    """A population in its first round, and the reports at its end."""
    empty = View(seed=0, space=SPACE)
    view = apply(empty, PLAN.begin(empty, members, ()).starts)
    return view, [
        Reported(
            member=i,
            round=1,
            step=1,
            scores=(Rng("score", i).random(),),
            state=StateRef(i, 1),
            digest="",
        )
        for i in range(members)
    ]


def seconds(view: View, reports: Sequence[Event]) -> float:
    """Seconds of one round."""
    # The engine also disables the garbage collector.
    started = time.perf_counter()
    with uncollected():
        after = apply(view, reports)
        proposal = PLAN.decide(after, after.members)
        apply(after, [Decided(decision=decision) for decision in proposal.decisions])
    return time.perf_counter() - started
