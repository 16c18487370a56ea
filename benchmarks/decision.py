"""Cost of a round besides training for large populations: reports, decisions, the new population, the log.

Folds 100,000 reports into the population, decides on every member, and folds the decisions; then commits reports,
decisions and states to a run directory, and reads the log back. References: fixed limits; ten times the seconds of a
tenth of the population, the result for a constant cost per member; the general way, in which an exploit rule is asked
member by member and every event is converted to plain values first.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

import pbt
from benchmarks.base import Options, Row
from benchmarks.sides import run_folder
from pbt.core.events import Decided, Event, Reported, to_plain
from pbt.core.exploit import Copy, Stay
from pbt.core.fold import apply
from pbt.core.population import Member, StateRef, Stored, View
from pbt.core.rng import Rng
from pbt.core.strategy import Plan
from pbt.runs.collector import uncollected
from pbt.space import Space
from pbt.store.event_text import dump, text_of
from pbt.store.sqlite import RunStore

LARGE, SMALL = 100_000, 10_000
PLAN = Plan(exploit=pbt.truncation(0.2), explore=pbt.perturb((0.8, 1.2)))
SPACE = Space({"lr": pbt.Float(1e-4, 1e-1, scale="log"), "keep_prob": pbt.Float(0.5, 0.99)})


def measure(options: Options) -> Iterator[Row]:
    """Measure the seconds of one round."""
    large, small = (beginning(members) for members in (LARGE, SMALL))
    one_by_one = replace(PLAN, exploit=_alone)
    turns = [(seconds(*large), seconds(*small), seconds(*large, one_by_one)) for _ in range(options.repeats)]
    most, few, alone = (median(of) for of in zip(*turns, strict=True))
    work = f"decisions of one round, {LARGE:,} members, truncation and perturb"
    yield Row(
        work=work,
        measured=f"{most:.2f} s",
        against=f"its limit; a rule asked member by member {alone:.2f} s",
        value=most,
        limit=2.0,
        aim=0.5,
        unit=" s",
    )
    yield Row(
        work=work,
        measured=f"{most:.2f} s",
        against=f"{SMALL:,} members, each {LARGE // SMALL} times: {few * LARGE / SMALL:.2f} s",
        value=median(one / two for one, two, _ in turns) * SMALL / LARGE,
        limit=1.5,
        aim=1.1,
    )
    yield from _log(options.repeats)


def _alone(member: Member, view: View, rng: Rng) -> Copy | Stay:
    """The plan's rule, for one member at a time."""
    return pbt.truncation(0.2)(member, view, rng)


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


def seconds(view: View, reports: Sequence[Event], plan: Plan = PLAN) -> float:
    """Seconds of one round."""
    # The engine also disables the garbage collector.
    started = time.perf_counter()
    with uncollected():
        after = apply(view, reports)
        proposal = plan.decide(after, after.members)
        apply(after, [Decided(decision=decision) for decision in proposal.decisions])
    return time.perf_counter() - started


def _log(repeats: int) -> list[Row]:
    view, reports = beginning(LARGE)
    after = apply(view, reports)
    decisions = PLAN.decide(after, after.members).decisions
    events = [*reports, *(Decided(decision=decision) for decision in decisions)]
    with uncollected():
        turns = [(*_written(events), *_converted(events)) for _ in range(repeats)]
    commit, read, fast, general = (median(of) for of in zip(*turns, strict=True))
    work = f"log of one round, {LARGE:,} members"
    return [
        Row(
            work=f"{work}: commit, and reading back",
            measured=f"{commit:.2f} s and {read:.2f} s",
            against="its limit",
            value=commit + read,
            limit=6.0,
            aim=3.1,
            unit=" s",
        ),
        Row(
            work=f"{work}: text of the events",
            measured=f"{fast:.2f} s",
            against=f"through plain values: {general:.2f} s",
            value=median(one / two for _, _, one, two in turns),
            limit=0.6,
        ),
    ]


def _written(events: Sequence[Event]) -> tuple[float, float]:
    """Seconds of a durable commit with small states, and of reading the log."""
    states = {StateRef(i, 1): Stored(digest="", size=8, blob=bytes(8)) for i in range(LARGE)}
    with run_folder() as folder, RunStore.create(folder, {"seed": 0, "space": SPACE.to_dict()}) as store:
        started = time.perf_counter()
        store.commit(events, states)
        committed = time.perf_counter()
        store.events()
        return committed - started, time.perf_counter() - committed


def _converted(events: Sequence[Event]) -> tuple[float, float]:
    started = time.perf_counter()
    for event in events:
        text_of(event)
    between = time.perf_counter()
    for event in events:
        dump(to_plain(event))
    return between - started, time.perf_counter() - between
