"""What a member trains with is its own: the parts of a class-form task are built for one member and one state."""

from collections import Counter as Tally
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import pbt
from pbt.core.events import Failed, Reported
from pbt.core.population import StateRef
from pbt.errors import PopulationLostError, TaskError
from pbt.executors.worker import Context
from pbt.pytorch import ModuleTask, argument, attribute, optimizer
from pbt.store.codec import digest

ALONE = pbt.Plan(exploit=pbt.never(), explore=pbt.keep())


class Everyone:
    """An exploit under which every member but the first copies the first."""

    def __call__(self, member, view, rng):
        return pbt.Stay() if member.id == 0 else pbt.Copy(donor=0)


COPY = pbt.Plan(exploit=Everyone(), explore=pbt.keep(), interval=3)


class Plain:
    """One parameter, and as many steps as asked for; subclasses say what else there is."""

    bind: ClassVar = {"lr": optimizer("lr")}

    def build(self, hparams, ctx):
        model = nn.Linear(2, 1)
        return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}

    def train(self, parts, hparams, steps, ctx):
        for step in range(ctx.first_step, ctx.first_step + steps):
            parts["optimizer"].zero_grad()
            self.loss(parts, step).backward()
            parts["optimizer"].step()

    def loss(self, parts, step):
        return parts["model"](torch.ones(1, 2)).square().sum()

    def evaluate(self, parts, ctx):
        return {"score": 0.0, **self.seen(parts)}

    def seen(self, parts):
        return {}


SPACE = {"lr": pbt.Float(1e-3, 1.0, "log")}


def column(run, name):
    return [event.reported[name] for event in run.events if isinstance(event, Reported)]


def last(run, member=0):
    return run.load_state(max(e.state for e in run.events if isinstance(e, Reported) and e.member == member))


def test_what_build_makes_of_hyperparameters():
    """Activation and optimizer class are those of the member's own hyperparameters in every round, copies included."""
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}

    class Task(Plain):
        bind: ClassVar = {"lr": optimizer("lr"), "kind": argument(), "act": argument()}

        def build(self, hparams, ctx):
            act = {"relu": nn.ReLU, "tanh": nn.Tanh}[hparams["act"]]()
            model = nn.Sequential(nn.Linear(2, 3), act, nn.Linear(3, 1))
            return {"model": model, "optimizer": kinds[hparams["kind"]](model.parameters(), lr=0.1)}

        def seen(self, parts):
            (group,) = parts["optimizer"].param_groups
            decoupled = group.get("decoupled_weight_decay", "no")
            return {"kind": type(parts["optimizer"]).__name__.lower(), "act": type(parts["model"][1]).__name__.lower(),
                    "rate": group["lr"], "decoupled": decoupled}  # fmt: skip

    space = {**SPACE, "kind": pbt.Choice(tuple(kinds)), "act": pbt.Choice(("relu", "tanh"))}
    plan = pbt.Plan(exploit=Everyone(), explore=pbt.resample(), interval=2)
    run = pbt.run(Task(), space, plan=plan, population=6, rounds=5)
    history = run.history()
    assert not [event for event in run.events if isinstance(event, Failed)]
    assert history["kind"].count("exploit") > 10
    assert list(history["hparams.kind"]) == column(run, "kind")
    assert list(history["act"]) == column(run, "act")
    assert list(history["lr"]) == column(run, "rate")
    assert column(run, "decoupled") == [{"sgd": "no", "adam": False, "adamw": True}[k] for k in history["hparams.kind"]]


def test_a_setting_that_build_reads_is_the_member_s_own():
    """A momentum that `build` takes from hparams is not overwritten by the donor's state."""

    class Task(Plain):
        bind: ClassVar = {"lr": optimizer("lr"), "m": argument()}

        def build(self, hparams, ctx):
            model = nn.Linear(2, 1)
            return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=hparams["m"])}

        def seen(self, parts):
            return {"used": parts["optimizer"].param_groups[0]["momentum"]}

    plan = pbt.Plan(exploit=Everyone(), explore=pbt.perturb(), interval=2)
    run = pbt.run(Task(), {**SPACE, "m": pbt.Float(0.1, 0.9)}, plan=plan, population=4, rounds=4)
    assert list(run.history()["m"]) == column(run, "used")


