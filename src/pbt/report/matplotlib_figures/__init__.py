"""The pictures for print, drawn by matplotlib from the same records under the same names."""

from pbt.report.matplotlib_figures.ancestry import plot_founders, plot_tree
from pbt.report.matplotlib_figures.common import saved
from pbt.report.matplotlib_figures.lines import plot_fitness, plot_health, plot_schedules
from pbt.report.matplotlib_figures.maps import plot_exploits, plot_plane

__all__ = [
    "plot_exploits",
    "plot_fitness",
    "plot_founders",
    "plot_health",
    "plot_plane",
    "plot_schedules",
    "plot_tree",
    "saved",
]
