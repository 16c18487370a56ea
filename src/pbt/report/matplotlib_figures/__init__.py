"""The figures for print, drawn by matplotlib from the same records as the plotly figures."""

from pbt.report import plotly_figures
from pbt.report.matplotlib_figures.ancestry import plot_founders, plot_tree  # noqa: F401 (in __all__)
from pbt.report.matplotlib_figures.common import captioned, figure_bytes
from pbt.report.matplotlib_figures.lines import plot_curves, plot_fitness, plot_health, plot_schedules  # noqa: F401 (in __all__)
from pbt.report.matplotlib_figures.maps import plot_exploits, plot_plane  # noqa: F401 (in __all__)
from pbt.report.matplotlib_figures.search import plot_importance, plot_parallel  # noqa: F401 (in __all__)

__all__ = ["captioned", "figure_bytes"]
# The same figures.
__all__ += plotly_figures.__all__