def test_what_no_state_holds_starts_as_it_is_built():
    """Non-persistent buffers, attributes, modes, hooks and scratch parts start anew for every member and round."""
    calls = Tally()

    class Net(nn.Linear):
        def __init__(self):
            super().__init__(2, 1)
            self.register_buffer("seen", torch.zeros(1), persistent=False)
            self.times = 0

    class Task(Plain):
        def build(self, hparams, ctx):
            net = Net()
            return {"model": net, "optimizer": torch.optim.SGD(net.parameters(), lr=0.1), "buffer": pbt.scratch([])}

        def train(self, parts, hparams, steps, ctx):
            net = parts["model"]
            assert net.training
            net.register_forward_hook(lambda *_: calls.update([(ctx.member, ctx.round)]))
            super().train(parts, hparams, steps, ctx)
            net.times += 1
            net.seen += 1
            parts["buffer"].append(ctx.member)

        def evaluate(self, parts, ctx):
            parts["model"].eval()
            return {"score": 0.0, "found": [parts["model"].times, float(parts["model"].seen), len(parts["buffer"])]}

    run = pbt.run(Task(), SPACE, plan=COPY, population=3, rounds=3)
    assert column(run, "found") == [[1, 1.0, 1]] * 9
    assert set(calls.values()) == {3}


def test_a_part_without_state_is_refused_before_the_start():
    """Everything that would be lost at a round is named at once; plain values and functions are fine."""

    class Task(Plain):
        def build(self, hparams, ctx):
            more = {"queue": [], "data": torch.ones(2), "scale": 2.0, "sizes": (1, 2), "loss": nn.functional.mse_loss}
            return {**super().build(hparams, ctx), **more}

    with pytest.raises(TaskError, match=r"load_state_dict in 'queue' \(list\), 'data' \(Tensor\), so"):
        pbt.run(Task(), SPACE, population=2, rounds=1)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: [nn.Linear(1, 1)], "expected parts by name"),
        (lambda: {1: nn.Linear(1, 1)}, "expected names of parts that are strings"),
        (lambda: {"pbt": nn.Linear(1, 1)}, "other than 'pbt'"),
        (lambda: 1 / 0, "build failed before the start: ZeroDivisionError"),
    ],
)
def test_what_build_returns_is_checked_before_the_start(made, message):
    """Parts that are no mapping of names, and a `build` that fails for every member, end before the first round."""

    class Task(Plain):
        bind: ClassVar = {"lr": argument()}

        def build(self, hparams, ctx):
            return made()

    with pytest.raises(TaskError, match=message):
        pbt.run(Task(), SPACE, population=2, rounds=1)


def test_values_that_build_refuses_cost_their_member_alone():
    """Where `build` works for another of the first members, the run starts, and only that member fails."""

    class Task(Plain):
        def build(self, hparams, ctx):
            if ctx.member == 0 and hparams["lr"] == 0.5:
                raise ValueError("not with this rate")
            return super().build(hparams, ctx)

    run = pbt.run(Task(), SPACE, initial=[{"lr": 0.5}], population=3, rounds=1, plan=ALONE)
    assert [event.member for event in run.events if isinstance(event, Failed)] == [0]


def test_an_illegal_state_is_found_before_the_start():
    """A state that cannot be stored is named with its key before anything is trained."""

    class Odd:
        def state_dict(self):
            return {"thing": object()}

        def load_state_dict(self, state):
            return

    class Task(Plain):
        def build(self, hparams, ctx):
            return {**super().build(hparams, ctx), "odd": Odd()}

    with pytest.raises(pbt.PBTError, match=r"\['odd'\]\['thing'\]"):
        pbt.run(Task(), SPACE, population=2, rounds=1)


def test_draws_of_build_stay_with_the_lineage():
    """What `build` draws and no state holds is the founder's, for everyone who goes on with its weights."""

    class Task(Plain):
        def build(self, hparams, ctx):
            features = torch.randn(2), np.random.random()  # noqa: NPY002 (the global generator is what this is about)
            return {**super().build(hparams, ctx), "features": pbt.scratch(features)}

        def seen(self, parts):
            return {"drawn": [*parts["features"][0].tolist(), parts["features"][1]]}

    run = pbt.run(Task(), SPACE, plan=COPY, population=3, rounds=3)
    drawn = column(run, "drawn")
    assert len({str(one) for one in drawn[:3]}) == 3
    assert drawn[3:] == [drawn[0]] * 6
    again = pbt.replay(run, Task(), member=2)
    assert column(again, "drawn") == drawn[:1] * 3
    assert digest(again.load_state(StateRef(0, 3))) == digest(last(run, 2))


def test_the_state_is_one_moment():
    """What evaluation does to the parts is in the state, plain numbers and tensors alike, unless it is kept out."""

    class Count:
        def __init__(self):
            self.number, self.tensor = 0, torch.zeros(1)

        def state_dict(self):
            return {"number": self.number, "tensor": self.tensor}

        def load_state_dict(self, state):
            self.number, self.tensor = state["number"], state["tensor"]

    class Task(Plain):
        def build(self, hparams, ctx):
            return {**super().build(hparams, ctx), "count": Count()}

        def evaluate(self, parts, ctx):
            parts["count"].number += 1
            parts["count"].tensor += 1
            return 0.0

    class Apart(Task):
        keep_evaluation = False

    for task, expected in ((Task(), 3), (Apart(), 0)):
        count = last(pbt.run(task, SPACE, plan=ALONE, population=1, rounds=3))["count"]
        assert (count["number"], float(count["tensor"])) == (expected, float(expected))


