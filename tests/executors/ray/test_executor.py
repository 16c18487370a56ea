"""Ray actors keep the contract of executors, and give the bits of the inline one, whatever befalls an actor."""

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import pbt
from pbt import Choice, Cluster, Float, Placement, Plan, truncation
from pbt.core.events import Decided, Failed
from pbt.core.population import StateRef
from pbt.errors import DeviceError, TaskError, UsageError, WorkerError
from pbt.executors.ray import driver_states, transfer
from pbt.executors.ray.connection import knock
from pbt.executors.ray.executor import RayExecutor
from pbt.executors.ray.object_cache import ObjectCache
from pbt.executors.ray.resources import amounts, room
from pbt.executors.retry import Limits
from pbt.store.files import StateFiles
from pbt.store.reader import RunReader
from pbt.store.verify import verify_run
from pbt.testing.executors import ExecutorContract
from tests.executors import small_net
from tests.executors.ray import ray_tasks

SPACE = {"lr": Float(0.01, 0.5, "log")}
EVOLVE = Plan(exploit=truncation(0.4), interval=3)
HERE = Path(__file__).parent
SLOW = f"{HERE / 'ray_experiment.py'}:slow"
OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
"""The environment of a user who has heard nothing of Ray."""


def train(task, run_dir=None, *, population=5, rounds=4, space=SPACE, resume=False, **where):
    placement = Placement(**where)
    experiment = pbt.Experiment(
        task=task, space=space, plan=EVOLVE, population=population, rounds=rounds, seed=5, placement=placement
    )
    return experiment.run(run_dir, resume=resume)


def states(path):
    with RunReader(path) as reader:
        return {ref: reader.stored(ref).digest for ref in reader.refs()}


def curves(run):
    return list(zip(*run.curves().values(), strict=True))


@pytest.mark.usefixtures("local_ray")
class TestRay(ExecutorContract):
    def make_executor(self, setup):
        return RayExecutor(setup, workers=2)


@pytest.fixture
def inline(tmp_path):
    return train(ray_tasks.walk, tmp_path / "inline")


