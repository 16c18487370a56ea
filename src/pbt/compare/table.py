"""A comparison as a terminal table."""

from rich.console import Group

from pbt.compare.results import Comparison, PlanResult
from pbt.compare.sentences import p_value, signed, verdict
from pbt.terminal.tables import Column, grid
from pbt.text import NONE, distinct, number, printable

_STYLES = {"better": "green", "worse": "red", "same": "dim", "not shown": "dim"}


def comparison_table(found: Comparison, width: int) -> Group:
    """One row per plan, the reference first."""
    plans = found.plans
    verdicts = ["" if result.paired is None else verdict(found, result.paired) for result in plans]
    columns = [
        Column(title="plan", cells=[printable(result.plan) for result in plans], side="left"),
        Column(title=f"IQM {found.metric}", cells=_middles(plans)),
        Column(title="95 % interval", cells=[_interval(result) for result in plans]),
        Column(title="difference", cells=[_difference(result) for result in plans]),
        Column(title="95 % interval", cells=[_difference_interval(result) for result in plans]),
        Column(title="p", cells=[p_value(r.paired.adjusted) if r.paired else NONE for r in plans]),
        Column(title="verdict", cells=verdicts, side="left"),
        Column(title="steps", cells=[f"{result.mean('steps'):,.0f}" for result in plans]),
        Column(title="state steps", cells=[f"{result.mean('state_steps'):,.0f}" for result in plans]),
        Column(title="copies", cells=[number(result.mean("copies"), 3) for result in plans]),
        Column(title="founders", cells=[number(result.mean("founders"), 3) for result in plans]),
        Column(title="median", cells=[NONE if r.summary is None else number(r.summary.median) for r in plans]),
        Column(title="mean rank", cells=_ranks(found)),
        Column(title="seconds", cells=[number(result.mean("seconds"), 3) for result in plans]),
    ]
    for column in columns[7:]:
        column.optional = True
    return grid(_title(found), columns, width, [_STYLES.get(word, "bold") for word in verdicts], " (all in the JSON)")


def _title(found: Comparison) -> str:
    seeds = f"{len(found.seeds)} seed{'s' * (len(found.seeds) != 1)}"
    better = "lower" if found.minimize else "higher"
    return (
        f"{printable(found.task)}: {found.metric}, {better} is better · {seeds} · "
        f"{found.population} members, {found.rounds} rounds · steps, copies and founders are means over runs"
    )


def _middles(plans: tuple[PlanResult, ...]) -> list[str]:
    means = [result.summary.iqm for result in plans if result.summary is not None]
    texts = dict(zip(means, distinct(*means), strict=True))
    return [NONE if result.summary is None else texts[result.summary.iqm] for result in plans]


def _interval(result: PlanResult) -> str:
    if result.summary is None or result.summary.seeds < 2:
        return NONE
    return f"{number(result.summary.low)} to {number(result.summary.high)}"


def _difference(result: PlanResult) -> str:
    return NONE if result.paired is None else signed(result.paired.iqm)


def _difference_interval(result: PlanResult) -> str:
    if result.paired is None or len(result.paired.seeds) < 2:
        return NONE
    return f"{signed(result.paired.low)} to {signed(result.paired.high)}"


def _ranks(found: Comparison) -> list[str]:
    if found.friedman is None:
        return [NONE] * len(found.plans)
    ranks = dict(zip(found.in_friedman, found.friedman.ranks, strict=True))
    return [number(ranks[result.plan], 3) if result.plan in ranks else NONE for result in found.plans]
