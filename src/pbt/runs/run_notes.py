"""Notes and tags of a run, in a file beside its log, which they never touch."""

import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbt.errors import UsageError
from pbt.store.durable import replace_file
from pbt.text import printable

NOTES = "notes.json"
LARGEST = 64 << 10
"""The most bytes of the file that are read."""
LONGEST = 4_000
"""The most characters of a note."""
MOST = 20
"""The most tags of a run."""
_TAG = re.compile(r"[^\s,]{1,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a person wrote about a run."""

    text: str = ""
    tags: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.tags)

    @property
    def line(self) -> str:
        """The tags and the note in one line."""
        return " ".join((*(f"#{tag}" for tag in self.tags), *self.text.split()))


NO_NOTE = Note()


def read_note(path: Path) -> Note:
    """The note of a run; an empty one where there is none that can be read.

    Args:
        path: The run directory, perhaps a stranger's: links are not followed, and texts have no control characters.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with os.fdopen(os.open(path / NOTES, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
                return Note()
            return _note(json.loads(file.read(LARGEST)))
    except (OSError, ValueError, RecursionError):
        return Note()


def _note(plain: Any) -> Note:
    if not isinstance(plain, dict):
        return Note()
    text, tags = plain.get("text", ""), plain.get("tags", [])
    lines = text.splitlines()[:200] if isinstance(text, str) else []
    known = [printable(tag) for tag in tags if isinstance(tag, str) and tag] if isinstance(tags, list) else []
    return Note(text="\n".join(map(printable, lines))[:LONGEST], tags=tuple(dict.fromkeys(known))[:MOST])


def write_note(path: Path, note: Note) -> None:
    """Replace the note of a run; an empty one removes the file.

    Raises:
        UsageError: The note is too long, a tag is not one word, or there are too many of them.
        RunError: The file cannot be written.
    """
    if len(note.text) > LONGEST:
        raise UsageError(f"note: expected at most {LONGEST:,} characters, got {len(note.text):,}")
    for tag in note.tags:
        if not _TAG.fullmatch(tag):
            raise UsageError(f"--tag: expected a word of at most 40 characters without comma, got {tag!r}")
    if len(note.tags) > MOST:
        raise UsageError(f"--tag: expected at most {MOST} tags, got {len(note.tags)}; remove some with --untag")
    if note:
        text = json.dumps({"text": note.text, "tags": list(note.tags)}, indent=2, ensure_ascii=False)
        replace_file(path / NOTES, f"{text}\n".encode())
    else:
        (path / NOTES).unlink(missing_ok=True)