class Unfreezing(Plain):
    """Trains the head, and from the fourth step on the body in a parameter group of its own."""

    def build(self, hparams, ctx):
        body, head = nn.Linear(2, 2), nn.Linear(2, 1)
        body.requires_grad_(False)
        return {"body": body, "head": head, "optimizer": torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.5)}

    def train(self, parts, hparams, steps, ctx):
        for step in range(ctx.first_step, ctx.first_step + steps):
            if step == 3:
                parts["body"].requires_grad_(True)
                parts["optimizer"].add_param_group({"params": list(parts["body"].parameters())})
            parts["optimizer"].zero_grad()
            parts["head"](parts["body"](torch.ones(1, 2))).square().sum().backward()
            parts["optimizer"].step()


def test_unfreezing_and_added_groups_are_handed_over():
    """Parameters that training unfroze, and the groups it added, go on in later rounds and in copies."""
    whole = pbt.run(Unfreezing(), SPACE, plan=pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=8),
                    initial=[{"lr": 0.2}], population=1, rounds=1)  # fmt: skip
    parts = pbt.run(Unfreezing(), SPACE, plan=pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=2),
                    initial=[{"lr": 0.2}], population=1, rounds=4)  # fmt: skip
    assert digest(last(whole)) == digest(last(parts))
    assert [group["lr"] for group in last(parts)["optimizer"]["param_groups"]] == [0.2, 0.2]
    copied = pbt.run(Unfreezing(), SPACE, plan=COPY, population=3, rounds=3)
    assert last(copied, 2)["pbt"]["trainable"] == {"body": {"weight": True, "bias": True}}
    assert torch.equal(last(copied, 1)["body"]["weight"], last(copied, 2)["body"]["weight"])


def test_an_added_group_of_unknown_parameters_is_that_member_s_failure():
    """A group whose parameters belong to no part cannot be handed over, and says so."""

    class Task(Plain):
        def train(self, parts, hparams, steps, ctx):
            parts["optimizer"].add_param_group({"params": [nn.Parameter(torch.ones(1))]})

    with pytest.raises(PopulationLostError, match="belong to no module among the parts"):
        pbt.run(Task(), SPACE, plan=ALONE, population=1, rounds=2)


def test_a_value_that_is_gone_does_not_stay_in_effect():
    """A donor's conditional hyperparameter, which the copying member has not, gives way to what `build` makes."""

    class Task(Plain):
        bind: ClassVar = {"lr": optimizer("lr"), "rule": argument(), "decay": optimizer("weight_decay")}

        def seen(self, parts):
            return {"used": parts["optimizer"].param_groups[0]["weight_decay"]}

    class Other:
        def __call__(self, hparams, member, view, rng):
            return {"lr": 0.1, "rule": "off"}, {}

    space = {**SPACE, "rule": pbt.Choice(("on", "off")), "decay": pbt.Float(0.1, 0.2, when=("rule", "on"))}
    plan = pbt.Plan(exploit=Everyone(), explore=Other())
    first = {"lr": 0.1, "rule": "on", "decay": 0.15}
    run = pbt.run(Task(), space, plan=plan, initial=[first, first], population=2, rounds=2)
    assert column(run, "used") == [0.15, 0.15, 0.15, 0]


def test_a_buffer_as_an_attribute():
    """A value that is bound to a buffer fills it; bound to a parameter it is refused."""

    class Net(nn.Linear):
        def __init__(self):
            super().__init__(2, 1)
            self.register_buffer("heat", torch.ones(1))

    class Task(Plain):
        bind: ClassVar = {"heat": attribute("model.heat")}

        def build(self, hparams, ctx):
            return {"model": Net()}

        def train(self, parts, hparams, steps, ctx):
            return

        def evaluate(self, parts, ctx):
            return {"score": 0.0, "heat": float(parts["model"].heat)}

    run = pbt.run(Task(), {"heat": pbt.Choice((0.1, 0.3))}, population=2, rounds=2)
    assert column(run, "heat") == pytest.approx(list(run.history()["heat"]))
    Task.bind = {"heat": attribute("model.weight")}
    with pytest.raises(TaskError, match="got a parameter, which is trained"):
        pbt.run(Task(), {"heat": pbt.Choice((0.1, 0.3))}, population=2, rounds=1)


def test_check_leaves_the_generators_alone():
    """Trying the task before the start draws nothing from the caller's generators."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    ModuleTask(Plain()).check({"lr": 0.1})
    assert torch.equal(torch.get_rng_state(), before)
    assert (
        Context(seed=1, member=4, round=1, first_step=0).init_key
        == Context(seed=1, member=9, round=3, first_step=6, founder=4).init_key
    )
