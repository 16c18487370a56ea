"""Invariants of every run, however it was trained, killed and resumed: `violations(path)` is empty.

They also hold while a run trains. `pbt verify` checks that the bytes of a run directory are intact; this module checks
that the events are consistent: every hand-over has its state, and every round is logged exactly once.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pbt.core.events import (
    FINISHED,
    LOST,
    Born,
    Decided,
    Decision,
    Ended,
    Event,
    Failed,
    MemoryUpdated,
    Reported,
    Retired,
)
from pbt.core.fold import empty_view, fold
from pbt.core.population import StateRef, Stored
from pbt.errors import RunError, SpaceError
from pbt.space import Space
from pbt.store.codec import digest
from pbt.store.reader import RunReader
from pbt.store.tables import EventRow
from pbt.store.waves import numbered


def violations(path: str | Path) -> list[str]:
    """The violated invariants of a run as messages; empty for a consistent run.

    Args:
        path: The run directory. A run that is being written is checked at one moment.

    Raises:
        RunFormatError: The path is not a run directory, or has another version.
        CorruptError: The database is damaged.
    """
    with RunReader(path) as reader:
        rows, stored = _moment(reader)
        pairs = numbered((row.id, row.data) for row in rows)
        events = [event for _, event in pairs]
        found = [] if [id_ for id_, _ in pairs] == list(range(1, len(pairs) + 1)) else ["the ids of events have gaps"]
        found += log_violations(events, Space.from_dict(reader.meta["space"]), reader.meta["population"])
        return found + _state_violations(reader, events, stored)


def _moment(reader: RunReader) -> tuple[Sequence[EventRow], dict[StateRef, Stored]]:
    """The log and all kept states, between two commits of the writer."""
    while True:
        rows = reader.rows()
        try:
            stored = {ref: reader.stored(ref) for ref in reader.refs()}
        except KeyError:  # swept since
            continue
        if not reader.rows(rows[-1].id if rows else 0):
            return rows, stored


def log_violations(events: Iterable[Event], space: Space, population: int) -> list[str]:
    """The violated invariants of a log.

    Args:
        events: The events in order.
        space: The space of the hyperparameters.
        population: The number of members of the population at any time.
    """
    log = _Log(space=space)
    for event in events:
        log.take(event)
    counted = [id_ for id_, birth in log.births.items() if birth.role == "member"]
    if counted and not len(log.retired & set(counted)) >= len(counted) - population >= 0:
        log.found.append(
            f"expected {population} members at a time, found {len(counted)} born, {len(log.retired)} retired"
        )
    return log.found


@dataclass(slots=True, kw_only=True)
class _Log:
    """The log up to an event, with the violations so far."""

    space: Space
    found: list[str] = field(default_factory=list)
    births: dict[int, Born] = field(default_factory=dict)
    opened: dict[int, int] = field(default_factory=dict)
    """The last opened round, by member."""
    closed: dict[int, int] = field(default_factory=dict)
    """The last round that was reported or failed, by member."""
    steps: dict[int, int] = field(default_factory=dict)
    """Steps in the state from which the open round started, by member."""
    reports: dict[StateRef, Reported] = field(default_factory=dict)
    retired: set[int] = field(default_factory=set)
    ended: bool = False

    def take(self, event: Event) -> None:
        """Check the next event and apply it."""
        match event:
            case Born():
                self._born(event)
            case Decided(decision=decision):
                self._decided(decision)
            case Reported():
                self._reported(event)
            case Failed():
                self._close(event.member, event.round)
            case Retired():
                if event.member not in self.births or event.member in self.retired:
                    self.found.append(f"member {event.member}: retired twice, or without being born")
                self.retired.add(event.member)
            case MemoryUpdated() | Ended():
                pass
        if self.ended and isinstance(event, Reported | Failed | Ended):
            self.found.append(f"{event.kind} after the run had ended, without a decision in between")
        ended = isinstance(event, Ended) and event.why in (FINISHED, LOST)  # a stopped run has open rounds
        self.ended = ended or (self.ended and isinstance(event, MemoryUpdated | Retired))

    def _born(self, birth: Born) -> None:
        name = f"member {birth.member}"
        if birth.member in self.births:
            self.found.append(f"{name} was born twice")
        self.births[birth.member] = birth
        self._open(birth.member, birth.round, birth.start, birth.hparams)
        self._steps(name, birth.start, birth.step)
        self.closed.setdefault(birth.member, birth.round - 1)

    def _decided(self, decision: Decision) -> None:
        name = f"member {decision.member}, round {decision.round}"
        if decision.member not in self.births or decision.member in self.retired:
            self.found.append(f"{name}: opened for a member that was not born or has retired")
        elif not self.opened[decision.member] == self.closed[decision.member] == decision.round - 1:
            self.found.append(f"{name}: opened after round {self.closed[decision.member]} was closed")
        self._open(decision.member, decision.round, decision.start, decision.hparams)
        self._steps(name, decision.start, decision.step)
        source = self.reports.get(decision.start) if decision.start is not None else None
        if source is not None and decision.scores not in ((), source.scores):
            self.found.append(f"{name}: expected scores {source.scores} of {decision.start}, got {decision.scores}")
        for donor in (decision.donor, decision.hparams_from):
            if donor is not None and donor not in self.births:
                self.found.append(f"{name}: copied member {donor}, which was never born")
        if decision.kind in ("exploit", "replace") and decision.donor is None:
            self.found.append(f"{name}: {decision.kind} without a donor")

    def _open(self, member: int, round_: int, start: StateRef | None, hparams: Mapping[str, Any]) -> None:
        self.opened[member] = round_
        # Every start was reported before, so ancestries have no cycles.
        if start is not None and start not in self.reports:
            self.found.append(f"member {member}, round {round_}: starts from {start}, which was not reported before")
        self.steps[member] = self.reports[start].step if start in self.reports else 0
        try:
            self.space.check(hparams, f"member {member}, round {round_}")
        except SpaceError as error:
            self.found.append(str(error))

    def _steps(self, name: str, start: StateRef | None, step: int) -> None:
        source = self.reports.get(start) if start is not None else None
        expected = 0 if source is None else source.step
        if step != expected:
            self.found.append(f"{name}: expected {expected} steps in the state it starts from, got {step}")

    def _reported(self, event: Reported) -> None:
        name = f"member {event.member}, round {event.round}"
        self._close(event.member, event.round)
        if event.state != (event.member, event.round) or event.state in self.reports:
            self.found.append(f"{name}: reported the state {event.state}")
        if event.step <= self.steps.get(event.member, 0):
            self.found.append(f"{name}: trained from step {self.steps.get(event.member)} to {event.step}")
        if not event.scores or not all(map(math.isfinite, event.scores)):
            self.found.append(f"{name}: reported the scores {event.scores}")
        self.reports[event.state] = event

    def _close(self, member: int, round_: int) -> None:
        if member in self.retired or self.opened.get(member) != round_ or self.closed.get(member) != round_ - 1:
            self.found.append(f"member {member}, round {round_}: closed twice, or without being open")
        self.closed[member] = round_


def _state_violations(reader: RunReader, events: Sequence[Event], stored: Mapping[StateRef, Stored]) -> list[str]:
    """States: every kept state has the content named by its report, and no needed state is missing."""
    meta = reader.meta
    view = fold(events, empty_view(meta))
    needed = {member.state for member in view.members if member.status != "retired" and member.state is not None}
    if view.best is not None:
        needed.add(view.best.state)
    found = [f"the state {ref} is needed but not kept" for ref in sorted(needed - stored.keys())]
    reported = {event.state: event.digest for event in events if isinstance(event, Reported)}
    for ref, record in stored.items():
        try:
            content = digest(reader.states.get(ref, record.digest, record.blob))
        except RunError as error:
            if ref in reader.refs():  # otherwise the writer has swept it in the meantime
                found.append(str(error))
            continue
        if not content == record.digest == reported.get(ref):
            found.append(f"the state {ref} has the digest {content}, but its report has {reported.get(ref)}")
    return found
