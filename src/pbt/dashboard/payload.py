"""A run as the browser gets it: the words and tables of its report, and its figures, as JSON."""

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


def shown(path: Path, version: str) -> bytes:
    """Everything that is shown of a run, or the one line that says why it cannot be.

    Args:
        path: The run directory.
        version: What the watch called the run at this moment; handed on, so that the browser knows what it has.
    """
    try:
        snapshot = read_snapshot(path)
        made = pictures(snapshot)
        found = {"version": version, "problem": "", **_plain(content(snapshot, made)), "figures": drawn(made)}
        return json_text(found).encode()
    except PBTError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{path}: cannot be read ({error.strerror or error})"
    except Exception as error:  # noqa: BLE001 (a stranger's folder may hold anything; the page says so)
        problem = f"{path}: cannot be drawn ({type(error).__name__}: {error}); `pbt verify` says whether it is whole"
    return json_text(
        {"version": version, "problem": printable(problem), "title": printable(path.resolve().name)}
    ).encode()


def _plain(said: Content) -> dict[str, Any]:
    return {
        "title": printable(said.title),
        "lead": printable(said.lead),
        "results": _pairs(said.results),
        "warnings": [{"figure": one.figure, "title": one.title, "text": printable(one.text)} for one in said.warnings],
        "praise": said.praise,
        "sections": [_section(one) for one in said.sections],
        "setting": _pairs(said.setting),
        "environment": _pairs(said.environment),
    }


def _pairs(facts: Mapping[str, str]) -> list[list[str]]:
    """In order: an object of JavaScript puts names that look like numbers first."""
    return [[printable(name), printable(value)] for name, value in facts.items()]


def _section(one: ReportSection) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": one.name,
        "title": one.title,
        "shows": printable(one.shows),
        "drawn": one.drawn,
        "how": printable(one.how),
        "note": printable(one.note),
    }
    if one.table is not None:
        head, rows = ([list(map(printable, row)) for row in part] for part in ([one.table.head], one.table.rows))
        found["table"] = {"summary": printable(one.table.summary), "head": head[0], "rows": rows}
    return found
