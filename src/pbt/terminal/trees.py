"""Who descends from whom, as lines of text and as plain values. Nothing here trains."""

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
    """One member's rounds from a birth or a copy to the next copy, and what became of it."""

    stint: LineageSegment
    score: float
    """Of its last round, as the task returned it."""
    end: str
    """`live`, `retired`, `failed`, or `replaced`: the member went on from another's state."""
    best: bool
    """Whether the best state is in it."""


def branches(run: Run) -> list[Branch]:
    """All that was ever trained, in the order of the log.

    Raises:
        RunError: Nothing was trained yet.
    """
    best, tree = run.best.state, run.tree
    now = {member.state: member.status for member in run.view.members if member.state and member.state[0] == member.id}
    found = []
    for stint in tree.segments():
        failed = (stint.member, stint.last_round + 1) in tree.failures
        end = now.get(stint.state) or ("failed" if failed else "replaced")
        has_best = best.member == stint.member and stint.first_round <= best.round <= stint.last_round
        found.append(Branch(stint=stint, score=stint.score, end=end, best=has_best))
    return found


def tree_text(run: Run) -> list[Text]:
    """The development tree of a population, a line per branch; what ended is dim, what holds the best state green."""
    known = branches(run)
    home = {StateRef(b.stint.member, r): b for b in known for r in range(b.stint.first_round, b.stint.last_round + 1)}
    children: dict[StateRef | None, list[Branch]] = defaultdict(list)
    for branch in known:
        start = branch.stint.start
        children[None if start is None else home[start].stint.state].append(branch)
    lines: list[Text] = []
    # A stack and no recursion: a tree may be as deep as a run is long.
    pending = [(branch, "", "", "") for branch in reversed(children[None])]
    while pending:
        branch, before, joint, inner = pending.pop()
        line = Text(before + joint, style=GONE)
        line.append(_line(branch), style=BEST if branch.best else "" if branch.end == "live" else GONE)
        lines.append(line)
        below = children[branch.stint.state]
        for index in range(len(below) - 1, -1, -1):
            last = index == len(below) - 1
            pending.append((below[index], before + inner, "└─ " if last else "├─ ", "   " if last else "│  "))
    return lines


def _line(branch: Branch) -> str:
    stint = branch.stint
    rounds = f"round {stint.first_round}"
    if stint.last_round > stint.first_round:
        rounds = f"rounds {stint.first_round}-{stint.last_round}"
    parts = [f"member {stint.member}", rounds, scored(branch.score)]
    if stint.start is not None:
        parts.insert(1, f"from round {stint.start.round}")
    if branch.end != "live":
        parts.append(branch.end)
    if branch.best:
        parts.append("best")
    return " · ".join(parts)


def ancestry_table(run: Run, links: Sequence[Link], width: int) -> Group:
    """The rounds that made a state, first to last; rounds of one member with the same values are one line."""
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
    title = f"What made member {last.member} as it is after round {last.round}"
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
    """The branches as plain values; scores as the task returned them."""
    return [
        {
            "member": branch.stint.member,
            "first_round": branch.stint.first_round,
            "last_round": branch.stint.last_round,
            "first_step": branch.stint.first_step,
            "last_step": branch.stint.last_step,
            "from": _plain(branch.stint.start),
            "score": branch.score,
            "end": branch.end,
            "best": branch.best,
        }
        for branch in branches(run)
    ]


def ancestry_json(links: Sequence[Link]) -> list[dict[str, Any]]:
    """The rounds of an ancestry as plain values; scores as the task returned them."""
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
