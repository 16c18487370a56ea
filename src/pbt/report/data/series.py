"""The few lines of a run that are laid over those of other runs: best, median and the schedule of the best state."""

from typing import Any

from pbt.report.data.axes import Curve, thin
from pbt.report.data.fitness import Fitness, fitness
from pbt.report.data.schedules import schedules
from pbt.report.data.states import plain_axis
from pbt.report.snapshot import RunSnapshot

POINTS = 300
"""The most points of a line."""


def run_series(snapshot: RunSnapshot) -> dict[str, Any]:
    """Plain values of the lines; without lines before a member has finished a round."""
    found: dict[str, Any] = {"score": snapshot.score_name, "sign": snapshot.sign, "scores": [], "schedules": []}
    if not snapshot.path:
        return found
    record, panels = fitness(snapshot), schedules(snapshot)
    found["log"] = record.log
    found["scores"] = [_scores(record, "best"), _scores(record, "median")]
    for panel in () if panels is None else panels.panels:
        x, y, rounds = _steps(panel.winner)
        found["schedules"].append({**plain_axis(panel.axis), "x": x, "y": y, "rounds": rounds})
    return found


def _scores(record: Fitness, name: str) -> dict[str, Any]:
    values, by_round = getattr(record, name), getattr(record.by_round, name)
    steps = thin(list(zip(record.steps, values, strict=True)), POINTS)
    rounds = thin(list(zip(record.by_round.rounds, by_round, strict=True)), POINTS)
    return {"steps": _columns(steps), "rounds": _columns(rounds)}


def _columns(points: list[tuple[int, float]]) -> list[list[Any]]:
    return [[x for x, _ in points], [float(f"{y:.6g}") if abs(y) < float("inf") else None for _, y in points]]


def _steps(curve: Curve) -> tuple[list[Any], list[Any], list[Any]]:
    """The corners of a step curve, with the round of the member that each begins with."""
    rows = list(zip(curve.x, curve.y, (ref.round - 1 if ref else None for ref in curve.refs), strict=True))
    corners = [row for i, row in enumerate(rows) if i in {0, len(rows) - 1} or row[1] != rows[i - 1][1]]
    shown = thin(corners, POINTS)
    return [x for x, _, _ in shown], [y for _, y, _ in shown], [r for _, _, r in shown]
