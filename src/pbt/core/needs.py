"""Requirements of strategies and rules, checked against an experiment before its start."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pbt.domains import Choice
from pbt.errors import UsageError
from pbt.space import Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a strategy or a rule needs from an experiment; it is the attribute `needs` of the strategy or rule.

    Args:
        name: The name of the strategy or rule, for error messages.
        members: The smallest population.
        numbers: Whether the space must have a `Float` or an `Int`.
        series: The fewest values of `series` in a report.
    """

    name: str
    members: int = 1
    numbers: bool = False
    series: int = 0


def check_needs(strategy: Any, space: Space, population: int, task: Any) -> None:
    """Check that an experiment has what its strategy and the rules of it need.

    A task says with `returns_series = False` that its reports have no series; of another task this is known only after
    its first round.

    Args:
        strategy: The strategy.
        space: The search space.
        population: Number of members.
        task: The task.

    Raises:
        UsageError: It lacks something; the message names the strategy or rule.
    """
    for needs in _needs_of(strategy):
        if population < needs.members:
            raise UsageError(
                f"{needs.name}: expected a population of at least {needs.members}, got {population}; take more "
                "members, or a plan such as pbt"
            )
        if needs.numbers and all(isinstance(domain, Choice) for domain in space.values()):
            raise UsageError(
                f"{needs.name}: expected a space with a Float or an Int, got {_listed(space)}; add one, or take a plan "
                "such as pbt or pb2-mix"
            )
        if needs.series and getattr(task, "returns_series", True) is False:
            raise UsageError(
                f"{needs.name}: expected a task that returns at least {needs.series} values of 'series' in a report, "
                f"got {type(task).__name__}, which returns none; take another plan, or a task of your own that does"
            )


def check_series(strategy: Any, lengths: Sequence[int]) -> None:
    """Check the first reports of a task of which it was not known whether it returns a series.

    Args:
        strategy: The strategy.
        lengths: The number of values of `series` in each report.

    Raises:
        UsageError: All of them have too few; the message names the strategy or rule.
    """
    for needs in _needs_of(strategy):
        if lengths and max(lengths) < needs.series:
            raise UsageError(
                f"{needs.name}: expected a task that returns at least {needs.series} values of 'series' in a report, "
                f"got {max(lengths) or 'none'}; return them, or take another plan"
            )


def _needs_of(rule: Any) -> Iterator[Needs]:
    """The requirements of a strategy, its rules, and the rules in these."""
    needs = getattr(rule, "needs", None)
    if isinstance(needs, Needs):
        yield needs
    for name in ("exploit", "explore", "rule"):
        inner = getattr(rule, name, None)
        if inner is not None and inner is not rule:
            yield from _needs_of(inner)


def _listed(space: Space) -> str:
    return f"only choices: {', '.join(space)}" if space else "none"
