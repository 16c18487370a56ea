"""The family tree of a population and the ancestry of a state, as text and as plain values."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.text import Text

from pbt.core.lineage import LineageSegment, Link
from pbt.core.population import StateRef
from pbt.runs.results import Run
from pbt.terminal.tables import Column, grid
from pbt.text import NONE, cell, printable, scored

BEST, GONE = "bold green", "dim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """The rounds of a member from a birth or a copy to the next copy."""

    segment: LineageSegment
    score: float
    """The score of the last round, as returned by the task."""
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
        failed = (segment.member, segment.last_round + 1) in tree.failures
        end = now.get(segment.state) or ("failed" if failed else "replaced")
        has_best = best.member == segment.member and segment.first_round <= best.round <= segment.last_round
        made.append(Branch(segment=segment, score=segment.score, end=end, best=has_best))
    return made


def tree_text(run: Run) -> list[Text]:
    """The family tree of a population, one line per branch: ended ones dim, the one with the best state green."""
    known = branches(run)
    home = {
        StateRef(branch.segment.member, round_): branch
        for branch in known
        for round_ in range(branch.segment.first_round, branch.segment.last_round + 1)
    }
    children: dict[StateRef | None, list[Branch]] = defaultdict(list)
    for branch in known:
        start = branch.segment.start
        children[None if start is None else home[start].segment.state].append(branch)
    lines: list[Text] = []
    # A stack instead of recursion, because a tree may be as deep as the run is long.
    pending = [(branch, "", "", "") for branch in reversed(children[None])]
    while pending:
        branch, before, joint, inner = pending.pop()
        line = Text(before + joint, style=GONE)
        line.append(_line(branch), style=BEST if branch.best else "" if branch.end == "live" else GONE)
        lines.append(line)
        below = children[branch.segment.state]
        for index in range(len(below) - 1, -1, -1):
            last = index == len(below) - 1
            pending.append((below[index], before + inner, "└─ " if last else "├─ ", "   " if last else "│  "))
    return lines


def _line(branch: Branch) -> str:
    segment = branch.segment
    rounds = f"round {segment.first_round}"
    if segment.last_round > segment.first_round:
        rounds = f"rounds {segment.first_round}-{segment.last_round}"
    parts = [f"member {segment.member}", rounds, scored(branch.score)]
    if segment.start is not None:
        parts.insert(1, f"from round {segment.start.round}")
    if branch.end != "live":
        parts.append(branch.end)
    if branch.best:
        parts.append("best")
    return " · ".join(parts)


def ancestry_table(run: Run, links: Sequence[Link], width: int) -> Group:
    """The ancestry of a state, first to last; consecutive rounds of one member with equal values share a line."""
    groups: list[list[Link]] = []
    for link in links:
        before = groups[-1][-1] if groups else None
        if before is None or (before.member, before.hparams) != (link.member, link.hparams):
            groups.append([])
        groups[-1].append(link)
    columns = [
        Column(title="member", cells=[str(group[0].member) for group in groups]),
        Column(title="rounds", cells=[_span(group[0].round, group[-1].round) for group in groups]),
        Column(title="from step", cells=[f"{group[0].first_step:,}" for group in groups]),
        Column(title="to step", cells=[f"{group[-1].last_step:,}" for group in groups]),
        Column(title="score", cells=[scored(group[-1].score) for group in groups]),
    ]
    for name in run.space:
        cells = [cell(g[0].hparams[name], name) if name in g[0].hparams else NONE for g in groups]
        columns.append(Column(title=printable(name), cells=cells, optional=True))
    columns.append(Column(title="hand-over", cells=[_how(group[0]) for group in groups], side="left"))
    last = links[-1]
    title = f"Ancestry of member {last.member} after round {last.round}"
    return grid(title, columns, width, hint=" (all with --json)")


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _how(link: Link) -> str:
    if link.decision is None:
        return "born"
    if link.start is not None and link.start.member != link.member:
        return f"← {link.start.member}"
    return {"explore": "explored", "continue": "kept"}.get(link.decision.kind, link.decision.kind)


def tree_json(run: Run) -> list[dict[str, Any]]:
    """The branches as plain values; scores are as returned by the task."""
    return [
        {
            "member": branch.segment.member,
            "first_round": branch.segment.first_round,
            "last_round": branch.segment.last_round,
            "first_step": branch.segment.first_step,
            "last_step": branch.segment.last_step,
            "from": _plain(branch.segment.start),
            "score": branch.score,
            "end": branch.end,
            "best": branch.best,
        }
        for branch in branches(run)
    ]


def ancestry_json(links: Sequence[Link]) -> list[dict[str, Any]]:
    """The rounds of an ancestry as plain values; scores are as returned by the task."""
    return [
        {
            "member": link.member,
            "round": link.round,
            "from": _plain(link.start),
            "first_step": link.first_step,
            "last_step": link.last_step,
            "score": link.score,
            "kind": link.decision.kind if link.decision else "born",
            "hparams": dict(link.hparams),
        }
        for link in links
    ]


def _plain(ref: StateRef | None) -> Mapping[str, int] | None:
    return None if ref is None else {"member": ref.member, "round": ref.round}
