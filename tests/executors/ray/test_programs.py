"""Programs as members on Ray: several GPUs per member, and no process left after an actor."""

import importlib.util

import pytest

import pbt
from pbt.errors import DeviceError, UsageError
from tests.tasks.programs import command

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
    assert again.best.reported["PBT_DEVICES"] == "cuda:0,cuda:1"


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
