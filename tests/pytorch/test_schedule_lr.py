"""A discovered schedule in a loop of one's own."""

import pytest
import torch
from torch import nn

from pbt import Schedule
from pbt.core.schedule import Segment
from pbt.errors import TaskError
from pbt.pytorch import ScheduleLR, apply_schedule
from pbt.testing.problems import blocks

SCHEDULE = blocks("lr", [0.4, 0.2, 0.1], 3)


def optimizer(**settings):
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": first.parameters()}, {"params": second.parameters(), "lr": 9.0}]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9, **settings)


def rates(found):
    return [group["lr"] for group in found.param_groups]


def test_apply_sets_what_the_optimizer_knows():
    """Every setting of that name gets its value, also where a scheduler remembers it, and groups keep their ratio; the
    rest is handed back."""
    schedule = Schedule(
        (
            Segment(start=0, stop=5, hparams={"lr": 0.3, "momentum": 0.5, "p": 0.2}),
            Segment(start=5, stop=9, hparams={"lr": 0.1, "momentum": 0.7}),
        )
    )
    found = optimizer()
    torch.optim.lr_scheduler.LambdaLR(found, lambda step: 1.0)
    assert apply_schedule(found, schedule, 4) == {"p": 0.2}
    assert [(g["lr"], g["initial_lr"], g["momentum"]) for g in found.param_groups] == [
        (0.3, 0.3, 0.5),
        (pytest.approx(2.7), pytest.approx(2.7), 0.5),
    ]
    assert apply_schedule(found, schedule, 5) == {}
    assert [(g["lr"], g["momentum"]) for g in found.param_groups] == [(0.1, 0.7), (pytest.approx(0.9), 0.7)]
    apply_schedule(found, schedule, 1000)
    assert rates(found) == [0.1, pytest.approx(0.9)]


def test_apply_of_nothing_is_an_error():
    """A schedule without a single setting of the optimizer would change nothing, and says so."""
    with pytest.raises(TaskError, match=r"settings of SGD, found keep_prob, params"):
        apply_schedule(optimizer(), Schedule((Segment(start=0, stop=1, hparams={"keep_prob": 1, "params": 2}),)), 0)


def test_the_scheduler_gives_each_step_its_rate():
    """Stepped once per training step, groups have the schedule's rate in their ratio, the last one behind the end."""
    found = optimizer()
    scheduler = ScheduleLR(found, SCHEDULE)
    seen = []
    for _ in range(11):
        seen.append(rates(found))
        found.step()
        scheduler.step()
    assert seen == [[rate, rate * 9.0] for rate in (SCHEDULE.at(step)["lr"] for step in range(11))]
    assert scheduler.get_last_lr() == [0.1, pytest.approx(0.9)]


def test_the_scheduler_goes_on_from_its_state(tmp_path):
    """Its state is plain enough for torch.load's safe mode, and a new one goes on from it at the same step."""
    found = optimizer()
    scheduler = ScheduleLR(found, SCHEDULE)
    for _ in range(4):
        found.step()
        scheduler.step()
    torch.save({"optimizer": found.state_dict(), "scheduler": scheduler.state_dict()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    other = optimizer()
    again = ScheduleLR(other, SCHEDULE)
    other.load_state_dict(saved["optimizer"])
    again.load_state_dict(saved["scheduler"])
    assert rates(other) == [0.2, pytest.approx(1.8)]
    for _ in range(2):
        other.step()
        again.step()
    assert rates(other) == [0.1, pytest.approx(0.9)]


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"rate": 0.1}, "a number for 'lr' in every segment, found None from step 0; the schedule has rate"),
        ({"lr": "fast"}, "found 'fast'"),
        ({"lr": True}, "found True"),
        ({}, "the schedule has nothing"),
    ],
)
def test_a_schedule_without_a_rate_is_refused(hparams, message):
    """What is no learning rate, everywhere in the schedule, is found at construction."""
    with pytest.raises(TaskError, match=message):
        ScheduleLR(optimizer(), Schedule((Segment(start=0, stop=2, hparams=hparams),)))
    assert ScheduleLR(optimizer(), Schedule((Segment(start=0, stop=2, hparams={"eta": 1}),)), "eta").get_last_lr() == [
        1,
        9,
    ]
