"""Programs as members on Ray: several GPUs per member, and no process left after an actor."""

import importlib.util

import pytest

import pbt
from pbt.errors import DeviceError, PopulationLostError, UsageError
from pbt.tasks.command.supervisor import start_of
from tests.tasks.programs import command
from tests.tasks.test_command_process import waited

SAVE = "import json, os\nopen(os.environ['PBT_OUT'] + '/state', 'w').write('x')\n"
SHOW = (
    SAVE
    + """
names = ("CUDA_VISIBLE_DEVICES", "PBT_DEVICE", "PBT_DEVICES")
print(json.dumps({"score": 1, **{name: os.environ.get(name, "") for name in names}}))
"""
)
SPACE = {"lr": pbt.Float(1e-3, 1e-1, "log")}


@pytest.fixture(scope="module")
def gpus():
    """A Ray that believes in four GPUs."""
    if importlib.util.find_spec("ray") is None:
        yield None
        return
    import ray

    ray.init(
        address="local", include_dashboard=False, num_cpus=3, num_gpus=4, logging_level="ERROR", log_to_driver=False
    )
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("gpus")
def test_several_gpus_per_member(tmp_path) -> None:
    """Each member has two GPUs of its own, as Ray assigns them; the run is resumed with as many."""
    placement = pbt.Placement(executor="ray", devices_per_member=2)
    task = command(tmp_path, SHOW, arguments="", reads_env=True)
    given = {"space": SPACE, "population": 3, "run_dir": tmp_path / "run"}
    found = pbt.run(task, **given, placement=placement, rounds=2)
    shown = [report.reported for report in found.tree.reports.values()]
    assert {each["PBT_DEVICES"] for each in shown} == {"cuda:0,cuda:1"}
    assert {each["PBT_DEVICE"] for each in shown} == {"cuda:0"}
    assert {each["CUDA_VISIBLE_DEVICES"] for each in shown} <= {"0,1", "2,3", "1,0", "3,2", "0,2", "1,3", "0,3", "1,2"}
    assert found.meta["place"]["need"]["GPU"] == 2
    again = pbt.run(task, **given, placement="ray", rounds=3, resume=True)
    last = {report.reported["PBT_DEVICES"] for state, report in again.tree.reports.items() if state.round == 3}
    assert last == {"cuda:0,cuda:1"}


@pytest.mark.slow
@pytest.mark.usefixtures("gpus")
def test_more_gpus_than_there_are(tmp_path) -> None:
    """A member that no node can hold is refused before anything is written."""
    task = command(tmp_path, SHOW, arguments="", reads_env=True)
    with pytest.raises(DeviceError, match="5 GPU"):
        pbt.run(task, SPACE, placement=pbt.Placement(executor="ray", devices_per_member=5), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_numbers_of_gpus() -> None:
    """The devices of a member and the GPUs of a worker must be the same number."""
    placement = pbt.Placement(executor="ray", devices_per_member=2, cluster=pbt.Cluster(gpus=1))
    with pytest.raises(UsageError, match=r"devices_per_member=2: .*got 1 per worker"):
        placement.resolve(4)


@pytest.mark.slow
@pytest.mark.usefixtures("gpus")
def test_a_program_ends_with_its_actor(tmp_path) -> None:
    """An actor that is killed in the middle of a round takes its program along."""
    text = "import os, sys, time\nopen(f'{os.getpid()}.pid', 'w').close()\ntime.sleep(1000)"
    task = command(tmp_path, text, arguments="", reads_env=True)
    limits = pbt.Limits(task_timeout=5, attempts=1)
    with pytest.raises(PopulationLostError, match="time limit of 5 s"):
        pbt.run(task, SPACE, population=1, rounds=1, placement=pbt.Placement(executor="ray", limits=limits))
    (started,) = [int(path.stem) for path in tmp_path.glob("*.pid")]
    waited(lambda: not start_of(started), "the end of the program")
