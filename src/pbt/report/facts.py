"""The head of a report: what came out, what was asked for, and where it was made."""

import json
from collections.abc import Mapping
from typing import Any

from pbt.report.snapshot import Story
from pbt.text import count, number, span

LONG = 200
PLACE = {
    "executor": "executor",
    "device": "device",
    "threads": "CPU threads of a round",
    "pbt": "pbt",
    "torch": "PyTorch",
    "python": "Python",
    "machine": "machine",
}


def results(story: Story) -> dict[str, str]:
    """What came out."""
    asked = story.meta.get("rounds")
    done = story.rounds
    found = {
        "state": story.status,
        "members": f"{len(story.members):,}",
        "rounds": f"{done:,}" + (f" of {asked:,}" if isinstance(asked, int) and asked != done else ""),
    }
    if story.path:
        best = story.path[-1]
        found[f"best {story.score_name}"] = number(best.score, 6)
        for name, value in story.reported.items():
            if isinstance(value, (int, float, str)) and len(found) < 12:
                found[f"its {name.replace('_', ' ')}"] = number(value, 6)
        found["made by"] = f"member {best.member}, round {best.round}, step {best.last_step:,}"
        found["copies"] = f"{len(story.copies):,}"
        found["failed rounds"] = f"{len(story.failures):,}"
    if story.seconds:
        found["training"] = f"{span(sum(story.seconds.values()))} of all members together"
    if story.wall:
        found["from the first round to the last"] = span(story.wall)
    return found


def setting(story: Story) -> dict[str, str]:
    """What was asked for."""
    found = {
        name: domain.describe() + ("; not read back" if name in story.unread else "")
        for name, domain in story.space.items()
    }
    found["task"] = str(story.meta.get("task") or "not recorded")
    plan = story.meta.get("plan")
    if isinstance(plan, Mapping):
        found |= {name: described(value) for name, value in plan.items() if name != "name"}
    found["objective"] = str(story.meta.get("objective") or "maximize")
    found["seed"] = str(story.meta.get("seed"))
    if story.meta.get("initial"):
        found["given first values"] = f"for {count(len(story.meta['initial']), 'member')}"
    return found


def environment(story: Story) -> dict[str, str]:
    """Where it was made; what results depend on in their last bits."""
    place = story.meta.get("place")
    if not isinstance(place, Mapping):
        return {}
    found = {title: str(place[name]) for name, title in PLACE.items() if place.get(name) is not None}
    note = (story.meta.get("application") or {}).get("note")
    return {**found, "note": str(note)} if note else found


def described(value: Any) -> str:
    """A recorded rule as a call: `truncation(fraction=0.2)`; a very long one is cut."""
    words = _call(value)
    return words if len(words) <= LONG else f"{words[: LONG - 1]}…"


def _call(value: Any) -> str:
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key}={_call(item)}" for key, item in value.items() if key != "name")
        return f"{value['name']}({rest})" if "name" in value else f"({rest})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_call, value))}]"
    return value if isinstance(value, str) else json.dumps(value)
