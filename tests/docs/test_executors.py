"""What docs/executors.md promises."""

import re
from functools import partial

import pytest
import torch
from torch import nn

import pbt
from pbt.errors import TaskError
from pbt.pytorch import Data, Split, SupervisedTask, optimizer
from pbt.pytorch.vectorized import ELEMENTWISE
from pbt.pytorch.vectorized.autotune import SHARE
from pbt.pytorch.vectorized.tuning import CPU
from pbt.runs.placement import EXECUTORS
from tests.helpers.paths import DOCS

PAGE = (DOCS / "executors.md").read_text(encoding="utf-8")


def net():
    return nn.Linear(4, 3)


def data():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(2))
    y = x[:, :3].argmax(dim=1)
    return Data(train=Split(x[:40], y[:40]), validation=Split(x[40:], y[40:]))


@pytest.fixture
def sign_sgd():
    """The optimizer of the page, known for the time of a test."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    before = dict(ELEMENTWISE)
    found = {}
    exec(compile(block, "docs/executors.md", "exec"), found)
    yield found["SignSGD"]
    ELEMENTWISE.clear()
    ELEMENTWISE.update(before)


def test_the_page_lists_the_executors() -> None:
    """Every executor has a row; the numbers on the page are those of the code."""
    assert tuple(sorted(re.findall(r'^\| `"(\w+)"`', PAGE, re.MULTILINE))) == tuple(sorted(EXECUTORS))
    assert f"{CPU.small:,}" in PAGE
    assert SHARE == 0.5
    assert "half of the free memory" in PAGE


@pytest.mark.parametrize("known", [True, False])
def test_an_optimizer_of_ones_own(sign_sgd, known) -> None:
    """The page's optimizer trains all rows at once as it trains one member, and runs as it is where it is not known."""
    if not known:
        del ELEMENTWISE[sign_sgd]
    task = SupervisedTask(model=net, data=data, optimizer=partial(sign_sgd), bind={"lr": optimizer("lr")}, batch_size=8)
    settings = {"plan": pbt.Plan(interval=4), "population": 5, "rounds": 3, "seed": 1}
    space = {"lr": pbt.Float(0.001, 0.1, "log")}
    apart, together = (
        pbt.run(task, space, placement=pbt.Placement(executor=name, device="cpu", workers=1), **settings)
        for name in ("inline", "vectorized")
    )
    assert together.history()["lr"] == apart.history()["lr"]
    for name, found in together.load_state()["model"].items():
        torch.testing.assert_close(found, apart.load_state()["model"][name], rtol=0, atol=1e-6)


def test_what_is_refused_is_named() -> None:
    """The page's example of a refusal, an LSTM, is refused before the start with the way out."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(1, 3, batch_first=True)

        def forward(self, x):
            return self.lstm(x.unsqueeze(-1))[0][:, -1]

    task = SupervisedTask(model=Last, data=data, optimizer=torch.optim.SGD, bind={"lr": optimizer("lr")}, batch_size=8)
    with pytest.raises(TaskError, match="the executor 'processes'"):
        pbt.run(
            task,
            {"lr": pbt.Float(0.001, 0.1)},
            population=3,
            rounds=1,
            placement=pbt.Placement(executor="vectorized", device="cpu"),
        )
    assert pbt.run(task, {"lr": pbt.Float(0.001, 0.1)}, population=3, rounds=1, placement="auto").best
