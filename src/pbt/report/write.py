"""From a run to files: the page, and the pictures for print."""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pbt.errors import MissingExtraError, RunError, UsageError
from pbt.report import plotly_figures as interactive
from pbt.report.content import content
from pbt.report.data.figures import NAMES, Pictures, pictures
from pbt.report.page import page
from pbt.report.plotly_figures.common import Figure
from pbt.report.read import read_story
from pbt.runs.results import Run

FOLDER, PAGE = "report", "report.html"
FORMATS = ("png", "svg", "pdf")
_PLOTLY: Mapping[str, Callable[[Any], Figure]] = {name: getattr(interactive, f"plot_{name}") for name in NAMES}


def figures(run: Run | str | Path) -> dict[str, Figure]:
    """Every picture that can be drawn, by name, as a plotly figure in plain values, ready for JSON.

    Colors of text and grid are left to whoever shows them.

    Args:
        run: A run, or its directory, which may still be written.
    """
    return drawn(pictures(read_story(run)))


def write_report(run: Run | str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a run: one HTML file with everything in it, that needs no network.

    Args:
        run: A run, or its directory, which may still be written.
        out: The file. Default: `report/report.html` in the run directory.

    Returns:
        The file.

    Raises:
        MissingExtraError: plotly is not installed.
        RunFormatError: There is no run directory, or one of another version.
        UsageError: A run in memory, and no `out`.
        RunError: The file cannot be written.
    """
    library = plotly_js("the report", "report")
    path = Path(out) if out is not None else _home(run) / PAGE
    if path.is_dir():
        raise UsageError(f"{path}: expected the name of a file to write, found a folder")
    snapshot = read_story(run)
    shown = pictures(snapshot)
    _write(path, page(content(snapshot, shown), drawn(shown), library).encode())
    return path


def write_pictures(run: Run | str | Path, formats: Iterable[str], out: str | Path | None = None) -> list[Path]:
    """Write every picture that can be drawn into files of their own, for print.

    Args:
        run: A run, or its directory, which may still be written.
        formats: Of `png`, `svg`, `pdf`.
        out: The folder. Default: `report` in the run directory.

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunFormatError: There is no run directory, or one of another version.
        UsageError: An unknown format, a run in memory and no `out`, or no member has finished a round yet.
        RunError: A file cannot be written.
    """
    from pbt.report import matplotlib_figures as printed

    asked = list(dict.fromkeys(formats))
    unknown = [name for name in asked if name not in FORMATS]
    if unknown:
        raise UsageError(f"expected formats of {', '.join(FORMATS)}, got {unknown[0]!r}")
    folder = Path(out) if out is not None else _home(run)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder for the pictures, found a file")
    snapshot = read_story(run)
    shown = pictures(snapshot)
    if not snapshot.path:
        raise UsageError(f"{snapshot.name}: no member has finished a round yet, so there is nothing to draw")
    written = []
    for name in NAMES:
        record = getattr(shown, name)
        if record is None:
            continue
        figure = getattr(printed, f"plot_{name}")(record)
        for suffix in asked:
            path = folder / f"{name}.{suffix}"
            _write(path, printed.saved(figure, suffix))
            written.append(path)
    return written


def drawn(shown: Pictures) -> dict[str, Figure]:
    """The pictures as plotly figures, by name."""
    records = {name: getattr(shown, name) for name in NAMES}
    return {name: _PLOTLY[name](record) for name, record in records.items() if record is not None}


def _home(run: Run | str | Path) -> Path:
    path = run.path if isinstance(run, Run) else Path(run)
    if path is None:
        raise UsageError("a run in memory has no folder: say where the report shall be written, with out=")
    return path / FOLDER


def plotly_js(what: str, extra: str) -> str:
    """The script that draws plotly figures.

    Raises:
        MissingExtraError: plotly is not installed; the message says that `what` needs the `extra`.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError(what, extra) from error
    library: str = get_plotlyjs()
    return library


def _write(path: Path, content: bytes) -> None:
    """Replace a file; whoever reads it sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}); name another place (--out)") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
