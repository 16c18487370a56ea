"""Overhead of a round in training of other libraries, with a state of about 10 MB.

Measures how much longer the same steps take in several rounds than in one: loading and storing the state, binding and
reading back the values, rebuilding the framework's own objects, and one evaluation, per further round. The reference is
a round of 10 s, because overhead does not depend on the length of a round. Both run through `pbt.run`, in turns.
"""
# ruff: noqa: ARG001 (each function has the form that its task calls)

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import pbt
from benchmarks.base import Options, Row
from pbt.pytorch import optimizer

ROUNDS = 5
REFERENCE = 10.0
"""Seconds of a round."""
SPACE = {"lr": pbt.Float(1e-4, 1e-2, "log")}
X = np.random.default_rng(0).normal(size=(512, 64)).astype("float32")
Y = (X[:, 0] > 0).astype("int64")


@dataclass(frozen=True, slots=True)
class Case:
    """A framework: its task, made on demand, and the steps of a round."""

    name: str
    task: Callable[[], Any]
    steps: int


def lightning() -> Any:
    """Three linear layers with Adam."""
    import lightning.pytorch as L
    from torch.utils.data import DataLoader, TensorDataset

    from pbt.tasks.lightning import LightningTask

    data = TensorDataset(torch.from_numpy(X))

    class Net(L.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            linear, tanh = torch.nn.Linear, torch.nn.Tanh
            self.net = torch.nn.Sequential(linear(64, 840), tanh(), linear(840, 900), tanh(), linear(900, 1))

        def training_step(self, batch: Any, index: int) -> Any:
            return self.net(batch[0]).square().mean()

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("score", self.net(batch[0]).square().mean())

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    def build(hparams: Any, ctx: Any) -> Any:
        return L.Trainer(accelerator="cpu"), Net(), DataLoader(data, 64, shuffle=True), DataLoader(data, 512)

    return LightningTask(build=build, score="score", bind={"lr": optimizer("lr")})


def transformers() -> Any:
    """A small BERT."""
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    from pbt.tasks.transformers import TransformersTask

    words = torch.randint(0, 200, (640, 16), generator=torch.Generator().manual_seed(0))
    rows = [{"input_ids": row, "labels": row[0] % 2} for row in words]
    size = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 512}

    def build(hparams: Any, ctx: Any) -> Any:
        model = BertForSequenceClassification(BertConfig(vocab_size=2000, **size))
        args = TrainingArguments(output_dir=str(ctx.scratch / "out"), max_steps=1000, use_cpu=True)
        return Trainer(model, args, train_dataset=rows, eval_dataset=rows[:64])

    return TransformersTask(build=build, score="eval_loss", bind={"lr": optimizer("lr")})


def sb3() -> Any:
    """SAC with its replay buffer."""
    import gymnasium
    from stable_baselines3 import SAC

    from pbt.tasks.sb3 import SB3Task

    def build(hparams: Any, ctx: Any) -> Any:
        wide = {"net_arch": [420, 420]}
        env, other = (gymnasium.make("Pendulum-v1") for _ in range(2))
        model = SAC("MlpPolicy", env, device="cpu", learning_starts=5, buffer_size=10_000, policy_kwargs=wide)
        return model, other

    return SB3Task(build=build, score="eval/mean_reward", bind={"lr": optimizer("lr")}, eval_episodes=1)


def xgboost() -> Any:
    """A booster that grows."""
    import xgboost as library

    from pbt.tasks.boosting import XGBoostTask

    def data() -> Any:
        return library.DMatrix(X, Y), library.DMatrix(X, Y)

    def params(hparams: Any) -> dict[str, Any]:
        return {"objective": "binary:logistic", "eta": hparams["lr"], "max_depth": 12, "min_child_weight": 0}

    return XGBoostTask(params=params, data=data, score="logloss")


def keras() -> Any:
    """Three dense layers with Adam."""
    import keras as library

    from pbt.pytorch import optimizer
    from pbt.tasks.keras import KerasTask

    def build(hparams: Any, ctx: Any) -> Any:
        layers = library.layers
        net = library.Sequential([library.Input((64,)), layers.Dense(840, "tanh"), layers.Dense(900, "tanh")])
        net.add(layers.Dense(1, "sigmoid"))
        net.compile(optimizer=library.optimizers.Adam(), loss="binary_crossentropy", metrics=["accuracy"])
        return net

    bind = {"lr": optimizer("learning_rate")}
    return KerasTask(build=build, data=lambda: ((X, Y), (X, Y)), bind=bind, score="accuracy")


