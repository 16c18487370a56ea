"""What is true of every run, however it was trained, killed and resumed: `violations(path)` is empty.

It may be asked of a run that goes on as well. `pbt verify` asks whether the bytes of a run directory are whole; this
asks whether what they say can have happened: no hand-over without the state it names, no round missing or told twice.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pbt.core.events import Born, Decided, Decision, Ended, Event, Failed, MemoryUpdated, Reported, Retired
from pbt.core.fold import empty_view, fold
from pbt.core.population import StateRef, Stored
from pbt.errors import RunError, SpaceError
from pbt.space import Space
from pbt.store.codec import digest
from pbt.store.event_rows import to_event
from pbt.store.reader import RunReader
from pbt.store.tables import EventRow


def violations(path: str | Path) -> list[str]:
    """What is wrong with a run, in words; empty where nothing is.

    Args:
        path: The run directory. Of a run that is being written it is one moment that is looked at.

    Raises:
        RunFormatError: This is no run directory, or one of another version.
        CorruptError: The database is damaged.
    """
    with RunReader(path) as reader:
        rows, stored = _moment(reader)
        events = [to_event(row.data, row.id) for row in rows]
        found = [] if [row.id for row in rows] == list(range(1, len(rows) + 1)) else ["the ids of events have gaps"]
        found += log_violations(events, Space.from_dict(reader.meta["space"]), reader.meta["population"])
        return found + _state_violations(reader, events, stored)


def _moment(reader: RunReader) -> tuple[Sequence[EventRow], dict[StateRef, Stored]]:
    """The log, and every state that is kept, between two commits of whoever writes."""
    while True:
        rows = reader.rows()
        try:
            stored = {ref: reader.stored(ref) for ref in reader.refs()}
        except KeyError:  # swept since
            continue
        if not reader.rows(rows[-1].id if rows else 0):
            return rows, stored


def log_violations(events: Iterable[Event], space: Space, population: int) -> list[str]:
    """What is wrong with a log alone.

    Args:
        events: In order.
        space: What hyperparameters may be.
        population: How many members count at any time.
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
    """The log up to an event, and what was wrong with it."""

    space: Space
    found: list[str] = field(default_factory=list)
    births: dict[int, Born] = field(default_factory=dict)
    opened: dict[int, int] = field(default_factory=dict)
    """The round that was last opened, by member."""
    closed: dict[int, int] = field(default_factory=dict)
    """The round that was last reported or failed, by member."""
    steps: dict[int, int] = field(default_factory=dict)
    """The steps that are in the state which the open round started from."""
    reports: dict[StateRef, Reported] = field(default_factory=dict)
    retired: set[int] = field(default_factory=set)
    ended: bool = False

    def take(self, event: Event) -> None:
        """Look at one more event, and go on behind it."""
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
                    self.found.append(f"member {event.member} retired, but was not there")
                self.retired.add(event.member)
            case MemoryUpdated() | Ended():
                pass
        if self.ended and isinstance(event, Reported | Failed | Ended):
            self.found.append(f"the run had ended, and went on with {event.kind} without a decision")
        self.ended = isinstance(event, Ended) or (self.ended and isinstance(event, MemoryUpdated | Retired))

    def _born(self, birth: Born) -> None:
        who = f"member {birth.member}"
        if birth.member in self.births:
            self.found.append(f"{who} was born twice")
        self.births[birth.member] = birth
        self._open(birth.member, birth.round, birth.start, birth.hparams)
        self._steps(who, birth.start, birth.step)
        self.closed.setdefault(birth.member, birth.round - 1)

    def _decided(self, decision: Decision) -> None:
        who = f"member {decision.member}, round {decision.round}"
        if decision.member not in self.births or decision.member in self.retired:
            self.found.append(f"{who}: opened for a member that is not there")
        elif not self.opened[decision.member] == self.closed[decision.member] == decision.round - 1:
            self.found.append(f"{who}: opened after round {self.closed[decision.member]} was closed")
        self._open(decision.member, decision.round, decision.start, decision.hparams)
        self._steps(who, decision.start, decision.step)
        source = self.reports.get(decision.start) if decision.start is not None else None
        if source is not None and decision.scores not in ((), source.scores):
            self.found.append(f"{who}: says scores of {decision.start} that it has not")
        for donor in (decision.donor, decision.hparams_from):
            if donor is not None and donor not in self.births:
                self.found.append(f"{who}: copied member {donor}, which is not there")
        if decision.kind in ("exploit", "replace") and decision.donor is None:
            self.found.append(f"{who}: {decision.kind} without a donor")

    def _open(self, member: int, round_: int, start: StateRef | None, hparams: Mapping[str, Any]) -> None:
        self.opened[member] = round_
        # A start was always reported before, so the ancestry of a state can have no circle.
        if start is not None and start not in self.reports:
            self.found.append(f"member {member}, round {round_}: starts from {start}, which nobody had reported")
        self.steps[member] = self.reports[start].step if start in self.reports else 0
        try:
            self.space.check(hparams, f"member {member}, round {round_}")
        except SpaceError as error:
            self.found.append(str(error))

    def _steps(self, who: str, start: StateRef | None, said: int) -> None:
        source = self.reports.get(start) if start is not None else None
        if said != (0 if source is None else source.step):
            self.found.append(f"{who}: says {said} steps of a state that has another number")

    def _reported(self, event: Reported) -> None:
        who = f"member {event.member}, round {event.round}"
        self._close(event.member, event.round)
        if event.state != (event.member, event.round) or event.state in self.reports:
            self.found.append(f"{who}: reported the state {event.state}")
        if event.step <= self.steps.get(event.member, 0):
            self.found.append(f"{who}: trained from step {self.steps.get(event.member)} to {event.step}")
        if not event.scores or not all(map(math.isfinite, event.scores)):
            self.found.append(f"{who}: reported the scores {event.scores}")
        self.reports[event.state] = event

    def _close(self, member: int, round_: int) -> None:
        if member in self.retired or self.opened.get(member) != round_ or self.closed.get(member) != round_ - 1:
            self.found.append(f"member {member}, round {round_}: closed without being open, or twice")
        self.closed[member] = round_


def _state_violations(reader: RunReader, events: Sequence[Event], stored: Mapping[StateRef, Stored]) -> list[str]:
    """Child digest is donor digest: a state that is kept has the content that its report named; none is missing."""
    meta = reader.meta
    view = fold(events, empty_view(meta))
    needed = {member.state for member in view.members if member.status != "retired" and member.state is not None}
    if view.best is not None:
        needed.add(view.best.state)
    found = [f"the state {ref} is needed, and not kept" for ref in sorted(needed - stored.keys())]
    reported = {event.state: event.digest for event in events if isinstance(event, Reported)}
    for ref, there in stored.items():
        try:
            content = digest(reader.states.get(ref, there.digest, there.blob))
        except RunError as error:
            if ref in reader.refs():  # else a running writer has swept it since
                found.append(str(error))
            continue
        if not content == there.digest == reported.get(ref):
            found.append(f"the state {ref} has the digest {content}, its report says {reported.get(ref)}")
    return found
