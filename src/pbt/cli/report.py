"""`pbt report`: an HTML report of a run, or its figures for print."""

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
    """Write a report of a run: one self-contained HTML file, or its figures for print.

    Works during training; the run is only read.

    Example: pbt report runs/latest

    Args:
        named: Run directory.
        out: HTML file, or folder of the figures. Default: RUN/report/report.html, or RUN/report.
        png: Write the figures as PNG instead of the HTML file.
        svg: Write the figures as SVG instead of the HTML file.
        pdf: Write the figures as PDF instead of the HTML file.
    """
    from pbt.report import write_pictures, write_report

    path = find_run(named)
    formats = [name for name, chosen in (("png", png), ("svg", svg), ("pdf", pdf)) if chosen]
    written = write_pictures(path, formats, out) if formats else [write_report(path, out)]
    for file in written:
        console_for().print(printable(file), soft_wrap=True)
    return OK
