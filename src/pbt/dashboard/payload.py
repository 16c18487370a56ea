"""The report of a run as JSON for the browser: texts, tables and figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pbt.errors import PBTError
from pbt.report.content import Content, ReportSection, content
from pbt.report.data.figures import pictures
from pbt.report.page import json_text
from pbt.report.read import read_snapshot
from pbt.report.write import drawn
from pbt.text import printable


def run_payload(path: Path, version: str) -> bytes:
    """The report of a run as JSON; for a run that cannot be read, one line with the reason.

    Args:
        path: The run directory.
        version: The version from `WatchedRun`, returned in the JSON so that the browser can compare it.
    """
    try:
        snapshot = read_snapshot(path)
        records = pictures(snapshot)
        report = {"version": version, "problem": "", **_plain(content(snapshot, records)), "figures": drawn(records)}
        return json_text(report).encode()
    except PBTError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{path}: cannot be read ({error.strerror or error})"
    except Exception as error:  # noqa: BLE001 (the folder is untrusted; the page shows the error)
        problem = f"{path}: cannot be drawn ({type(error).__name__}: {error}); check it with `pbt verify`"
    return json_text(
        {"version": version, "problem": printable(problem), "title": printable(path.resolve().name)}
    ).encode()


def _plain(texts: Content) -> dict[str, Any]:
    return {
        "title": printable(texts.title),
        "lead": printable(texts.lead),
        "results": _pairs(texts.results),
        "warnings": [{"figure": w.figure, "title": w.title, "text": printable(w.text)} for w in texts.warnings],
        "praise": texts.praise,
        "sections": [_section(section) for section in texts.sections],
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
