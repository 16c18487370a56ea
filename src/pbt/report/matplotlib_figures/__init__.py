"""The figures for print, drawn by matplotlib from the same records as the plotly figures."""

from pbt.report.matplotlib_figures.ancestry import plot_founders, plot_tree
from pbt.report.matplotlib_figures.common import figure_bytes
from pbt.report.matplotlib_figures.lines import plot_fitness, plot_health, plot_schedules
from pbt.report.matplotlib_figures.maps import plot_exploits, plot_plane

__all__ = [
    "figure_bytes",
    "plot_exploits",
    "plot_fitness",
    "plot_founders",
    "plot_health",
    "plot_plane",
    "plot_schedules",
    "plot_tree",
]