@pytest.mark.usefixtures("local_ray")
class TestBits:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_a_run_has_the_bits_of_inline(self, workers, tmp_path, inline):
        """Events with scores and digests of every state, whatever the number of actors; every state is a file."""
        run = train(ray_tasks.walk, tmp_path / "ray", executor="ray", workers=workers)
        assert run.events == inline.events
        assert curves(run) == curves(inline) != []
        assert states(tmp_path / "ray") == states(tmp_path / "inline")
        assert {p.name for p in (tmp_path / "ray/states").iterdir()} == {
            p.name for p in (tmp_path / "inline/states").iterdir()
        }

    def test_a_run_goes_on_where_it_was(self, tmp_path, inline):
        """States come from the files of the run when nobody in the cluster has them; so from inline, and back."""
        train(ray_tasks.walk, tmp_path / "run", rounds=2, executor="ray", workers=2)
        train(ray_tasks.walk, tmp_path / "run", rounds=3, resume=True, executor="inline")
        run = train(ray_tasks.walk, tmp_path / "run", rounds=4, resume=True, executor="ray", workers=2)
        assert run.view.members == inline.view.members

    @pytest.mark.long
    def test_in_memory(self, inline):
        """Without a run directory the states are in records."""
        run = train(ray_tasks.walk, executor="ray", workers=2)
        assert run.events == inline.events
        assert curves(run) == curves(inline)

    @pytest.mark.slow
    def test_workers_write_where_all_see_it(self, tmp_path, inline):
        """With `states_url` nothing travels through the driver; the files are the same."""
        url = f"file://{tmp_path / 'ray' / 'states'}"
        run = train(ray_tasks.walk, tmp_path / "ray", executor="ray", workers=2, cluster=Cluster(states_url=url))
        assert run.events == inline.events
        assert states(tmp_path / "ray") == states(tmp_path / "inline")

    @pytest.mark.long
    def test_starts_come_from_the_cluster(self, tmp_path, inline, monkeypatch):
        """A hand-over does not go through the driver's files while somebody in the cluster has the state."""
        monkeypatch.setattr(StateFiles, "read", unreadable)
        assert train(ray_tasks.walk, tmp_path / "ray", executor="ray", workers=2).events == inline.events

    @pytest.mark.long
    def test_a_folder_that_is_not_the_runs(self, tmp_path):
        """Written elsewhere, states would be lost: found at the first one."""
        (tmp_path / "elsewhere").mkdir()
        cluster = Cluster(states_url=f"file://{tmp_path / 'elsewhere'}")
        with pytest.raises(TaskError, match="states folder of the run"):
            train(ray_tasks.walk, tmp_path / "ray", executor="ray", workers=2, cluster=cluster)

    @pytest.mark.long
    @pytest.mark.parametrize("where", ["disk", "memory", "shared"])
    def test_folders_travel_in_pieces(self, tmp_path, monkeypatch, where):
        """Each file once per node and only where it is not yet; the bits of inline, and nothing left on the node."""
        monkeypatch.setattr(transfer, "PIECE", 100_000)
        sent = []
        monkeypatch.setattr(transfer, "_offsets", lambda size: sent.append(size) or range(0, max(1, size), 100_000))
        inline = train(ray_tasks.folders, tmp_path / "inline")
        place = {"executor": "ray", "workers": 2}
        if where == "shared":
            place["cluster"] = Cluster(states_url=f"file://{tmp_path / 'ray' / 'states'}")
        run = train(ray_tasks.folders, None if where == "memory" else tmp_path / "ray", **place)
        assert run.events == inline.events
        assert run.load_state(run.best)["checkpoint"].path.is_dir()
        if where == "shared":
            assert sent == []
        else:
            # The base: fetched once, and sent at most once to a worker that came later.
            assert 1 <= sent.count(len(ray_tasks.BASE)) <= 3
        if where != "memory":
            assert verify_run(tmp_path / "ray") == []

    @pytest.mark.long
    def test_folders_go_on_on_another_cluster(self, tmp_path, monkeypatch):
        """Workers that never had the files are sent them."""
        inline = train(ray_tasks.folders, tmp_path / "inline")
        train(ray_tasks.folders, tmp_path / "run", rounds=2, executor="inline")
        run = train(ray_tasks.folders, tmp_path / "run", rounds=4, resume=True, executor="ray", workers=2)
        assert run.view.members == inline.view.members
        assert verify_run(tmp_path / "run") == []

    @pytest.mark.slow
    def test_islands_repeat_themselves(self, tmp_path):
        """Programs of three members in two actors: the same bits again, also in one actor; exploit crosses them."""
        space = {"lr": Float(0.001, 0.5, "log"), "p": Float(0.1, 0.6)}
        runs = [
            train(
                small_net.TASK,
                population=6,
                rounds=4,
                space=space,
                executor="ray",
                workers=workers,
                members_per_program=3,
            )
            for workers in (2, 1)
        ]
        assert runs[0].events == runs[1].events
        decisions = [event.decision for event in runs[0].events if isinstance(event, Decided)]
        assert any(d.donor is not None and d.donor // 3 != d.member // 3 for d in decisions)


@pytest.mark.usefixtures("local_ray")
class TestFaults:
    def test_an_actor_that_dies_again_and_again(self, tmp_path, inline):
        """Its round is run again, with the same bits, and the journal tells of every time."""
        (tmp_path / "tries").mkdir()
        task = ray_tasks.Falls(str(tmp_path / "tries"), 2, 2, times=2)
        run = train(task, tmp_path / "ray", executor="ray", workers=2)
        assert run.events == inline.events
        lost = [(note["member"], note["round"], note["attempt"]) for note in incidents(tmp_path / "ray")]
        assert lost == [(2, 2, 1), (2, 2, 2)]

    @pytest.mark.slow
    def test_an_actor_that_dies_with_its_files(self, tmp_path, monkeypatch):
        """Another one is sent what it needs; the files of the dead one are removed by the next."""
        inline = train(ray_tasks.folders, tmp_path / "inline")
        # A hyperparameter would change the bits, and the environment of the driver does not reach the actors.
        run = train(ray_tasks.FallsWithFolders(str(tmp_path / "mark")), tmp_path / "ray", executor="ray", workers=2)
        assert run.events == inline.events
        assert len(incidents(tmp_path / "ray")) == 1
        assert verify_run(tmp_path / "ray") == []

    @pytest.mark.slow
    def test_attempts_have_an_end(self, tmp_path):
        """A round whose actors always die is a failed member, and the others go on."""
        (tmp_path / "tries").mkdir()
        run = train(ray_tasks.Falls(str(tmp_path / "tries"), 2, 2, times=9), executor="ray", workers=2)
        failed = [event for event in run.events if isinstance(event, Failed)]
        assert [(event.member, event.round, event.cause) for event in failed] == [(2, 2, "worker")]
        assert len(list((tmp_path / "tries").iterdir())) == Limits().attempts

    @pytest.mark.slow
    def test_an_actor_that_hangs(self, tmp_path):
        """One that gives no sign of life is given up."""
        space = SPACE | {"folder": Choice([str(tmp_path), str(tmp_path) + "/."])}
        limits = Limits(silence=3.0)
        run = train(ray_tasks.hang, tmp_path / "ray", space=space, rounds=1, executor="ray", workers=2, limits=limits)
        lost = [note["message"] for note in incidents(tmp_path / "ray")]
        assert lost == ["the worker was silent for 3 s"]
        assert not [event for event in run.events if isinstance(event, Failed)]

    @pytest.mark.slow
    def test_a_state_that_arrives_damaged(self, tmp_path, inline, monkeypatch):
        """What was sent is compared with what came before anything names it; the round is run again."""
        right, wrong = driver_states.digest_of, iter(["0" * 64])
        monkeypatch.setattr(driver_states, "digest_of", lambda blob: next(wrong, None) or right(blob))
        assert train(ray_tasks.walk, tmp_path / "ray", executor="ray", workers=2).events == inline.events
        (lost,) = incidents(tmp_path / "ray")
        assert "arrived damaged" in lost["message"]

    @pytest.mark.slow
    def test_a_state_that_is_gone(self, tmp_path, inline, monkeypatch, local_ray):
        """What a member was to start from went with its owner: it starts from the durable copy, on the same worker."""

        class Owner:  # here, because workers have no module of tests
            def parcel(self):
                import ray

                return [ray.put(np.zeros(100_000))]

        deadline = time.monotonic() + 20
        owner = local_ray.remote(num_cpus=0)(Owner).remote()
        gone = local_ray.get(owner.parcel.remote())
        local_ray.kill(owner)
        while time.monotonic() < deadline and not is_lost(local_ray, gone[0]):
            time.sleep(0.1)
        held = ObjectCache.get
        monkeypatch.setattr(ObjectCache, "get", lambda self, ref: gone.pop() if gone else held(self, ref))
        assert train(ray_tasks.walk, tmp_path / "ray", executor="ray", workers=2).events == inline.events
        (lost,) = incidents(tmp_path / "ray")
        assert "could not get the state to start from" in lost["message"]

    def test_a_round_that_takes_too_long(self):
        """The time limit is one on a member's round."""
        limits = Limits(attempts=1, task_timeout=1.0)
        with pytest.raises(pbt.PBTError, match="time limit of 1 s"):
            train(ray_tasks.Slow(30), population=1, rounds=1, executor="ray", limits=limits)

    @pytest.mark.long
    def test_other_versions(self, tmp_path):
        """A node with another torch gives other bits: it is refused, by name."""
        info = tmp_path / "torch-9.9.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n")
        env = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}}
        with pytest.raises(WorkerError, match=r"torch 9\.9, here"):
            train(ray_tasks.walk, executor="ray", cluster=Cluster(runtime_env=env))

    def test_no_room(self, tmp_path):
        """What was asked for, and what is there; nothing was started."""
        with pytest.raises(DeviceError, match=r"needs 1 CPU, 2 GPU.*node 1 has 3 CPU"):
            train(ray_tasks.walk, tmp_path / "run", executor="ray", cluster=Cluster(gpus=2))
        assert not (tmp_path / "run").exists()

    @pytest.mark.long
    def test_more_workers_than_room(self, inline):
        """As many as there is room for."""
        assert train(ray_tasks.walk, executor="ray", workers=50).events == inline.events


