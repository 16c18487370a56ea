"""Controls: what a population is compared with before anybody believes that evolving it helped.

Each is made of an experiment's own plan, so that rounds, mode and inheritance stay the same and one thing differs.
Which controls a claim needs, and why: Jaderberg et al. 2017 (arXiv 1711.09846) for selection and exploration taken
apart; Eimer et al. 2023 (arXiv 2306.01324) for seeds that tuning has not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pbt.core.describe import describe_record
from pbt.core.exploit import Never, Truncation, at_random, never
from pbt.core.explore import follow, keep
from pbt.core.lineage import Schedule, Segment
from pbt.core.population import Member, StateRef, View
from pbt.core.strategy import Interval, Mode, Plan, Proposal, Strategy, births
from pbt.errors import UsageError
from pbt.space import HParams

if TYPE_CHECKING:
    from pbt.runs.results import Run

FRACTION = 0.2
"""Of the population that explores in `explore_only`, where the plan itself names no fraction."""


def interval_of(like: Strategy) -> Interval:
    """The training steps of a strategy's rounds, or its own function from a step to the next ready step."""
    interval: Interval = getattr(like, "interval", like.next_ready)
    return interval


def as_plan(like: Strategy) -> Plan:
    """The strategy itself where it is a `Plan`, else the default `Plan` with its rounds and its mode."""
    return like if isinstance(like, Plan) else Plan(interval=interval_of(like), mode=like.mode)


def evolving(like: Strategy) -> Plan:
    """The strategy itself where it is a `Plan` that lets somebody copy, else the default exploit and explore."""
    plan = as_plan(like)
    return Plan(interval=plan.interval, mode=plan.mode) if isinstance(plan.exploit, Never) else plan


def no_evolution(like: Strategy) -> Plan:
    """Nobody copies and nothing changes: random search of the same size and the same budget.

    When to use: always. A plan that does not beat it has not shown that evolving the population is worth anything.
    """
    return replace(as_plan(like), exploit=never(), explore=keep())


def selection_only(like: Strategy) -> Plan:
    """The same members copy the same way, and their hyperparameters stay as they were inherited.

    When to use: to see what is gained by keeping lucky weights alone, which improves scores even where every
    hyperparameter is constant.
    """
    return replace(evolving(like), explore=keep())


def explore_only(like: Strategy, fraction: float | None = None) -> Plan:
    """Nobody copies; as many members as truncation would replace are drawn blindly, and explore.

    When to use: to see whether selection matters, or just that hyperparameters move.

    Args:
        like: The plan that is controlled for.
        fraction: Share of the population that explores each round. Default: that of the plan's truncation, else 0.2.
    """
    plan = evolving(like)
    if fraction is None:
        fraction = plan.exploit.fraction if isinstance(plan.exploit, Truncation) else FRACTION
    return replace(plan, exploit=at_random(fraction))


def constant(like: Strategy, run: "Run") -> "Along":
    """The values of the best member of a run without evolution, held by all members from the start.

    When to use: to ask whether a schedule was needed, or only good constants; train it with another seed than the
    run's, since the best of many lucky ones is less good the second time.

    Raises:
        UsageError: The values of the run's best member changed along its ancestry: that is a schedule, no constant.
    """
    segments = run.best_schedule.segments
    if len(segments) > 1:
        raise UsageError(
            f"{run.path or 'the run'}: expected a run without evolution, found one whose winner had "
            f"{len(segments)} sets of values one after the other; use replay for all of them, or final for the last"
        )
    return Along(schedule=run.best_schedule, interval=interval_of(like), mode=like.mode)


def replay(like: Strategy, run: "Run") -> "Along":
    """The schedule that made the best network, followed by all members from the start.

    When to use: to see what the schedule is worth without the weights that were selected on the way. Every member is
    a fresh network; `pbt.replay` trains one, and with the run's own seed to the same bits.
    """
    return Along(schedule=run.best_schedule, interval=interval_of(like), mode=like.mode)


def final(like: Strategy, run: "Run") -> "Along":
    """The last values of the schedule that made the best network, held by all members from the start.

    When to use: to see whether what the population ended with can be reused as a constant. Usually it cannot: a
    learning rate that is right at the end is too low at the beginning.
    """
    schedule = run.best_schedule
    held = Schedule((Segment(start=0, stop=schedule.steps, hparams=schedule.segments[-1].hparams),))
    return Along(schedule=held, interval=interval_of(like), mode=like.mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Along:
    """Every member follows one schedule from its first step on, and nobody copies.

    When to use: to train a known schedule, or a constant, on as many networks as a population has. Not to search.

    Args:
        schedule: What the members are trained with.
        interval: Training steps of a round, or a function from a step to the next ready step.
        mode: `"sync"` or `"async"`, as in `Plan`.

    Raises:
        UsageError: Interval or mode are outside these.
    """

    schedule: Schedule
    interval: Interval = 1
    mode: Mode = "sync"

    def __post_init__(self) -> None:
        self._plan()

    @property
    def lookback(self) -> int:
        """No earlier reports are looked at."""
        return 0

    def next_ready(self, step: int) -> int:
        """The step at which a member that stands at `step` is ready again."""
        return self._plan().next_ready(step)

    def begin(self, view: View, population: int, initial: Sequence[HParams]) -> Proposal:
        """All members with the schedule's first values, but for those that are given others."""
        first = [self.schedule.at(0)] * max(0, population - len(initial))
        return Proposal(starts=births(view, population, [*initial, *first]))

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """The schedule's values at each member's step; who failed leaves."""
        return self._plan().decide(view, ready)

    def retain(self, view: View) -> set[StateRef]:  # noqa: ARG002 (the form of a strategy)
        """No states but those that the members stand on."""
        return set()

    def describe(self) -> dict[str, Any]:
        """Plain values that say which schedule is followed."""
        return describe_record(self)

    def _plan(self) -> Plan:
        return Plan(exploit=never(), explore=follow(self.schedule), interval=self.interval, mode=self.mode)


def along_again(like: Strategy, plain: Any) -> Along:
    """The strategy that `Along.describe` described, for a run that goes on without the run its schedule came from.

    Args:
        like: The experiment's own plan, which has the interval.
        plain: The description.

    Raises:
        UsageError: It describes another strategy.
    """
    if not isinstance(plain, dict) or plain.get("name") != Along.__name__:
        raise UsageError(f"expected the description of a plan that follows a schedule, found {plain!r:.80}")
    told = plain["schedule"]["segments"]
    segments = [{name: value for name, value in segment.items() if name != "name"} for segment in told]
    return Along(schedule=Schedule.from_dict({"segments": segments}), interval=interval_of(like), mode=like.mode)
