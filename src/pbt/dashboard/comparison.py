"""A folder made by `pbt compare`, read as one: plan and seed of each run, and the results once they exist."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pbt.runs.catalog import COMPARISON, comparisons_in, trials_in
from pbt.text import number, printable

LARGEST = 8 << 20
"""The most bytes of a file of results that are read."""
MOST = 50
"""The most comparisons of a folder that are listed."""


class ComparisonReader:
    """Reads the results of a comparison again when their file has changed.

    Args:
        place: The folder; any other folder has no comparison.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._stamp: tuple[int, int] | None = None
        self._results: dict[str, Any] = {}

    def read(self) -> dict[str, Any] | None:
        """Plans and seeds by the names of runs, and the results; None for a folder that is no comparison."""
        trials = trials_in(self._place)
        if not trials:
            return None
        runs = {printable(name): list(map(printable, name.split("/"))) for name in (trial.name for trial in trials)}
        return {"runs": runs, **self._read()}

    def _read(self) -> dict[str, Any]:
        file = self._place / COMPARISON
        try:
            status = file.stat()
            if file.is_symlink() or not file.is_file() or status.st_size > LARGEST:
                return {}
            stamp = status.st_mtime_ns, status.st_size
            if stamp != self._stamp:
                self._results = _results(json.loads(file.read_bytes()))
                self._stamp = stamp
        except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
            # Not written yet, or by a stranger.
            return {}
        return self._results


class ComparisonsReader:
    """Reads the results of all comparisons in a folder, each again when its file has changed.

    Args:
        place: The folder.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._readers: dict[Path, ComparisonReader] = {}

    def read(self) -> list[dict[str, Any]]:
        """Name, number of runs and results of each, at most `MOST`, by name."""
        try:
            paths = comparisons_in(self._place)[:MOST]
        except OSError:
            paths = list(self._readers)  # one is being removed; the next look lists the others
        self._readers = {path: self._readers.get(path) or ComparisonReader(path) for path in paths}
        found = []
        for path, reader in self._readers.items():
            with suppress(OSError):  # removed since
                if one := reader.read():
                    found.append({"name": printable(path.name), **one, "runs": len(one["runs"])})
        return found


def _results(plain: Mapping[str, Any]) -> dict[str, Any]:
    plans = plain["plans"]
    metric = printable(plain["metric"])
    head = ["plan", f"{metric} (IQM)", "95 % interval", "difference", "95 % interval of it", "adjusted p", "seeds"]
    rows = [[printable(name), *_row(found)] for name, found in plans.items()]
    return {
        "task": printable(plain["task"]),
        "sentences": [printable(one) for one in plain["sentences"]][:50],
        "head": head,
        "rows": rows[:100],
    }


def _row(found: Mapping[str, Any]) -> list[str]:
    summary, pair = found.get("summary"), found.get("difference")
    own = ["–", "–"] if summary is None else [_text(summary["iqm"]), _between(summary)]  # noqa: RUF001 (a dash)
    other = ["–"] * 3 if pair is None else [_text(pair["iqm"]), _between(pair), _text(pair["adjusted"])]  # noqa: RUF001
    return [*own, *other, str(0 if summary is None else int(summary["seeds"]))]


def _between(found: Mapping[str, Any]) -> str:
    if found["low"] is None:  # of one seed
        return "–"  # noqa: RUF001 (a dash)
    return f"{_text(found['low'])} to {_text(found['high'])}"


def _text(value: Any) -> str:
    return number(float(value)) if isinstance(value, (int, float)) and math.isfinite(value) else printable(value)
