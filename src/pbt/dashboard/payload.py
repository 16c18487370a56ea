"""The report of a run as JSON for the browser: texts, tables and figures."""

import hashlib
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pbt.errors import PBTError
from pbt.report.content import Content, ReportSection, content
from pbt.report.data.figures import pictures
from pbt.report.data.series import run_series
from pbt.report.page import json_text
from pbt.report.parts import page_parts, record_of
from pbt.report.read import GrowingReader, read_snapshot
from pbt.report.snapshot import RunSnapshot
from pbt.report.write import drawn
from pbt.store.layout import DATABASE
from pbt.text import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """The report of a run, each figure as JSON of its own, so that an update sends only the changed ones."""

    texts: Mapping[str, Any]
    """Everything but the figures."""
    figures: Mapping[str, bytes] = field(default_factory=dict)
    parts: Mapping[str, bytes] = field(default_factory=dict)
    """The tables of states and of members, each as JSON."""

    @property
    def tags(self) -> dict[str, str]:
        """A hash of each figure and each table by name."""
        pieces = {**self.figures, **self.parts}
        return {name: hashlib.sha256(piece).hexdigest()[:16] for name, piece in pieces.items()}

    def body(self, known: Collection[str] = ()) -> bytes:
        """The page as JSON: texts, `tags`, `figures` and `parts` by name, without those whose tags are `known`."""
        tags = self.tags
        head = json_text({**self.texts, "tags": tags}).encode()
        figures, parts = (
            b",".join(
                json_text(name).encode() + b":" + piece for name, piece in pieces.items() if tags[name] not in known
            )
            for pieces in (self.figures, self.parts)
        )
        return head[:-1] + b',"figures":{' + figures + b'},"parts":{' + parts + b"}}"


class PageMaker:
    """Makes the pages of runs, and keeps the events of running ones, so that an update reads only the new events.

    Args:
        most: The most runs whose events are kept.
    """

    def __init__(self, most: int = 2) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._readers: dict[Path, tuple[int, GrowingReader]] = {}
        self._last: tuple[Path, str, RunSnapshot] | None = None

    def __call__(self, path: Path, version: str) -> RunPage:
        """The page of a run."""

        def read(place: Path) -> RunSnapshot:
            snapshot = self._read(place)
            self._last = path, version, snapshot
            return snapshot

        return run_page(path, version, read)

    def series(self, path: Path, version: str) -> bytes:
        """The lines of a run that are laid over those of others, as JSON; without lines if it cannot be read."""
        last = self._last
        try:
            snapshot = last[2] if last is not None and last[:2] == (path, version) else read_snapshot(path)
            return json_text(run_series(snapshot)).encode()
        except (PBTError, OSError) as error:
            return json_text({"problem": printable(error), "scores": [], "schedules": []}).encode()

    def member(self, path: Path, version: str, member: int) -> bytes | None:
        """The record of a member as JSON; None if there is none, and the problem alone if the run cannot be read.

        The snapshot of the run that was read last is kept for it; any other run is read again.
        """
        last = self._last
        try:
            if last is None or last[:2] != (path, version):
                last = self._last = path, version, self._read(path)
            record = record_of(last[2], member, path)
        except (PBTError, OSError) as error:
            return json_text({"problem": printable(error)}).encode()
        return None if record is None else json_text(record).encode()

    def _read(self, path: Path) -> RunSnapshot:
        with self._lock:
            file, reader = self._readers.pop(path, (None, None))
        found = (path / DATABASE).stat().st_ino if (path / DATABASE).is_file() else 0
        if reader is None or found != file:  # the first time, or another run in its place
            reader = GrowingReader(path)
        snapshot = read_snapshot(path, reader)
        if snapshot.status == "running":
            with self._lock:
                self._readers[path] = found, reader
                for oldest in list(self._readers)[: -self._most]:
                    del self._readers[oldest]
        return snapshot


def run_page(path: Path, version: str, read: Callable[[Path], RunSnapshot] = read_snapshot) -> RunPage:
    """The report of a run; for a run that cannot be read, one line with the reason.

    Args:
        path: The run directory.
        version: The version from `WatchedRun`, returned in the JSON so that the browser can compare it.
        read: Reads the snapshot of the run.
    """
    try:
        snapshot = read(path)
        records = pictures(snapshot)
        return RunPage(
            texts={"version": version, "problem": "", **_plain(content(snapshot, records))},
            figures={name: json_text(figure).encode() for name, figure in drawn(records).items()},
            parts={name: json_text(part).encode() for name, part in page_parts(snapshot).items()},
        )
    except PBTError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{path}: cannot be read ({error.strerror or error})"
    except Exception as error:  # noqa: BLE001 (the folder is untrusted; the page shows the error)
        problem = f"{path}: cannot be drawn ({type(error).__name__}: {error}); check it with `pbt verify`"
    return RunPage(texts={"version": version, "problem": printable(problem), "title": printable(path.resolve().name)})


def _plain(texts: Content) -> dict[str, Any]:
    return {
        "title": printable(texts.title),
        "lead": printable(texts.lead),
        "results": _pairs(texts.results),
        "warnings": [{"figure": w.figure, "title": w.title, "text": printable(w.text)} for w in texts.warnings],
        "praise": texts.praise,
        "sections": [_section(section) for section in texts.sections],
        "members": printable(texts.members),
        "setting": _pairs(texts.setting),
        "environment": _pairs(texts.environment),
    }


def _pairs(facts: Mapping[str, str]) -> list[list[str]]:
    """Pairs keep their order; a JavaScript object would put names that look like numbers first."""
    return [[printable(name), printable(value)] for name, value in facts.items()]


def _section(section: ReportSection) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "name": section.name,
        "title": section.title,
        "shows": printable(section.shows),
        "drawn": section.drawn,
        "how": printable(section.how),
        "note": printable(section.note),
    }
    table = section.table
    if table is not None:
        head, rows = ([list(map(printable, row)) for row in part] for part in ([table.head], table.rows))
        plain["table"] = {"summary": printable(table.summary), "head": head[0], "rows": rows}
    return plain
