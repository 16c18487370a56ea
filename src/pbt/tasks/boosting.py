"""XGBoost and LightGBM: a member is an ensemble of trees that grows by some trees per round.

The state is the library's own model format: bytes of UBJSON (XGBoost), text (LightGBM). Parameters are those of the
round, never those of the stored model, and are compared with the live booster's own configuration.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pbt.errors import TaskError, nearest
from pbt.executors.base import State
from pbt.executors.context import trial_round
from pbt.executors.worker import Context, Metrics, TrainFunction
from pbt.space import HParams
from pbt.tasks.extras import framework
from pbt.tasks.parameters import in_effect, metrics, parameters, reseeded, splits_of

Splits = Callable[[], Sequence[Any]]
"""`() -> (training, validation)` or `(training, validation, test)`, in the library's own type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class XGBoostTask:
    """Continued training of an XGBoost booster; a step is one boosting round.

    Args:
        params: Returns the parameters of the booster for given hyperparameters, as for `xgboost.train`. `nthread` and
            `device` default to those of the round. The seed is derived from the run's seed and the first step.
        data: Returns the training and validation data, and optionally test data, as `DMatrix`; called once before the
            start, and once per worker.
        score: The evaluation metric whose value on the validation data is the score, as `"logloss"`; one of
            `eval_metric`, or the default of the objective. All of them are reported; those of test data as `test_...`.

    Raises:
        MissingExtraError: xgboost is not installed.
    """

    returns_series: ClassVar[bool] = False
    params: Callable[[HParams], Mapping[str, Any]]
    data: Splits
    score: str

    def __post_init__(self) -> None:
        _xgboost()

    def check(self, hparams: HParams) -> None:
        """Configure a booster once, without training.

        Raises:
            TaskError: `params` or `data` fails, a parameter does not exist or does not take effect, or the metric is
                unknown.
        """
        with trial_round(hparams, "XGBoost cannot be configured before the start"):
            trainer = _XGBoostTrainer(self, "cpu", 1)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                booster = trainer.open(parameters(self.params, hparams), None)
                config = _xgboost_config(booster)
            if unused := [str(one.message) for one in caught if "are not used" in str(one.message)]:
                listed = unused[0].partition("{")[2].partition("}")[0].replace('"', "'").strip()
                known = nearest(listed.strip("'"), config)
                raise TaskError(f"params: XGBoost has no parameter {listed}{known}")
            in_effect(hparams, parameters(self.params, hparams), config)
            trainer.measured(booster)

    def trainer(self, device: str, threads: int) -> TrainFunction:
        """The function that trains rounds in this worker."""
        return _XGBoostTrainer(self, device, threads)

    def restored(self, hparams: HParams, state: State) -> Any:  # noqa: ARG002 (the model contains them)
        """The `xgboost.Booster` of a state, as `run.model()` returns it."""
        return _xgboost().Booster(model_file=bytearray(state["model"]))


class _XGBoostTrainer:
    def __init__(self, task: XGBoostTask, device: str, threads: int) -> None:
        self._task = task
        self._own = {"nthread": threads, "device": device}
        self._splits = splits_of(task.data(), _xgboost().DMatrix)

    def open(self, params: Mapping[str, Any], state: State) -> Any:
        """A booster with these parameters, which continues the state."""
        # The alias n_jobs would conflict with nthread.
        own = {name: value for name, value in self._own.items() if name != "nthread" or "n_jobs" not in params}
        model = None if state is None else bytearray(state["model"])
        return _xgboost().Booster({**own, **params}, cache=[*self._splits.values()], model_file=model)

    def measured(self, booster: Any) -> dict[str, Any]:
        """The score and all metrics."""
        found: dict[str, dict[str, float]] = {}
        for split in ("valid", "test") if "test" in self._splits else ("valid",):
            # The form is that of "[0]  valid-logloss:0.69  valid-error@0.7:0.5", with tabs.
            parts = booster.eval_set([(self._splits[split], split)]).split("\t")[1:]
            pairs = (part.removeprefix(f"{split}-").rpartition(":") for part in parts)
            found[split] = {name: float(number) for name, _, number in pairs}
        return metrics(self._task.score, found)

    def __call__(self, hparams: HParams, state: State, steps: int, ctx: Context) -> tuple[State, Metrics]:
        params = reseeded(parameters(self._task.params, hparams), ctx)
        booster = self.open(params, state)
        in_effect(hparams, params, _xgboost_config(booster))
        for step in range(ctx.first_step, ctx.first_step + steps):
            booster.update(self._splits["train"], step)
        ctx.in_effect(in_effect(hparams, params, _xgboost_config(booster)))
        return {"model": bytes(booster.save_raw("ubj"))}, self.measured(booster)


