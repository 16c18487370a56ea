"""Cost of the Ray executor: its overhead, a transfer between nodes, and a generation of `config/fc_PBT.json`.

References: Ray Tune's PBT on the noisy quadratic; the object store transferring the same bytes between the same nodes;
`pbt` with `processes`. Requires the extra `ray`.
"""

import contextlib
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np

import pbt
from benchmarks.base import Options, Row, times_faster
from benchmarks.generation import WORKERS, population, with_turns
from benchmarks.ray_side import RayTune, UnavailableError
from benchmarks.ray_toy import STEPS
from benchmarks.sides import Child, EnoughError, Gate, run_folder, take_turns
from pbt.core.population import StateRef
from pbt.errors import MissingExtraError
from pbt.executors.ray.cluster import Cluster
from pbt.executors.ray.executor import RayExecutor
from pbt.executors.worker import Context, WorkerSpec
from pbt.mnist.config.record import load_config
from pbt.store.files import StateFiles
from pbt.testing.executors import finish, make_task
from pbt.testing.problems import NQM_SPACE, noisy_quadratic

MEMBERS, ROUNDS = 20, 5
"""Population size of the noisy quadratic, and rounds per turn."""
LARGE = 200 * 2**20
"""Size of a large state in bytes."""


def measure(options: Options) -> Sequence[Row]:
    """Measure all three; without Ray, return rows with the reason."""
    try:
        import ray  # noqa: F401 (tests the installation)
    except ImportError:
        return [Row.missing("the Ray executor", str(MissingExtraError("it", "ray")), limit=1.0)]
    return [_toy(options.repeats), _handover(options.repeats), _generation(options.repeats)]


def _toy(repeats: int) -> Row:
    work, limit = f"noisy quadratic, {MEMBERS} members, durable, `ray`, 2 actors", times_faster(5)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Child(_quadratic, repeats))
        try:
            tune = stack.enter_context(RayTune.of_toy(MEMBERS, 3))
        except UnavailableError as error:
            return Row.missing(work, str(error), limit=limit)
        mine, theirs = take_turns([ours, tune], repeats)
    own = [1000 * seconds / (MEMBERS * ROUNDS) for seconds in mine]
    other = [1000 * seconds / (MEMBERS * 3) for seconds in theirs]
    return Row(
        work=work,
        measured=f"{median(own):.2f} ms per member and round",
        against=f"{tune.name}, {MEMBERS} members, 2 CPU slots: {median(other):.1f} ms",
        value=median(one / two for one, two in zip(own, other, strict=True)),
        limit=limit,
    )


def _quadratic(connection: Connection, turns: int) -> None:
    with run_folder() as folder, contextlib.suppress(EnoughError):
        pbt.run(
            noisy_quadratic,
            NQM_SPACE,
            plan=pbt.Plan(exploit=pbt.truncation(0.2), explore=pbt.perturb((0.8, 1.25)), interval=STEPS),
            population=MEMBERS,
            rounds=turns * ROUNDS + 2,
            placement=pbt.Placement(executor="ray", workers=2),
            run_dir=folder,
            observers=[Gate(connection, ROUNDS)],
        )


def hold(hparams: Any, state: Any, steps: int, ctx: Context) -> tuple[Any, float]:  # noqa: ARG001
    """A task with a large state and almost no computation."""
    return (np.full(LARGE // 4, ctx.member, np.float32) if state is None else 0), 1.0


def _handover(repeats: int) -> Row:
    """A member that starts from a state of another node, relative to a bare call with the same bytes."""
    child = Child(_nodes, repeats)
    with child:
        seconds: list[tuple[float, float]] = [child.end() for _ in range(repeats)]  # type: ignore[misc]
    rates = [(LARGE / 2**20 / ours, LARGE / 2**20 / bare) for ours, bare in seconds]
    return Row(
        work=f"transfer of a state of {LARGE // 2**20} MiB to another node, verified and rebuilt",
        measured=f"{median(mine for mine, _ in rates):,.0f} MiB/s",
        against=f"the object store alone: {median(bare for _, bare in rates):,.0f} MiB/s",
        value=median(ours / bare for ours, bare in seconds),
        limit=2.0,
    )


def _nodes(connection: Connection, repeats: int) -> None:
    import ray
    from ray.cluster_utils import Cluster as Nodes

    store = 3 * 2**30
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": store})
    for name in ("here", "there"):
        nodes.add_node(num_cpus=1, resources={name: 1}, object_store_memory=store)
    ray.init(address=nodes.address, logging_level="ERROR", log_to_driver=False)
    connection.send("ready")
    with run_folder() as folder:
        folder.mkdir(parents=True)
        setup = WorkerSpec(task=hold, states=StateFiles(folder))
        for turn in range(1, repeats + 1):
            with RayExecutor(setup, Cluster(cpus=0.5, resources={"here": 0.5})) as first:
                made = finish(first, [make_task(turn, 1, hparams={})])[turn, 1].stored
                parcel = first._held.get(StateRef(turn, 1))
                with RayExecutor(setup, Cluster(cpus=0.5, resources={"there": 0.5})) as second:
                    finish(second, [make_task(99, 1, hparams={})])  # the worker is started and has imported all modules
                    second._held.add(StateRef(turn, 1), parcel, made.size)
                    started = time.perf_counter()
                    finish(second, [make_task(50, 2, (StateRef(turn, 1), made), hparams={})])
                    ours = time.perf_counter() - started
            connection.send((ours, _bare(ray, turn)))


def _bare(ray: Any, value: int) -> float:
    """Seconds of a call on one node with an array from another node."""
    maker = ray.remote(num_cpus=0.5, resources={"here": 0.5})(_make)
    taker = ray.remote(num_cpus=0.5, resources={"there": 0.5})(_Taker).remote()
    array = maker.remote(value)
    ray.wait([array], fetch_local=False)
    ray.get(taker.take.remote(np.zeros(1)))
    started = time.perf_counter()
    ray.get(taker.take.remote(array))
    seconds = time.perf_counter() - started
    ray.kill(taker)
    return seconds


def _make(value: int) -> Any:
    return np.full(LARGE // 4, value, np.float32)


class _Taker:
    def take(self, array: Any) -> float:
        """Read the array."""
        return float(array[-1])


def _generation(repeats: int) -> Row:
    config = with_turns(load_config("config/fc_PBT.json"), repeats)
    with population(config, "ray") as ours, population(config, "processes") as processes:
        mine, theirs = take_turns([ours, processes], repeats)
    return Row(
        work=f"fc_PBT generation, {config.train.num_worker_tot} workers, `ray`, {WORKERS} actors, complete",
        measured=f"{median(mine):.2f} s",
        against=f"`processes`: {median(theirs):.2f} s",
        value=median(one / two for one, two in zip(mine, theirs, strict=True)),
        limit=1.15,
    )
