"""Workers as Ray actors, on any number of machines. Ray is imported only when a cluster is needed."""

from pbt.executors.ray.cluster import Cluster, check_room, connected, disconnect
from pbt.executors.ray.executor import RayExecutor

__all__ = ["Cluster", "RayExecutor", "check_room", "connected", "disconnect"]
