"""How many members one driver can serve: a discrete-event simulation of a cluster, with measured costs.

    python -m benchmarks.scaling

The driver handles one item at a time: it sends a task, receives a result, writes its state durably, decides, commits.
Workers, one per member, train for a random time. The table shows, for each size and mode, the share of time in which
the driver is busy and the share in which workers wait; docs/scaling.md explains it.
"""

import argparse
import heapq
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

import pbt
from pbt.runs.engine import Observer
from pbt.store.codec import digest_of, encode
from pbt.store.durable import write_durable
from pbt.testing.problems import NQM_SPACE, noisy_quadratic

SIZES = (100, 300, 1_000, 3_000, 10_000)
ROUNDS = 12
"""Simulated; times settle after two or three."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of the driver in seconds.

    Args:
        answer: To send a task and receive its result, per member.
        decide: To decide on a member and log it, in a round of a thousand.
        commit: For a transaction, without its content.
        look: To read one member of the population; an asynchronous decision reads all.
        durable: To verify and write one byte of a state.
    """

    answer: float
    decide: float
    commit: float
    durable: float
    look: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One simulated case.

    Args:
        members: Also the number of workers.
        seconds: Mean time of a training round.
        spread: Standard deviation of the logarithm of that time: 0.1 similar machines, 0.5 stragglers.
        lost: Share of rounds whose worker dies half way and that are trained again.
        size: Bytes of a state that the driver writes; 0: workers write to a shared file system.
        mode: `sync` or `async`.
    """

    members: int
    seconds: float
    spread: float = 0.1
    lost: float = 0.0
    size: float = 0.0
    mode: str = "sync"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Shares of the time, 0 to 1."""

    driver: float
    """Share of time in which the driver is busy."""
    waiting: float
    """Share of time in which a worker waits, mean over workers."""


def simulate(case: Case, costs: Costs, rounds: int = ROUNDS, seed: int = 0) -> Outcome:
    """Simulate a case."""
    rng = np.random.default_rng(seed)
    times = case.seconds * rng.lognormal(-(case.spread**2) / 2, case.spread, (rounds, case.members))
    times += np.where(rng.random(times.shape) < case.lost, rng.uniform(0, 1, times.shape) * times, 0.0)
    take = costs.answer + costs.durable * case.size
    return _barrier(times, take, costs) if case.mode == "sync" else _queue(times, take, costs)


def _barrier(times: np.ndarray, take: float, costs: Costs) -> Outcome:
    """Synchronous: all members wait for the last one, its result and all decisions."""
    members, now, busy = times.shape[1], 0.0, 0.0
    for wave in times:
        free = now
        for done in np.sort(now + wave):
            free = max(free, done) + take
        decided = costs.decide * members + costs.commit
        busy += take * members + decided
        now = free + decided
    return Outcome(driver=busy / now, waiting=1 - times.sum() / (now * members))


def _queue(times: np.ndarray, take: float, costs: Costs) -> Outcome:
    """Asynchronous: members wait only for the driver, which decides and commits one at a time."""
    rounds, members = times.shape
    each = take + costs.decide + costs.commit + costs.look * members
    answers = [(float(times[0, member]), member) for member in range(members)]
    heapq.heapify(answers)
    trained, free, busy, waited, worked = [0] * members, 0.0, 0.0, 0.0, 0.0
    # Measured until the fastest worker ends: later the queue shortens only because the simulation ends.
    while max(trained) < rounds:
        done, member = heapq.heappop(answers)
        free = max(free, done) + each
        busy += each
        waited += free - done
        worked += float(times[trained[member], member])
        trained[member] += 1
        if trained[member] < rounds:
            heapq.heappush(answers, (free + float(times[trained[member], member]), member))
    return Outcome(driver=min(1.0, busy / free), waiting=waited / (waited + worked))


