"""The pictures for print, drawn by matplotlib from the same records under the same names."""

from pbt.report.printed.ancestry import plot_founders, plot_tree
from pbt.report.printed.lines import plot_fitness, plot_health, plot_schedules
from pbt.report.printed.maps import plot_exploits, plot_plane
from pbt.report.printed.parts import saved

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
