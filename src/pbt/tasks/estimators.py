"""An estimator of scikit-learn, or a skorch net, as a task: a step is one epoch."""
# ruff: noqa: N803, N806 (X is scikit-learn's name of the data)

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.metrics import check_scoring

from pbt.errors import TaskError, nearest
from pbt.executors.base import State
from pbt.executors.context import trial_round
from pbt.executors.seeding import sown
from pbt.executors.worker import Context, Metrics, TrainFunction
from pbt.space import HParams
from pbt.tasks import estimator_state
from pbt.tasks.estimator_state import is_estimator, is_net

_TRIED = 50
"""Examples of the trial step before the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorTask:
    """An estimator with `partial_fit` as a task; hyperparameters are its parameters, such as `alpha` or `module__p`.

    A step is one call of `partial_fit` with all training data; that of a net trains one epoch, whatever its
    `max_epochs`.

    Args:
        estimator: The estimator, unfitted; a clone is trained.
        train: `(X, y)`; y may be None.
        valid: `(X, y)` of the validation data.
        scoring: A scorer or the name of one, as in scikit-learn, higher is better; None: the estimator's `score`.
    """

    estimator: Any
    train: tuple[Any, Any]
    valid: tuple[Any, Any]
    scoring: Any = None

    def check(self, hparams: HParams) -> None:
        """Fit a clone to some validation data.

        Raises:
            TaskError: It has no `partial_fit` or no such parameter, cannot be fitted or scored, or has an attribute
                that cannot be stored.
        """
        if not is_estimator(self.estimator):
            raise TaskError(
                f"expected an estimator with partial_fit, or a skorch net, got {type(self.estimator).__name__}"
            )
        known = self.estimator.get_params()
        for name in hparams:
            if name not in known and not (is_net(self.estimator) and "__" in name):
                raise TaskError(f"{type(self.estimator).__name__} has no parameter '{name}'{nearest(name, known)}")
        X, y = self.train
        few = slice(None, _TRIED)
        with trial_round(hparams, "the estimator cannot be fitted") as ctx:
            estimator = self._built(hparams, None, ctx)
            self._step(estimator, X[few], None if y is None else y[few], ctx, 0)
            self._score(estimator)
            estimator_state.check_stored(estimator)

    def trainer(self, device: str, threads: int) -> TrainFunction:  # noqa: ARG002 (an estimator has its own n_jobs)
        """The function that trains rounds in this worker."""
        return self._train

    def restored(self, hparams: HParams, state: State) -> Any:
        """The estimator of a state, with its hyperparameters, as `run.model()` returns it."""
        with trial_round(hparams, "the estimator cannot be built") as ctx:
            return self._built(hparams, state, ctx)

    def _train(self, hparams: HParams, state: State, steps: int, ctx: Context) -> tuple[State, Metrics]:
        estimator = self._built(hparams, state, ctx)
        before = estimator_state.rates(estimator, hparams)
        for step in range(ctx.first_step, ctx.first_step + steps):
            self._step(estimator, *self.train, ctx, step)
        if (after := estimator_state.rates(estimator, hparams)) != before:
            raise TaskError(f"the optimizer's settings were {before} before training and {after} after it")
        for name in hparams:
            ctx.in_effect({name: estimator_state.in_effect(estimator, name)})
        return estimator_state.capture(estimator), self._score(estimator)

    def _built(self, hparams: HParams, state: State, ctx: Context) -> Any:
        estimator = clone(self.estimator).set_params(**hparams)
        if is_net(estimator):
            estimator_state.build_net(estimator.set_params(max_epochs=1), ctx)
        if state is not None:
            estimator_state.restore(estimator, state)
        if is_net(estimator):
            estimator_state.apply_to_net(estimator, hparams, ctx)
        return estimator

    def _step(self, estimator: Any, X: Any, y: Any, ctx: Context, step: int) -> None:
        # An estimator without a random_state draws from numpy's global generator, a net from torch's.
        with sown(ctx.key("fit", step) if step else ctx.init_key, ctx.device):
            if "classes" in inspect.signature(estimator.partial_fit).parameters and not is_net(estimator):
                estimator.partial_fit(X, y, classes=np.unique(self.train[1]))
            else:
                estimator.partial_fit(X, y)

    def _score(self, estimator: Any) -> float:
        X, y = self.valid
        scorer = check_scoring(estimator, self.scoring)
        return float(scorer(estimator, X) if y is None else scorer(estimator, X, y))
