"""The data of all figures of a run, in reading order."""

from dataclasses import dataclass

from pbt.report.data.curves import PointLines, curves
from pbt.report.data.exploits import Exploits, exploits
from pbt.report.data.fitness import Fitness, fitness
from pbt.report.data.founders import FounderShares, founders
from pbt.report.data.health import Health, health
from pbt.report.data.plane import Plane, plane
from pbt.report.data.schedules import ScheduleLines, schedules
from pbt.report.data.tree import Tree, tree
from pbt.report.snapshot import RunSnapshot

NAMES = ("fitness", "curves", "schedules", "tree", "founders", "exploits", "plane", "health")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The data of every figure; None where the run has nothing to show."""

    fitness: Fitness | None = None
    curves: PointLines | None = None
    schedules: ScheduleLines | None = None
    tree: Tree | None = None
    founders: FounderShares | None = None
    exploits: Exploits | None = None
    plane: Plane | None = None
    health: Health | None = None


def pictures(snapshot: RunSnapshot) -> Pictures:
    """The data of all figures; before a member has finished a round, only of the rounds in progress."""
    if not snapshot.path:
        return Pictures(curves=curves(snapshot))
    return Pictures(
        fitness=fitness(snapshot),
        curves=curves(snapshot),
        schedules=schedules(snapshot),
        tree=tree(snapshot),
        founders=founders(snapshot),
        exploits=exploits(snapshot),
        plane=plane(snapshot),
        health=health(snapshot),
    )
