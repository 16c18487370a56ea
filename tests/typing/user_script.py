"""The public face as a typed program uses it. An ignored error is one that both checkers must report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

import pbt
from pbt.pytorch import Binding, Data, Split, SupervisedTask, dropout, optimizer
from pbt.runs.results import BestMember


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 32), nn.Dropout(0.1), nn.Linear(32, 2))


def data() -> Data:
    return Data(train=Split(torch.zeros(10, 2), torch.zeros(10)), validation=Split(torch.zeros(10, 2), torch.zeros(10)))


supervised = SupervisedTask(
    model=model, data=data, optimizer=torch.optim.SGD, bind={"lr": optimizer("lr"), "p": dropout()}, precision="bf16"
)


def train(hparams: pbt.HParams, state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, dict[str, float]]:
    ctx.report(ctx.first_step + steps, loss=0.5)
    return state, {"score": float(hparams["lr"])}


class Loop:
    """The class form."""

    bind: ClassVar = {"lr": optimizer("lr")}

    def build(self, hparams: pbt.HParams, ctx: pbt.Context) -> dict[str, Any]:
        network = model()
        return {"model": network, "optimizer": torch.optim.SGD(network.parameters(), lr=0.1)}

    def train(self, parts: Mapping[str, Any], hparams: pbt.HParams, steps: int, ctx: pbt.Context) -> None: ...

    def evaluate(self, parts: Mapping[str, Any], ctx: pbt.Context) -> float:
        return 1.0


@dataclass
class Loaded:
    """The class form with bindings of each object."""

    bind: Mapping[str, Binding]

    def build(self, hparams: pbt.HParams, ctx: pbt.Context) -> Mapping[str, Any]:
        return {"model": model()}

    def train(self, parts: Mapping[str, Any], hparams: pbt.HParams, steps: int, ctx: pbt.Context) -> None: ...

    def evaluate(self, parts: Mapping[str, Any], ctx: pbt.Context) -> Mapping[str, float]:
        return {"score": 1.0}


space = {"lr": pbt.Float(1e-4, 1.0, "log"), "p": pbt.Float(0.0, 0.5)}
mixed = {"lr": pbt.Float(1e-4, 1.0, "log"), "depth": pbt.Int(1, 4), "kind": pbt.Choice(["a", "b"])}
plan = pbt.Plan(interval=10, exploit=pbt.truncation(0.2), explore=pbt.perturb((0.8, 1.25)))


class Printer(pbt.Callback):
    """A callback."""


def main() -> None:
    run = pbt.run(supervised, space, plan=plan, population=8, rounds=10, executor="processes", workers=2, threads=1)
    pbt.run(train, mixed, initial=[{"lr": 0.1}], objective="minimize", callbacks=[Printer()], progress=True)
    pbt.run(Loop(), space, placement=pbt.Placement(executor="auto", device="cpu"), run_dir="runs/first", resume=True)
    pbt.run(Loaded({"lr": optimizer("lr")}), space, placement="vectorized")
    pbt.run(pbt.Command("python train.py"), space)
    best: BestMember = run.best
    rates: Sequence[Any] = run.history()["lr"]
    total: float = best.score + best.step + len(rates)
    segments = [(segment.start, segment.stop, segment.hparams["lr"]) for segment in run.best_schedule.segments]
    print(total, segments, run.model(), run.plot.fitness(), run.load_state(best))
    again: pbt.Run = pbt.Run.open("runs/first", task=Loop())
    pbt.replay(again, Loop(), seed=1)
    experiment = pbt.Experiment(task=train, space=mixed, plan=plan, population=4, rounds=2)
    experiment.run("runs/second", progress=False)


def mistakes() -> None:
    pbt.run(train, space, executor="threads")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    pbt.run(train, space, objective="max")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    pbt.run(3, space)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    pbt.run(train, {"lr": 0.1})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType]
    pbt.run(train, space, worker=2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    pbt.Float(0.1, 1.0, "logarithmic")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    pbt.Placement(convolutions="fast")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    pbt.Run.open(Loop())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
