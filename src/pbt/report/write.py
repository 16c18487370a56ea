"""Write the files of a report: the page, and the figures for print."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pbt.errors import MissingExtraError, UsageError
from pbt.report import plotly_figures
from pbt.report.content import content
from pbt.report.data.figures import NAMES, Pictures, pictures
from pbt.report.page import page
from pbt.report.parts import page_parts
from pbt.report.parts import records as records_of_members
from pbt.report.plotly_figures.common import Figure, titled
from pbt.report.read import read_snapshot
from pbt.report.sentences import TITLES
from pbt.runs.results import Run
from pbt.runs.run_notes import Note, read_note
from pbt.store.durable import replace_file

FOLDER, PAGE = "report", "report.html"
FORMATS = ("png", "svg", "pdf")
_PLOTLY: Mapping[str, Callable[[Any], Figure]] = {name: getattr(plotly_figures, f"plot_{name}") for name in NAMES}


def figures(run: Run | str | Path) -> dict[str, Figure]:
    """All available figures by name, as plotly figures in plain values, ready for JSON.

    They set no colors of text and grid; those come from the page's template.

    Args:
        run: A run or its directory; a run that is still training is allowed.
    """
    return drawn(pictures(read_snapshot(run)))


def write_report(run: Run | str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a run: one self-contained HTML file that needs no network.

    Args:
        run: A run or its directory; a run that is still training is allowed.
        out: The file to write. Default: `report/report.html` in the run directory.

    Returns:
        The path of the file.

    Raises:
        MissingExtraError: plotly is not installed.
        RunFormatError: The path is not a run directory, or has another version.
        UsageError: `out` is a folder, or is missing for a run in memory.
        RunError: The file cannot be written.
    """
    library = plotly_js("the report", "report")
    path = Path(out) if out is not None else _home(run) / PAGE
    if path.is_dir():
        raise UsageError(f"{path}: expected a file name for the report, found a folder")
    snapshot = read_snapshot(run)
    records = pictures(snapshot)
    folder = run.path if isinstance(run, Run) else Path(run)
    note = Note() if folder is None else read_note(folder)
    parts = page_parts(snapshot)
    if parts:
        parts["records"] = records_of_members(snapshot, folder)
    replace_file(path, page(content(snapshot, records), drawn(records), parts, library, note).encode())
    return path


def write_pictures(run: Run | str | Path, formats: Iterable[str], out: str | Path | None = None) -> list[Path]:
    """Write all available figures for print, one file per figure and format.

    Args:
        run: A run or its directory; a run that is still training is allowed.
        formats: Any of `png`, `svg`, `pdf`.
        out: The folder. Default: `report` in the run directory.

    Returns:
        The paths of the files.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunFormatError: The path is not a run directory, or has another version.
        UsageError: A format is unknown, `out` is a file or is missing for a run in memory, or no member has finished a
            round yet.
        RunError: A file cannot be written.
    """
    from pbt.report import matplotlib_figures

    suffixes = list(dict.fromkeys(formats))
    unknown = [name for name in suffixes if name not in FORMATS]
    if unknown:
        raise UsageError(f"expected formats of {', '.join(FORMATS)}, got {unknown[0]!r}")
    folder = Path(out) if out is not None else _home(run)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder for the figures, found a file")
    snapshot = read_snapshot(run)
    records = pictures(snapshot)
    if not snapshot.path:
        raise UsageError(f"{snapshot.name}: no member has finished a round yet, so there is nothing to draw")
    written = []
    for name in NAMES:
        record = getattr(records, name)
        if record is None:
            continue
        figure = matplotlib_figures.captioned(getattr(matplotlib_figures, f"plot_{name}")(record), records.caption)
        for suffix in suffixes:
            path = folder / f"{name}.{suffix}"
            replace_file(path, matplotlib_figures.figure_bytes(figure, suffix))
            written.append(path)
    return written


def drawn(records: Pictures) -> dict[str, Figure]:
    """The available figures by name, drawn as plotly figures."""
    by_name = {name: getattr(records, name) for name in NAMES}
    return {
        name: titled(_PLOTLY[name](record), TITLES[name], records.caption)
        for name, record in by_name.items()
        if record is not None
    }


def _home(run: Run | str | Path) -> Path:
    path = run.path if isinstance(run, Run) else Path(run)
    if path is None:
        raise UsageError("a run in memory has no directory to write the report to; set out=")
    return path / FOLDER


def plotly_js(feature: str, extra: str) -> str:
    """The source of plotly.js.

    Args:
        feature: What needs it, for the error message.
        extra: The extra that installs plotly.

    Raises:
        MissingExtraError: plotly is not installed; the message says that `feature` needs `extra`.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError(feature, extra) from error
    library: str = get_plotlyjs()
    return library
