"""The figures for plotly, as plain dicts ready for JSON; plotly itself is not needed to make them."""

from pbt.report.plotly_figures.ancestry import plot_founders, plot_tree
from pbt.report.plotly_figures.lines import plot_curves, plot_fitness, plot_health, plot_schedules
from pbt.report.plotly_figures.maps import plot_exploits, plot_plane
from pbt.report.plotly_figures.search import plot_importance, plot_parallel

__all__ = ["plot_curves", "plot_exploits", "plot_fitness", "plot_founders", "plot_health"]
__all__ += ["plot_importance", "plot_parallel", "plot_plane", "plot_schedules", "plot_tree"]
