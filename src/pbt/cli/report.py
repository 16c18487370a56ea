"""`pbt report`: a run as a page to look at, or as pictures for print."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pbt.cli.options import Flag
from pbt.runs.catalog import find_run
from pbt.terminal.console import console_for
from pbt.terminal.exit import OK
from pbt.text import printable


def report(
    named: Annotated[str, Parameter(name="RUN")],
    /,
    *,
    out: Path | None = None,
    png: Flag = False,
    svg: Flag = False,
    pdf: Flag = False,
) -> int:
    """Write what happened in a run: one HTML file that needs no network, or pictures for print.

    The run may still be trained: the report shows it as it is at this moment, and disturbs nothing.

    Example: pbt report runs/latest

    Args:
        named: The run directory.
        out: The HTML file, or the folder of the pictures. Default: report/report.html, or report, in the run.
        png: Write every picture as PNG, instead of the page.
        svg: Write every picture as SVG.
        pdf: Write every picture as PDF.
    """
    from pbt.report import write_pictures, write_report

    path = find_run(named)
    formats = [name for name, asked in (("png", png), ("svg", svg), ("pdf", pdf)) if asked]
    written = write_pictures(path, formats, out) if formats else [write_report(path, out)]
    for file in written:
        console_for().print(printable(file), soft_wrap=True)
    return OK
