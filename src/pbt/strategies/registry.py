"""Every shipped plan by name: what `--plan` and `pbt compare --plans` take.

A named plan is made for an experiment: it keeps the rounds of the experiment's own plan and, where it has an explore of
that form, its explore, so that two plans differ in what their names say. Modules are imported when they are asked for.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pbt.core.exploit import BinaryTournament, Truncation, TTest
from pbt.core.explore import Follow, Keep
from pbt.core.strategy import Plan, Strategy
from pbt.errors import UsageError, nearest
from pbt.strategies import controls

if TYPE_CHECKING:
    from pbt.runs.results import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredStrategy:
    """A plan that has a name."""

    line: str
    """What it does, in one line."""
    make: Callable[..., Strategy]
    """From the experiment's own plan and, where there is a source, a finished run."""
    source: str = ""
    """The plan whose run it is made of in a comparison; empty: it needs none."""


def _of(place: str, like: Strategy) -> Strategy:
    """A strategy of whole rounds from its module."""
    made: Any = _loaded(place)
    settings: dict[str, Any] = {"interval": _equal_rounds(place, like)}
    # A rule that changes nothing belongs to a control, not to an algorithm.
    if isinstance(like, Plan) and not isinstance(like.explore, (Keep, Follow)):
        settings["explore"] = like.explore
    own = {field.name for field in fields(made)}
    strategy: Strategy = made(**{name: value for name, value in settings.items() if name in own})
    return strategy


def _guarded(like: Strategy) -> Plan:
    plan = controls.evolving(like)
    return replace(plan, exploit=_loaded("guarded:guarded")(_truncation(plan)))


def _loaded(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"pbt.strategies.{module}"), name)


def _equal_rounds(place: str, like: Strategy) -> int:
    interval = controls.interval_of(like)
    if not isinstance(interval, int):
        name = place.partition(":")[2]
        raise UsageError(f"{name}: expected a plan with rounds of equal length, got the interval {interval!r}")
    return interval


def _truncation(plan: Plan) -> Truncation:
    return plan.exploit if isinstance(plan.exploit, Truncation) else Truncation()


PLANS: Mapping[str, RegisteredStrategy] = {
    "own": RegisteredStrategy(line="the experiment's own plan, whatever it is", make=lambda like: like),
    "pbt": RegisteredStrategy(
        line="the experiment's own exploit and explore, else truncation and perturb", make=controls.evolving
    ),
    "no-evolution": RegisteredStrategy(
        line="control: nobody copies, nothing changes (random search)", make=controls.no_evolution
    ),
    "selection-only": RegisteredStrategy(
        line="control: copies, but hyperparameters never change", make=controls.selection_only
    ),
    "explore-only": RegisteredStrategy(
        line="control: changes drawn blindly, nobody copies", make=controls.explore_only
    ),
    "constant": RegisteredStrategy(
        line="control: the best values of a run without evolution, held fixed",
        make=controls.constant,
        source="no-evolution",
    ),
    "replay": RegisteredStrategy(
        line="control: the schedule that a run found, followed", make=controls.replay, source="pbt"
    ),
    "final": RegisteredStrategy(
        line="control: the last values of that schedule, held fixed", make=controls.final, source="pbt"
    ),
    "tournament": RegisteredStrategy(
        line="each member meets one other and copies it if it is better",
        make=lambda like: replace(controls.evolving(like), exploit=BinaryTournament()),
    ),
    "t-test": RegisteredStrategy(
        line="the same, where Welch's t-test on the series says so",
        make=lambda like: replace(controls.evolving(like), exploit=TTest()),
    ),
    "guarded": RegisteredStrategy(line="truncation, where the gap is larger than noise", make=_guarded),
    "mf-pbt": RegisteredStrategy(
        line="sub-populations that evolve at several frequencies", make=partial(_of, "mf_pbt:MultipleFrequencies")
    ),
    "pb2": RegisteredStrategy(line="a time-varying Gaussian process proposes values", make=partial(_of, "pb2:PB2")),
    "pb2-mix": RegisteredStrategy(line="the same with bandits for choices", make=partial(_of, "pb2_mix:PB2Mix")),
    "fire": RegisteredStrategy(
        line="sub-populations and evaluators that reward the rate of improvement", make=partial(_of, "fire:Fire")
    ),
    "backtracking": RegisteredStrategy(
        line="elites of each lineage are kept and can be gone back to", make=partial(_of, "backtracking:Backtracking")
    ),
    "gpbt-pl": RegisteredStrategy(
        line="the worst take the weights of the best, and move their own values towards theirs",
        make=partial(_of, "gpbt_pl:PairwiseLearning"),
    ),
}
"""Name to what makes the plan, in the order in which they are listed."""
NEED_A_RUN = tuple(name for name, entry in PLANS.items() if entry.source)
"""The names of plans that are made of a finished run."""


def named(name: str, like: Strategy, of: "Run | None" = None) -> Strategy:
    """The plan of this name, for an experiment with another plan.

    Args:
        name: One of `PLANS`.
        like: The experiment's own plan, whose rounds are kept.
        of: A finished run, for the plans that follow what it found.

    Raises:
        UsageError: There is no such plan, it does not fit rounds like these, or a run is missing or not wanted.
    """
    if name not in PLANS:
        raise UsageError(f"expected the name of a plan, got '{name}'{nearest(name, PLANS)}")
    entry = PLANS[name]
    if not entry.source:
        if of is not None:
            raise UsageError(f"plan {name}: expected no run, got one; a run is for {', '.join(NEED_A_RUN)}")
        return entry.make(like)
    if of is None:
        raise UsageError(f"plan {name}: expected a finished run that it is made of, got none")
    return entry.make(like, of)


def named_again(name: str, like: Strategy, plain: Any) -> Strategy:
    """The plan of a run that goes on: what it recorded is enough, also where the run that it was made of is gone.

    Args:
        name: The name that it was begun with.
        like: The experiment's own plan.
        plain: The description of the plan that the run recorded.

    Raises:
        UsageError: There is no such plan, or the description is another one's.
    """
    return controls.along_again(like, plain) if name in NEED_A_RUN else named(name, like)
