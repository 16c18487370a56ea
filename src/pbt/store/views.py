"""SQL views for people: `history`, `members`, `lineage`, `schedule` and `reports`, with one column per hyperparameter.

They are created with the run, whose space is known by then. Nothing in this package reads them.
"""

from collections.abc import Sequence

# The log stores NaN and infinities as {"float": "nan"}; the views show them as text.
# A row of kind `trained` has the reports of a wave: [places before its id, member, step, digest, reported, series,
# *scores], with null for no values.
_REPORTS = """CREATE VIEW reports AS
SELECT id, member, round, step, score, reported FROM (
    SELECT r.id, r.member, r.round, json_extract(r.data, '$.step') AS step,
        coalesce(json_extract(r.data, '$.scores[0].float'), json_extract(r.data, '$.scores[0]')) AS score,
        json_extract(r.data, '$.reported') AS reported
    FROM events r WHERE r.kind = 'reported'
    UNION ALL
    SELECT w.id - json_extract(c.value, '$[0]'), json_extract(c.value, '$[1]'), w.round, json_extract(c.value, '$[2]'),
        json_extract(c.value, '$[6]'), coalesce(json_extract(c.value, '$[4]'), '{}')
    FROM events w, json_each(w.data, '$.events') c WHERE w.kind = 'trained'
) ORDER BY id"""

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
    r.step,
    r.score,
    CASE o.round WHEN r.round THEN json_extract(o.data, '$.donor') END AS donor,
    CASE o.round WHEN r.round THEN coalesce(json_extract(o.data, '$.how'), 'born') ELSE 'continue' END AS kind,
    {hparams}
    json_extract(r.reported, '$.test_accuracy') AS test_accuracy,
    r.reported
FROM reports r
JOIN events o ON {opening}
ORDER BY r.id"""

_MEMBERS = """CREATE VIEW members AS
SELECT b.member,
    json_extract(b.data, '$.role') AS role,
    json_extract(b.data, '$.group') AS "group",
    CASE (
        SELECT e.kind FROM events e
        WHERE e.member = b.member AND e.kind <> 'noted' ORDER BY e.id DESC LIMIT 1
    ) WHEN 'retired' THEN 'retired' WHEN 'failed' THEN 'failed' ELSE 'live' END AS status,
    nullif(max(coalesce(r.round, 0), coalesce((
        SELECT max(e.round) FROM events e WHERE e.member = b.member AND e.kind = 'failed'
    ), 0)), 0) AS round,
    r.step,
    r.score
FROM events b
LEFT JOIN (SELECT member, round, step, score, max(id) FROM reports GROUP BY member) r ON r.member = b.member
WHERE b.kind = 'born' ORDER BY b.member"""

# Walks from the best state back to a birth and returns the path in forward order: one row per trained round.
_SCHEDULE = """CREATE VIEW schedule AS
WITH RECURSIVE path (member, round, back) AS (
    SELECT * FROM (
        SELECT r.member, r.round, 0 FROM reports r
        JOIN events b ON b.member = r.member AND b.kind = 'born' AND json_extract(b.data, '$.role') = 'member'
        WHERE typeof(r.score) IN ('integer', 'real')
        ORDER BY r.score {order}, r.id LIMIT 1
    )
    UNION ALL
    SELECT CASE o.round WHEN path.round THEN json_extract(o.data, '$.start[0]') ELSE path.member END,
        CASE o.round WHEN path.round THEN json_extract(o.data, '$.start[1]') ELSE path.round - 1 END,
        path.back + 1
    FROM path
    JOIN events o ON {opening}
    WHERE o.round < path.round OR json_extract(o.data, '$.start[0]') IS NOT NULL
)
SELECT lag(r.step, 1, 0) OVER (ORDER BY path.back DESC) AS first_step,
    r.step AS last_step,
    {hparams}
    r.score, path.member, path.round
FROM path
JOIN reports r ON r.member = path.member AND r.round = path.round
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
        _REPORTS,
        _LINEAGE,
        _HISTORY.format(hparams=columns, opening=_OPENING.format(row="r")),
        _MEMBERS,
        _SCHEDULE.format(hparams=columns, order="ASC" if minimize else "DESC", opening=_OPENING.format(row="path")),
    ]


def _column(name: str) -> str:
    title = f"hparams.{name}" if name.lower() in _TAKEN else name
    path = f'$.hparams."{name}"'
    return "json_extract(o.data, '{}') AS \"{}\"".format(path.replace("'", "''"), title.replace('"', '""'))
