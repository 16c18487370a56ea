"""Everything that a report says about a run, in the order in which it is read: one text for all pages that show it."""

from collections.abc import Mapping
from dataclasses import dataclass

from pbt.report.advice import advice
from pbt.report.data.figures import NAMES, Pictures
from pbt.report.facts import environment, results, setting
from pbt.report.sentences import HOW, NOTHING, TITLES, aside, shows
from pbt.report.snapshot import RunSnapshot
from pbt.report.tables import FigureTable, table
from pbt.text import count

WELL = "None of the usual warnings applies to this run."


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """A warning, and the picture that shows what it is about."""

    figure: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSection:
    """One picture with its words."""

    name: str
    title: str
    shows: str
    """What this run shows in it, or why there is no picture."""
    drawn: bool
    how: str = ""
    """How it is read."""
    note: str = ""
    """What was left out to keep it small."""
    table: FigureTable | None = None

    @property
    def label(self) -> str:
        """The picture in words, for whoever does not see it."""
        return f"{self.title}. {self.shows}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The words of a report. Texts, not yet escaped."""

    title: str
    lead: str
    results: Mapping[str, str]
    warnings: tuple[Warned, ...]
    praise: str
    """What to say where there is no warning; empty: it is too early to say."""
    sections: tuple[ReportSection, ...]
    """None before a member has finished a round."""
    setting: Mapping[str, str]
    environment: Mapping[str, str]


def content(snapshot: RunSnapshot, pictures: Pictures) -> Content:
    """What is said of a run and its pictures."""
    warned = tuple(Warned(figure=one.figure, title=TITLES[one.figure], text=one.text) for one in advice(snapshot))
    return Content(
        title=snapshot.name,
        lead=_lead(snapshot),
        results=results(snapshot),
        warnings=warned,
        praise="" if warned or not snapshot.path else WELL,
        sections=tuple(_section(name, pictures, snapshot) for name in NAMES) if snapshot.path else (),
        setting=setting(snapshot),
        environment=environment(snapshot),
    )


def _lead(snapshot: RunSnapshot) -> str:
    if not snapshot.path:
        return NOTHING
    if snapshot.status == "running":
        return f"This run is still being trained; the page shows it as it was after round {snapshot.rounds:,}."
    if snapshot.status == "interrupted":
        return f"This run was interrupted after round {snapshot.rounds:,} and can be resumed."
    members, rounds = count(len(snapshot.members), "member"), count(snapshot.rounds, "round")
    return f"{members}, {rounds}; {snapshot.generations[-1].step:,} training steps in the state that has most."


def _section(name: str, pictures: Pictures, snapshot: RunSnapshot) -> ReportSection:
    record = getattr(pictures, name)
    said = shows(name, pictures, snapshot)
    if record is None:
        return ReportSection(name=name, title=TITLES[name], shows=said, drawn=False)
    return ReportSection(
        name=name,
        title=TITLES[name],
        shows=said,
        drawn=True,
        how=f"{HOW[name]} {aside(record)}".strip(),
        note=f"Thinned to keep this page small: {record.note}." if record.note else "",
        table=table(name, pictures, snapshot),
    )
