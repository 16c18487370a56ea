"""Dry run of a plan's rules on synthetic members, before training starts.

Without it, a mistake in a rule would show only at the first copy, after rounds of training.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pbt.core.events import Born
from pbt.core.exploit import Copy, Mutate, Stay
from pbt.core.explore import explored
from pbt.core.population import Member, StateRef, View
from pbt.core.rules import FORMS, rule_name
from pbt.core.strategy import Plan
from pbt.errors import PBTError, SpaceError, UsageError
from pbt.runs.engine import RunSpec

T = TypeVar("T")
MOST = 100
"""Maximal number of synthetic members; in smaller runs the population, since a rule may index the ranking."""
OBJECTIVES, SERIES = 4, 20
"""Number of scores and series values of a synthetic member; more than a rule is likely to read."""
LOOKED_AHEAD = 10_000
"""Maximal number of calls of an interval function."""


def rehearse(spec: RunSpec, empty: View, starts: Sequence[Born]) -> None:
    """Call the plan's interval, rank, exploit and explore once or twice, with separate draws; results are discarded.

    Strategies other than `Plan` are not rehearsed, except for their explore rule: they may need more members or another
    form of report than can be made up.

    Args:
        spec: The settings of the run.
        empty: The view before the first event.
        starts: The strategy's first members.

    Raises:
        UsageError: A rule fails, returns another type than expected, or leaves the search space.
    """
    strategy = spec.strategy
    view = _pretended(empty, starts[:MOST], *_first_ready(spec))
    if not view.members:
        return
    if isinstance(strategy, Plan):
        view = view.ranked_by(strategy.rank)
        _check_rank(strategy.rank, view)
        for member in (view.ranking[-1], view.ranking[0]):
            _check_exploit(strategy.exploit, member, view)
    explore = getattr(strategy, "explore", None)
    if explore is not None:
        for member in (view.members[-1], view.members[0]):
            _check_explore(explore, member, view)


def _first_ready(spec: RunSpec) -> tuple[int, int]:
    """Step and round of the first ready point at which a member may copy; computes all ready points of the run."""
    burn_in = getattr(spec.strategy, "burn_in", 0)
    step, found = 0, None
    for round_ in range(1, min(spec.rounds, LOOKED_AHEAD) + 1):
        step = spec.strategy.next_ready(step)
        if found is None and step >= burn_in:
            found = step, round_
    return found or (max(step, burn_in), spec.rounds)


def _pretended(empty: View, starts: Sequence[Born], step: int, round_: int) -> View:
    """These members as if they had trained up to this step, the last one best."""
    members = tuple(
        Member(
            id=start.member,
            hparams=start.hparams,
            step=step,
            scores=tuple((index + 1 + objective) / (len(starts) + OBJECTIVES) for objective in range(OBJECTIVES)),
            series=tuple((index + 1 + value / SERIES) / (len(starts) + 2) for value in range(SERIES)),
            state=StateRef(start.member, round_),
            round=round_,
            opened=round_,
            role=start.role,
            group=start.group,
        )
        for index, start in enumerate(starts)
    )
    history = {member.id: (member,) for member in members} if empty.lookback else {}
    return replace(empty, round=round_, members=members, history=history)


def _check_rank(rank: Any, view: View) -> None:
    given = [member for member in view.population if member.healthy]
    found = _called("rank", rank, lambda: rank(given))
    if not isinstance(found, Sequence) or sorted(map(id, found)) != sorted(map(id, given)):
        raise UsageError(
            f"plan: rank={rule_name(rank)} must return the members that it was given, best first, got {found!r:.80}"
        )


def _check_exploit(exploit: Any, member: Member, view: View) -> None:
    choice = _called("exploit", exploit, lambda: exploit(member, view, view.rng("rehearsal", member.id)))
    if not isinstance(choice, (Copy, Mutate, Stay)):
        raise UsageError(
            f"plan: exploit={rule_name(exploit)} must return pbt.Copy, pbt.Mutate or pbt.Stay, got {choice!r:.80}"
        )
    if isinstance(choice, Copy) and choice.donor not in {other.id for other in view.members}:
        raise UsageError(
            f"plan: exploit={rule_name(exploit)} returned Copy(donor={choice.donor!r}); expected the id of a member, "
            "as view.ranking[0].id"
        )


def _check_explore(explore: Any, member: Member, view: View) -> None:
    try:
        _called(
            "explore",
            explore,
            lambda: explored(explore, member.hparams, member, view, view.rng("rehearsal", member.id)),
        )
    except SpaceError as error:
        raise UsageError(
            f"plan: explore={rule_name(explore)} leaves the search space: {error}; "
            "view.space.clip(values) moves them inside"
        ) from error


def _called(kind: str, rule: Any, call: Callable[[], T]) -> T:
    try:
        return call()
    except PBTError:
        raise
    except Exception as error:
        raise UsageError(
            f"plan: {kind}={rule_name(rule)} failed in a dry run before the start "
            f"({type(error).__name__}: {error}); expected {FORMS[kind]}"
        ) from error
