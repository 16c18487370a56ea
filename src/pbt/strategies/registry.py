"""All shipped plans by name, as accepted by `--plan` and `pbt compare --plans`.

A named plan is made for an experiment: it keeps the rounds of the experiment's own plan and, where possible, its
explore, so that two plans differ only by what their names express. Modules are imported on first use.
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
    """A named plan."""

    line: str
    """A description in one line."""
    make: Callable[..., Strategy]
    """Makes the plan from the experiment's own plan and, if it has a source, a finished run."""
    source: str = ""
    """The plan whose run it follows in a comparison; empty if it needs none."""


def _of(place: str, like: Strategy) -> Strategy:
    """A strategy of whole rounds, from `module:class`."""
    made: Any = _loaded(place)
    settings: dict[str, Any] = {"interval": _equal_rounds(place, like)}
    # An explore rule that changes nothing belongs to a control, not to an algorithm.
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
        raise UsageError(f"{name}: expected a plan with rounds of equal length, got interval {interval!r}")
    return interval


def _truncation(plan: Plan) -> Truncation:
    return plan.exploit if isinstance(plan.exploit, Truncation) else Truncation()


PLANS: Mapping[str, RegisteredStrategy] = {
    "own": RegisteredStrategy(line="the experiment's own plan", make=lambda like: like),
    "pbt": RegisteredStrategy(
        line="the experiment's own exploit and explore; truncation and perturb if it never copies",
        make=controls.evolving,
    ),
    "no-evolution": RegisteredStrategy(
        line="control: no copies, no changes (random search)", make=controls.no_evolution
    ),
    "selection-only": RegisteredStrategy(
        line="control: copies, but hyperparameters never change", make=controls.selection_only
    ),
    "explore-only": RegisteredStrategy(
        line="control: random members explore, without copies", make=controls.explore_only
    ),
    "constant": RegisteredStrategy(
        line="control: the best values of a run without evolution, as constants",
        make=controls.constant,
        source="no-evolution",
    ),
    "replay": RegisteredStrategy(line="control: the schedule found by a pbt run", make=controls.replay, source="pbt"),
    "final": RegisteredStrategy(
        line="control: the last values of that schedule, as constants", make=controls.final, source="pbt"
    ),
    "tournament": RegisteredStrategy(
        line="each member copies a randomly drawn one if that is better",
        make=lambda like: replace(controls.evolving(like), exploit=BinaryTournament()),
    ),
    "t-test": RegisteredStrategy(
        line="the same, if Welch's t-test on the series is significant",
        make=lambda like: replace(controls.evolving(like), exploit=TTest()),
    ),
    "guarded": RegisteredStrategy(line="truncation, if the gap in score exceeds noise", make=_guarded),
    "mf-pbt": RegisteredStrategy(
        line="sub-populations that evolve at several frequencies", make=partial(_of, "mf_pbt:MultipleFrequencies")
    ),
    "ipbt": RegisteredStrategy(
        line="the interval between copies is chosen during the run, and doubled by restarts",
        make=partial(_of, "ipbt:IPBT"),
    ),
    "pb2": RegisteredStrategy(line="a time-varying Gaussian process proposes values", make=partial(_of, "pb2:PB2")),
    "pb2-mix": RegisteredStrategy(line="the same with bandits for choices", make=partial(_of, "pb2_mix:PB2Mix")),
    "bg-pbt": RegisteredStrategy(
        line="pb2 near the copied values, for numbers and choices", make=partial(_of, "bg_pbt:BGPBT")
    ),
    "fire": RegisteredStrategy(
        line="sub-populations and evaluators that reward the rate of improvement", make=partial(_of, "fire:Fire")
    ),
    "backtracking": RegisteredStrategy(
        line="a lineage returns to its best state after a drop", make=partial(_of, "backtracking:Backtracking")
    ),
    "gpbt-pl": RegisteredStrategy(
        line="the worst copy the weights of the best, and move their values towards theirs",
        make=partial(_of, "gpbt_pl:PairwiseLearning"),
    ),
}
"""The plans by name, in the order of listings."""
NEED_A_RUN = tuple(name for name, entry in PLANS.items() if entry.source)
"""The names of plans that follow a finished run."""


def named(name: str, like: Strategy, of: "Run | None" = None, rounds: int | None = None) -> Strategy:
    """Make the plan of this name for an experiment.

    Args:
        name: One of `PLANS`.
        like: The experiment's own plan, whose rounds are kept.
        of: A finished run, for the plans in `NEED_A_RUN`.
        rounds: The rounds of the experiment, for a plan with a `horizon`; None: the plan's default.

    Raises:
        UsageError: The plan does not exist or does not fit the rounds, or a run is missing or superfluous.
    """
    if name not in PLANS:
        raise UsageError(f"expected the name of a plan, got '{name}'{nearest(name, PLANS)}")
    entry = PLANS[name]
    if not entry.source:
        if of is not None:
            raise UsageError(f"plan {name}: expected no run, got one; a run is for {', '.join(NEED_A_RUN)}")
        made: Any = entry.make(like)
        if rounds is not None and made is not like and hasattr(made, "horizon"):
            made = replace(made, horizon=rounds)
        strategy: Strategy = made
        return strategy
    if of is None:
        raise UsageError(f"plan {name}: expected a finished run to follow, got none; add one with --of")
    return entry.make(like, of)


def named_again(name: str, like: Strategy, plain: Any) -> Strategy:
    """Rebuild the plan of a resumed run from its recorded description, without the run that it follows.

    Args:
        name: The name of the plan at the start of the run.
        like: The experiment's own plan.
        plain: The recorded description of the plan.

    Raises:
        UsageError: The plan does not exist, or the description is that of another plan.
    """
    if name in NEED_A_RUN:
        return controls.along_again(like, plain)
    return named(name, like, rounds=plain.get("horizon") if isinstance(plain, Mapping) else None)
