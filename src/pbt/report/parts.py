"""The data of a page beside its figures: the table of states behind them, the table of members, and their records."""

from pathlib import Path
from typing import Any

from pbt.report.data.members import member_record, member_table
from pbt.report.data.states import state_table
from pbt.report.page import json_text
from pbt.report.snapshot import RunSnapshot
from pbt.store.logs import log_tail

RECORDS = 1_000_000
"""The most characters of all records of members in a report."""


def page_parts(snapshot: RunSnapshot) -> dict[str, Any]:
    """The tables of states and of members, as plain values; empty before the first birth."""
    if not snapshot.members:
        return {}
    return {"states": state_table(snapshot).plain(), "members": member_table(snapshot).plain()}


def record_of(snapshot: RunSnapshot, member: int, folder: Path | None) -> dict[str, Any] | None:
    """The record of a member with the end of its newest log; None if there is no such member."""
    return member_record(snapshot, member, None if folder is None else log_tail(folder, member))


def records(snapshot: RunSnapshot, folder: Path | None) -> dict[str, Any]:
    """The records of as many members as fit, by id: the winner's ancestry first, then the members in their order."""
    members = [link.member for link in reversed(snapshot.path)] + [ref.member for ref in snapshot.living]
    failed = [failure.member for failure in snapshot.failures]
    found: dict[str, Any] = {}
    room = RECORDS
    for member in dict.fromkeys((*members, *failed, *snapshot.members)):
        record = record_of(snapshot, member, folder)
        room -= 0 if record is None else len(json_text(record))
        if room < 0:
            break
        if record is not None:
            found[str(member)] = record
    return found
