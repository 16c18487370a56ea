"""The data of all figures of a run, in reading order."""

from dataclasses import dataclass

from pbt.report.data.curves import PointLines, curves
from pbt.report.data.exploits import Exploits, exploits
from pbt.report.data.fitness import Fitness, fitness
from pbt.report.data.founders import FounderShares, founders
from pbt.report.data.health import Health, health
from pbt.report.data.importance import Importance, importance
from pbt.report.data.parallel import Parallel, parallel
from pbt.report.data.plane import Plane, plane
from pbt.report.data.schedules import ScheduleLines, schedules
from pbt.report.data.tree import Tree, tree
from pbt.report.snapshot import RunSnapshot
from pbt.text import count

NAMES = ("fitness", "curves", "schedules", "tree", "founders", "exploits", "plane", "parallel", "importance", "health")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The data of every figure; None where the run has nothing to show."""

    caption: str = ""
    """The run, its population, seed and score, for figures that stand alone."""
    fitness: Fitness | None = None
    curves: PointLines | None = None
    schedules: ScheduleLines | None = None
    tree: Tree | None = None
    founders: FounderShares | None = None
    exploits: Exploits | None = None
    plane: Plane | None = None
    parallel: Parallel | None = None
    importance: Importance | None = None
    health: Health | None = None


def _caption(snapshot: RunSnapshot) -> str:
    better = "higher" if snapshot.sign > 0 else "lower"
    parts = (snapshot.name, count(len(snapshot.members), "member"), f"seed {snapshot.meta.get('seed')}")
    return " · ".join((*parts, f"{snapshot.score_name}: {better} is better"))


def pictures(snapshot: RunSnapshot) -> Pictures:
    """The data of all figures; before a member has finished a round, only of the rounds in progress."""
    if not snapshot.path:
        lines = curves(snapshot)
        return Pictures(caption=_caption(snapshot) if lines else "", curves=lines)
    return Pictures(
        caption=_caption(snapshot),
        fitness=fitness(snapshot),
        curves=curves(snapshot),
        schedules=schedules(snapshot),
        tree=tree(snapshot),
        founders=founders(snapshot),
        exploits=exploits(snapshot),
        plane=plane(snapshot),
        parallel=parallel(snapshot),
        importance=importance(snapshot),
        health=health(snapshot),
    )
