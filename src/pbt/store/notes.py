"""Entries of the journal as they are read: the form that readers rely on."""

import math
from collections.abc import Mapping
from typing import Any

from pbt.errors import CorruptError
from pbt.store.base import JournalEntry
from pbt.store.event_rows import from_json

LATEST = 1e11
"""Seconds since 1970, in the year 5138: later times have no date in some systems."""
_COUNTS = ("member", "round", "attempt")
_TEXTS = ("message", "traceback", "file")


def entry_of(id_: Any, kind: Any, data: Any, clock: Any) -> JournalEntry:
    """The entry of a row.

    Raises:
        CorruptError: No run writes such a row.
    """
    if not (isinstance(id_, int) and isinstance(kind, str) and isinstance(data, str) and is_time(clock)):
        raise CorruptError(f"note {id_!r:.20}: expected a kind, values and a time, found {kind!r:.40}, {clock!r:.40}")
    details = from_json(data)
    if not isinstance(details, dict) or not _is_right(kind, details):
        raise CorruptError(f"note {id_}: expected the values of a note '{kind:.40}', found {data!r:.80}")
    return JournalEntry(id=id_, kind=kind, details=details, clock=clock)


def is_time(clock: Any) -> bool:
    """Whether a value is a time in seconds since 1970."""
    return type(clock) in (int, float) and 0 <= clock < LATEST


def _is_right(kind: str, details: Mapping[str, Any]) -> bool:
    if kind == "unread":
        names = details.get("names", [])
        return isinstance(names, list) and all(isinstance(name, str) for name in names)
    if kind not in ("round", "failure"):
        return True
    counts = [details.get(name, 1 if name == "attempt" else None) for name in _COUNTS]
    seconds, line = details.get("seconds", 0), details.get("line")
    return (
        all(type(count) is int and count >= 0 for count in counts)
        and all(isinstance(details.get(name, ""), str) for name in _TEXTS)
        and (line is None or type(line) is int)
        and type(seconds) in (int, float)
        and math.isfinite(seconds)
        and seconds >= 0
        and (kind != "round" or "seconds" in details)
    )