def jax() -> Any:
    """Two products with Adam."""
    import jax as library
    import jax.numpy as jnp
    import optax

    from pbt.tasks.jax import JaxTask, injected

    adam = optax.inject_hyperparams(optax.adam)

    def build(hparams: Any, key: Any) -> Any:
        params = {"v": library.random.normal(key, (64, 840)), "w": jnp.zeros((840, 900))}
        return params, adam(learning_rate=hparams["lr"]).init(params)

    def loss(params: Any) -> Any:
        return jnp.mean((jnp.tanh(X @ params["v"]) @ params["w"] - 1) ** 2)

    def step(_: Any, tree: Any) -> Any:
        updates, state = adam(learning_rate=0.0).update(library.grad(loss)(tree[0]), tree[1])
        return optax.apply_updates(tree[0], updates), state

    def train(tree: Any, hparams: Any, steps: int, ctx: Any) -> Any:
        return library.jit(lambda of: library.lax.fori_loop(0, steps, step, of))(tree)

    def evaluate(tree: Any, hparams: Any, ctx: Any) -> float:
        return float(loss(tree[0]))

    return JaxTask(build=build, train=train, evaluate=evaluate, bind={"lr": injected("learning_rate")})


PROGRAM = """
import argparse, json, pathlib, numpy
p = argparse.ArgumentParser()
for name in ("--lr", "--start", "--out", "--steps"):
    p.add_argument(name)
a = p.parse_args()
w = numpy.load(a.start + "/w.npy") if a.start else numpy.zeros(2_500_000, "float32")
for _ in range(int(a.steps)):
    w += float(a.lr)
numpy.save(a.out + "/w.npy", w)
print(json.dumps({"score": float(w[0]), "hparams": {"lr": float(a.lr)}}))
"""


def command() -> Any:
    """A program with numpy, which starts anew in every round."""
    script = Path(tempfile.mkdtemp()) / "program.py"
    script.write_text(PROGRAM)
    return pbt.Command(
        [sys.executable, str(script), "--lr", "{lr}", "--out", "{out}", "--steps", "{steps}", ["--start", "{start}"]]
    )


CASES = (
    Case("Lightning", lightning, 8),
    Case("transformers", transformers, 8),
    Case("Stable-Baselines3 (SAC with its replay buffer)", sb3, 20),
    Case("XGBoost", xgboost, 60),
    Case("Keras 3 (torch)", keras, 1),
    Case("JAX with optax", jax, 8),
    Case("`pbt.Command`, a numpy program", command, 8),
)


def measure(options: Options) -> Sequence[Row]:
    """Measure a row per framework."""
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    return [_row(case, options.repeats) for case in CASES]


def _row(case: Case, repeats: int) -> Row:
    work = f"a further round of {case.name}"
    try:
        task = case.task()
        _seconds(task, case.steps, 1)  # imports and compilation
        found = [_further(task, case.steps) for _ in range(repeats)]
    except (ImportError, pbt.PBTError) as error:
        return Row.missing(work, str(error), limit=0.1)
    seconds, size = (median(of) for of in zip(*found, strict=True))
    return Row(
        work=f"{work}, state of {size / 1e6:.1f} MB",
        measured=f"{seconds:.2f} s",
        against=f"a round of {REFERENCE:g} s",
        value=seconds / REFERENCE,
        limit=0.1,
    )


def _further(task: Any, steps: int) -> tuple[float, float]:
    """Seconds of a further round, and bytes of a state."""
    one, _ = _seconds(task, steps * ROUNDS, 1)
    several, size = _seconds(task, steps, ROUNDS)
    return (several - one) / (ROUNDS - 1), size


def _seconds(task: Any, interval: int, rounds: int) -> tuple[float, float]:
    """Seconds of a run, and bytes of its last state on disk."""
    plan = pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=interval)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run = pbt.run(task, SPACE, plan=plan, population=1, rounds=rounds, run_dir=f"{folder}/run", threads=1, seed=0)
        seconds = time.perf_counter() - started
        states = Path(folder, "run", "states")
        last = f"{run.best.state.member:06d}-{rounds:06d}.safetensors"
        files = [states / last, *(states / "objects").glob("[0-9a-f]*")]
        total = sum(file.stat().st_size for file in files if file.is_file())
        kept = 1 if (states / last).is_file() else min(rounds, 2)
    return seconds, total / kept
