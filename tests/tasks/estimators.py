"""Estimators, for workers to import."""
# ruff: noqa: N803 (X is scikit-learn's name of the data)

import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB

from tests.helpers.paths import DOCS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4)).astype("float32")
Y = np.where(X[:, 0] * X[:, 1] + 0.2 * RNG.normal(size=200) > 0, "yes", "no")
NUMBERS = (Y == "yes").astype("int64")


class Fragile(SGDClassifier):
    """Fails for some values."""

    def partial_fit(self, X, y, classes=None):
        if 0.2 < self.alpha < 0.4:
            raise ArithmeticError("no such penalty")
        return super().partial_fit(X, y, classes=classes)


class Remembering(GaussianNB):
    """Has an attribute that no state can hold."""

    def partial_fit(self, X, y, classes=None):
        with (DOCS / "tasks.md").open() as self.log_:
            pass
        return super().partial_fit(X, y, classes=classes)
