"""Advice about a run's settings before its start, and once during training; `pbt report` has the rest.

Each piece of advice rests on a measured or derived number; docs/choosing.md has the tables.
"""

import logging
import math
from collections.abc import Iterator, Sequence

from pbt.core.events import Event, Reported
from pbt.core.exploit import BinaryTournament, Never, Truncation
from pbt.core.explore import Perturb
from pbt.core.population import SMALL_POPULATION
from pbt.core.rules import factors_of
from pbt.core.strategy import Plan
from pbt.domains import Choice
from pbt.executors.base import Outcome, Report
from pbt.runs.engine import Engine, Observer, RunSpec

log = logging.getLogger("pbt")

FEW = 3
"""Number of founders below which hardly any diversity is left to select from."""
DRIFT = 2.0
"""Smallest drift factor over a whole run that is worth a warning."""


def cautions(course: RunSpec) -> list[str]:
    """Advice for a run that is about to start; none for strategies other than `Plan`."""
    plan = course.strategy
    if not isinstance(plan, Plan) or course.population == 1:
        return []
    return [*_size(plan, course), *_drift(plan, course), *_reach(plan, course)]


def never_evolves(course: RunSpec) -> str | None:
    """The warning for a burn-in that outlasts the run, so that no member ever copies or explores."""
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
    if not isinstance(plan.exploit, Never) and course.population < SMALL_POPULATION:
        yield (
            f"{course.population} members: with fewer than {SMALL_POPULATION} the outcome depends strongly on the "
            "seed; compare several seeds before drawing conclusions"
        )


def _drift(plan: Plan, course: RunSpec) -> Iterator[str]:
    """Factors whose logarithms do not sum to zero."""
    if not isinstance(plan.explore, Perturb):
        return
    found = {factors_of(plan.explore.factors, name): name for name in course.space}
    for factors, name in found.items():
        total = (course.rounds - 1) * sum(map(math.log, factors)) / len(factors) if factors else 0.0
        if abs(total) <= math.log(DRIFT):
            continue
        whose, listed = f" of {name}" if len(found) > 1 else "", ", ".join(f"{factor:g}" for factor in factors)
        yield (
            f"the factors{whose} {listed} drift: a value perturbed in each of "
            f"{course.rounds} rounds ends at {math.exp(total):.2g} times its start on average; factors like "
            "0.8 and 1.25, whose product is one, do not"
        )


def _reach(plan: Plan, course: RunSpec) -> Iterator[str]:
    """Bounds that no chain of moves can reach from the middle of the prior."""
    if not isinstance(plan.explore, Perturb) or isinstance(plan.exploit, Never):
        return
    for name, domain in course.space.items():
        factors = factors_of(plan.explore.factors, name) or (1.0,)
        most = max(*factors, 1 / min(factors))
        if isinstance(domain, Choice) or domain.scale != "log" or domain.prior is None:
            continue
        away = max(math.log(domain.high / domain.prior[1]), math.log(domain.prior[0] / domain.low))
        if most > 1 and (course.rounds - 1) * math.log(most) < away:
            yield (
                f"{name}: from initial values of {domain.prior[0]:g} .. {domain.prior[1]:g}, {course.rounds} rounds of "
                f"factors up to {most:g} do not reach the bounds {domain.low:g} .. {domain.high:g}; use larger "
                "factors, more rounds or a wider prior"
            )


class LevelAdvice(Observer):
    """Warns once if the first round leaves all members with equal scores, under a rule that copies no equal member."""

    def __init__(self) -> None:
        self._first: dict[int, tuple[float, ...]] = {}
        self._done = False

    def on_start(self, engine: Engine) -> None:
        """Note whether the run is past its first round."""
        self._done = engine.view.round > 0

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """Compare the first scores once they are complete."""
        if self._done:
            return
        for event in events:
            if isinstance(event, Reported):
                self._first.setdefault(event.member, event.scores)
        population = engine.view.population
        if any(member.round < 1 for member in population):
            return
        self._done = True
        rule = _stays_on_ties(engine.course.strategy)
        if rule and len(population) > 1 and len(self._first) > 1 and len(set(self._first.values())) == 1:
            (scores,) = set(self._first.values())
            log.warning(
                "note: all %d members have the score %g after their first round, and %s copies no equal member: "
                "without differences nothing evolves; use truncation(ties='copy') with explore=jitter(0.1), or a score "
                "that separates the members",
                len(population),
                scores[0],
                rule,
            )


def _stays_on_ties(strategy: object) -> str | None:
    """The plan's rule, as written, if equal members never move under it; else None."""
    rule = getattr(strategy, "exploit", None)
    while not isinstance(rule, Truncation | BinaryTournament):
        rule = getattr(rule, "rule", None)
        if rule is None:
            return None
    if isinstance(rule, BinaryTournament):
        return "binary_tournament()"
    return "truncation(ties='stay')" if rule.ties == "stay" and rule.fraction else None


class FounderAdvice(Observer):
    """Warns once when all members descend from a few founders."""

    def __init__(self) -> None:
        self._done = False

    def on_start(self, engine: Engine) -> None:
        """Note whether few founders were left before."""
        self._done = _few(engine, _founders(engine))

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:  # noqa: ARG002 (an observer's form)
        """Count the founders after the decisions of a wave."""
        left = set() if self._done else _founders(engine)
        if not self._done and _few(engine, left):
            self._done = True
            log.warning(
                "round %d: all %d members descend from %s; a longer interval or a smaller fraction keeps more alive",
                engine.view.round,
                len(engine.view.population),
                "one initial member" if len(left) == 1 else f"{len(left)} initial members",
            )


def _founders(engine: Engine) -> set[int]:
    return {engine.founder(member) for member in engine.view.population}


def _few(engine: Engine, founders: set[int]) -> bool:
    return len(engine.view.population) >= SMALL_POPULATION and len(founders) < FEW


UNREAD = "unread"
"""Kind of the journal note that names hyperparameters that were not read back."""


class UnreadAdvice(Observer):
    """Reports once the hyperparameters whose effect was not confirmed after a hand-over."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def on_start(self, engine: Engine) -> None:
        """Read the names reported by an earlier part of the run."""
        for entry in engine.store.journal(UNREAD):
            self._reported.update(entry.details.get("names", ()))

    def on_outcome(self, engine: Engine, outcome: Outcome) -> None:
        """Log the names that were not reported before."""
        names = sorted(set(outcome.unread) - self._reported) if isinstance(outcome, Report) else []
        if names:
            self._reported.update(names)
            engine.store.note(UNREAD, names=names)
            log.info(
                "note: not read back after a hand-over: %s; the task reads the value itself; to have it checked, call "
                'ctx.apply(optimizer, lr=...) or ctx.in_effect(%s=...), or print {"hparams": {"%s": ...}} in a program',
                ", ".join(names),
                names[0] if names[0].isidentifier() else "name",
                names[0],
            )
