"""All texts of a report, in reading order, shared by the report page and the dashboard."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pbt.report.advice import advice
from pbt.report.data.figures import NAMES, Pictures
from pbt.report.data.members import MEMBERS as MOST
from pbt.report.facts import environment, results, setting
from pbt.report.sentences import HOW, NOTHING, ONLY_LIVE, TITLES, omission, shows
from pbt.report.snapshot import RunSnapshot
from pbt.report.tables import FigureTable, table
from pbt.text import count, listed

MEMBERS = "Members"
"""The title of the table of members."""
NO_WARNINGS = "None of the usual warnings applies to this run."


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportWarning:
    """A warning with a reference to the figure that shows its evidence."""

    figure: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSection:
    """One figure with its texts."""

    name: str
    title: str
    shows: str
    """The finding of this run, or the reason why there is no figure."""
    drawn: bool
    how: str = ""
    """How the figure is read."""
    note: str = ""
    """What was left out to keep the page small."""
    table: FigureTable | None = None

    @property
    def label(self) -> str:
        """Alternative text for screen readers."""
        return f"{self.title}. {self.shows}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The texts of a report, not yet escaped."""

    title: str
    lead: str
    results: Mapping[str, str]
    warnings: tuple[ReportWarning, ...]
    praise: str
    """Text in place of warnings; empty before a member has finished a round."""
    sections: tuple[ReportSection, ...]
    """Before a member has finished a round, at most that of the rounds in progress."""
    members: str
    """A sentence above the table of members; empty without members."""
    setting: Mapping[str, str]
    environment: Mapping[str, str]


def content(snapshot: RunSnapshot, pictures: Pictures) -> Content:
    """The texts for a run and its figures."""
    warnings = tuple(
        ReportWarning(figure=one.figure, title=TITLES[one.figure], text=one.text) for one in advice(snapshot)
    )
    return Content(
        title=snapshot.name,
        lead=_lead(snapshot),
        results=results(snapshot),
        warnings=warnings,
        praise="" if warnings or not snapshot.path else NO_WARNINGS,
        sections=tuple(_section(name, pictures, snapshot) for name in NAMES if _has_section(name, pictures, snapshot)),
        members=_members(snapshot),
        setting=setting(snapshot),
        environment=environment(snapshot),
    )


def _lead(snapshot: RunSnapshot) -> str:
    if not snapshot.path:
        return ONLY_LIVE if snapshot.live else NOTHING
    if snapshot.status == "running":
        return f"This run is still training. The page shows it after round {snapshot.rounds:,}."
    if snapshot.status == "interrupted":
        return f"This run was interrupted after round {snapshot.rounds:,} and can be resumed."
    members, rounds = count(len(snapshot.members), "member"), count(snapshot.rounds, "round")
    return f"{members}, {rounds}, {snapshot.generations[-1].step:,} training steps in the longest lineage."


def _members(snapshot: RunSnapshot) -> str:
    if not snapshot.members:
        return ""
    statuses = Counter(snapshot.statuses.get(member, "live") for member in snapshot.members)
    amounts = listed(f"{amount:,} {status}" for status, amount in statuses.items())
    limit = f" The table has the best {MOST:,}." if len(snapshot.members) > MOST else ""
    return f"{count(len(snapshot.members), 'member')}: {amounts}.{limit} A click on a member opens its record."


def _has_section(name: str, pictures: Pictures, snapshot: RunSnapshot) -> bool:
    """Whether a figure has a section: most tasks report no curves, so that their absence needs no words."""
    return pictures.curves is not None if name == "curves" else bool(snapshot.path)


def _section(name: str, pictures: Pictures, snapshot: RunSnapshot) -> ReportSection:
    record = getattr(pictures, name)
    finding = shows(name, pictures, snapshot)
    if record is None:
        return ReportSection(name=name, title=TITLES[name], shows=finding, drawn=False)
    return ReportSection(
        name=name,
        title=TITLES[name],
        shows=finding,
        drawn=True,
        how=f"{HOW[name]} {omission(record)}".strip(),
        note=f"Thinned to keep this page small: {record.note}." if record.note else "",
        table=table(name, pictures, snapshot),
    )
