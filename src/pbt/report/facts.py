"""The facts of a report: results, settings and environment, as names with values."""

import json
from collections.abc import Mapping
from typing import Any

from pbt.report.snapshot import RunSnapshot
from pbt.text import count, number, span

LONG = 200
"""The most characters of a rule's description."""
PLACE = {
    "executor": "executor",
    "device": "device",
    "threads": "CPU threads per round",
    "precision": "precision",
    "convolutions": "convolutions",
    "pbt": "pbt",
    "torch": "PyTorch",
    "python": "Python",
    "machine": "machine",
}


def results(snapshot: RunSnapshot) -> dict[str, str]:
    """The outcome of the run."""
    target, done = snapshot.meta.get("rounds"), snapshot.rounds
    facts = {
        "state": snapshot.status,
        "members": f"{len(snapshot.members):,}",
        "rounds": f"{done:,}" + (f" of {target:,}" if isinstance(target, int) and target != done else ""),
    }
    if snapshot.path:
        best = snapshot.path[-1]
        facts[f"best {snapshot.score_name}"] = number(best.score, 6)
        last = [snapshot.states[ref].score for ref in snapshot.living if ref in snapshot.states]
        if len(last) > 1:
            # The best of many scores is partly luck; a mean that they did not choose is not.
            luck = f"the best of {count(len(snapshot.states), 'score')} is expected to be optimistic"
            facts[f"mean {snapshot.score_name} of the last states"] = f"{number(sum(last) / len(last), 6)}; {luck}"
        for name, value in snapshot.reported.items():
            if isinstance(value, (int, float, str)) and len(facts) < 12:
                facts[f"{name.replace('_', ' ')} of the best"] = number(value, 6)
        facts["reached by"] = f"member {best.member}, round {best.round}, step {best.step:,}"
        facts["copies"] = f"{len(snapshot.copies):,}"
        facts["failed rounds"] = f"{len(snapshot.failures):,}"
    if snapshot.seconds:
        facts["training time"] = f"{span(sum(snapshot.seconds.values()))}, sum over all members"
    if snapshot.wall:
        facts["time from the first round to the last"] = span(snapshot.wall)
    return facts


def setting(snapshot: RunSnapshot) -> dict[str, str]:
    """The experiment: domains, task, plan, objective, seed and initial values."""
    facts = {
        name: domain.describe() + ("; not read back" if name in snapshot.unread else "")
        for name, domain in snapshot.space.items()
    }
    facts["task"] = str(snapshot.meta.get("task") or "not recorded")
    plan = snapshot.meta.get("plan")
    if isinstance(plan, Mapping):
        facts |= {name: described(value) for name, value in plan.items() if name != "name"}
    objective = snapshot.meta.get("objective") or "maximize"
    facts["objective"] = objective if isinstance(objective, str) else ", ".join(map(str, objective))
    facts["seed"] = str(snapshot.meta.get("seed"))
    if snapshot.meta.get("initial"):
        facts["initial values"] = f"given for {count(len(snapshot.meta['initial']), 'member')}"
    return facts


def environment(snapshot: RunSnapshot) -> dict[str, str]:
    """Placement, versions and machine: what the last bits of the results depend on."""
    place = snapshot.meta.get("place")
    if not isinstance(place, Mapping):
        return {}
    facts = {title: str(place[name]) for name, title in PLACE.items() if place.get(name) is not None}
    note = (snapshot.meta.get("application") or {}).get("note")
    return {**facts, "note": str(note)} if note else facts


def described(value: Any) -> str:
    """A recorded rule as a call, `truncation(fraction=0.2)`, cut after `LONG` characters."""
    words = _call(value)
    return words if len(words) <= LONG else f"{words[: LONG - 1]}…"


def _call(value: Any) -> str:
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key}={_call(item)}" for key, item in value.items() if key != "name")
        return f"{value['name']}({rest})" if "name" in value else f"({rest})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_call, value))}]"
    return value if isinstance(value, str) else json.dumps(value)
