"""Training of the noisy quadratic in Ray Tune's workers, without Ray, and without torch, whose import takes seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pbt.executors.worker import Context
from pbt.testing.problems import noisy_quadratic

STEPS = 20
"""Steps per round."""


class Toy:
    """The current member of a worker."""

    def __init__(self) -> None:
        self._context = Context(seed=0, member=0, round=1, first_step=0)

    def begin(self, hparams: Mapping[str, float]) -> None:
        """Start a new member, which may then be loaded."""
        self._hparams = dict(hparams)
        self._state: Any = None

    def train(self) -> dict[str, float]:
        """Train one round."""
        self._state, score = noisy_quadratic(self._hparams, self._state, STEPS, self._context)
        return {"score": score}

    def save(self, folder: Path) -> None:
        """Write the member to a folder."""
        np.save(folder / "moments.npy", self._state["moments"])

    def load(self, folder: Path) -> None:
        """Restore the member from a folder, with its current hyperparameters."""
        self._state = {"moments": np.load(folder / "moments.npy")}
