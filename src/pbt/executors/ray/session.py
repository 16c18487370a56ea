"""A run's session on a cluster: the connection, the actors that it may start, and the driver's fingerprint."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pbt.errors import InfrastructureError
from pbt.executors.fingerprint import code_digests, modules_of, own_digests
from pbt.executors.ray.actor import Actor, ActorProgram, ActorStates
from pbt.executors.ray.autoscaling import Autoscaler, autoscaler_of, draining
from pbt.executors.ray.cluster import Cluster
from pbt.executors.ray.connection import check_room, connected, connection_is_ours, nodes
from pbt.executors.ray.control_store import HEAD_SECONDS, bounded, head_of
from pbt.executors.ray.faults import REMEDY
from pbt.executors.ray.resources import amounts, room
from pbt.executors.ray.sent_data import send
from pbt.executors.ray.slots import ActorSlot
from pbt.executors.transport import pickled, sources
from pbt.executors.worker import WorkerSpec
from pbt.store.files import StateFiles

log = logging.getLogger("pbt")

_LOOK_SECONDS, _LOOK_BOUND = 2.0, 3.0


class ClusterSession:
    """A connected cluster, and the program of its actors.

    Args:
        setup: The specification of a worker.
        cluster: The address of Ray and the resources per worker.
        most: Maximal number of actors; None: as many as the cluster can hold.

    Raises:
        WorkerError: The cluster does not answer.
        DeviceError: No node can hold a worker.
        InfrastructureError: The head does not answer.
        TaskError: The data cannot be read.
    """

    def __init__(self, setup: WorkerSpec, cluster: Cluster, most: int | None) -> None:
        self.ray = ray = connected(cluster, setup.task)
        self._need = cluster.need
        self.need = amounts(cluster.need)
        """The resources per worker, as text."""
        try:
            count = check_room(ray, cluster)
            self.memory = sum(node.get("object_store_memory", 0.0) for node in nodes(ray, seconds=HEAD_SECONDS))
        except TimeoutError as error:
            raise InfrastructureError(f"ray: the head of the cluster does not answer ({error}); {REMEDY}") from error
        if most is not None and most > count:
            log.info("ray: room for %d of the %d requested workers", count, most)
        self._head, self.head_is_there = head_of(ray), True
        self._looked = 0.0
        self.going: set[str] = set()
        """The nodes that are drained or preempted."""
        self.scaler: Autoscaler | None = None
        """The autoscaler; None: the cluster has none."""
        self.look()
        self._actors = _actor_class(ray, cluster)
        states = ActorStates() if cluster.folder is None else StateFiles(Path(cluster.folder))
        # Definitions of the main program are pickled by value: nodes have no copy of its file.
        payload = ray.cloudpickle.dumps(replace(setup, states=states, fingerprint={}))
        code = modules_of(pickled(setup.task))
        sent = None if cluster.held is None else send(ray, cluster.held)
        self._program = ActorProgram(sources(), payload, sys.path, code, sent)
        self.fingerprint = {**setup.fingerprint, **own_digests(setup.task), **code_digests(code)}

    def look(self) -> None:
        """Read the notices of nodes that are about to go and the report of the autoscaler, at most every 2 s."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS or not self.head_is_there:
            return
        with contextlib.suppress(TimeoutError):
            self.going = bounded(partial(draining, self.ray), _LOOK_BOUND)
            self.scaler = bounded(partial(autoscaler_of, self.ray), _LOOK_BOUND)
        self._looked = time.monotonic()

    def room(self, left_out: Iterable[str]) -> int:
        """The number of workers that the nodes can hold, without those that are left out or about to go.

        Raises:
            TimeoutError: The control store does not answer.
        """
        return room(nodes(self.ray, {*left_out, *self.going}), self._need)

    def has_nodes(self, left_out: Iterable[str]) -> bool:
        """Whether there are nodes beside those that are left out; true if the control store does not answer."""
        try:
            return not self.head_is_there or bool(nodes(self.ray, set(left_out)))
        except TimeoutError:
            return True

    def start_actor(self, selector: Mapping[str, str]) -> ActorSlot:
        """Start an actor, on a node of this label selector.

        Raises:
            TimeoutError: The control store does not answer; if it starts the actor later, the actor ends at once.
        """
        options = self._actors.options(label_selector=dict(selector) or None)
        actor = bounded(partial(options.remote, self._program))
        return ActorSlot(actor=actor, opening=actor.open.remote())

    def kill(self, slot: ActorSlot) -> None:
        """End an actor; without a control store it ends with this process."""
        if self.head_is_there:
            with contextlib.suppress(TimeoutError):
                bounded(partial(self.ray.kill, slot.actor))

    def head_answers(self) -> bool:
        """Whether the control store answers.

        Raises:
            InfrastructureError: It has not answered for long.
        """
        self.head_is_there = False  # also if this raises
        self.head_is_there = self._head.answers
        return self.head_is_there

    def free(self) -> str:
        """The needed and the free resources as text."""
        try:
            free, every = bounded(self.ray.available_resources), bounded(self.ray.cluster_resources)
        except TimeoutError:
            return f"each needs {self.need}, and the free resources are unknown"
        scaler = f"; the cluster's autoscaler adds no node: {self.scaler.describe()}" if self.scaler else ""
        return f"each needs {self.need}, and free are {amounts(free)} of {amounts(every)}{scaler}"


def _actor_class(ray: Any, cluster: Cluster) -> Any:
    need = cluster.need
    return ray.remote(
        num_cpus=need.pop("CPU"),
        num_gpus=need.pop("GPU"),
        resources=need,
        runtime_env=None if connection_is_ours() else dict(cluster.runtime_env) or None,
        max_restarts=0,
        concurrency_groups={"pulse": 1, "files": 1},
        scheduling_strategy="SPREAD",
    )(Actor)
