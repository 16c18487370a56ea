"""The report of a run: one HTML file, or figures for print.

`write_report(run)` writes the page and `write_pictures(run, ["pdf"])` the figures for print. `figures(run)` returns
plotly figures as plain values; `plot_tree(run)` and the other `plot_*` functions return one matplotlib figure each. The
data of a figure is a frozen record, made in `pbt.report.data` and drawn by functions of the same name in
`plotly_figures` and `matplotlib_figures`.
"""

from pbt.report.plots import (
    plot_curves,
    plot_exploits,
    plot_fitness,
    plot_founders,
    plot_health,
    plot_importance,
    plot_parallel,
    plot_plane,
    plot_schedules,
    plot_tree,
)
from pbt.report.write import figures, write_pictures, write_report

__all__ = [
    "figures",
    "plot_curves",
    "plot_exploits",
    "plot_fitness",
    "plot_founders",
    "plot_health",
    "plot_importance",
    "plot_parallel",
    "plot_plane",
    "plot_schedules",
    "plot_tree",
    "write_pictures",
    "write_report",
]
