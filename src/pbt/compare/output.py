"""The files of a comparison: `comparison.json` and the figure."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pbt.compare.results import Comparison, PlanResult
from pbt.compare.sentences import sentences
from pbt.errors import MissingExtraError
from pbt.runs.catalog import COMPARISON
from pbt.store.durable import replace_file
from pbt.text import finite

JSON, PICTURE = COMPARISON, "comparison"
FORMATS = ("png", "svg")


def write(found: Comparison, folder: Path) -> list[Path]:
    """Write the comparison into its directory.

    Returns:
        The paths of the files.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunError: A file cannot be written.
    """
    from pbt.compare.figure import plot_comparison
    from pbt.report.matplotlib_figures import figure_bytes

    text = json.dumps(as_plain(found), indent=2, allow_nan=False) + "\n"
    figure = plot_comparison(found)
    contents = {JSON: text.encode()} | {f"{PICTURE}.{suffix}": figure_bytes(figure, suffix) for suffix in FORMATS}
    for name, content in contents.items():
        replace_file(folder / name, content)
    return [folder / name for name in contents]


def check_packages() -> None:
    """Check, before hours of training, that the packages for evaluating a comparison are installed.

    Raises:
        MissingExtraError: scipy or matplotlib is not installed.
    """
    from pbt.compare.statistics import scipy_stats

    scipy_stats()
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtraError("comparing plans", "compare") from error
    del mpl


def as_plain(found: Comparison) -> dict[str, Any]:
    """The comparison as plain values for JSON."""
    ranks = None if found.friedman is None else asdict(found.friedman) | {"plans": found.in_friedman}
    plain: dict[str, Any] = finite(
        {
            "task": found.task,
            "metric": found.metric,
            "better": "lower" if found.minimize else "higher",
            "population": found.population,
            "rounds": found.rounds,
            "seeds": list(found.seeds),
            "compared_with": found.plans[0].plan,
            "plans": {result.plan: _plain(result) for result in found.plans},
            "friedman": ranks,
            "sentences": sentences(found),
        }
    )
    return plain


def _plain(result: PlanResult) -> dict[str, Any]:
    pair = result.paired
    return {
        "made_of_runs_of": result.source or None,
        "summary": None if result.summary is None else asdict(result.summary),
        "difference": None if pair is None else asdict(pair),
        "mean": {
            name: result.mean(name) for name in ("steps", "state_steps", "copies", "founders", "failures", "seconds")
        },
        "runs": [asdict(run) for run in result.runs],
    }
