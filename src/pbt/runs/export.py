"""Export of a run: tables, the lineage tree, and schedules in the format of Ray Tune.

All functions but `write_parquet` return text; the caller writes the files.
"""

import csv
import importlib
import io
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pbt.core.history import RunHistory
from pbt.core.population import StateRef
from pbt.errors import MissingExtraError
from pbt.runs.results import Run
from pbt.runs.schedule_io import FORMULA
from pbt.text import as_ascii, finite, printable

Columns = Mapping[str, Sequence[Any]]
_PLAIN_LABEL = re.compile(r"[A-Za-z0-9.+-]+")


def csv_text(columns: Columns, *, raw: bool = False) -> str:
    """A line of column names, then one line per row; missing values are empty.

    Numbers are written as they are. Texts are data for terminals and spreadsheets, too: control characters and marks of
    direction, but for line ends, become `?`, and a text that a spreadsheet would take for a formula gets a `'` before
    it.

    Args:
        columns: The columns by name.
        raw: Write texts as they are, in quotes.
    """
    out = io.StringIO()
    # All raw texts are quoted: the writer would leave a carriage return bare, which ends a line for readers.
    quoting: Any = csv.QUOTE_NONNUMERIC if raw else csv.QUOTE_MINIMAL
    writer = csv.writer(out, lineterminator="\n", quoting=quoting)
    shown: Callable[[Any], Any] = _as_list if raw else _shown
    writer.writerow(map(shown, columns))
    writer.writerows(map(shown, row) for row in zip(*columns.values(), strict=True))
    return out.getvalue()


def _as_list(value: Any) -> Any:
    """A tuple as a JSON list; other values as they are."""
    return json.dumps(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> Any:
    value = _as_list(value)
    if not isinstance(value, str):
        return value
    text = "\n".join(map(printable, value.split("\n")))
    return f"'{text}" if value.lstrip().startswith(FORMULA) or value.startswith(("\t", "\r")) else text


def jsonl_text(columns: Columns) -> str:
    """One JSON object per row; NaN and infinities, which JSON lacks, are null."""
    rows = zip(*columns.values(), strict=True)
    return "".join(
        as_ascii(json.dumps(dict(zip(columns, map(finite, row), strict=True)), allow_nan=False)) + "\n" for row in rows
    )


def write_parquet(columns: Columns, path: Path) -> None:
    """Write a Parquet file with polars or pyarrow; tuples (as JSON lists) and columns of mixed types become text.

    Raises:
        MissingExtraError: Neither is installed.
    """
    uniform = {name: _uniform(column) for name, column in columns.items()}
    polars = _installed("polars")
    if polars is not None:
        polars.DataFrame(uniform).write_parquet(path)
        return
    pyarrow, parquet = _installed("pyarrow"), _installed("pyarrow.parquet")
    if pyarrow is None or parquet is None:
        raise MissingExtraError("Parquet", "frames")
    parquet.write_table(pyarrow.table(uniform), path)


def _installed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def _uniform(column: Sequence[Any]) -> list[Any]:
    column = list(map(_as_list, column))
    kinds = {type(value) for value in column if value is not None}
    if len(kinds) <= 1:
        return list(column)
    as_type = float if kinds == {int, float} else str
    return [None if value is None else as_type(value) for value in column]


def newick(lineage: RunHistory, root: str = "population") -> str:
    """The lineage tree in Newick format: all founders under one root, branch lengths in training steps.

    A label names a state: `m3.r12` is member 3 after round 12. Labels stand where branches part or end.
    """
    children = lineage.children
    parts: list[str] = []
    # A stack instead of recursion: a tree can be as deep as a run is long.
    pending: list[str | tuple[StateRef, int]] = [f"){_label(root)};\n", *_siblings(children.get(None, ()), 0), "("]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            parts.append(item)
            continue
        ref, since = item
        while len(below := children.get(ref, ())) == 1:
            ref = below[0]
        step = lineage.states[ref].step
        name = f"{_label(f'm{ref.member}.r{ref.round}')}:{step - since}"
        pending += [f"){name}", *_siblings(below, step), "("] if below else [name]
    return "".join(parts)


def _siblings(refs: Sequence[StateRef], since: int) -> list[str | tuple[StateRef, int]]:
    """States separated by commas, the first one on top of the stack."""
    found: list[str | tuple[StateRef, int]] = []
    for ref in reversed(refs):
        found += [(ref, since), ","]
    return found[:-1]


def _label(text: str) -> str:
    """A Newick label: quoted, with quotes doubled, unless it has only letters, digits, dots and signs."""
    if _PLAIN_LABEL.fullmatch(text):
        return text
    return "'{}'".format(printable(text).replace("'", "''"))


def ray_policies(run: Run) -> dict[str, str]:
    """File names and contents for Ray Tune's `PopulationBasedTrainingReplay`: the best state and every member.

    Ray counts training iterations instead of rounds: one iteration of the replayed trainable must train the steps of
    one round.

    Raises:
        RunError: No member has finished a round.
    """
    newest = run.tree.newest
    named = {"best": run.best.state, **{f"member_{member}": newest[member].state for member in sorted(newest)}}
    return {f"pbt_policy_{trial}.txt": ray_policy(run.tree, ref) for trial, ref in named.items()}


def ray_policy(lineage: RunHistory, ref: StateRef) -> str:
    """The changes along the ancestry of a state, one JSON list per line, in Ray's log format.

    `[tag of the member, tag of its donor, iterations of the member, of the donor, old config, new config]`.
    """
    links = lineage.ancestry(ref)
    rows = [
        [_tag(after.member), _tag(before.member), after.round - 1, done, dict(before.hparams), dict(after.hparams)]
        for done, (before, after) in enumerate(itertools.pairwise(links), 1)
        if before.member != after.member or before.hparams != after.hparams
    ]
    # Ray reads the initial values from the first change, so a schedule without changes needs one to equal values.
    only = dict(links[0].hparams)
    rows = rows or [[_tag(ref.member), _tag(ref.member), 0, 0, only, only]]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _tag(member: int) -> str:
    return f"member_{member}"
