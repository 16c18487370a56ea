"""What happened in a run, to look at: one HTML file, or pictures for print.

`write_report(run)` makes the page and `write_pictures(run, ["pdf"])` the pictures. `figures(run)` gives plotly figures
as plain values, `plot_tree(run)` and its like one matplotlib figure. What a picture shows is a frozen record, made in
`pbt.report.data` and drawn in `interactive` and in `printed` under the same names.
"""

from pbt.report.plots import (
    plot_exploits,
    plot_fitness,
    plot_founders,
    plot_health,
    plot_plane,
    plot_schedules,
    plot_tree,
)
from pbt.report.write import figures, write_pictures, write_report

__all__ = [
    "figures",
    "plot_exploits",
    "plot_fitness",
    "plot_founders",
    "plot_health",
    "plot_plane",
    "plot_schedules",
    "plot_tree",
    "write_pictures",
    "write_report",
]
