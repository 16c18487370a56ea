"""SQL views for people: `history`, `members`, `lineage` and `schedule`, with one column per hyperparameter.

They are created with the run, whose space is known by then. Nothing in this package reads them.
"""

from collections.abc import Sequence

# The log stores NaN and infinities as {"float": "nan"}; the views show them as text.
_SCORE = "coalesce(json_extract(r.data, '$.scores[0].float'), json_extract(r.data, '$.scores[0]'))"

# A row of kind `continued` has the members of a wave that continue unchanged: [places before its id, member, why, ...].
_LINEAGE = """CREATE VIEW lineage AS
SELECT member, round, start_member, start_round, donor, kind, why FROM (
    SELECT o.id, o.member, o.round,
        json_extract(o.data, '$.start[0]') AS start_member,
        json_extract(o.data, '$.start[1]') AS start_round,
        json_extract(o.data, '$.donor') AS donor,
        coalesce(json_extract(o.data, '$.how'), 'born') AS kind,
        json_extract(o.data, '$.why') AS why
    FROM events o WHERE o.kind IN ('born', 'decided')
    UNION ALL
    SELECT w.id - json_extract(c.value, '$[0]'), json_extract(c.value, '$[1]'), w.round,
        json_extract(c.value, '$[1]'), w.round - 1, NULL, 'continue', json_extract(c.value, '$[2]')
    FROM events w, json_each(w.data, '$.events') c WHERE w.kind = 'continued'
) ORDER BY id"""

# The opening of a member's round: its last one up to there. Rounds behind that one continue it unchanged.
_OPENING = """o.id = (
    SELECT e.id FROM events e
    WHERE e.member = {row}.member AND e.round <= {row}.round AND e.kind IN ('born', 'decided')
    ORDER BY e.round DESC LIMIT 1
)"""

_HISTORY = """CREATE VIEW history AS
SELECT r.member, r.round,
    json_extract(r.data, '$.step') AS step,
    {score} AS score,
    CASE o.round WHEN r.round THEN json_extract(o.data, '$.donor') END AS donor,
    CASE o.round WHEN r.round THEN coalesce(json_extract(o.data, '$.how'), 'born') ELSE 'continue' END AS kind,
    {hparams}
    json_extract(r.data, '$.reported.test_accuracy') AS test_accuracy,
    json_extract(r.data, '$.reported') AS reported
FROM events r
JOIN events o ON {opening}
WHERE r.kind = 'reported' ORDER BY r.id"""

_MEMBERS = """CREATE VIEW members AS
SELECT b.member,
    json_extract(b.data, '$.role') AS role,
    json_extract(b.data, '$.group') AS "group",
    CASE (
        SELECT e.kind FROM events e
        WHERE e.member = b.member AND e.kind <> 'noted' ORDER BY e.id DESC LIMIT 1
    ) WHEN 'retired' THEN 'retired' WHEN 'failed' THEN 'failed' ELSE 'live' END AS status,
    (SELECT max(e.round) FROM events e WHERE e.member = b.member AND e.kind IN ('reported', 'failed')) AS round,
    json_extract(r.data, '$.step') AS step,
    {score} AS score
FROM events b
LEFT JOIN events r ON r.id = (
    SELECT max(e.id) FROM events e WHERE e.member = b.member AND e.kind = 'reported'
)
WHERE b.kind = 'born' ORDER BY b.member"""

# Walks from the best state back to a birth and returns the path in forward order: one row per trained round.
_SCHEDULE = """CREATE VIEW schedule AS
WITH RECURSIVE path (member, round, back) AS (
    SELECT * FROM (
        SELECT r.member, r.round, 0 FROM events r
        JOIN events b ON b.member = r.member AND b.kind = 'born' AND json_extract(b.data, '$.role') = 'member'
        WHERE r.kind = 'reported' AND json_type(r.data, '$.scores[0]') IN ('integer', 'real')
        ORDER BY json_extract(r.data, '$.scores[0]') {order}, r.id LIMIT 1
    )
    UNION ALL
    SELECT CASE o.round WHEN path.round THEN json_extract(o.data, '$.start[0]') ELSE path.member END,
        CASE o.round WHEN path.round THEN json_extract(o.data, '$.start[1]') ELSE path.round - 1 END,
        path.back + 1
    FROM path
    JOIN events o ON {opening}
    WHERE o.round < path.round OR json_extract(o.data, '$.start[0]') IS NOT NULL
)
SELECT lag(json_extract(r.data, '$.step'), 1, 0) OVER (ORDER BY path.back DESC) AS first_step,
    json_extract(r.data, '$.step') AS last_step,
    {hparams}
    {score} AS score, path.member, path.round
FROM path
JOIN events r ON r.member = path.member AND r.round = path.round AND r.kind = 'reported'
JOIN events o ON {opening}
ORDER BY path.back DESC"""

_TAKEN = frozenset(
    {"member", "round", "step", "score", "donor", "kind", "test_accuracy", "reported", "first_step", "last_step"}
)
"""Columns of the views; a hyperparameter with one of these names gets a longer column name."""


def views(hparams: Sequence[str], *, minimize: bool = False) -> list[str]:
    """The SQL statements of the views, for a space with these names; `minimize`: the lowest score is best."""
    columns = "".join(f"{_column(name)},\n    " for name in hparams).rstrip()
    return [
        _LINEAGE,
        _HISTORY.format(score=_SCORE, hparams=columns, opening=_OPENING.format(row="r")),
        _MEMBERS.format(score=_SCORE),
        _SCHEDULE.format(
            score=_SCORE,
            hparams=columns,
            order="ASC" if minimize else "DESC",
            opening=_OPENING.format(row="path"),
        ),
    ]


def _column(name: str) -> str:
    title = f"hparams.{name}" if name.lower() in _TAKEN else name
    path = f'$.hparams."{name}"'
    return "json_extract(o.data, '{}') AS \"{}\"".format(path.replace("'", "''"), title.replace('"', '""'))