def _xgboost_config(booster: Any) -> dict[str, str]:
    """The live configuration: name -> value as text, without nesting."""
    found: dict[str, str] = {}

    def collect(node: Any) -> None:
        for name, value in node.items() if isinstance(node, dict) else ():
            if isinstance(value, str) and name != "name":
                found[name] = value
            collect(value)

    collect(json.loads(booster.save_config())["learner"])
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LightGBMTask:
    """Continued training of a LightGBM booster; a step is one boosting iteration.

    Args:
        params: Returns the parameters of the booster for given hyperparameters, as for `lightgbm.train`. `num_threads`
            defaults to that of the round, `verbosity` to -1. Seeds are derived from the run's seed and the first step.
        data: Returns new training and validation data, and optionally test data, as `lightgbm.Dataset`; called in
            every round, because a Dataset keeps the predictions of the model that it continued. Load the arrays once.
        score: The metric whose value on the validation data is the score, as `"binary_logloss"`; one of `metric`, or
            the default of the objective. All of them are reported; those of test data as `test_...`.

    Raises:
        MissingExtraError: lightgbm is not installed.
    """

    returns_series: ClassVar[bool] = False
    params: Callable[[HParams], Mapping[str, Any]]
    data: Splits
    score: str

    def __post_init__(self) -> None:
        _lightgbm()

    def check(self, hparams: HParams) -> None:
        """Configure a booster once, without training.

        Raises:
            TaskError: `params` or `data` fails, a parameter does not exist or does not take effect, or the metric is
                unknown.
        """
        with trial_round(hparams, "LightGBM cannot be configured before the start"):
            trainer = _LightGBMTrainer(self, 1)
            params = trainer.own(parameters(self.params, hparams))
            splits = trainer.splits()
            booster = _lightgbm().Booster(params, splits.pop("train"))
            for name, split in splits.items():
                booster.add_valid(split, name)
            config = _lightgbm_config(booster.model_to_string())
            names = _canonical(config)
            for name in params:
                if name not in names:
                    raise TaskError(f"params: LightGBM has no parameter '{name}'{nearest(name, names)}")
            in_effect(hparams, params, config, names)
            metrics(self.score, _evaluated(booster.eval_valid()))

    def trainer(self, device: str, threads: int) -> TrainFunction:  # noqa: ARG002 (`params` chooses the device)
        """The function that trains rounds in this worker."""
        return _LightGBMTrainer(self, threads)

    def restored(self, hparams: HParams, state: State) -> Any:  # noqa: ARG002 (the model contains them)
        """The `lightgbm.Booster` of a state, as `run.model()` returns it."""
        return _lightgbm().Booster(model_str=state["model"])


class _LightGBMTrainer:
    def __init__(self, task: LightGBMTask, threads: int) -> None:
        self._task = task
        self._threads = threads

    def own(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters, with defaults for those that the user does not set under any alias."""
        canonical = _canonical(())
        given = {canonical.get(name, name) for name in params}
        defaults = {"num_threads": self._threads, "verbosity": -1}
        return {**{name: value for name, value in defaults.items() if name not in given}, **params}

    def splits(self) -> dict[str, Any]:
        """New Datasets, which keep their raw data: a continued model is evaluated on them first."""
        splits = splits_of(self._task.data(), _lightgbm().Dataset)
        for name, split in splits.items():
            if getattr(split, "pbt_used", False):
                raise TaskError(
                    f"data: expected new Datasets in every call, got the {name} data of an earlier round; a Dataset "
                    "keeps the predictions of the model that it continued, so make it in the function, from arrays"
                )
            if split.init_score is not None:
                raise TaskError(
                    f"data: expected Datasets without init_score, which later rounds lose; got one in {name}"
                )
            split.pbt_used, split.free_raw_data = True, False
        return splits

    def __call__(self, hparams: HParams, state: State, steps: int, ctx: Context) -> tuple[State, Metrics]:
        params = reseeded(self.own(parameters(self._task.params, hparams)), ctx)
        splits = self.splits()
        train = splits.pop("train")
        start = None if state is None else self._task.restored({}, state)
        booster = _lightgbm().train(
            params,
            train,
            steps,
            valid_sets=[*splits.values()],
            valid_names=[*splits],
            init_model=start,
            keep_training_booster=True,
        )
        text = booster.model_to_string()
        ctx.in_effect(in_effect(hparams, params, _lightgbm_config(text), _canonical(())))
        return {"model": text}, metrics(self._task.score, _evaluated(booster.eval_valid()))


def _lightgbm_config(text: str) -> dict[str, str]:
    """The configuration of the booster that wrote this model text: canonical name -> value as text."""
    section = text.rpartition("\nparameters:\n")[2].partition("\nend of parameters")[0]
    pairs = (line[1:-1].partition(": ") for line in section.splitlines() if line.startswith("["))
    return {name.rstrip(":"): value for name, _, value in pairs}


def _canonical(known: Iterable[str]) -> dict[str, str]:
    """LightGBM's canonical name of each name and alias."""
    # The library has no public list of aliases; without it `eta` could not be told from a mistake.
    aliases: Mapping[str, Sequence[str]] = _lightgbm().basic._ConfigAliases._get_all_param_aliases()
    found = {alias: name for name, others in aliases.items() for alias in (name, *others)}
    return {**{name: name for name in known}, **found}


def _evaluated(results: Iterable[Any]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for split, metric, value, *_ in results:
        found.setdefault(split, {})[metric] = float(value)
    return found


def _xgboost() -> Any:
    return framework("xgboost", "XGBoostTask", "boosting")


def _lightgbm() -> Any:
    return framework("lightgbm", "LightGBMTask", "boosting")
