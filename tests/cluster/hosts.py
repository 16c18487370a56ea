"""Hosts on this machine: each has a network, processes and Ray's temporary folder of its own (Linux namespaces).

They are connected by a bridge in a further network namespace, so that nothing of the machine's own network changes. A
host ends with all of its processes when its first process is killed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HEAD_PORT = 6379
_HOLD = "exec sleep 3600"
"""A host ends by itself after an hour, whatever happens to its maker."""


def allowed():
    """Whether this machine lets its user make hosts."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "setpriv", "ip"))):
        return False
    return subprocess.run(["unshare", "-n", "-m", "-p", "-f", "true"], capture_output=True, check=False).returncode == 0


class Host:
    """A namespace of networks, mounts and processes, held by a sleeping process."""

    def __init__(self, number, switch=None):
        self.number, self.address, self.switch = number, f"10.77.0.{number}", switch
        prepare = f"mount -t tmpfs tmpfs /tmp/ray; ip link set lo up; hostname host{number}"
        Path("/tmp/ray").mkdir(exist_ok=True)
        namespaces = ["-n", "-m", "-p", "-u", "-f", "--kill-child", "--mount-proc"]
        self.holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "sh", "-c", f"{prepare}; {_HOLD}"],
            stderr=subprocess.DEVNULL,
        )
        self.first = self._first()
        if switch is not None:
            end = f"h{number}"
            # That of an earlier host of this number is removed some time after its end.
            switch.net("link", "delete", end, check=False)
            switch.net("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", str(self.first))
            switch.net("link", "set", end, "master", "br0", "up")
            self.net("addr", "add", f"{self.address}/24", "dev", "eth0")
            self.net("link", "set", "eth0", "up")

    def _first(self):
        """The first process of the namespace, when it sleeps."""
        while self.holder.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                (child,) = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children").read_text().split()
                if Path(f"/proc/{child}/comm").read_text().strip() == "sleep":
                    return int(child)
            time.sleep(0.02)
        raise RuntimeError("the host could not be made")

    def command(self, *words):
        """A command in this host."""
        return ["nsenter", "-t", str(self.first), "-n", "-m", "-p", "-u", *words]

    def net(self, *words, check=True):
        """Configure the network of this host; process identifiers are those of the machine."""
        subprocess.run(
            ["nsenter", "-t", str(self.first), "-n", "ip", *words],
            check=check,
            timeout=60,
            stderr=None if check else subprocess.DEVNULL,
        )

    def start(self, *words, **options):
        """Start a program in this host."""
        return subprocess.Popen(self.command(*words), **options)

    def start_ray(self, *arguments, env):
        """Start Ray in this host; it ends with the host."""
        ray = str(Path(sys.executable).parent / "ray")
        common = ["--block", f"--node-ip-address={self.address}", "--num-cpus=1", "--object-store-memory=100000000"]
        return self.start(
            ray, "start", *arguments, *common, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def cut(self):
        """Take the host off the network."""
        self.switch.net("link", "set", f"h{self.number}", "down")

    def processes(self, text):
        """Processes of this host whose command contains the text."""
        mine = Path(f"/proc/{self.first}/ns/pid").readlink()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and (entry / "ns/pid").readlink() == mine:
                    found += [int(entry.name)] if text in (entry / "cmdline").read_text() else []
        return found

    def end(self):
        """Kill the host with all of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.first, signal.SIGKILL)
        self.holder.wait()


@contextlib.contextmanager
def hosts(number):
    """So many hosts with addresses 10.77.0.1 and following."""
    switch = Host(254)
    made = []
    try:
        switch.net("link", "add", "br0", "type", "bridge")
        switch.net("link", "set", "br0", "up")
        made += [Host(i, switch) for i in range(1, number + 1)]
        yield made
    finally:
        for host in [*made, switch]:
            host.end()
