"""Text formats of a schedule: JSON, CSV or TOML. All values survive a round trip.

In CSV a row is a segment: `start`, `stop`, then a column per hyperparameter. A cell holds a value in JSON notation;
ambiguous text is quoted, and an empty cell means that the hyperparameter was not active.
"""

import csv
import io
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pbt.core.schedule import Schedule
from pbt.errors import UsageError, nearest
from pbt.text import as_ascii
from pbt.values import Value

FORMATS = ("json", "csv", "toml")
_EDGES = ("start", "stop")
_LONGER = "hparams."
"""Prefix for a hyperparameter whose name is a column's already."""
_MOST_BYTES = 1 << 26
"""Maximal file size; more than a schedule of a million segments."""
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What begins a formula in spreadsheets, in both widths."""
_BEYOND = "\\U{:08x}"
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def schedule_text(schedule: Schedule, format_: str = "json") -> str:
    """Format a schedule.

    Raises:
        UsageError: Unknown format, or a value that the format lacks (TOML has no null).
    """
    return _WRITE[_known(format_)](schedule)


def schedule_of(text: str, format_: str = "json") -> Schedule:
    """Parse a schedule written by `schedule_text`.

    Raises:
        UsageError: The text is not a schedule.
    """
    return _READ[_known(format_)](text)


def read_schedule(path: str | Path) -> Schedule:
    """Read a schedule from a .json, .csv or .toml file, as written by `pbt schedule`.

    Raises:
        UsageError: The file cannot be read, or is not a schedule.
    """
    path = Path(path)
    format_ = path.suffix.removeprefix(".").lower()
    if format_ not in FORMATS:
        raise UsageError(f"{path}: expected a schedule in a file that ends in .json, .csv or .toml")
    try:
        return schedule_of(_text(path), format_)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: expected text in UTF-8, found something else") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _text(path: Path) -> str:
    with path.open("rb") as file:
        blob = file.read(_MOST_BYTES + 1)
    if len(blob) > _MOST_BYTES:
        raise UsageError(f"expected at most {_MOST_BYTES:,} bytes, found more; check the file name")
    return blob.decode("utf-8")


def _known(format_: str) -> str:
    if format_ not in FORMATS:
        raise UsageError(f"expected a schedule as json, csv or toml, got '{format_}'{nearest(format_, FORMATS)}")
    return format_


def _to_json(schedule: Schedule) -> str:
    return as_ascii(json.dumps(schedule.to_dict(), indent=2)) + "\n"


def _from_json(text: str) -> Schedule:
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"schedule: expected JSON, found something else ({error})") from error
    return Schedule.from_dict(plain)


def _to_csv(schedule: Schedule) -> str:
    names = list(dict.fromkeys(name for segment in schedule.segments for name in segment.hparams))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_EDGES, *map(_title, names)])
    for segment in schedule.segments:
        cells = [_cell(segment.hparams[name]) if name in segment.hparams else "" for name in names]
        writer.writerow([segment.start, segment.stop, *cells])
    return out.getvalue()


def _from_csv(text: str) -> Schedule:
    try:
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error as error:
        raise UsageError(f"schedule: expected CSV, found something else ({error})") from error
    if not rows or tuple(rows[0][:2]) != _EDGES:
        found = ", ".join(rows[0]) if rows else "an empty text"
        raise UsageError(f"schedule: expected CSV whose first columns are start and stop, found {found:.80}")
    names = [_name(title) for title in rows[0][2:]]
    return Schedule.from_dict({"segments": [_row(line, row, names) for line, row in enumerate(rows[1:], 2)]})


def _row(line: int, row: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    if len(row) != len(names) + len(_EDGES):
        raise UsageError(f"schedule, row {line}: expected {len(names) + len(_EDGES)} cells, found {len(row)}")
    start, stop, *cells = (_value(cell) for cell in row)
    given = {name: value for name, value, cell in zip(names, cells, row[2:], strict=True) if cell != ""}
    return {"start": start, "stop": stop, "hparams": given}


def _title(name: str) -> str:
    longer = f"{_LONGER}{name}" if name in _EDGES or name.startswith(_LONGER) else name
    return _quoted(longer) if longer.startswith(('"', *FORMULA)) or not longer.isprintable() else longer


def _name(title: str) -> str:
    return str(_value(title) if title.startswith('"') else title).removeprefix(_LONGER)


def _cell(value: Value) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    # Line ends inside a cell do not survive every program or text file, and a spreadsheet computes formulas.
    ambiguous = value == "" or not value.isprintable() or value.lstrip().startswith(FORMULA) or _value(value) != value
    return _quoted(value) if ambiguous else value


def _value(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def _to_toml(schedule: Schedule) -> str:
    parts = []
    for segment in schedule.segments:
        values = [f"{_key(name)} = {_toml_value(name, value)}\n" for name, value in segment.hparams.items()]
        head = f"[[segments]]\nstart = {segment.start}\nstop = {segment.stop}\n"
        parts.append("".join([head, "[segments.hparams]\n", *values]))
    return "\n".join(parts)


def _from_toml(text: str) -> Schedule:
    try:
        plain = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"schedule: expected TOML, found something else ({error})") from error
    return Schedule.from_dict(plain)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name, _BEYOND)


def _toml_value(name: str, value: Value) -> str:
    if value is None:
        raise UsageError(f"schedule: TOML has no value for the None of '{name}'; write it as json or csv")
    if isinstance(value, tuple):
        return f"[{', '.join(_toml_value(name, one) for one in value)}]"
    return _quoted(value, _BEYOND) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str, beyond: str | None = None) -> str:
    """A text in quotes, without control characters and marks of direction.

    Args:
        text: The text.
        beyond: How TOML escapes characters beyond 16 bits; JSON has pairs of escapes for them.
    """
    return "".join(
        char if char.isprintable() else _escaped(char, beyond) for char in json.dumps(text, ensure_ascii=False)
    )


def _escaped(char: str, beyond: str | None) -> str:
    if ord(char) > 0xFFFF and beyond is not None:
        return beyond.format(ord(char))
    return as_ascii(json.dumps(char))[1:-1]


_WRITE: Mapping[str, Callable[[Schedule], str]] = {"json": _to_json, "csv": _to_csv, "toml": _to_toml}
_READ: Mapping[str, Callable[[str], Schedule]] = {"json": _from_json, "csv": _from_csv, "toml": _from_toml}
