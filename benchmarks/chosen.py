"""Expected test result of the member that a rule chooses from a finished run.

    python -m benchmarks.chosen [--seeds 12] [--first 0] [--problems digits digits-centred cartpole text]
    PBT_DATA_DIR=<folder with MNIST> python -m benchmarks.chosen --problems mnist

Prints the tables of docs/choosing.md. `mnist` is the population of `pbt demo` on 10,000 training and 1,000 validation
images, with all 10,000 test images. A run is one sample: each rule chooses from the same run of a problem, and its
test result, which no rule sees, is compared with that of the best score of the whole run. The optimism of a rule is the
score of its choice minus the test result, beyond that of all members of the last round on average.
"""

import argparse
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import pbt
from pbt.mnist.demo import demo_config
from pbt.mnist.task import find_data, load_data
from pbt.mnist.training import PreparedRun
from pbt.problems import load
from pbt.problems.digits import DigitsMlp
from pbt.problems.images import splits
from pbt.pytorch import Data, Split


@dataclass(frozen=True, kw_only=True)
class Choosable:
    """A state that a rule may choose, with signs such that higher is better."""

    round: int
    score: float
    loss: float
    """Validation loss; the score where that is a loss itself, and NaN where the problem reports none."""
    test: float


Rule = Callable[[Sequence[Choosable]], Sequence[Choosable]]


def last_round(states: Sequence[Choosable]) -> list[Choosable]:
    """The states of the last round."""
    last = max(state.round for state in states)
    return [state for state in states if state.round == last]


LOSS = "validation loss"
RULES: Mapping[str, Rule] = {
    "best score of the run": lambda states: [max(states, key=lambda state: state.score)],
    "best score of the last round": lambda states: [max(last_round(states), key=lambda state: state.score)],
    "the same, ties by validation loss": lambda states: [
        max(last_round(states), key=lambda state: (state.score, -state.loss))
    ],
    "lowest validation loss of the last round": lambda states: [min(last_round(states), key=lambda state: state.loss)],
    "any member of the last round": last_round,
}
"""Each returns the states among which it does not distinguish; the first is the one that others are compared with."""


class DigitsWithLoss(DigitsMlp):
    """The problem `digits`, with the cross-entropy on the validation images."""

    def __call__(self, hparams: Mapping[str, Any], state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, Any]:
        """Train, and report the loss beside the score."""
        weights, metrics = super().__call__(hparams, state, steps, ctx)
        x, y = splits(ctx.key("order"), self.examples).validation
        with np.errstate(all="ignore"):  # divergence is reported by the score
            logits = np.maximum(x @ weights["w0"] + weights["b0"], 0) @ weights["w1"] + weights["b1"]
            logits -= logits.max(axis=1, keepdims=True)
            losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
        return weights, metrics | {"loss": float(losses.mean())}


MNIST, PLACE = "mnist", pbt.Placement(executor="vectorized", workers=1, threads=1, device="cpu")
TRAIN, HELD_OUT, EPOCHS = 10_000, 1_000, 10
"""Images of MNIST for training and for validation, and epochs of training."""
TESTS, LOSSES = ("test", "test_accuracy", "test_loss"), ("loss", "val_loss")
"""Names of the test result and of the validation loss in a history."""


@functools.cache
def fewer_images(folder: Path) -> Data:
    """The first training and validation images of MNIST, and all test images."""
    data = load_data(folder, None, (1, 28, 28), 10)
    return replace(data, train=_first(TRAIN, data.train), validation=_first(HELD_OUT, data.validation))


def _first(count: int, split: Split) -> Split:
    inputs, targets = split.take(slice(count))
    return Split(inputs[0].clone(), targets.clone())


def mnist() -> pbt.Experiment:
    """The population of `pbt demo` on fewer images; a round is an epoch.

    Raises:
        SystemExit: The images are not those of MNIST.
    """
    os.environ["PBT_OFFLINE"] = "1"
    config = demo_config({"num_epochs_tot": EPOCHS})
    found = find_data(config.train)
    if found.note:
        raise SystemExit(f"expected MNIST, got {found.note}; set PBT_DATA_DIR to the folder with MNIST's files")
    own = PreparedRun(config=config, data=found, placement=PLACE).experiment()
    assert isinstance(own.plan, pbt.Plan)
    task: Any = own.task
    return replace(
        own,
        task=replace(task, data=functools.partial(fewer_images, config.train.data_dir), record_every=None),
        plan=replace(own.plan, interval=TRAIN // config.train.batch_size),
    )


def experiment(problem: str, seed: int) -> pbt.Experiment:
    """A problem with a seed, under its own plan."""
    if problem == MNIST:
        return replace(mnist(), seed=seed)
    own = replace(load(problem), seed=seed)
    return replace(own, task=DigitsWithLoss()) if problem.startswith("digits") else own


def choosable(run: pbt.Run, sign: int) -> list[Choosable]:
    """All states of a run that have a score."""
    rows = run.history()
    test = next(name for name in TESTS if name in rows)
    loss = next((name for name in LOSSES if name in rows), "score" if sign < 0 else None)
    losses = [float("nan")] * len(rows["score"]) if loss is None else rows[loss]
    columns = zip(rows["round"], rows["score"], losses, rows[test], strict=True)
    return [
        Choosable(round=round_, score=sign * score, loss=loss, test=sign * value)
        for round_, score, loss, value in columns
    ]


def expected(chosen: Sequence[Choosable], name: str) -> float:
    """The mean of a number over the states among which a rule does not distinguish."""
    return float(np.mean([getattr(state, name) for state in chosen]))


def measured(problem: str, seed: int) -> dict[str, tuple[float, float, float]]:
    """By rule: the expected test result as reported, the same with a sign such that higher is better, the optimism."""
    made = experiment(problem, seed)
    sign = -1 if made.objective == "minimize" else 1
    states = choosable(made.run(), sign)
    usual = expected(last_round(states), "score") - expected(last_round(states), "test")
    found = {name: rule(states) for name, rule in RULES.items() if LOSS not in name or np.isfinite(states[0].loss)}
    return {name: _numbers(chosen, sign, usual) for name, chosen in found.items()}


def _numbers(chosen: Sequence[Choosable], sign: int, usual: float) -> tuple[float, float, float]:
    test, score = expected(chosen, "test"), expected(chosen, "score")
    return sign * test, test, score - test - usual


def with_error(values: npt.NDArray[np.float64]) -> str:
    """The mean, and its standard error."""
    mean, error = np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))
    digits = max(0, 1 - int(np.floor(np.log10(error)))) if error > 0 else 1
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def main() -> None:
    """Print a table per problem."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chosen", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=12, help="runs of each problem, at least 2")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--problems", nargs="+", default=["digits", "digits-centred", "cartpole", "text"])
    options = parser.parse_args()
    for problem in options.problems:
        runs = [measured(problem, seed) for seed in range(options.first, options.first + options.seeds)]
        first = np.array([next(iter(run.values()))[1] for run in runs])
        print(f"\n| {problem} | test | gain | optimism |\n|---|---|---|---|", flush=True)
        for index, name in enumerate(runs[0]):
            shown, tests, optimism = (np.array([run[name][i] for run in runs]) for i in range(3))
            gain = with_error(tests - first) if index else ""
            print(f"| {name} | {with_error(shown)} | {gain} | {with_error(optimism)} |", flush=True)


if __name__ == "__main__":
    main()
