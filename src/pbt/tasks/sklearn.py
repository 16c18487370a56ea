"""scikit-learn: `PBTClassifier`, `PBTRegressor` and `PBTSearch` over estimators with `partial_fit` and skorch nets.

A step is one call of `partial_fit` with all training data: an epoch.
"""
# ruff: noqa: N803, N806 (X is scikit-learn's name of the data)

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from pbt.core.strategy import Plan
from pbt.domains import Domain
from pbt.errors import MissingExtraError, TaskError
from pbt.runs.experiment import run
from pbt.runs.placement import ExecutorName, Placement

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, RegressorMixin, is_classifier
    from sklearn.metrics import check_scoring
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state, get_tags
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingExtraError("pbt.tasks.sklearn", "sklearn") from error

from pbt.tasks.estimator_state import is_net
from pbt.tasks.estimators import EstimatorTask as EstimatorTask  # noqa: PLC0414 (public here)


def _delegates(name: str) -> Callable[[Callable[..., Any]], Any]:
    """A check for `available_if`: whether the (fitted) estimator has this method."""

    def check(self: Any) -> bool:
        getattr(getattr(self, "best_estimator_", self.estimator), name)
        return True

    found: Callable[[Callable[..., Any]], Any] = available_if(check)
    return found


class PBTSearch(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Trains a population of estimators whose parameters change while they learn, and keeps the best.

    Args:
        estimator: An estimator with `partial_fit`, or a skorch net.
        space: Domains by parameter name, as `{"alpha": pbt.Float(1e-6, 1e-1, "log")}`.
        population: Number of members.
        rounds: Rounds per member.
        steps: Calls of `partial_fit` with all training data per round. Ignored if `plan` is given.
        plan: The algorithm; None: `pbt.Plan(interval=steps)`.
        scoring: A scorer or the name of one; None: the estimator's `score`.
        validation_fraction: Fraction of the data passed to `fit` that members are scored on, drawn at random, per class
            for classifiers.
        random_state: Seed of the split and of the run, a generator, or None.
        placement: Where it is trained: a `pbt.Placement` or the name of an executor.
        run_dir: Directory of the run; None: in memory.

    Attributes:
        best_estimator_: The fitted estimator with the best validation score.
        best_params_: Its parameters in its last round.
        best_score_: Its validation score.
        best_schedule_: Its parameters at every step, as a `pbt.Schedule`.
        run_: The `pbt.Run`.
        n_features_in_: Number of features seen in `fit`.
        feature_names_in_: Their names, if X has names that are all strings.
    """

    def __init__(  # noqa: PLR0913 (scikit-learn's form: each setting is an argument)
        self,
        estimator: Any,
        space: Mapping[str, Domain],
        *,
        population: int = 10,
        rounds: int = 10,
        steps: int = 1,
        plan: Any = None,
        scoring: Any = None,
        validation_fraction: float = 0.2,
        random_state: Any = None,
        placement: Placement | ExecutorName = "inline",
        run_dir: str | Path | None = None,
    ) -> None:
        self.estimator = estimator
        self.space = space
        self.population = population
        self.rounds = rounds
        self.steps = steps
        self.plan = plan
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.placement = placement
        self.run_dir = run_dir

    def fit(self, X: Any, y: Any = None, *, validation: tuple[Any, Any] | None = None) -> Self:
        """Train the population.

        Args:
            X: Training data, of shape (examples, features); a net's may have more dimensions.
            y: Targets; None for estimators without.
            validation: `(X, y)` to score members on; None: `validation_fraction` of the data.

        Raises:
            TaskError: The estimator cannot be a member.
            ValueError: It refuses the data.
            PopulationLostError: Every member failed.
        """
        X, y = self._validated(X, y, reset=True)
        generator = check_random_state(self.random_state)
        seed = int(generator.randint(2**31))
        train, valid = ((X, y), validation) if validation is not None else self._split(X, y, seed)
        if validation is not None:
            valid = (self._validated(validation[0], None, reset=False)[0], validation[1])
        task = EstimatorTask(estimator=self.estimator, train=train, valid=valid, scoring=self.scoring)
        try:
            self.run_ = run(
                task,
                self.space,
                plan=self.plan or Plan(interval=self.steps),
                population=self.population,
                rounds=self.rounds,
                seed=seed,
                placement=self.placement,
                run_dir=self.run_dir,
            )
        except TaskError as error:
            # scikit-learn's callers expect its own exception for data that an estimator refuses.
            if isinstance(error.__cause__, ValueError):
                raise ValueError(str(error)) from error  # noqa: TRY004
            raise
        best = self.run_.best
        self.best_estimator_ = task.restored(best.hparams, self.run_.load_state())
        self.best_params_ = dict(best.hparams)
        self.best_score_ = best.score
        self.best_schedule_ = self.run_.best_schedule
        return self

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        """The data as arrays; their values are the estimator's business."""
        tags = get_tags(self.estimator).input_tags
        options: dict[str, Any] = {
            "accept_sparse": "csr" if tags.sparse else False,
            "accept_large_sparse": False,
            "dtype": None if is_net(self.estimator) else "numeric",
            "allow_nd": is_net(self.estimator),
            "ensure_all_finite": not tags.allow_nan,
            "reset": reset,
        }
        if y is None:
            if reset and get_tags(self).target_tags.required:
                raise ValueError(f"{type(self).__name__}: requires y to be passed, but the target y is None")
            return validate_data(self, X, **options), None
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=not is_classifier(self), **options)
        if is_classifier(self):
            check_classification_targets(y)
        return X, y

    def _split(self, X: Any, y: Any, seed: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        if y is None:
            train, valid = train_test_split(X, test_size=self.validation_fraction, random_state=seed)
            return (train, None), (valid, None)
        # A class with a single example can only be in one part.
        rows = np.unique(y, return_counts=True)[1] if is_classifier(self) else np.zeros(1)
        X_train, X_valid, y_train, y_valid = train_test_split(
            X,
            y,
            test_size=self.validation_fraction,
            random_state=seed,
            stratify=y if rows.min() > 1 and len(rows) <= len(y) * self.validation_fraction else None,
        )
        return (X_train, y_train), (X_valid, y_valid)

    def _call(self, name: str, X: Any, *more: Any) -> Any:
        check_is_fitted(self, "best_estimator_")
        return getattr(self.best_estimator_, name)(self._validated(X, None, reset=False)[0], *more)

    @_delegates("predict")
    def predict(self, X: Any) -> Any:
        """`predict` of the best estimator."""
        return self._call("predict", X)

    @_delegates("predict_proba")
    def predict_proba(self, X: Any) -> Any:
        """`predict_proba` of the best estimator."""
        return self._call("predict_proba", X)

    @_delegates("predict_log_proba")
    def predict_log_proba(self, X: Any) -> Any:
        """`predict_log_proba` of the best estimator."""
        return self._call("predict_log_proba", X)

    @_delegates("decision_function")
    def decision_function(self, X: Any) -> Any:
        """`decision_function` of the best estimator."""
        return self._call("decision_function", X)

    @_delegates("transform")
    def transform(self, X: Any) -> Any:
        """`transform` of the best estimator."""
        return self._call("transform", X)

    def score(self, X: Any, y: Any = None) -> float:
        """The score of the best estimator by `scoring`, as of its validation data."""
        check_is_fitted(self, "best_estimator_")
        X, _ = self._validated(X, None, reset=False)
        scorer = check_scoring(self.best_estimator_, self.scoring)
        return float(scorer(self.best_estimator_, X) if y is None else scorer(self.best_estimator_, X, y))

    @property
    def classes_(self) -> Any:
        """The class labels of a classifier."""
        check_is_fitted(self, "best_estimator_")
        return self.best_estimator_.classes_

    def __sklearn_tags__(self) -> Any:
        """The tags of the estimator, as far as they concern its data."""
        tags = super().__sklearn_tags__()
        own = get_tags(self.estimator)
        tags.estimator_type = tags.estimator_type or own.estimator_type
        tags.classifier_tags = tags.classifier_tags or own.classifier_tags
        tags.regressor_tags = tags.regressor_tags or own.regressor_tags
        tags.target_tags.required = tags.target_tags.required or own.target_tags.required
        tags.input_tags.sparse = own.input_tags.sparse
        tags.input_tags.allow_nan = own.input_tags.allow_nan
        tags.non_deterministic = own.non_deterministic
        return tags


class PBTClassifier(ClassifierMixin, PBTSearch):  # type: ignore[misc]
    """`PBTSearch` over a classifier."""

    score = PBTSearch.score


class PBTRegressor(RegressorMixin, PBTSearch):  # type: ignore[misc]
    """`PBTSearch` over a regressor."""

    score = PBTSearch.score
