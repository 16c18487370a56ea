"""Ray clusters to trouble: on hosts of their own, or as raylets on this machine."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.cluster.hosts import HEAD_PORT, Host, hosts

HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 5}
"""A node that does not answer counts as dead after five seconds, not half a minute."""
WORKER = "ray::Actor"


class OnHosts:
    """Three hosts with a core each. The first is the head; drivers run on the others."""

    kinds = ("cut", "node", "worker", "driver", "move")

    def __init__(self, made, environment):
        self.made, self.environment = made, environment
        self.address = f"{made[0].address}:{HEAD_PORT}"
        system = json.dumps(HEALTH)
        self._start(made[0], "--head", f"--port={HEAD_PORT}", "--include-dashboard=false", f"--system-config={system}")
        for host in made[1:]:
            self._start(host, f"--address={self.address}")

    def _start(self, host, *arguments):
        host.start_ray(*arguments, env=self.environment)

    def start(self, number, *command):
        """Start a program on a host."""
        return self.made[number].start(*command, env=self.environment)

    def cut(self, number):
        self.made[number].cut()

    def lose(self, number):
        self.made[number].end()

    def renew(self, number):
        """A new host in place of one that was lost or cut."""
        old = self.made[number]
        old.end()
        self.made[number] = Host(old.number, old.switch)
        self._start(self.made[number], f"--address={self.address}")

    def workers(self):
        """The processes of workers on all hosts."""
        return [process for host in self.made for process in host.processes(WORKER)]


class OnThisMachine:
    """Three raylets of one machine; none of them can be cut off."""

    kinds = ("node", "worker", "driver", "move")

    def __init__(self, environment):
        from ray.cluster_utils import Cluster

        os.environ.update({name: value for name, value in environment.items() if name.startswith("RAY_")})
        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": HEALTH, "object_store_memory": 10**8}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.cluster.head_node, self._add(), self._add()]
        self.address, self.environment = self.cluster.address, environment

    def _add(self):
        return self.cluster.add_node(num_cpus=1, object_store_memory=10**8)

    def start(self, number, *command):
        """Start a program; `number` has no meaning here."""
        return subprocess.Popen(command, env=self.environment)

    def lose(self, number):
        self.cluster.remove_node(self.nodes[number], allow_graceful=False)

    def renew(self, number):
        self.nodes[number] = self._add()

    def workers(self):
        """The processes of workers whose cluster this is."""
        session = self.cluster.head_node.get_session_dir_path()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if WORKER in (entry / "cmdline").read_text() and session in (entry / "environ").read_text():
                    found.append(int(entry.name))
        return found


@contextlib.contextmanager
def place(environment, *, on_hosts):
    """A running cluster, which ends afterwards."""
    if on_hosts:
        with hosts(3) as made:
            yield OnHosts(made, environment)
        return
    where = OnThisMachine(environment)
    try:
        yield where
    finally:
        where.cluster.shutdown()


def kill(process):
    """Kill a program and all that it started under its name."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def until(condition, seconds, what):
    """Wait for a condition with a bound."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
