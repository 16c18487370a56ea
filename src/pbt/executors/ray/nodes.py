"""Judgment of nodes: a round that fails on one node is tried on another before the failure is its member's."""

from collections import Counter
from collections.abc import Iterable, Sequence

from pbt.errors import PBTError, TaskError, WorkerError
from pbt.executors.base import Failure, RoundTask, TaskBatch
from pbt.executors.fingerprint import Fingerprint, differences
from pbt.executors.ray.actor import Opened, versions

TRIED_ELSEWHERE = ("exception", "memory", "disk", "corrupt", "data")
"""Causes of failures that the node may have: a missing file, a full disk, too little memory, a damaged copy."""
STRIKES = 2
"""A node is left out after so many rounds in a row that failed there and succeeded elsewhere."""

_Round = tuple[int, int]


def unfit(opened: Opened, name: str, mine: Fingerprint) -> PBTError | None:
    """The reason why a worker must not train; None: it may.

    Args:
        opened: The result of its start.
        name: The name of its node.
        mine: The fingerprint of the task on the driver's machine.
    """
    if opened.trouble:
        return TaskError(f"node {name}: {opened.trouble}")
    here, there = versions(), opened.versions
    if other := [f"{key} {there[key]}, here {here[key]}" for key in here if there[key] != here[key]]:
        return WorkerError(
            f"node {name}: expected the driver's versions on every node, got {'; '.join(other)}; results depend on "
            "them: install the same versions everywhere, or give the workers a runtime environment"
        )
    if different := differences(mine, opened.fingerprint):
        return TaskError(
            f"node {name}: expected the driver's code and data on every node, and {' and '.join(different)} differ; "
            "members would be trained on different tasks: copy the files to the node, or send them with "
            "Cluster(data=...) or Cluster(runtime_env={'working_dir': ...})"
        )
    return None


class Nodes:
    """Trials of rounds on nodes, and the nodes that are left out. It makes no calls to Ray."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._trials: dict[_Round, dict[str, Failure]] = {}
        """Failures by node, of rounds that are to be tried on another node."""
        self._strikes: Counter[str] = Counter()
        self.left_out: dict[str, str] = {}
        """The reasons, by node."""

    def name(self, node: str, text: str = "") -> str:
        """The name of a node in messages, which is set with `text`."""
        if text:
            self._names[node] = text
        return self._names.get(node, node[:8] or "an unknown node")

    def selector(self, going: Iterable[str] = ()) -> dict[str, str]:
        """Ray's label selector for nodes that are not left out, and not about to go."""
        avoided = sorted({*self.left_out, *going})
        return {"ray.io/node-id": f"!in({','.join(avoided)})"} if avoided else {}

    def failed(self, task: RoundTask, failure: Failure, node: str, others: Sequence[str]) -> bool:
        """Take a failed round; returns whether it is to be tried on another node.

        Args:
            task: The round.
            failure: Its failure.
            node: The node.
            others: The nodes of the other workers.
        """
        if failure.cause not in TRIED_ELSEWHERE:
            return False
        failures = self._trials.setdefault((task.member, task.round), {})
        failures.setdefault(node, failure)
        return len(failures) < 2 and any(other not in failures for other in others)

    def final(self, task: RoundTask, failure: Failure | None = None) -> Failure:
        """The failure of a round that is not tried again: its first one, if it was tried on several nodes."""
        failures = [*self._trials.pop((task.member, task.round), {}).values(), *([failure] if failure else [])]
        return failures[0]

    def succeeded(self, task: RoundTask, node: str) -> list[tuple[str, Failure]]:
        """Take a round that was trained; returns the nodes to leave out for failures of rounds like it."""
        self._strikes.pop(node, None)
        broken = []
        for other, failure in self._trials.pop((task.member, task.round), {}).items():
            self._strikes[other] += 1
            if self._strikes[other] >= STRIKES and other not in self.left_out:
                broken.append((other, failure))
        return broken

    def takes(self, node: str, share: TaskBatch) -> bool:
        """Whether a node may train a batch: not one of its failed rounds, and no new one while it is suspected."""
        if node in self.left_out:
            return False
        trials = [self._trials[key] for task in share if (key := (task.member, task.round)) in self._trials]
        if trials:
            return not any(node in failures for failures in trials)
        return sum(node in failures for failures in self._trials.values()) < STRIKES

    def failed_on(self, share: TaskBatch) -> set[str]:
        """The nodes on which a batch to be tried elsewhere has failed."""
        return {node for task in share for node in self._trials.get((task.member, task.round), {})}
