"""`ctx.report`: what it takes and refuses, from any thread, and what it writes while the round runs."""

import copy
import math
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pbt
from pbt.errors import TaskError
from pbt.executors import recorder
from pbt.executors.recorder import PointRecorder
from pbt.store.layout import LIVE
from pbt.store.live import LiveFile, read_live
from pbt.store.points import KEPT, NAMES


def context() -> pbt.Context:
    return pbt.Context(seed=1, member=2, round=3, first_step=40)


def test_numbers_of_every_kind() -> None:
    """Numbers of Python, numpy and torch, finite or not; steps that are whole numbers in any of them."""
    ctx = context()
    ctx.report(41, loss=0.5, **{"eval/acc": 1})
    ctx.report(np.int64(42), loss=np.float32(0.25))  # type: ignore[arg-type]
    ctx.report(torch.tensor(43), loss=torch.tensor([0.125]))  # type: ignore[arg-type]
    ctx.report(44, loss=math.nan)
    ctx.report(45, loss=-math.inf)
    points = ctx.recorder.close()
    assert points["eval/acc"] == ((41, 1.0),)
    assert [step for step, _ in points["loss"]] == [41, 42, 43, 44, 45]
    assert [value for _, value in points["loss"][:3]] == [0.5, 0.25, 0.125]
    assert math.isnan(points["loss"][3][1])
    assert points["loss"][4][1] == -math.inf


@pytest.mark.parametrize(
    ("step", "numbers", "named"),
    [
        (-1, {"loss": 1.0}, "step.*-1"),
        (1.5, {"loss": 1.0}, r"step.*1\.5"),
        (True, {"loss": 1.0}, "step.*True"),
        ("3", {"loss": 1.0}, "step.*'3'"),
        (None, {"loss": 1.0}, "step.*None"),
        (2**63, {"loss": 1.0}, "step.*9223372036854775808"),
        (1, {}, "numbers by name"),
        (1, {"loss": "low"}, "loss.*low"),
        (1, {"loss": None}, "loss.*None"),
        (1, {"loss": True}, "loss.*True"),
        (1, {"loss": [1.0, 2.0]}, "loss"),
        (1, {"loss": 10**400}, "loss"),
        (1, {"": 1.0}, "''"),
        (1, {"a b": 1.0}, "'a b'"),
        (1, {"1st": 1.0}, "'1st'"),
        (1, {"x" * 65: 1.0}, "xxx"),
        (1, {"a\nb": 1.0}, r"a\\nb"),
    ],
)
def test_a_bad_call_names_its_argument(step: Any, numbers: dict[str, Any], named: str) -> None:
    """Nothing of a bad call is recorded."""
    ctx = context()
    with pytest.raises(TaskError, match=rf"ctx\.report.*{named}"):
        ctx.report(step, **{"acc": 1.0, **numbers} if numbers else {})
    assert ctx.recorder.close() == {}


def test_too_many_names() -> None:
    """The one too many is named; those before it stay."""
    ctx = context()
    for i in range(NAMES):
        ctx.report(1, **{f"n{i}": 1.0})
    with pytest.raises(TaskError, match=f"{NAMES} names.*'more'"):
        ctx.report(1, more=1.0)
    ctx.report(2, n0=2.0)
    assert len(ctx.recorder.close()) == NAMES


def test_threads_report_at_once() -> None:
    """No point of any thread is lost, and none is recorded after the end of the round."""
    ctx = context()

    def report(name: str) -> None:
        for step in range(KEPT):
            ctx.report(step, **{name: float(step)})

    threads = [threading.Thread(target=report, args=(f"thread_{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    points = ctx.recorder.close()
    assert points == {f"thread_{i}": tuple((step, float(step)) for step in range(KEPT)) for i in range(8)}
    ctx.report(1, thread_0=5.0)
    assert ctx.recorder.close() == points


def test_a_context_can_be_copied() -> None:
    """As for the processes of a data loader; what is reported there has no way back."""
    ctx = context()
    ctx.report(1, loss=1.0)
    for other in (copy.deepcopy(ctx), pickle.loads(pickle.dumps(ctx))):
        other.report(2, loss=2.0)
        assert other == ctx
    assert ctx.recorder.close() == {"loss": ((1, 1.0),)}


def test_the_file_is_written_at_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short round writes no file; a long one at intervals, and once more at its end."""
    now = 100.0
    monkeypatch.setattr(recorder.time, "monotonic", lambda: now)
    live = LiveFile(tmp_path / LIVE, 1, 1)
    points = PointRecorder(live)
    points.add(1, {"loss": 1.0})
    points.close()
    assert not (tmp_path / LIVE).exists()

    points = PointRecorder(live)
    written = []
    for step in range(10):
        now += 0.2
        points.add(step, {"loss": 1.0})
        written.append(max((found.points["loss"][-1][0] for found in read_live(tmp_path)), default=None))
    assert written == [None, None, 2, 2, 2, 5, 5, 5, 8, 8]
    points.close()
    assert read_live(tmp_path)[0].points["loss"][-1][0] == 9

    PointRecorder(live)
    assert read_live(tmp_path) == []
