"""Ray Tune's Population Based Training as one side of a benchmark: a separate program with its own Python.

It writes a line of JSON after its first round, then one with the seconds of a turn for every line that it reads, and
exits at the end of its input. Settings are chosen for the highest speed of Ray Tune:

* A class `Trainable` with `reset_config` and `reuse_actors`: a worker trains one trial after another, with one CPU slot
  and `torch.set_num_threads(1)`. At the end of a round in synchronous mode Ray Tune may stop an idle worker and start
  another (`TuneController._maybe_cache_trial_actor`). To make this cheap, the normalized images are in the object store
  (`tune.with_parameters`), and workers of the toy do not import torch.
* `PopulationBasedTraining` with `synch=True`, like the other side; the lowest fifth copies the highest, without
  resampling. Synchronous mode saves every trial when it pauses it at the end of a round; `checkpoint_frequency` keeps
  its default, because it would save a second time. Nothing is flushed to the disk.
* No dashboard, no result loggers (CSV, JSON, TensorBoard), no policy log, no console reporter, no usage statistics, no
  memory monitor; the experiment's state is written only at the start and the end.

A turn lasts from its request until the driver has the results of all trials. It includes the decision on the previous
round, its saves and restores.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pbt.testing.problems import NQM_SPACE

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",
    "TUNE_WARN_THRESHOLD_S": "100000",
}
"""Environment variables that Ray reads on import."""
OBJECT_STORE = 512 * 2**20
"""Bytes; MNIST's images as floats take 220 million."""
QUANTILE = 0.2


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", choices=("mnist", "toy"), help="problem to train")
    parser.add_argument("--config", type=Path, help="mnist: a configuration that is complete, as JSON")
    parser.add_argument("--trials", type=int, default=10, help="members of the population")
    parser.add_argument("--rounds", type=int, default=1, help="rounds of a turn")
    parser.add_argument("--cpus", type=int, default=2, help="trials that run at the same time")
    options = parser.parse_args(arguments)
    if (options.work == "mnist") != (options.config is not None):
        parser.error("--config is for mnist, and needed there")
    return options


def main() -> None:
    """Train one turn per input line."""
    options = parse()
    # Ray prints to stdout and stderr, so results use a separate descriptor; not a file object, which Ray could not
    # pickle with its callbacks.
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ.update(QUIET)
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        _tune(options, Path(folder), answers)


def _tune(options: argparse.Namespace, folder: Path, answers: int) -> None:
    import ray
    from ray import tune

    config = None if options.config is None else _config(options.config)
    space, bounds = _space(config, tune)
    gate = _gate(tune, answers, options.trials, options.rounds, ready={"name": f"Ray Tune {ray.__version__} PBT"})
    ray.init(
        address="local",
        num_cpus=options.cpus,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=OBJECT_STORE,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(folder / "session"),
    )
    try:
        trainable = _toy(tune) if config is None else _digits(tune, config)
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                num_samples=options.trials,
                reuse_actors=True,
                scheduler=tune.schedulers.PopulationBasedTraining(
                    time_attr="training_iteration",
                    perturbation_interval=1,
                    hyperparam_mutations=space,
                    quantile_fraction=QUANTILE,
                    resample_probability=0,
                    custom_explore_fn=bounds,
                    log_config=False,
                    synch=True,
                ),
            ),
            run_config=tune.RunConfig(
                name="pbt", storage_path=str(folder / "results"), verbose=0, stop=gate.stopper, callbacks=[gate]
            ),
        ).fit()
    finally:
        ray.shutdown()


def _config(path: Path) -> Any:
    from pbt.mnist.config.record import Config

    return Config.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _space(config: Any, tune: Any) -> tuple[dict[str, Any], Any]:
    """The initial distributions, and a function that clips values to their bounds."""
    if config is None:
        domains: dict[str, Any] = dict(NQM_SPACE)
    else:
        from pbt.mnist.task import space

        domains = dict(space(config))
    bounds = {name: (domain.low, domain.high) for name, domain in domains.items()}
    draw = {"log": tune.loguniform, "linear": tune.uniform}

    def clipped(values: dict[str, Any]) -> dict[str, Any]:
        return values | {name: min(max(values[name], low), high) for name, (low, high) in bounds.items()}

    return {name: draw[domain.scale](*bounds[name]) for name, domain in domains.items()}, clipped


def _gate(tune: Any, answers: int, trials: int, rounds: int, ready: dict[str, str]) -> Any:
    """A callback that reports and waits at the end of each turn; its `stopper` ends the run after the last."""

    class Stop(tune.Stopper):  # type: ignore[misc]
        def __init__(self) -> None:
            self.enough = False

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return self.enough

    class Gate(tune.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.stopper = Stop()
            self._left = trials
            self._started: float | None = None

        def on_trial_result(self, **info: Any) -> None:
            self._left -= 1
            if self._left:
                return
            seconds = {} if self._started is None else {"seconds": time.perf_counter() - self._started}
            os.write(answers, f"{json.dumps(seconds or ready)}\n".encode())
            self.stopper.enough = not sys.stdin.readline()
            self._left, self._started = trials * rounds, time.perf_counter()

    return Gate()


def _digits(tune: Any, config: Any) -> Any:
    from benchmarks.ray_digits import load_arrays

    class Trial(_trial(tune)):  # type: ignore[misc]
        def setup(self, hparams: dict[str, Any], arrays: Any = None) -> None:
            from benchmarks.ray_digits import Digits

            self.work = Digits(config, arrays)
            self.work.begin(hparams)

    return tune.with_parameters(Trial, arrays=load_arrays(config))


def _toy(tune: Any) -> Any:
    class Trial(_trial(tune)):  # type: ignore[misc]
        def setup(self, hparams: dict[str, Any]) -> None:
            from benchmarks.ray_toy import Toy

            self.work = Toy()
            self.work.begin(hparams)

    return Trial


def _trial(tune: Any) -> Any:
    class Trial(tune.Trainable):  # type: ignore[misc]
        def step(self) -> dict[str, float]:
            found: dict[str, float] = self.work.train()
            return found

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.work.begin(new_config)
            return True

        def save_checkpoint(self, folder: str) -> None:
            self.work.save(Path(folder))

        def load_checkpoint(self, folder: str) -> None:
            self.work.load(Path(folder))

    return Trial


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
