"""What a network does not save is each member's own, or the network is refused for one program."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import pbt
from pbt.errors import TaskError
from pbt.runs.auto_placement import choose
from pbt.runs.placement import Placement
from tests.helpers.tasks import PLAIN

SPACE = {"lr": pbt.Float(0.01, 0.1)}
BIRTHS = [{"lr": 0.01 * (m + 1)} for m in range(3)]


@dataclass
class Held:
    shift: torch.Tensor


class Net(nn.Module):
    """Adds something to its input that it makes in `__init__` and does not save."""

    made = 0

    def __init__(self, place, drawn):
        super().__init__()
        Net.made += 1
        self.inner, self.place = nn.Linear(6, 3), place
        value = torch.randn(6) if drawn else torch.arange(6.0)
        if place == "buffer":
            self.register_buffer("shift", value, persistent=False)
        elif place == "saved buffer":
            self.register_buffer("shift", value)
        elif place == "counter":
            self.shift, self.number = torch.zeros(6), Net.made
        else:
            makers = {
                "tensor": lambda: value,
                "list": lambda: [value],
                "dictionary": lambda: {"all": (value,)},
                "array": lambda: np.asarray(value),
                "number": lambda: float(value[1]),
                "object": lambda: Held(value),
            }
            self.shift = makers[place]()

    def forward(self, x):
        shift = self.shift
        shift = shift[0] if self.place == "list" else shift["all"][0] if self.place == "dictionary" else shift
        shift = shift.shift if self.place == "object" else torch.as_tensor(shift)
        return self.inner(x.float() + shift.float())


UNSAVED = ["buffer", "tensor", "list", "dictionary", "array", "number", "object"]


def task_of(place, drawn):
    return replace(PLAIN, model=partial(Net, place, drawn))


@pytest.mark.parametrize("place", UNSAVED)
def test_what_is_drawn_and_not_saved_is_refused(place, tmp_path) -> None:
    """One program refuses it before the start, by name and with what to write; `auto` trains members apart."""
    task = task_of(place, drawn=True)
    message = r"the network's 'shift.*make it a persistent buffer, or use the executor 'processes'"
    with pytest.raises(TaskError, match=message):
        pbt.run(task, SPACE, population=3, placement="vectorized", run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    choice = choose(Placement(executor="auto", device="cpu", workers=2), task, BIRTHS)
    assert choice.placement.executor == "processes"
    assert "the network's 'shift" in choice.why


SHARED = [*((place, False) for place in UNSAVED), ("saved buffer", True), ("counter", True)]


@pytest.mark.parametrize(("place", "drawn"), SHARED)
def test_what_is_the_same_under_every_seed_is_shared(place, drawn) -> None:
    """So is what is saved, and a number that counts networks; scores are those of separate runs."""
    scores = [
        list(
            pbt.run(
                task_of(place, drawn), SPACE, population=3, rounds=2, plan=pbt.Plan(interval=4),
                placement=pbt.Placement(threads=1, executor=executor, workers=1),
            ).history()["val_loss"]
        )
        for executor in ("inline", "vectorized")
    ]  # fmt: skip
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)
