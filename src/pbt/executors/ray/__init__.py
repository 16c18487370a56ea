"""Workers as Ray actors, over any number of machines. Ray itself is not imported before a cluster is needed."""

from pbt.executors.ray.cluster import Cluster, check_room, connected, disconnect
from pbt.executors.ray.executor import RayExecutor

__all__ = ["Cluster", "RayExecutor", "check_room", "connected", "disconnect"]