def is_lost(ray, parcel):
    try:
        ray.get(parcel)
    except ray.exceptions.ObjectLostError:
        return True
    return False


def unreadable(self, ref):
    raise AssertionError(f"{ref} was read from its file")


def incidents(path):
    with RunReader(path) as reader:
        return [note.details for note in reader.journal() if note.kind == "worker lost"]


def test_the_address_of_the_environment(monkeypatch):
    """Ray's own variable, unless something else is asked for."""
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert Cluster().where == "head:6379"
    assert Cluster(address="auto").where == "auto"


def test_what_is_held_has_a_bound():
    """The least used goes first, and what is two rounds old; the newest stays however large it is."""
    held = ObjectCache(10)
    for member in range(3):
        held.add(StateRef(member, 1), f"m{member}", 4)
    assert [held.get(StateRef(member, 1)) for member in range(3)] == [None, "m1", "m2"]
    held.get(StateRef(1, 1))
    held.add(StateRef(3, 1), "m3", 4)
    assert [held.get(StateRef(member, 1)) for member in (1, 2, 3)] == ["m1", None, "m3"]
    held.add(StateRef(3, 3), "later", 4)
    assert held.get(StateRef(3, 1)) is None
    assert held.get(StateRef(1, 1)) == "m1"
    held.add(StateRef(4, 1), "huge", 100)
    assert [held.get(ref) for ref in (StateRef(1, 1), StateRef(3, 3), StateRef(4, 1))] == [None, None, "huge"]