def measured(members: int = 1000, rounds: int = 6, size: int = 32 * 2**20) -> Costs:
    """Measure the costs of this machine."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        # A free task with durable commits at two population sizes; a line through both.
        one, two = (_commit(Path(folder) / str(n), n, rounds, pbt.Plan()) for n in (members, 20))
        alone = pbt.Plan(mode="async")
        among, few = (_commit(Path(folder) / f"{n}-alone", n, 3, alone) for n in (members, 20))
        decide = (one - two) / (members - 20)
        blob = encode({"weights": np.zeros(size // 4, np.float32)})
        digest = digest_of(blob)
        seconds = []
        for turn in range(3):
            started = time.perf_counter()
            assert digest_of(blob) == digest
            write_durable(Path(folder) / f"{turn}.state", blob)
            seconds.append(time.perf_counter() - started)
    return Costs(
        answer=_answer(),
        decide=decide,
        commit=max(0.0, two - 20 * decide),
        durable=median(seconds) / size,
        look=max(0.0, (among - few) / (members - 20)),
    )


def _commit(path: Path, members: int, rounds: int, plan: pbt.Plan) -> float:
    """Seconds per transaction: a round in synchronous mode, a result in asynchronous mode."""
    times: list[float] = []

    class Watch(Observer):
        def on_commit(self, engine: object, events: object) -> None:
            times.append(time.perf_counter())

    pbt.run(_nothing, NQM_SPACE, plan=plan, population=members, rounds=rounds, run_dir=path, observers=[Watch()])
    # The first round has no members to compare.
    start = members if plan.mode == "async" else 1
    return median(after - before for before, after in pairwise(times[start:]))


def _nothing(hparams: dict[str, float], *_: object) -> tuple[object, float]:
    return None, hparams["lr"]


def _answer(members: int = 100) -> float:
    """CPU seconds of the driver per task, with two Ray actors and an almost free task."""
    times: list[float] = []

    class Watch(Observer):
        def on_commit(self, engine: object, events: object) -> None:
            times.append(time.process_time())

    plan = pbt.Plan(interval=20)
    pbt.run(
        noisy_quadratic,
        NQM_SPACE,
        plan=plan,
        population=members,
        rounds=8,
        placement=pbt.Placement(executor="ray", workers=2),
        observers=[Watch()],
    )
    return median(after - before for before, after in pairwise(times[2:])) / members


def table(costs: Costs, sizes: Sequence[int] = SIZES) -> list[str]:
    """The table as lines of Markdown."""
    cases = [
        ("minutes, small state, similar machines", {"seconds": 120.0, "size": 1e6}),
        ("minutes, small state, stragglers", {"seconds": 120.0, "size": 1e6, "spread": 0.5}),
        ("minutes, 200 MB, similar machines", {"seconds": 120.0, "size": 200e6}),
        ("the same, workers write themselves", {"seconds": 120.0, "size": 0.0}),
        ("seconds, small state", {"seconds": 5.0, "size": 1e6}),
        ("minutes, small state, 2 % of the rounds lost", {"seconds": 120.0, "size": 1e6, "lost": 0.02}),
    ]
    lines = [
        "| a round of training | mode | " + " | ".join(f"{size:,}" for size in sizes) + " |",
        "|---|---|" + "---|" * len(sizes),
    ]
    for name, fields in cases:
        for mode in ("sync", "async"):
            found = [simulate(Case(members=size, mode=mode, **fields), costs) for size in sizes]  # type: ignore[arg-type]
            cells = [f"{100 * one.driver:.0f} % / {100 * one.waiting:.0f} %" for one in found]
            lines.append(f"| {name} | {mode} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Measure, simulate, print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    costs = measured()
    print(
        f"measured: {1000 * costs.answer:.2f} ms an answer, {1e6 * costs.decide:.0f} us a decision, "
        f"{1000 * costs.commit:.1f} ms a commit, {1e6 * costs.look:.2f} us a look, "
        f"{1e-6 / costs.durable:,.0f} MB/s checked and durable\n"
    )
    print("\n".join(table(costs)))


if __name__ == "__main__":
    main()
