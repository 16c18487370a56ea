"""Columns of equal length, as `Run.history()` returns them."""

import html
from collections.abc import Sequence
from typing import Any

from pbt.errors import MissingExtraError
from pbt.text import printable

HEAD, TAIL = 6, 4
"""The rows that a notebook shows at most: the first and the last."""


class History(dict[str, Sequence[Any]]):
    """Columns of equal length, in log order: a dictionary, so that pandas and polars take it as it is.

    ::

        pandas.DataFrame(run.history())
    """

    def to_frame(self) -> Any:
        """A polars DataFrame if polars is installed, else a pandas one.

        Raises:
            MissingExtraError: Neither is installed.
        """
        for module in ("polars", "pandas"):
            try:
                library = __import__(module)
            except ImportError:
                continue
            return library.DataFrame(dict(self))
        raise MissingExtraError("History.to_frame()", "frames")

    def _repr_html_(self) -> str:
        """The first and the last rows, as notebooks show them."""
        columns = list(self.values())
        count = len(columns[0]) if columns else 0
        rows = [_row(column[i] for column in columns) for i in range(count)[:HEAD]]
        if count > HEAD + TAIL:
            rows.append(_row("…" for _ in columns))
        rows += [_row(column[i] for column in columns) for i in range(count)[max(HEAD, count - TAIL) :]]
        head = "".join(f"<th>{html.escape(printable(name))}</th>" for name in self)
        return f"<table><tr>{head}</tr>{''.join(rows)}</table><p>{count} rows, {len(columns)} columns</p>"


def _row(values: Any) -> str:
    return "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in values) + "</tr>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return html.escape(f"{value:.6g}" if isinstance(value, float) else printable(str(value)))
