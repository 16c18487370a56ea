"""Control plans, against which an evolving population is compared.

Each is derived from an experiment's own plan, so that rounds, mode and inheritance stay the same and one thing differs.
On the choice of controls: Jaderberg et al. 2017 (arXiv 1711.09846) separate selection and exploration; Eimer et al.
2023 (arXiv 2306.01324) require seeds that tuning has not used.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pbt.core.describe import describe_record
from pbt.core.exploit import Never, Truncation, at_random, never
from pbt.core.explore import follow, keep
from pbt.core.population import Member, StateRef, View
from pbt.core.schedule import Schedule, Segment
from pbt.core.strategy import Interval, Mode, Plan, Proposal, Strategy, births
from pbt.errors import UsageError
from pbt.space import HParams

if TYPE_CHECKING:
    from pbt.runs.results import Run

FRACTION = 0.2
"""The share of the population that explores in `explore_only` if the plan has no fraction."""


def interval_of(like: Strategy) -> Interval:
    """The interval of a strategy: training steps, or a function from a step to the next ready step."""
    interval: Interval = getattr(like, "interval", like.next_ready)
    return interval


def as_plan(like: Strategy) -> Plan:
    """The strategy itself if it is a `Plan`, else a default `Plan` with its interval and mode."""
    return like if isinstance(like, Plan) else Plan(interval=interval_of(like), mode=like.mode)


def evolving(like: Strategy) -> Plan:
    """The strategy itself if it is a `Plan` that copies, else a `Plan` with the default exploit and explore."""
    plan = as_plan(like)
    return Plan(interval=plan.interval, mode=plan.mode) if isinstance(plan.exploit, Never) else plan


def no_evolution(like: Strategy) -> Plan:
    """No copies and no changes: random search of the same size and budget.

    When to use: always. A plan that is not better than this control shows no benefit of evolution.
    """
    return replace(as_plan(like), exploit=never(), explore=keep())


def selection_only(like: Strategy) -> Plan:
    """The same copies, but copied hyperparameters never change.

    When to use: to measure the benefit of keeping lucky weights alone, which improves scores even with constant
    hyperparameters.
    """
    return replace(evolving(like), explore=keep())


def explore_only(like: Strategy, fraction: float | None = None) -> Plan:
    """No copies; as many members as truncation would replace, drawn at random, explore.

    When to use: to separate the benefit of selection from that of changing hyperparameters.

    Args:
        like: The plan to be controlled for.
        fraction: Share of the population that explores each round. Default: that of the plan's truncation, else 0.2.
    """
    plan = evolving(like)
    if fraction is None:
        fraction = plan.exploit.fraction if isinstance(plan.exploit, Truncation) else FRACTION
    return replace(plan, exploit=at_random(fraction))


def constant(like: Strategy, run: "Run") -> "Along":
    """All members keep the hyperparameters of the best member of a run without evolution.

    When to use: to test whether a schedule is needed or good constants suffice. Train it with another seed than the
    run's, because the best of many runs was also lucky.

    Raises:
        UsageError: The hyperparameters of the run's best member changed along its ancestry, so they are not constant.
    """
    segments = run.best_schedule.segments
    if len(segments) > 1:
        raise UsageError(
            f"{run.path or 'the run'}: expected a run without evolution, got one whose best schedule has "
            f"{len(segments)} segments; use replay to follow all of them, or final for the last"
        )
    return Along(schedule=run.best_schedule, interval=interval_of(like), mode=like.mode)


def replay(like: Strategy, run: "Run") -> "Along":
    """All members follow the schedule of the run's best member from the start.

    When to use: to measure the value of the schedule without the selection of weights. Every member is a new network;
    `pbt.replay` trains a single one, with the run's own seed to the same bits.
    """
    return Along(schedule=run.best_schedule, interval=interval_of(like), mode=like.mode)


def final(like: Strategy, run: "Run") -> "Along":
    """All members keep the last values of the schedule of the run's best member.

    When to use: to test whether the final values can be reused as constants. Usually they cannot: a learning rate that
    is right at the end is too low at the beginning.
    """
    schedule = run.best_schedule
    held = Schedule((Segment(start=0, stop=schedule.steps, hparams=schedule.segments[-1].hparams),))
    return Along(schedule=held, interval=interval_of(like), mode=like.mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Along:
    """Every member follows one schedule from its first step on, without copies.

    When to use: to train a population of networks with a known schedule or constant; it does not search.

    Args:
        schedule: The schedule of all members.
        interval: Training steps of a round, or a function from a step to the next ready step.
        mode: `"sync"` or `"async"`, as in `Plan`.

    Raises:
        UsageError: The interval or the mode is invalid.
    """

    schedule: Schedule
    interval: Interval = 1
    mode: Mode = "sync"

    def __post_init__(self) -> None:
        self._plan()

    @property
    def lookback(self) -> int:
        """No earlier reports are needed."""
        return 0

    def next_ready(self, step: int) -> int:
        """The step at which a member at `step` is ready again."""
        return self._plan().next_ready(step)

    def begin(self, view: View, population: int, initial: Sequence[HParams]) -> Proposal:
        """All members with the schedule's first values, except those with given initial values."""
        first = [self.schedule.at(0)] * max(0, population - len(initial))
        return Proposal(starts=births(view, population, [*initial, *first]))

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """The schedule's values at each member's step; failed members are retired."""
        return self._plan().decide(view, ready)

    def retain(self, view: View) -> set[StateRef]:  # noqa: ARG002 (the form of a strategy)
        """Keep no states besides the members' current ones."""
        return set()

    def describe(self) -> dict[str, Any]:
        """Plain values that identify the schedule."""
        return describe_record(self)

    def _plan(self) -> Plan:
        return Plan(exploit=never(), explore=follow(self.schedule), interval=self.interval, mode=self.mode)


def along_again(like: Strategy, plain: Any) -> Along:
    """Rebuild the strategy from its description, to resume a run without the run that its schedule came from.

    Args:
        like: The experiment's own plan, which has the interval.
        plain: The result of `Along.describe`.

    Raises:
        UsageError: The description is that of another strategy.
    """
    if not isinstance(plain, dict) or plain.get("name") != Along.__name__:
        raise UsageError(f"expected the description of a plan that follows a schedule, got {plain!r:.80}")
    described = plain["schedule"]["segments"]
    segments = [{name: value for name, value in segment.items() if name != "name"} for segment in described]
    return Along(schedule=Schedule.from_dict({"segments": segments}), interval=interval_of(like), mode=like.mode)
