"""Which devices a member and its program have."""

import pytest
import torch

import pbt
from pbt.errors import DeviceError, TaskError, UsageError
from pbt.executors.worker import WorkerSpec
from pbt.store.files import StateFiles
from pbt.tasks.command.values import cuda_visible, visible
from tests.helpers.tasks import PLAIN

SPACE = {"lr": pbt.Float(1e-3, 1e-1, "log")}


@pytest.fixture
def five_gpus(monkeypatch):
    """Torch believes in five GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)


@pytest.mark.usefixtures("five_gpus")
def test_devices_are_grouped() -> None:
    """Each worker has a group of devices; a rest that fills none is left out, and further workers share groups."""
    pairs = ("cuda:0,cuda:1", "cuda:2,cuda:3")
    placement = pbt.Placement(executor="processes", device="cuda", devices_per_member=2)
    assert placement.resolve(4).devices == pairs
    assert placement.resolve(1).devices == pairs[:1]
    chosen = pbt.Placement(executor="processes", device="cuda:4,cuda:1,cuda:0", devices_per_member=3, workers=2)
    assert chosen.resolve(4).devices == ("cuda:4,cuda:1,cuda:0",) * 2
    assert placement.resolve(4).record()["devices_per_member"] == 2
    assert placement.resolve(4).record()["device"] == "cuda"
    assert pbt.Placement(executor="processes").resolve(4).record()["devices_per_member"] is None


@pytest.mark.usefixtures("five_gpus")
def test_too_few_devices() -> None:
    """A member that wants more devices than there are is refused, with both numbers."""
    with pytest.raises(DeviceError, match=r"devices_per_member=6: expected at least 6 devices, got 5"):
        pbt.Placement(executor="processes", device="cuda", devices_per_member=6).resolve(4)


def test_a_worker_has_all_devices_of_its_member() -> None:
    """`device` is the first of `devices`; a worker of one device has that one."""
    spec = WorkerSpec(task=print, states=StateFiles(None))
    assert (spec.on("cuda:2,cuda:3").device, spec.on("cuda:2,cuda:3").devices) == ("cuda:2", ("cuda:2", "cuda:3"))
    assert (spec.on("cpu").device, spec.on("cpu").devices) == ("cpu", ("cpu",))


@pytest.mark.parametrize(
    ("devices", "outside", "expected"),
    [
        (["cuda:1", "cuda:3"], None, "1,3"),
        (["cuda:1", "cuda:0"], "4,6", "6,4"),
        (["cuda:0"], "GPU-abc", "GPU-abc"),
        (["cuda"], None, "0"),
        (["cpu", "cpu"], None, None),
    ],
)
def test_what_cuda_shows_the_program(monkeypatch, devices, outside, expected) -> None:
    """The program sees the devices of its member and no others, within what this process may see."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if outside is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", outside)
    assert cuda_visible(devices) == expected


def test_devices_as_the_program_names_them() -> None:
    """The first visible GPU is `cuda:0` to the program."""
    assert visible(["cuda:4", "cuda:1"]) == ["cuda:0", "cuda:1"]
    assert visible(["cpu", "cpu"]) == ["cpu", "cpu"]


def test_tasks_of_one_device() -> None:
    """A task that trains on one device, and the vectorized executor, refuse several."""
    with pytest.raises(TaskError, match=r"devices_per_member=2: SupervisedTask trains a member on one device"):
        pbt.run(PLAIN, SPACE, placement=pbt.Placement(devices_per_member=2))
    with pytest.raises(UsageError, match=r"devices_per_member=2: .*'vectorized'"):
        pbt.Placement(executor="vectorized", devices_per_member=2)
    with pytest.raises(UsageError, match="at least 1 of devices_per_member, got 0"):
        pbt.Placement(devices_per_member=0)