def test_room_is_counted_by_node():
    """A worker never stretches over two nodes, and parts of a GPU add up."""
    there = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}, {"memory": 5.0}]
    assert room(there, {"CPU": 1.0, "GPU": 0.0}) == 5
    assert room(there, {"CPU": 2.0, "GPU": 0.0}) == 2
    assert room(there, {"CPU": 1.0, "GPU": 0.3}) == 4
    assert room(there, {"CPU": 0.1, "GPU": 1 / 3}) == 6
    assert room([], {"CPU": 1.0}) == 0
    assert amounts({"CPU": 2.0, "node:10.0.0.1": 1.0, "memory": 5.0, "fast": 0.5}) == "2 CPU, 0.5 fast"


@pytest.mark.parametrize(
    ("asked", "told"),
    [({"cpus": -1}, "CPU"), ({"cpus": 0}, "must reserve some"), ({"states_url": "s3://bucket/states"}, "file:///")],
)
def test_what_is_no_cluster(asked, told):
    with pytest.raises(UsageError, match=told):
        Cluster(**asked)


@pytest.mark.parametrize(
    ("address", "told"),
    [("127.0.0.1:1", "answers at 127.0.0.1:1"), ("ray://head:10001", "host:port"), ("head", "host")],
)
def test_no_such_address(address, told, tmp_path):
    """Told within seconds, in a line, with nothing written."""
    command = [sys.executable, "-m", "pbt", "run", f"{HERE / 'ray_experiment.py'}:experiment"]
    flags = ["--executor", "ray", "--address", address, "--out", str(tmp_path / "run")]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1 if "127" in address else 2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_something_else_listens():
    """Ray would wait for minutes at a port where something else answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(WorkerError, match="is not a Ray cluster"):
            knock(f"127.0.0.1:{server.server_port}")
        server.shutdown()


def test_without_ray(tmp_path):
    """The extra is named."""
    (tmp_path / "ray.py").write_text("raise ImportError('not here')")
    command = [sys.executable, "-m", "pbt", "run", f"{HERE / 'ray_experiment.py'}:experiment", "--executor", "ray"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 2
    assert "the extra 'ray'" in done.stderr


@pytest.mark.long
def test_a_ray_of_its_own(tmp_path):
    """Nothing given: one that starts and ends with the command, and leaves no process; the bits of `inline`."""
    command = [sys.executable, "-m", "pbt", "run", f"{HERE / 'ray_experiment.py'}:experiment", "--quiet"]
    for name in ("inline", "ray"):
        flags = ["--executor", name, "--out", str(tmp_path / name)]
        subprocess.run([*command, *flags], timeout=120, check=True, env=OUTSIDE)
    assert pbt.Run.open(tmp_path / "ray").events == pbt.Run.open(tmp_path / "inline").events
    assert not left_over(str(tmp_path))


@pytest.fixture
def running(tmp_path):
    """A command that trains on a Ray of its own, in its second round."""
    command = [sys.executable, "-m", "pbt", "run", SLOW, "--quiet", "--executor", "ray", "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, env=OUTSIDE, start_new_session=True) as child:
        wait_for_round(tmp_path / "run", 1)
        yield child
        child.kill()


@pytest.mark.slow
def test_ctrl_c(running, tmp_path):
    """Ended in seconds with the customary code, no process left; and it goes on to the same bits."""
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == 130
    assert not left_over(f"session={running.pid}", running.pid)
    command = [sys.executable, "-m", "pbt"]
    subprocess.run([*command, "resume", str(tmp_path / "run"), SLOW, "--quiet"], timeout=120, check=True, env=OUTSIDE)
    whole = ["run", SLOW, "--quiet", "--executor", "inline", "--out", str(tmp_path / "whole")]
    subprocess.run([*command, *whole], timeout=120, check=True)
    assert pbt.Run.open(tmp_path / "run").events == pbt.Run.open(tmp_path / "whole").events


@pytest.mark.long
def test_terminated(running):
    """Ray's own handler of the signal has another code. A Ray that lives for a minute asks for a token as well."""
    assert b"RAY_AUTH_MODE=token" in environment_of("gcs_server", running.pid)
    running.terminate()
    assert running.wait(20) == 143
    assert not left_over(f"session={running.pid}", running.pid)


def environment_of(name, session):
    """The environment of a process by its name."""
    for process in Path("/proc").iterdir():
        try:
            if name in (process / "cmdline").read_text() and os.getsid(int(process.name)) == session:
                return (process / "environ").read_bytes()
        except (OSError, ValueError):
            continue
    raise AssertionError(f"no process {name}")


def wait_for_round(path, number):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (path / "run.db").exists():
            try:
                if pbt.Run.open(path).view.round >= number:
                    return
            except pbt.PBTError:
                pass
        time.sleep(0.1)
    raise AssertionError(f"{path} did not get to round {number}")


def left_over(marker, session=None):
    """Processes of the session, or whose command or folder names the marker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                text = (entry / "cmdline").read_text()
            except OSError:
                continue
            if fields[0] != "Z" and (marker in text or (session is not None and int(fields[3]) == session)):
                found.append(text)
    return found
