"""What each picture says: one sentence on how to read it, one on what this run shows, computed from it."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from pbt.report.data.exploits import Exploits
from pbt.report.data.figures import Pictures
from pbt.report.data.fitness import Fitness
from pbt.report.data.founders import FounderShares
from pbt.report.data.health import Health
from pbt.report.data.plane import Plane, PlaneFrame
from pbt.report.data.schedules import Panel, ScheduleLines
from pbt.report.data.tree import Tree
from pbt.report.snapshot import RunSnapshot
from pbt.text import count, distinct, listed, number, percent, span, times

TITLES: Mapping[str, str] = {
    "fitness": "Fitness of the population",
    "schedules": "Hyperparameter schedules",
    "tree": "Development of the population",
    "founders": "Who the population descends from",
    "exploits": "Who copied whom",
    "plane": "Where good values lie, round by round",
    "health": "Health of the run",
}
HOW: Mapping[str, str] = {
    "fitness": "Each thin line is a member, the band holds the middle 80 % of the population, the bold line is the "
    "ancestry of the best state, and a ring is a state that somebody copied; x counts the training steps in a state.",
    "schedules": "Each thin line is what a member trained with, the bold line is the winner's ancestry, whose values "
    "are the schedule that was found, and rings mark where it went over to another member; x counts the training "
    "steps in a state.",
    "tree": "Time runs from the initial members on the left (pink) to the living ones on the right (blue); a line "
    "forks where a member was copied and ends where it was replaced; heights only keep relatives together.",
    "founders": "Each area is one initial member, as wide as the part of the population that descends from it, in the "
    "order of the tree; where one area is left the population has one ancestor.",
    "exploits": "A row is a donor, a column the member that copied it; one bright row is a super-parent, an even "
    "pattern means that good members took turns.",
    "plane": "Each dot is a member after the round that the slider stands on, colored by its score, and the ring is "
    "the ancestor of the best state.",
    "health": "Per round, as each member counts its own: founders that somebody descends from, members that began it "
    "with a copy, rounds that failed, and the seconds that the median member and the slowest one took.",
}
NOTHING = "No member has finished a round yet; there is nothing to draw."
ABSENT: Mapping[str, str] = {
    "schedules": "This run has no hyperparameters.",
    "tree": "With one member there is no tree.",
    "founders": "With one member there is one founder.",
    "exploits": "Nobody copied anybody.",
    "plane": "There are no members whose hyperparameters could be compared.",
}


def shows(name: str, pictures: Pictures, snapshot: RunSnapshot) -> str:
    """What this run shows in a picture, or why there is none."""
    record: Any = getattr(pictures, name)
    if not snapshot.path:
        return NOTHING
    if record is None:
        return ABSENT[name]
    tell: Callable[[Any, RunSnapshot], str] = _TELL[name]
    return tell(record, snapshot)


def aside(record: Any) -> str:
    """What else has to be said to read a picture; empty: nothing."""
    if isinstance(record, Fitness) and record.hidden:
        return f"The axis leaves out {count(record.hidden, 'far score')}; a double-click shows all."
    if isinstance(record, Plane) and record.others:
        return f"Not shown: {listed(record.others)}; the table has all."
    return ""


def _fitness(record: Fitness, snapshot: RunSnapshot) -> str:
    first, last = record.best[0], record.best[-1]
    scores = distinct(first, last, record.median[0], record.median[-1])
    end = snapshot.path[-1]
    if len(record.steps) == 1:
        return f"After one round the best {record.score} is {scores[1]} and the median {scores[3]}."
    if len(snapshot.members) == 1:
        return f"The {record.score} went from {scores[0]} to {scores[1]}, which was reached at step {end.last_step:,}."
    text = (
        f"The best {record.score} went from {scores[0]} after the first round to {scores[1]} "
        f"(member {end.member}, step {end.last_step:,}), the median from {scores[2]} to {scores[3]}"
    )
    half = next((step for step, best in zip(record.steps, record.best, strict=True) if _half(best, first, last)), None)
    if first != last and half is not None:
        text += f"; half of the gain was there by step {half:,} of {record.steps[-1]:,}"
    return f"{text}."


def _half(best: float, first: float, last: float) -> bool:
    return abs(best - first) >= abs(last - first) / 2


def _schedules(record: ScheduleLines, snapshot: RunSnapshot) -> str:  # noqa: ARG001 (one signature for all)
    told = [_panel(panel) for panel in record.panels]
    others = [panel.axis.name for panel in record.panels if not panel.changes]
    told = [text for text in told if text]
    if others:
        told.append(f"{listed(others)} never changed")
    return f"On the winner's way {listed(told, most=len(told))}."


def _panel(panel: Panel) -> str:
    if not panel.changes:
        return ""
    ends = (panel.first, panel.last)
    first, last = distinct(*ends) if all(isinstance(end, float) for end in ends) else map(number, ends)  # type: ignore[arg-type]
    text = f"{panel.axis.name} went from {first} to {last} "
    text += f"in {count(panel.changes, 'change')}"
    return f"{text} and ended at its {panel.at_bound} bound" if panel.at_bound else text


def _tree(record: Tree, snapshot: RunSnapshot) -> str:  # noqa: ARG001
    roots = len({snapshot.states[ref].founder for ref in snapshot.living})
    members = list(dict.fromkeys(link.member for link in snapshot.path))
    hops = sum(a.member != b.member for a, b in itertools.pairwise(snapshot.path))
    text = f"The {count(len(snapshot.living), 'living state')} descend{'s' * (len(snapshot.living) == 1)} from "
    text += f"{roots:,} of {len(snapshot.members):,} initial members"
    ancestor = snapshot.common_ancestor
    if ancestor is not None and len(snapshot.living) > 1:
        text += f", and from one state: member {ancestor.ref.member} after step {ancestor.step:,}"
    if not hops:
        return f"{text}; the best state was trained by member {members[0]} alone."
    return f"{text}; the best state was handed over {times(hops)}, by way of {count(len(members), 'member')}."


def _founders(record: FounderShares, snapshot: RunSnapshot) -> str:  # noqa: ARG001
    if record.taken_over is not None:
        round_, step = record.taken_over
        return f"From round {round_} (step {step:,}) on everybody descends from member {record.left[0]}."
    if len(record.left) == record.began:
        return f"All {record.began:,} founders still have descendants."
    names = f"members {listed(record.left)}" if len(record.left) > 1 else f"member {listed(record.left)}"
    return f"{len(record.left):,} of {record.began:,} founders still have descendants: {names}."


def _exploits(record: Exploits, snapshot: RunSnapshot) -> str:
    (donor, most), never = record.donors[0], len(snapshot.members) - len(record.donors)
    return (
        f"{count(record.total, 'copy').replace('copys', 'copies')}; member {donor} was copied most, "
        f"{times(most)} ({percent(most / record.total)} of all), and "
        + (f"{count(never, 'member')} never." if never else "every member at least once.")
    )


def _plane(record: Plane, snapshot: RunSnapshot) -> str:
    first, last = record.frames[0], record.frames[-1]
    told = []
    for axis, places in ((record.x, "x"), (record.y, "y")):
        if axis is None or axis.options:
            continue
        before, after = _range(getattr(first, places)), _range(_best_half(last, places, snapshot.sign))
        if before and after:
            name = axis.title
            told.append(f"{name} {after} (at the start: {before})")
    if not told:
        return "The hyperparameters are choices: see the table for the last round."
    return f"In the last round the better half of the members has {listed(told)}."


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


def _health(record: Health, snapshot: RunSnapshot) -> str:  # noqa: ARG001
    rate = sum(record.copied[1:]) / max(1, len(record.copied) - 1)
    text = f"{percent(rate)} of the members began an average round with a copy, " if rate else "nobody copied, "
    text += f"{count(record.failures, 'round')} failed" if record.failures else "no round failed"
    known = sorted(value for value in record.seconds if value is not None)
    if known and record.total_seconds is not None:
        text += f", and a round took the median member {span(known[len(known) // 2])}"
        text += f" ({span(record.total_seconds)} of training in all)"
    return f"{text[0].upper()}{text[1:]}."


_TELL: Mapping[str, Callable[[Any, RunSnapshot], str]] = {
    "fitness": _fitness,
    "schedules": _schedules,
    "tree": _tree,
    "founders": _founders,
    "exploits": _exploits,
    "plane": _plane,
    "health": _health,
}
