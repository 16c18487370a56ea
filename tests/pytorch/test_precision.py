"""Precision of training: what computes in bfloat16, what stays float32, and where it is recorded."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import pbt
from pbt.cli.app import main
from pbt.errors import TaskError
from pbt.pytorch import Data, Split, SupervisedTask, optimizer
from pbt.report.facts import environment
from pbt.report.read import read_snapshot


def data() -> Data:
    x = torch.randn(240, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    y = (x.mean(dim=(1, 2, 3)) > 0).long()
    return Data(train=Split(x[:160], y[:160]), validation=Split(x[160:], y[160:]))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(16, 16), nn.Linear(16, 2)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x.flatten(1).unflatten(1, (8, 16)))).mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 2))


def normed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))


def convolving() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))


NETWORKS = {"mlp": mlp, "normed": normed, "convolving": convolving, "attending": Attending}
SAMPLE = [pytest.param(name, marks=() if name == "normed" else pytest.mark.slow) for name in NETWORKS]
TASK = SupervisedTask(
    model=mlp, data=data, optimizer=partial(torch.optim.Adam, lr=0.01), bind={"lr": optimizer("lr")}, batch_size=40,
    score="loss", metrics={},
)  # fmt: skip
SPACE = {"lr": pbt.Float(1e-3, 3e-2, "log")}
experiment = pbt.Experiment(task=TASK, space=SPACE, population=2, rounds=1, objective="minimize")


def train(task: SupervisedTask, executor: str = "inline", **changes: object) -> pbt.Run:
    plan = pbt.Plan(interval=6, exploit=pbt.never(), explore=pbt.keep())
    given = {"plan": plan, "population": 3, "rounds": 2, "seed": 3, "objective": "minimize", "threads": 1, **changes}
    return pbt.run(task, SPACE, executor=executor, **given)


class Products(TorchDispatchMode):
    """The element types of all matrix products and convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in ("mm.", "convolution", "attention")):
            # Attention also takes float32 statistics, after its queries, keys and values.
            self.dtypes |= {x.dtype for x in args[:3] if isinstance(x, torch.Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("network", SAMPLE)
@pytest.mark.parametrize("executor", ["inline", pytest.param("vectorized", marks=pytest.mark.slow)])
def test_products_are_bfloat16_and_states_float32(network: str, executor: str) -> None:
    """Forward and backward products; weights, optimizer states and scores keep their type and stay close."""
    task = replace(TASK, model=NETWORKS[network])
    found = {}
    for precision, expected in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        with Products() as products:
            run = train(replace(task, precision=precision), executor)
        assert products.dtypes == {expected}
        state = run.load_state()
        tensors = [*state["model"].values(), *state["optimizer"]["state"][0].values()]
        assert {x.dtype for x in tensors if x.is_floating_point()} == {torch.float32}
        found[precision] = run.history()["score"]
    assert list(found["bf16"]) != list(found["float32"])
    assert list(found["bf16"]) == pytest.approx(list(found["float32"]), abs=0.08)


@pytest.mark.long
@pytest.mark.parametrize("network", SAMPLE)
def test_one_program_has_the_precision_of_each_member_alone(network: str) -> None:
    """To a few units of bfloat16, which the order of sums decides."""
    task = replace(TASK, model=NETWORKS[network], precision="bf16")
    alone, together = (list(train(task, executor).history()["score"]) for executor in ("inline", "vectorized"))
    assert together == pytest.approx(alone, abs=0.03)


def test_losses_and_metrics_are_float32() -> None:
    seen = set()

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.add(outputs.dtype)
        return nn.functional.cross_entropy(outputs, targets)

    for executor in ("inline", "vectorized"):
        train(replace(TASK, loss=loss, precision="bf16"), executor, rounds=1)
    assert seen == {torch.float32}


def test_a_precision_that_the_device_lacks_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"tf32.*GPU.*'cpu'.*'bf16'"):
        train(replace(TASK, precision="tf32"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(TaskError, match=r"float32, tf32, bf16.*'fp16'"):
        replace(TASK, precision="fp16")


def test_it_is_recorded_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From the command line, by resume without the option, and in the report; a change is said."""
    path, here = tmp_path / "run", f"{Path(__file__)}:experiment"
    assert main(["run", here, "--out", str(path), "--precision", "bf16", "-q"]) == 0
    assert pbt.Run.open(path).meta["place"]["precision"] == "bf16"
    assert environment(read_snapshot(path))["precision"] == "bf16"
    assert main(["resume", str(path), here, "--rounds", "2", "-q"]) == 0
    assert "precision" not in caplog.text
    whole = replace(experiment, task=replace(TASK, precision="bf16"), rounds=2).run()
    assert pbt.Run.open(path).view.members == whole.view.members
    assert main(["resume", str(path), here, "--rounds", "3", "-q", "--precision", "float32"]) == 0
    assert "precision bf16 -> float32" in caplog.text


def test_only_supervised_tasks_have_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy-plain", "--precision", "bf16"]) == 2
    assert "--precision bf16 is for a SupervisedTask" in capsys.readouterr().err
