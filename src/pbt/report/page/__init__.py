"""The report as one HTML file that needs no network: the template beside this file, filled."""

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from string import Template
from typing import Any

from pbt.report.advice import Advice, advice
from pbt.report.data.pictures import NAMES, Pictures
from pbt.report.facts import environment, results, setting
from pbt.report.sentences import HOW, NOTHING, TITLES, aside, shows
from pbt.report.story import Story
from pbt.report.tables import Table, table
from pbt.report.words import count, plain

WELL = "None of the usual warnings applies to this run."


def page(story: Story, pictures: Pictures, figures: Mapping[str, Any], library: str) -> str:
    """The whole file; equal runs give equal bytes.

    Args:
        story: The run.
        pictures: What its pictures show.
        figures: The same as plotly figures, by name.
        library: plotly.js.
    """
    own = _file("page.js")
    return Template(_file("page.html")).substitute(
        title=_escaped(story.name),
        policy=_policy(library, own),
        style=_file("page.css"),
        lead=_escaped(_lead(story)),
        results=_facts(results(story)),
        advice=_advice(advice(story), story),
        contents=_contents() if story.path else "",
        sections="".join(_section(name, pictures, story) for name in NAMES) if story.path else "",
        setting=_facts(setting(story)),
        environment=_facts(environment(story)) or "<p>Not recorded.</p>",
        # A "<" could end the element; in JSON it may be written otherwise.
        figures=_json(figures).replace("<", "\\u003c"),
        library=library,
        script=own,
    )


def _file(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _escaped(text: object) -> str:
    return html.escape(plain(text))


def _policy(*scripts: str) -> str:
    """What the browser may do with this file: run these two scripts, and nothing from anywhere."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _lead(story: Story) -> str:
    if not story.path:
        return NOTHING
    if story.status == "running":
        return f"This run is still being trained; the page shows it as it was after round {story.rounds:,}."
    if story.status == "interrupted":
        return f"This run was interrupted after round {story.rounds:,} and can be resumed."
    members, rounds = count(len(story.members), "member"), count(story.rounds, "round")
    return f"{members}, {rounds}; {story.generations[-1].step:,} training steps in the state that has most."


def _facts(facts: Mapping[str, str]) -> str:
    items = "".join(f"<div><dt>{_escaped(name)}</dt><dd>{_escaped(value)}</dd></div>" for name, value in facts.items())
    return f"<dl>{items}</dl>" if items else ""


def _advice(found: Iterable[Advice], story: Story) -> str:
    items = "".join(
        f'<li>{_escaped(one.text)} <a href="#{one.figure}">{_escaped(TITLES[one.figure])}</a></li>' for one in found
    )
    if not story.path:
        return ""
    return f"<ul>{items}</ul>" if items else f"<p>{WELL}</p>"


def _contents() -> str:
    links = "".join(f'<li><a href="#{name}">{_escaped(TITLES[name])}</a></li>' for name in NAMES)
    return f'<nav aria-label="Contents"><ol>{links}</ol></nav>'


def _section(name: str, pictures: Pictures, story: Story) -> str:
    record = getattr(pictures, name)
    said = _escaped(shows(name, pictures, story))
    head = f'<section id="{name}"><h2>{_escaped(TITLES[name])}</h2><p class="shows">{said}</p>'
    if record is None:
        return f"{head}</section>"
    note = f'<p class="note">Thinned to keep this file small: {_escaped(record.note)}.</p>' if record.note else ""
    how = f"{HOW[name]} {aside(record)}".strip()
    label = _escaped(f"{TITLES[name]}. {shows(name, pictures, story)}")
    return (
        f'{head}<div class="figure" id="figure-{name}" role="img" aria-label="{label}"></div>'
        f'<p class="how">{_escaped(how)}</p>{note}{_table(table(name, pictures, story))}</section>'
    )


def _table(made: Table | None) -> str:
    if made is None:
        return ""
    head = "".join(f'<th scope="col">{_escaped(cell)}</th>' for cell in made.head)
    rows = "".join(f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in row)}</tr>" for row in made.rows)
    shown = "" if len(made.rows) == made.all_rows else f", {len(made.rows):,} of {made.all_rows:,} rows"
    return (
        f"<details><summary>The numbers: a row is {_escaped(made.what)}{shown}</summary>"
        f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )
