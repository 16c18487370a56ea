"""Titles and captions of the figures: how to read each, and the finding in this run, computed from its record."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from pbt.core.events import Born
from pbt.report.data.curves import PointLines
from pbt.report.data.exploits import Exploits
from pbt.report.data.figures import Pictures
from pbt.report.data.fitness import Fitness
from pbt.report.data.founders import FounderShares
from pbt.report.data.health import Health
from pbt.report.data.importance import Importance
from pbt.report.data.parallel import Parallel
from pbt.report.data.plane import Plane, PlaneFrame
from pbt.report.data.schedules import Panel, ScheduleLines
from pbt.report.data.tree import Tree
from pbt.report.snapshot import RunSnapshot
from pbt.text import count, distinct, listed, number, percent, span, times

TITLES: Mapping[str, str] = {
    "fitness": "Fitness of the population",
    "curves": "Curves within the rounds",
    "schedules": "Hyperparameter schedules",
    "tree": "Development of the population",
    "founders": "Founders of the population",
    "exploits": "Copies between members",
    "plane": "Hyperparameters and scores, round by round",
    "parallel": "Hyperparameters of the members, side by side",
    "importance": "Hyperparameters that go with the score",
    "health": "Health of the run",
}
HOW: Mapping[str, str] = {
    "fitness": "Each thin line is a member, the band covers the middle 80 % of the population, the bold line is the "
    "ancestry of the best state, and each ring is a copied state; the x axis counts the training steps in a state.",
    "curves": "Each thin line shows the numbers that one member reported while it trained, broken where it copied "
    "another, the bold line those of the winner's ancestry, and each blue line a round in progress; the x axis counts "
    "the training steps in a state.",
    "schedules": "Each thin line shows the values of one member, the bold line those of the winner's ancestry (the "
    "discovered schedule), and each ring a hand-over to another member; members on few values are drawn a "
    "little apart; the x axis counts the training steps in a state.",
    "tree": "Time runs from the initial members on the left (pink) to the living states on the right (blue); a line "
    "forks where a member was copied and ends where it was replaced; the height only keeps relatives together.",
    "founders": "Each area is one initial member, and its height is the share of the population that descends from "
    "it; areas are in the order of the tree, and a single remaining area means a single common founder.",
    "exploits": "Each row is a donor and each column a member that copied; one bright row is a super-parent, an even "
    "pattern means that several good members alternated as donors.",
    "plane": "Each dot is a member after the round selected on the slider, colored by its score, and the ring marks "
    "the ancestor of the best state.",
    "parallel": "Each line is a member and each upright one hyperparameter, the last one the score with its better end "
    "on top; above are the values of the last round, below the means along each ancestry, weighted by training steps; "
    "the color is the rank, orange the best.",
    "importance": "Each mark is the mean over rounds of a rank correlation between members of the same round, so that "
    "progress over time plays no part, and gray is the size that chance alone reaches in one round; correlation is no "
    "cause: values that were copied together share the credit, and a value that all members have settled on shows no "
    "relation, however much it matters.",
    "health": "Per round, as counted by each member: founders with descendants, members that started from a copy, "
    "failed rounds, and the training time of the median and of the slowest member.",
}
"""How each figure is read: one sentence."""
NOTHING = "No member has finished a round yet, so there is nothing to draw."
ONLY_LIVE = "No member has finished a round yet; the curves show the rounds in progress."
ABSENT: Mapping[str, str] = {
    "curves": "The task reported no numbers with `ctx.report`.",
    "schedules": "This run has no hyperparameters.",
    "tree": "A single member has no tree.",
    "founders": "A single member has a single founder.",
    "exploits": "No member copied another.",
    "parallel": "Comparing hyperparameters takes at least two members and one hyperparameter.",
    "importance": "Relating hyperparameters and scores takes at least five members in a round and one hyperparameter.",
    "plane": "Comparing hyperparameters takes at least two members and one hyperparameter.",
}
"""Why a figure is missing."""


def shows(name: str, pictures: Pictures, snapshot: RunSnapshot) -> str:
    """The finding of this run in a figure, or the reason why there is no figure."""
    record: Any = getattr(pictures, name)
    if record is None:
        return ABSENT[name] if snapshot.path else NOTHING
    finding: Callable[[Any, RunSnapshot], str] = _FINDINGS[name]
    return finding(record, snapshot)


def omission(record: Any) -> str:
    """A sentence about values that a figure leaves out; empty where it shows all."""
    if isinstance(record, Fitness) and record.hidden:
        return f"The axis leaves out {count(record.hidden, 'outlying score')}; double-click to show all."
    if isinstance(record, Plane) and record.clipped:
        end = f"{'above' if record.minimize else 'below'} the end of the color scale"
        others = f" Not shown: {listed(record.others)}; the table lists all hyperparameters." if record.others else ""
        return f"{count(record.clipped, 'score')} {end} share its last color.{others}"
    if isinstance(record, (Plane, Parallel)) and record.others:
        return f"Not shown: {listed(record.others)}; the table lists all hyperparameters."
    return ""


def _fitness(record: Fitness, snapshot: RunSnapshot) -> str:
    first, last = record.best[0], record.best[-1]
    scores = distinct(first, last, record.median[0], record.median[-1])
    end = snapshot.path[-1]
    if len(record.steps) == 1:
        return f"After one round, the best {record.score} is {scores[1]} and the median is {scores[3]}."
    if len(snapshot.members) == 1:
        return f"The {record.score} went from {scores[0]} to {scores[1]} (step {end.step:,})."
    text = (
        f"The best {record.score} went from {scores[0]} after the first round to {scores[1]} "
        f"(member {end.member}, step {end.step:,}), and the median from {scores[2]} to {scores[3]}."
    )
    half = next((step for step, best in zip(record.steps, record.best, strict=True) if _half(best, first, last)), None)
    if first != last and half is not None:
        text += f" Half of the gain was reached by step {half:,} of {record.steps[-1]:,}."
    return text


def _half(best: float, first: float, last: float) -> bool:
    return abs(best - first) >= abs(last - first) / 2


def _curves(record: PointLines, snapshot: RunSnapshot) -> str:  # noqa: ARG001
    clauses: list[str] = []
    for panel in record.panels:
        if panel.ends is not None:
            first, last = distinct(*panel.ends)
            clauses.append(f"{panel.name} {'' if clauses else 'went '}from {first} to {last}")
    texts = [f"Along the winner's ancestry, {listed(clauses)}."] if clauses else []
    texts += [
        f"Not drawn: {count(panel.odd, 'point')} of {panel.name}, NaN or infinite."
        for panel in record.panels
        if panel.odd
    ]
    if record.training:
        texts.append(f"{count(record.training, 'round')} in progress {'report' if record.training > 1 else 'reports'}.")
    return " ".join(texts) or "No finite number was reported along the winner's ancestry."


def _schedules(record: ScheduleLines, snapshot: RunSnapshot) -> str:  # noqa: ARG001 (one signature for all)
    clauses = [_panel(panel) for panel in record.panels if panel.changes]
    constant = [panel.axis.name for panel in record.panels if not panel.changes]
    if constant:
        clauses.append(f"{listed(constant)} never changed")
    return f"Along the winner's ancestry, {'; '.join(clauses)}."


def _panel(panel: Panel) -> str:
    ends = (panel.first, panel.last)
    if all(isinstance(end, float) for end in ends):
        first, last = distinct(*ends)  # type: ignore[arg-type]
    else:
        first, last = ("inactive" if end is None else number(end) for end in ends)
    bound = f"its {panel.at_bound} bound" if panel.at_bound else ""
    if panel.first == panel.last:
        return f"{panel.axis.name} changed {times(panel.changes)} and returned to {last}" + (bound and f", {bound}")
    text = f"{panel.axis.name} went from {first} to {last} in {count(panel.changes, 'change')}"
    return text + (bound and f" and ended at {bound}")


def _tree(record: Tree, snapshot: RunSnapshot) -> str:  # noqa: ARG001
    roots = len({snapshot.states[ref].founder for ref in snapshot.living})
    members = list(dict.fromkeys(link.member for link in snapshot.path))
    hops = sum(a.member != b.member for a, b in itertools.pairwise(snapshot.path))
    living = len(snapshot.living)
    subject = "The only living state descends" if living == 1 else f"The {living:,} living states descend"
    # Members that were added later began with a copied state.
    openings = ((state.member, state.opening) for state in snapshot.states.values())
    added = {member for member, opening in openings if isinstance(opening, Born) and opening.start is not None}
    text = f"{subject} from {roots:,} of {len(set(snapshot.members) - added):,} initial members"
    ancestor = snapshot.common_ancestor
    if ancestor is not None and living > 1:
        text += f", and share one ancestor: member {ancestor.member} after step {ancestor.step:,}"
    if not hops:
        return f"{text}. Member {members[0]} trained the best state alone."
    return f"{text}. The best state was handed over {times(hops)} and passed through {count(len(members), 'member')}."


def _founders(record: FounderShares, snapshot: RunSnapshot) -> str:  # noqa: ARG001
    if record.taken_over is not None:
        round_, step = record.taken_over
        return f"From round {round_} (step {step:,}) on, all members descend from member {record.left[0]}."
    if len(record.left) == record.began:
        return f"All {record.began:,} founders still have descendants."
    names = f"members {listed(record.left)}" if len(record.left) > 1 else f"member {listed(record.left)}"
    return f"{len(record.left):,} of {record.began:,} founders still have descendants: {names}."


def _exploits(record: Exploits, snapshot: RunSnapshot) -> str:
    (donor, most), never = record.donors[0], len(snapshot.members) - len(record.donors)
    copies = "1 copy was made" if record.total == 1 else f"{record.total:,} copies were made"
    unused = f"{count(never, 'member')} {'was' if never == 1 else 'were'} never copied"
    return (
        f"{copies}. Member {donor} was copied most often, {times(most)} ({percent(most / record.total)} of all). "
        + (f"{unused}." if never else "Every member was copied at least once.")
    )


def _plane(record: Plane, snapshot: RunSnapshot) -> str:
    first, last = record.frames[0], record.frames[-1]
    ranges = []
    for axis, places in ((record.x, "x"), (record.y, "y")):
        if axis is None or axis.options:
            continue
        before, after = _range(getattr(first, places)), _range(_best_half(last, places, snapshot.sign))
        if before and after:
            ranges.append(f"{axis.title} {after} (first round: {before})")
    if not ranges:
        return "These hyperparameters are choices; the table lists their values in the last round."
    return f"In the last round, the better half of the members has {listed(ranges)}."


def _best_half(frame: PlaneFrame, places: str, sign: int) -> list[float | None]:
    values = getattr(frame, places)
    order = sorted(range(len(values)), key=lambda i: -sign * frame.scores[i])
    return [values[i] for i in order[: max(1, (len(order) + 1) // 2)]]


def _range(values: Any) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = distinct(min(known), max(known))
    return f"at {low}" if low == high else f"between {low} and {high}"


def _parallel(record: Parallel, snapshot: RunSnapshot) -> str:
    last = snapshot.generations[-1].states
    same = [
        name for name in snapshot.space if len(last) > 1 and len({repr(state.hparams.get(name)) for state in last}) == 1
    ]
    text = f"The best state of the last round is that of member {record.newest[-1].ref.member}."
    return f"{text} All members have the same {listed(same)}." if same else text


def _importance(record: Importance, snapshot: RunSnapshot) -> str:  # noqa: ARG001
    clear = [row for row in record.rows if row.score is not None and abs(row.score) > row.chance]
    rounds = count(record.rounds, "round")
    if not clear:
        return f"In {rounds}, no hyperparameter goes with the {record.score} more than chance alone could explain."
    clauses = [
        f"{row.axis.name} ({number(row.score, 2)}"
        + ("" if row.axis.options else ", larger is better" if (row.score or 0) > 0 else ", smaller is better")
        + ")"
        for row in clear[:4]
    ]
    return f"In {rounds}, these go with the {record.score} more than chance alone explains: {listed(clauses)}."


def _health(record: Health, snapshot: RunSnapshot) -> str:  # noqa: ARG001
    rate = sum(record.copied[1:]) / max(1, len(record.copied) - 1)
    parts = [f"On average, {percent(rate)} of the members start a round from a copy." if rate else "No member copied."]
    parts.append(f"{count(record.failures, 'round')} failed." if record.failures else "No round failed.")
    known = sorted(value for value in record.seconds if value is not None)
    if known and record.total_seconds is not None:
        median, total = span(known[len(known) // 2]), span(record.total_seconds)
        parts.append(f"A round took the median member {median}; all training took {total}.")
    return " ".join(parts)


_FINDINGS: Mapping[str, Callable[[Any, RunSnapshot], str]] = {
    "fitness": _fitness,
    "curves": _curves,
    "schedules": _schedules,
    "tree": _tree,
    "founders": _founders,
    "exploits": _exploits,
    "plane": _plane,
    "parallel": _parallel,
    "importance": _importance,
    "health": _health,
}
