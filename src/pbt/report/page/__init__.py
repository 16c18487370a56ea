"""Render the report as one HTML file that needs no network, from the template in this folder."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any

from pbt.report.content import MEMBERS, Content, ReportSection, ReportWarning
from pbt.report.tables import FigureTable
from pbt.runs.run_notes import NO_NOTE, Note
from pbt.text import printable

SHARED = ("look.js", "parts.js", "choices.js", "hover.js", "views.js", "member.js", "tables.js", "figures.js")
"""The scripts of this folder that the report and the dashboard share, in the order in which they run."""

_NUMBER = re.compile(r"[-–+\d]|$")  # noqa: RUF001 (a dash stands for no value)
"""How a number, a range, no value or an empty cell begins; a column with any other cell is one of texts."""


def page(
    content: Content, figures: Mapping[str, Any], parts: Mapping[str, Any], library: str, note: Note = NO_NOTE
) -> str:
    """The HTML file; equal runs give equal bytes.

    Args:
        content: The texts.
        figures: The plotly figures by name.
        parts: The tables and records by name.
        library: The source of plotly.js.
        note: The note and the tags of the run.
    """
    own = "".join(map(look, (*SHARED, "page.js")))
    return Template(look("page.html")).substitute(
        title=_escaped(content.title),
        policy=_policy(library, own),
        style=look("page.css"),
        lead=_escaped(content.lead),
        note=_note(note),
        results=_facts(content.results),
        advice=_advice(content.warnings, content.praise),
        contents=_contents(content),
        sections="".join(_section(one, figures) for one in content.sections),
        setting=_facts(content.setting),
        environment=_facts(content.environment) or "<p>Not recorded.</p>",
        members=_members(content, parts),
        figures="\n".join(
            [_data(f"data-{name}", figure) for name, figure in figures.items()]
            + [_data(f"part-{name}", part) for name, part in parts.items()]
        ),
        library=library,
        script=own,
    )


def look(name: str) -> str:
    """A file of this folder, shared by the report and the dashboard."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def json_text(value: Any) -> str:
    """Plain values as compact JSON without NaN, as browsers require."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _escaped(text: object) -> str:
    return html.escape(printable(text))


def _policy(*scripts: str) -> str:
    """The security policy: the browser may run these scripts and load nothing else."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _facts(facts: Mapping[str, str]) -> str:
    items = "".join(f"<div><dt>{_escaped(name)}</dt><dd>{_escaped(value)}</dd></div>" for name, value in facts.items())
    return f"<dl>{items}</dl>" if items else ""


def _advice(warnings: Sequence[ReportWarning], praise: str) -> str:
    items = "".join(
        f'<li>{_escaped(one.text)} <a href="#{one.figure}">{_escaped(one.title)}</a></li>' for one in warnings
    )
    if items:
        return f"<ul>{items}</ul>"
    return f"<p>{_escaped(praise)}</p>" if praise else ""


def _note(note: Note) -> str:
    if not note:
        return ""
    tags = "".join(f'<span class="tag">#{_escaped(tag)}</span>' for tag in note.tags)
    text = "\n".join(map(_escaped, note.text.splitlines()))
    return f'<p id="note">{tags}<span>{text}</span></p>'


def _contents(content: Content) -> str:
    titles = [(one.name, one.title) for one in content.sections] + [("members", MEMBERS)] * bool(content.members)
    links = "".join(f'<li><a href="#{name}">{_escaped(title)}</a></li>' for name, title in titles)
    return f'<nav aria-label="Contents"><ol>{links}</ol></nav>' if links else ""


def _members(content: Content, parts: Mapping[str, Any]) -> str:
    if not content.members or "members" not in parts:
        return ""
    return (
        f'<section id="members"><h2>{MEMBERS}</h2><p class="shows">{_escaped(content.members)}</p>'
        '<div id="members-table"></div></section>'
    )


def _data(id_: str, data: Any) -> str:
    """The data of one figure or table, in an element of its own that is parsed when it is needed."""
    # A "<" could end the script element; JSON allows the escape.
    text = json_text(data).replace("<", "\\u003c")
    return f'<script type="application/json" id="{id_}">{text}</script>'


def _section(one: ReportSection, figures: Mapping[str, Any]) -> str:
    head = f'<section id="{one.name}"><h2>{_escaped(one.title)}</h2><p class="shows">{_escaped(one.shows)}</p>'
    if not one.drawn:
        return f"{head}</section>"
    note = f'<p class="note">{_escaped(one.note)}</p>' if one.note else ""
    # The height is reserved, so that nothing moves when the figure is drawn.
    layout = figures[one.name]["layout"]
    height = f"min-height: {layout['height'] - layout.get('meta', {}).get('head', 0)}px"
    return (
        f'{head}<div class="figure" id="figure-{one.name}" style="{height}" role="img" '
        f'aria-label="{_escaped(one.label)}"></div><div class="slider"></div><div class="controls"></div>'
        f'<p class="how">{_escaped(one.how)}</p>{note}{_table(one.table)}</section>'
    )


def _table(table: FigureTable | None) -> str:
    if table is None:
        return ""
    texts = [any(not _NUMBER.match(row[i]) for row in table.rows) for i in range(len(table.head))]
    kinds = [' class="text"' if is_text else "" for is_text in texts]
    head = "".join(f'<th scope="col"{kind}>{_escaped(cell)}</th>' for kind, cell in zip(kinds, table.head, strict=True))
    rows = "".join(
        f"<tr>{''.join(f'<td{kind}>{_escaped(cell)}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>"
        for row in table.rows
    )
    return (
        f"<details><summary>{_escaped(table.summary)}</summary>"
        f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )
