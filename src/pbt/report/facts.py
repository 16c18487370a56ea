"""The head of a report: what came out, what was asked for, and where it was made."""

import json
from collections.abc import Mapping
from typing import Any

from pbt.report.snapshot import RunSnapshot
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


def results(snapshot: RunSnapshot) -> dict[str, str]:
    """What came out."""
    asked = snapshot.meta.get("rounds")
    done = snapshot.rounds
    found = {
        "state": snapshot.status,
        "members": f"{len(snapshot.members):,}",
        "rounds": f"{done:,}" + (f" of {asked:,}" if isinstance(asked, int) and asked != done else ""),
    }
    if snapshot.path:
        best = snapshot.path[-1]
        found[f"best {snapshot.score_name}"] = number(best.score, 6)
        for name, value in snapshot.reported.items():
            if isinstance(value, (int, float, str)) and len(found) < 12:
                found[f"its {name.replace('_', ' ')}"] = number(value, 6)
        found["made by"] = f"member {best.member}, round {best.round}, step {best.last_step:,}"
        found["copies"] = f"{len(snapshot.copies):,}"
        found["failed rounds"] = f"{len(snapshot.failures):,}"
    if snapshot.seconds:
        found["training"] = f"{span(sum(snapshot.seconds.values()))} of all members together"
    if snapshot.wall:
        found["from the first round to the last"] = span(snapshot.wall)
    return found


def setting(snapshot: RunSnapshot) -> dict[str, str]:
    """What was asked for."""
    found = {
        name: domain.describe() + ("; not read back" if name in snapshot.unread else "")
        for name, domain in snapshot.space.items()
    }
    found["task"] = str(snapshot.meta.get("task") or "not recorded")
    plan = snapshot.meta.get("plan")
    if isinstance(plan, Mapping):
        found |= {name: described(value) for name, value in plan.items() if name != "name"}
    found["objective"] = str(snapshot.meta.get("objective") or "maximize")
    found["seed"] = str(snapshot.meta.get("seed"))
    if snapshot.meta.get("initial"):
        found["given first values"] = f"for {count(len(snapshot.meta['initial']), 'member')}"
    return found


def environment(snapshot: RunSnapshot) -> dict[str, str]:
    """Where it was made; what results depend on in their last bits."""
    place = snapshot.meta.get("place")
    if not isinstance(place, Mapping):
        return {}
    found = {title: str(place[name]) for name, title in PLACE.items() if place.get(name) is not None}
    note = (snapshot.meta.get("application") or {}).get("note")
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
