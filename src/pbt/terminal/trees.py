"""The family tree of a population and the ancestry of a state, as text and as plain values."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Group
from rich.text import Text

from pbt.core.history import LineageSegment, TrainedState
from pbt.core.population import StateRef
from pbt.runs.results import Run
from pbt.terminal.tables import Column, grid
from pbt.text import NONE, cell, printable, scored

BEST, GONE = "bold green", "dim"


class Branch(NamedTuple):
    """The rounds of a member from a birth or a copy to the next copy."""

    segment: LineageSegment
    end: str
    """`live`, `retired`, `failed`, or `replaced` if the member then continued from another's state."""
    best: bool
    """Whether the branch contains the best state."""


def branches(run: Run) -> list[Branch]:
    """All branches of a run, in the order of the log.

    Raises:
        RunError: The run has no trained state yet.
    """
    best, tree = run.best.state, run.tree
    now = {member.state: member.status for member in run.view.members if member.state and member.state[0] == member.id}
    made = []
    for segment in tree.segments():
        first, last = segment
        failed = (last.member, last.round + 1) in tree.failures
        end = now.get(last.state) or ("failed" if failed else "replaced")
        has_best = best.member == first.member and first.round <= best.round <= last.round
        made.append(Branch(segment, end=end, best=has_best))
    return made


def tree_text(run: Run) -> list[Text]:
    """The family tree of a population, one line per branch: ended ones dim, the one with the best state green."""
    known = branches(run)
    # The index of the branch of each state, because a branch may start from any state of another.
    home = {
        StateRef(branch.segment.member, round_): index
        for index, branch in enumerate(known)
        for round_ in range(branch.segment.first.round, branch.segment.last.round + 1)
    }
    children: dict[int | None, list[int]] = defaultdict(list)
    for index, branch in enumerate(known):
        start = branch.segment.start
        children[None if start is None else home[start]].append(index)
    lines: list[Text] = []
    # A stack instead of recursion, because a tree may be as deep as the run is long.
    pending = [(index, "", "", "") for index in reversed(children[None])]
    while pending:
        index, before, joint, inner = pending.pop()
        branch, below = known[index], children[index]
        line = Text(before + joint, style=GONE)
        line.append(_line(branch), style=BEST if branch.best else "" if branch.end == "live" else GONE)
        lines.append(line)
        for child in reversed(below):
            last = child == below[-1]
            pending.append((child, before + inner, "└─ " if last else "├─ ", "   " if last else "│  "))
    return lines


def _line(branch: Branch) -> str:
    first, last = branch.segment
    rounds = f"round {first.round}" if first is last else f"rounds {first.round}-{last.round}"
    parts = [f"member {first.member}", rounds, scored(last.score)]
    if first.start is not None:
        parts.insert(1, f"from round {first.start.round}")
    if branch.end != "live":
        parts.append(branch.end)
    if branch.best:
        parts.append("best")
    return " · ".join(parts)


def ancestry_table(run: Run, ancestry: Sequence[TrainedState], width: int) -> Group:
    """The ancestry of a state, first to last; consecutive rounds of one member with equal values share a line."""
    groups = [list(group) for _, group in itertools.groupby(ancestry, key=lambda state: (state.member, state.hparams))]
    columns = [
        Column(title="member", cells=[str(group[0].member) for group in groups]),
        Column(title="rounds", cells=[_span(group[0].round, group[-1].round) for group in groups]),
        Column(title="from step", cells=[f"{group[0].first_step:,}" for group in groups]),
        Column(title="to step", cells=[f"{group[-1].step:,}" for group in groups]),
        Column(title="score", cells=[scored(group[-1].score) for group in groups]),
    ]
    for name in run.space:
        cells = [cell(g[0].hparams[name], name) if name in g[0].hparams else NONE for g in groups]
        columns.append(Column(title=printable(name), cells=cells, optional=True))
    columns.append(Column(title="hand-over", cells=[_how(group[0]) for group in groups], side="left"))
    last = ancestry[-1]
    title = f"Ancestry of member {last.member} after round {last.round}"
    return grid(title, columns, width, hint=" (all with --json)")


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _how(state: TrainedState) -> str:
    if state.decision is not None and state.start is not None and state.start.member != state.member:
        return f"← {state.start.member}"
    return {"explore": "explored", "continue": "kept"}.get(state.opening.kind, state.opening.kind)


def tree_json(run: Run) -> list[dict[str, Any]]:
    """The branches as plain values; scores are as returned by the task."""
    return [
        {
            "member": first.member,
            "first_round": first.round,
            "last_round": last.round,
            "first_step": first.first_step,
            "last_step": last.step,
            "from": _plain(first.start),
            "score": last.score,
            "end": end,
            "best": best,
        }
        for (first, last), end, best in branches(run)
    ]


def ancestry_json(ancestry: Sequence[TrainedState]) -> list[dict[str, Any]]:
    """The rounds of an ancestry as plain values; scores are as returned by the task."""
    return [
        {
            "member": state.member,
            "round": state.round,
            "from": _plain(state.start),
            "first_step": state.first_step,
            "last_step": state.step,
            "score": state.score,
            "kind": state.opening.kind,
            "hparams": dict(state.hparams),
        }
        for state in ancestry
    ]


def _plain(ref: StateRef | None) -> Mapping[str, int] | None:
    return None if ref is None else {"member": ref.member, "round": ref.round}
