"""What a good colleague would say before a run is begun, and once while it trains; `pbt report` says the rest.

Each rests on a number that was measured or worked out: docs/choosing.md has the tables.
"""

import logging
import math
from collections.abc import Iterator, Sequence

from pbt.core.events import Born, Decided, Decision, Event, Reported
from pbt.core.exploit import BinaryTournament, Never, Truncation
from pbt.core.explore import Perturb
from pbt.core.strategy import Plan
from pbt.executors.base import Outcome, Report
from pbt.runs.engine import Engine, Observer, RunSpec
from pbt.space import Choice

log = logging.getLogger("pbt")

SMALL = 10
"""Members below which runs differ much from seed to seed."""
FEW = 3
"""Founders below which hardly anything is left to select from."""
DRIFT = 2.0
"""Factor of a drift over a whole run that is worth a word."""


def cautions(course: RunSpec) -> list[str]:
    """What to say about a run that is about to begin; nothing about other strategies than `Plan`."""
    plan = course.strategy
    if not isinstance(plan, Plan) or course.population == 1:
        return []
    return [*_size(plan, course), *_drift(plan, course), *_reach(plan, course)]


def never_evolves(course: RunSpec) -> str | None:
    """What to say where the burn-in of a plan outlasts the run, so that nothing is ever copied or changed."""
    plan = course.strategy
    if not isinstance(plan, Plan) or plan.burn_in == 0 or course.rounds < 2:
        return None
    step = 0
    for _ in range(course.rounds - 1):
        step = plan.next_ready(step)
        if step >= plan.burn_in:
            return None
    return (
        f"burn_in={plan.burn_in} is later than the last decision, at step {step}: no member copies or explores in this "
        f"run; use a burn_in of at most {step}, or more rounds"
    )


def _size(plan: Plan, course: RunSpec) -> Iterator[str]:
    if not isinstance(plan.exploit, Never) and course.population < SMALL:
        yield (
            f"{course.population} members: with fewer than {SMALL} what comes out depends much on the seed; compare "
            "several seeds before you believe it"
        )


def _drift(plan: Plan, course: RunSpec) -> Iterator[str]:
    """Factors whose logarithms do not add up to nothing."""
    if not isinstance(plan.explore, Perturb):
        return
    factors = plan.explore.factors
    total = (course.rounds - 1) * sum(map(math.log, factors)) / len(factors)
    if abs(total) > math.log(DRIFT):
        yield (
            f"the factors {', '.join(f'{factor:g}' for factor in factors)} drift: who is perturbed in each of "
            f"{course.rounds} rounds ends at {math.exp(total):.2g} times its value on average; factors like "
            "0.8 and 1.25, whose product is one, do not"
        )


def _reach(plan: Plan, course: RunSpec) -> Iterator[str]:
    """Bounds that no chain of moves could reach from the middle of the prior."""
    if not isinstance(plan.explore, Perturb) or isinstance(plan.exploit, Never):
        return
    most = max(*plan.explore.factors, 1 / min(plan.explore.factors))
    for name, domain in course.space.items():
        if isinstance(domain, Choice) or domain.scale != "log" or domain.prior is None:
            continue
        away = max(math.log(domain.high / domain.prior[1]), math.log(domain.prior[0] / domain.low))
        if most > 1 and (course.rounds - 1) * math.log(most) < away:
            yield (
                f"{name}: from first values of {domain.prior[0]:g} .. {domain.prior[1]:g}, {course.rounds} rounds of "
                f"factors up to {most:g} do not reach the bounds {domain.low:g} .. {domain.high:g}; use larger "
                "factors, more rounds or a wider prior"
            )


class LevelAdvice(Observer):
    """Says it once when the first round leaves all members with one score, under a rule that copies no equal."""

    def __init__(self) -> None:
        self._first: dict[int, tuple[float, ...]] = {}
        self._told = False

    def on_start(self, engine: Engine) -> None:
        """A run that goes on is past its first round."""
        self._told = engine.view.round > 0

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """Compare the first scores once they are all there."""
        if self._told:
            return
        for event in events:
            if isinstance(event, Reported):
                self._first.setdefault(event.member, event.scores)
        population = engine.view.population
        if any(member.round < 1 for member in population):
            return
        self._told = True
        rule = _stays_on_ties(engine.course.strategy)
        if rule and len(population) > 1 and len(self._first) > 1 and len(set(self._first.values())) == 1:
            (scores,) = set(self._first.values())
            log.warning(
                "note: all %d members have the score %g after their first round, and %s copies none that is equal: "
                "while this lasts nothing evolves; use truncation(ties='copy') with explore=jitter(0.1), or a score "
                "that tells members apart",
                len(population),
                scores[0],
                rule,
            )


def _stays_on_ties(strategy: object) -> str | None:
    """The rule of the plan under which equal members never move, as it is written."""
    rule = getattr(strategy, "exploit", None)
    while not isinstance(rule, Truncation | BinaryTournament):
        rule = getattr(rule, "rule", None)
        if rule is None:
            return None
    if isinstance(rule, BinaryTournament):
        return "binary_tournament()"
    return "truncation(ties='stay')" if rule.ties == "stay" and rule.fraction else None


class FounderAdvice(Observer):
    """Says it once when the population has come down to the descendants of a few initial members."""

    def __init__(self) -> None:
        self._founder: dict[int, int] = {}
        self._told = False

    def on_start(self, engine: Engine) -> None:
        """Take up what is there."""
        self._learn(engine.store.events())
        self._told = self._few(engine)

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """A wave was decided on."""
        self._learn(events)
        if not self._told and self._few(engine):
            self._told = True
            left = len(self._living(engine))
            log.warning(
                "round %d: all %d members descend from %s; a longer interval or a smaller share replaced keeps more "
                "alive",
                engine.view.round,
                len(engine.view.population),
                "one initial member" if left == 1 else f"{left} initial members",
            )

    def _learn(self, events: Sequence[Event]) -> None:
        """Whose descendant everybody is; the decisions of a wave were read from one view, so they are here too."""
        wave: dict[int, int] = {}
        for event in events:
            if isinstance(event, Reported):
                self._founder |= wave
                wave = {}
            opened = event.decision if isinstance(event, Decided) else event
            if isinstance(opened, Born | Decision):
                source = opened.member if opened.start is None else opened.start.member
                wave[opened.member] = self._founder.get(source, opened.member)
        self._founder |= wave

    def _living(self, engine: Engine) -> set[int]:
        return {self._founder[member.id] for member in engine.view.population}

    def _few(self, engine: Engine) -> bool:
        return len(engine.view.population) >= SMALL and len(self._living(engine)) < FEW


UNREAD = "unread"
"""The kind of note in the journal that names hyperparameters which were not read back."""


class UnreadAdvice(Observer):
    """Reports once which hyperparameters nothing found in effect after a hand-over."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def on_start(self, engine: Engine) -> None:
        """Take up what an earlier part of the run reported."""
        for entry in engine.store.journal():
            if entry.kind == UNREAD:
                self._reported.update(entry.details.get("names", ()))

    def on_outcome(self, engine: Engine, outcome: Outcome) -> None:
        """Log the names of a finished round that were not reported before."""
        names = sorted(set(outcome.unread) - self._reported) if isinstance(outcome, Report) else []
        if names:
            self._reported.update(names)
            engine.store.note(UNREAD, names=names)
            log.info(
                "note: not read back after a hand-over: %s; the task reads the value itself. Call ctx.apply(optimizer, "
                "lr=...) or ctx.in_effect(%s=...) in the task to have it checked",
                ", ".join(names),
                names[0] if names[0].isidentifier() else "name",
            )
