"""The autoscaler of a cluster, as far as it shows: node types, nodes on their way, and nodes that are about to go.

Ray has no public functions for this; all of its private names are used here.
"""

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from pbt.executors.ray.resources import amounts, room

GROWTH_SECONDS = 1800.0
"""Time for a new node, from the request of a machine to its first worker."""
PENDING = 64
"""Maximal number of actors that wait for nodes to come; the autoscaler plans in steps anyway."""
_STATUS, _READ_ONLY = "__autoscaling_status", "node_"
"""The key of the autoscaler's report (version 1), and the prefix of node types of a cluster without autoscaler."""
_V2, _NAMESPACE = b"__autoscaler_v2_enabled", b"__autoscaler"


class NodeType(NamedTuple):
    """A type of nodes that the autoscaler can start."""

    name: str
    resources: Mapping[str, float]
    most: int
    """Maximal number of nodes; -1: unlimited."""


class Autoscaler(NamedTuple):
    """The report of an autoscaler."""

    types: Sequence[NodeType] | None
    """The node types; None: it does not publish them."""
    pending: int
    """Nodes that are being started."""

    def can_hold(self, need: Mapping[str, float]) -> bool:
        """Whether a node of some type could hold a worker; true if the types are unknown."""
        return self.types is None or any(kind.most and room([kind.resources], need) for kind in self.types)

    def describe(self) -> str:
        """The node types as text."""
        if self.types is None:
            return "its node types are not published"
        shown = [f"{kind.name} with {amounts(kind.resources)}" for kind in self.types if kind.most]
        return f"its node types are {'; '.join(shown) or 'none'}"


def autoscaler_of(ray: Any) -> Autoscaler | None:
    """The autoscaler of the cluster; None: it has none. Blocks while the control store is gone."""
    types = _types(ray._private.state.state.get_cluster_config())
    if _kv(_V2, _NAMESPACE) == b"1":
        pb: Any = import_module("ray.core.generated.autoscaler_pb2")

        client = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
        reply = pb.GetClusterStatusReply.FromString(client.get_cluster_status())
        state = reply.autoscaling_state
        return Autoscaler(types, len(state.pending_instance_requests) + len(state.pending_instances))
    return of_report(_kv(_STATUS.encode()), types)


def of_report(report: bytes | None, types: Sequence[NodeType] | None = None) -> Autoscaler | None:
    """The autoscaler (version 1) by its report; None: the cluster has none, or it has not reported yet."""
    found = json.loads(report or b"{}").get("autoscaler_report") or {}
    names = (found.get("node_type_mapping") or {}).values()
    if types is None and all(name.startswith(_READ_ONLY) for name in names):
        return None
    launches = sum((found.get("pending_launches") or {}).values())
    return Autoscaler(types, launches + len(found.get("pending_nodes") or ()))


def draining(ray: Any) -> set[str]:
    """The nodes that are about to go: drained or preempted. Blocks while the control store is gone."""
    return set(ray._private.state.state.get_draining_nodes())


def _types(config: Any) -> list[NodeType] | None:
    if config is None or not config.node_group_configs:
        return None
    return [NodeType(kind.name, dict(kind.resources), kind.max_count) for kind in config.node_group_configs]


def _kv(key: bytes, namespace: bytes | None = None) -> Any:
    from ray.experimental.internal_kv import _internal_kv_get

    return _internal_kv_get(key, namespace=namespace)
