"""The noisy quadratic as Ray Tune's workers train it, without a word of Ray, and without torch, which takes seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pbt.executors.worker import Context
from pbt.testing.problems import noisy_quadratic

STEPS = 20
"""Of a round."""


class Toy:
    """The one member that a worker trains at the moment."""

    def __init__(self) -> None:
        self._context = Context(seed=0, member=0, round=1, first_step=0)

    def begin(self, hparams: Mapping[str, float]) -> None:
        """A fresh member; it may be loaded right after."""
        self._hparams = dict(hparams)
        self._state: Any = None

    def train(self) -> dict[str, float]:
        """One round of steps."""
        self._state, score = noisy_quadratic(self._hparams, self._state, STEPS, self._context)
        return {"score": score}

    def save(self, folder: Path) -> None:
        """Write the member into a folder."""
        np.save(folder / "moments.npy", self._state["moments"])

    def load(self, folder: Path) -> None:
        """Go on with what was written there, under the values that the member has now."""
        self._state = {"moments": np.load(folder / "moments.npy")}
