"""Troubles a Ray cluster in the middle of runs, and compares what the runs come to with an undisturbed one.

Kinds of trouble: `cut` (a node is taken off the network), `node` (a host is killed), `worker` (a worker process is
killed), `driver` (the driver is killed, and the same command resumes the run), `move` (the driver is killed with its
host, and the same command resumes the run on another one). Exits with 1 after a difference.
"""

# ruff: noqa: T201 (a program that prints)

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import pbt
from pbt.store.reader import RunReader
from pbt.testing.invariants import violations
from tests.cluster.hosts import allowed
from tests.cluster.places import kill, place, until

FILE = Path(__file__).parents[1] / "executors/ray/ray_experiment.py"
SOURCE = Path(pbt.__file__).parents[1]
DRIVER, OTHER = 1, 2
"""The hosts of the driver and of the node that is troubled."""
BOUND = 120.0


class Trials:
    """Runs on a cluster, each troubled once.

    Args:
        where: The cluster.
        folder: A folder for run directories, which all hosts share.
        seed: Seed of the instants.
    """

    def __init__(self, where, folder, seed):
        self.where, self.folder, self.random = where, folder, random.Random(seed)
        self.reference = self.run_of(self.train("inline", folder / "whole", "--executor", "inline"))

    def run_of(self, path):
        return pbt.Run.open(path).events

    def start(self, host, path, *options):
        command = [sys.executable, "-m", "pbt", "run", f"{FILE}:slow", "--quiet", "--out", str(path), "--resume"]
        return self.where.start(host, *command, *options)

    def train(self, what, path, *options, host=DRIVER):
        """Run or resume to the end."""
        options = options or ("--executor", "ray", "--address", self.where.address)
        process = self.start(host, path, *options)
        until(lambda: process.poll() is not None, BOUND, f"the end of {what}")
        if process.returncode != 0:
            raise RuntimeError(f"{what}: exit code {process.returncode}")
        return path

    def trial(self, kind, number):
        """Trouble one run; returns the number of rounds that were trained again, and seconds."""
        path, began = self.folder / f"{kind}-{number}", time.monotonic()
        driver = self.start(DRIVER, path, "--executor", "ray", "--address", self.where.address)
        until(lambda: driver.poll() is not None or rounds(path) >= 1, BOUND, "the first round")
        time.sleep(self.random.uniform(0, 1.5))
        if driver.poll() is not None:
            raise RuntimeError(f"the run ended with {driver.returncode} before it was troubled")
        self.trouble(kind, driver)
        if kind in ("driver", "move"):
            host = DRIVER if kind == "driver" else OTHER
            self.train(f"{kind}-{number}", path, host=host)
        else:
            until(lambda: driver.poll() is not None, BOUND, f"the end of {kind}-{number}")
            if driver.returncode != 0:
                raise RuntimeError(f"exit code {driver.returncode}")
        seconds = time.monotonic() - began
        if self.run_of(path) != self.reference or violations(path):
            raise RuntimeError(f"{path} differs from the undisturbed run")
        if kind in ("cut", "node", "move"):
            self.where.renew(DRIVER if kind == "move" else OTHER)
        return lost(path), seconds

    def trouble(self, kind, driver):
        if kind == "cut":
            self.where.cut(OTHER)
        elif kind == "node":
            self.where.lose(OTHER)
        elif kind == "worker":
            kill(self.random.choice(self.where.workers()))
        else:
            for process in children_of(driver.pid):
                kill(process)
            driver.wait()
            if kind == "move":
                self.where.lose(DRIVER)


def children_of(pid):
    """A process and its child, if it is a program that enters a host; the child first."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [*(int(child) for child in text), pid]


def rounds(path):
    try:
        return pbt.Run.open(path).view.round if (path / "run.db").exists() else 0
    except pbt.PBTError:
        return 0


def lost(path):
    with RunReader(path) as reader:
        return sum(entry.kind == "worker lost" for entry in reader.journal())


def main(given=None):
    parser = argparse.ArgumentParser(prog="scripts/cluster-trials", description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1, help="trials of each kind (1)")
    parser.add_argument("--kind", action="append", help="only this kind; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="seed of the instants (0)")
    parser.add_argument("--raylets", action="store_true", help="raylets on this machine, although hosts are allowed")
    chosen = parser.parse_args(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # hosts end with this program
    secret = "of-these-trials-" + "0" * 32
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secret,
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join([str(SOURCE), str(FILE.parents[3])]),
        "OMP_NUM_THREADS": "1",
    }
    on_hosts = allowed() and not chosen.raylets
    print(f"clusters of {'hosts of their own' if on_hosts else 'raylets on this machine'}", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="pbt-cluster-") as folder, place(environment, on_hosts=on_hosts) as where:
        trials = Trials(where, Path(folder), chosen.seed)
        trials.train("the first run", Path(folder) / "first")  # also waits for the cluster
        for kind in chosen.kind or where.kinds:
            if kind not in where.kinds:
                print(f"{kind}: needs hosts of their own, which this machine does not allow")
                continue
            good, again, longest = 0, 0, 0.0
            for number in range(chosen.trials):
                try:
                    lost_rounds, seconds = trials.trial(kind, number)
                except (RuntimeError, TimeoutError) as error:
                    print(f"{kind} {number}: {error}", flush=True)
                    failed += 1
                    continue
                good, again, longest = good + 1, again + lost_rounds, max(longest, seconds)
            print(f"{kind}: {good} of {chosen.trials} identical, {again} rounds again, {longest:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
