"""Optimizers over all rows: torch's arithmetic, torch's state."""

import copy
from functools import partial

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, RMSprop

from pbt.pytorch.vectorized import ELEMENTWISE, Elementwise
from pbt.pytorch.vectorized.elementwise import flatten
from pbt.pytorch.vectorized.stacked_tensors import Rows
from pbt.testing.states import check_close

SHAPES = {"w": (3, 5), "b": (3,), "one": ()}
MEMBERS = 4


class Both:
    """The same members under one elementwise optimizer and under torch's own, one each."""

    def __init__(self, make, members=MEMBERS, dtype=torch.float64):
        self.generator = torch.Generator().manual_seed(3)
        self.rows = Rows({name: torch.zeros(shape, dtype=dtype) for name, shape in SHAPES.items()}, members, "cpu")
        self.alone = []
        for i in range(members):
            own = {name: self.draw(shape, dtype) for name, shape in SHAPES.items()}
            self.rows.load(i, own)
            self.alone.append([p.clone().requires_grad_() for p in own.values()])
        self.optimizers = [make(own) for own in self.alone]
        self.stepper = ELEMENTWISE[type(self.optimizers[0])](self.rows, self.rows.flat)

    def draw(self, shape, dtype):
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(dtype)

    def set(self, **settings):
        """Settings by name, one value per member; (beta1, beta2) as `betas`."""
        for i, optimizer in enumerate(self.optimizers):
            optimizer.param_groups[0].update({name: values[i] for name, values in settings.items()})
        assert self.stepper.suits(self.groups)
        self.stepper.configure(self.groups)
        return self

    @property
    def groups(self):
        return [[{k: v for k, v in o.param_groups[0].items() if k != "params"}] for o in self.optimizers]

    def step(self, count=5):
        for _ in range(count):
            gradients = [self.draw((len(self.alone), *shape), self.rows.flat.dtype) for shape in SHAPES.values()]
            self.stepper.step([g.clone() for g in gradients])
            for i, optimizer in enumerate(self.optimizers):
                for p, g in zip(self.alone[i], gradients, strict=True):
                    p.grad = g[i].clone()
                optimizer.step()
        return self

    def check(self, tolerance=1e-12):
        for i, optimizer in enumerate(self.optimizers):
            found = list(self.rows.row(i).values())
            check_close(found, [p.detach() for p in self.alone[i]], f"member {i}", tolerance)
            expected = optimizer.state_dict()["state"]
            dumped = self.stepper.dump(i)
            # Torch's order of names is not that of what is kept; the state's digest does not know order.
            assert {k: set(v) for k, v in dumped.items()} == {k: set(v) for k, v in expected.items()}
            ordered = {k: {name: dumped[k][name] for name in v} for k, v in expected.items()}
            check_close(ordered, expected, f"memory of member {i}", tolerance)
        return self


RATES, DECAYS = (0.1, 0.01, 0.5, 0.05), (0.0, 0.1, 0.01, 1.0)
BETAS = ((0.9, 0.999), (0.5, 0.9), (0.0, 0.99), (0.99, 0.5))
MOMENTA = (0.9, 0.5, 0.1, 0.99)
CASES = {
    "sgd": (SGD, {"lr": RATES, "weight_decay": DECAYS}),
    "momentum": (
        partial(SGD, momentum=0.9),
        {"lr": RATES, "weight_decay": DECAYS, "momentum": MOMENTA, "dampening": (0.0, 0.5, 0.9, 0.1)},
    ),
    "nesterov": (partial(SGD, momentum=0.9, nesterov=True), {"lr": RATES, "weight_decay": DECAYS, "momentum": MOMENTA}),
    "adam": (Adam, {"lr": RATES, "weight_decay": DECAYS, "betas": BETAS, "eps": (1e-8, 1e-3, 1.0, 1e-6)}),
    "adam_decoupled": (partial(Adam, decoupled_weight_decay=True), {"lr": RATES, "weight_decay": DECAYS}),
    "adamw": (AdamW, {"lr": RATES, "weight_decay": DECAYS, "betas": BETAS, "eps": (1e-8, 1e-3, 1.0, 1e-6)}),
    "rmsprop": (RMSprop, {"lr": RATES, "alpha": (0.99, 0.5, 0.9, 0.0), "eps": (1e-8, 1e-3, 1.0, 1e-6)}),
    "rmsprop_momentum": (partial(RMSprop, momentum=0.9), {"lr": RATES, "momentum": MOMENTA, "weight_decay": DECAYS}),
    "rmsprop_centered": (partial(RMSprop, centered=True, eps=0.1), {"lr": RATES, "alpha": (0.99, 0.5, 0.9, 0.8)}),
    "rmsprop_all": (
        partial(RMSprop, centered=True, momentum=0.9, eps=0.1),
        {"lr": RATES, "alpha": (0.99, 0.5, 0.9, 0.8), "momentum": MOMENTA, "weight_decay": DECAYS},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_torchs_arithmetic(case) -> None:
    """Parameters and memory are torch's after every step, with each member's own settings, changed in between."""
    make, settings = CASES[case]
    both = Both(partial(make, lr=0.1)).set(**settings)
    for _ in range(3):
        both.step(1).check()
    both.set(**{name: values[::-1] for name, values in settings.items()}).step(10).check()


@pytest.mark.parametrize("case", CASES)
def test_single_precision(case) -> None:
    """In single precision a step is torch's to rounding."""
    make, settings = CASES[case]
    Both(partial(make, lr=0.1), dtype=torch.float32).set(**settings).step(1).check(1e-5)


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case) -> None:
    """What is dumped is loaded by torch, what torch remembers is loaded here, and both go on alike."""
    make, settings = CASES[case]
    first = Both(partial(make, lr=0.1)).set(**settings).step(4)
    second = Both(partial(make, lr=0.1)).set(**settings)
    for i in range(MEMBERS):
        second.rows.load(i, first.rows.row(i))
        second.stepper.load(i, first.optimizers[i].state_dict()["state"])
        for own, other in zip(second.alone[i], first.rows.row(i).values(), strict=True):
            own.data.copy_(other)
        memory = copy.deepcopy(first.stepper.dump(i))
        groups = second.optimizers[i].state_dict()["param_groups"]
        second.optimizers[i].load_state_dict({"state": memory, "param_groups": groups})
    second.check().step(3).check()


@pytest.mark.parametrize("case", CASES)
def test_copies_and_newcomers(case) -> None:
    """After a gather each goes on as its source, and one that begins anew does so at step zero among older ones."""
    make, settings = CASES[case]
    both = Both(partial(make, lr=0.1)).set(**settings).step(2)
    both.stepper.load(1, {})
    both.optimizers[1].load_state_dict({"state": {}, "param_groups": both.optimizers[1].state_dict()["param_groups"]})
    both.step(1).check()
    sources = [1, 0, 0, 3]
    both.rows.gather(sources)
    both.stepper.gather(sources)
    states = [copy.deepcopy(optimizer.state_dict()["state"]) for optimizer in both.optimizers]
    values = [[p.detach().clone() for p in own] for own in both.alone]
    for i, source in enumerate(sources):
        groups = both.optimizers[i].state_dict()["param_groups"]
        both.optimizers[i].load_state_dict({"state": copy.deepcopy(states[source]), "param_groups": groups})
        for p, value in zip(both.alone[i], values[source], strict=True):
            p.data.copy_(value)
    both.stepper.load(3, {})
    both.optimizers[3].load_state_dict({"state": {}, "param_groups": both.optimizers[3].state_dict()["param_groups"]})
    both.check().step(1).check().step(5).check()


@pytest.mark.parametrize("make", [SGD, RMSprop])
def test_momentum_that_is_turned_off(make) -> None:
    """What was remembered stays while momentum is zero, also when it is stored and loaded meanwhile, and goes on."""
    both = Both(partial(make, lr=0.1, momentum=0.9)).set().step(3)
    both.set(momentum=(0.0,) * MEMBERS).step(2).check()
    for i in range(MEMBERS):
        memory = copy.deepcopy(both.stepper.dump(i))
        assert "momentum_buffer" in memory[0]
        both.stepper.load(i, {})
        both.stepper.load(i, memory)
    both.step(2).check()
    both.set(momentum=MOMENTA).step(3).check()


def test_momentum_that_is_turned_on() -> None:
    """The first step with momentum sets it, however many steps there were without."""
    both = Both(partial(SGD, lr=0.1, dampening=0.5)).set().step(3).check()
    assert both.stepper.dump(0) == {}
    both.set(momentum=MOMENTA).step(1).check().step(3).check()


def test_memory_is_shared_and_counts_are_not() -> None:
    """A dump costs no copy; each parameter has a count of its own, because torch steps them one by one."""
    both = Both(partial(Adam, lr=0.1)).set().step(1)
    memory = both.stepper.dump(1)
    assert memory[0]["exp_avg"].data_ptr() == both.stepper.dump(1)[0]["exp_avg"].data_ptr()
    memory[0]["step"] += 1
    assert [own["step"].item() for own in memory.values()] == [2.0, 1.0, 1.0]


def test_a_broken_member_stays_alone() -> None:
    """A gradient that is no number moves nobody else."""
    for case, (make, settings) in CASES.items():
        both = Both(partial(make, lr=0.1)).set(**settings)
        gradients = [both.draw((MEMBERS, *shape), torch.float64) for shape in SHAPES.values()]
        for g in gradients:
            g[2] = torch.nan
        both.stepper.step(gradients)
        for name, view in both.rows.views.items():
            assert view[2].isnan().all(), (case, name)
            assert view[[0, 1, 3]].isfinite().all(), (case, name)


def groups(make, *changes):
    base = make([torch.zeros(1, requires_grad=True)]).param_groups[0]
    return [[{k: v for k, v in base.items() if k != "params"} | change] for change in changes]


NOT_DONE = [
    (Adam, [{"amsgrad": True}, {"amsgrad": True}]),
    (Adam, [{"amsgrad": True}, {}]),
    (Adam, [{"maximize": True}] * 2),
    (AdamW, [{"capturable": True}] * 2),
    (AdamW, [{"differentiable": True}] * 2),
    (SGD, [{"maximize": True}] * 2),
    (SGD, [{"nesterov": True, "momentum": 0.9}, {"momentum": 0.9}]),
    (SGD, [{"momentum": 0.9}, {"momentum": 0.0}]),
    (SGD, [{"lr": torch.tensor(0.1)}, {}]),
    (RMSprop, [{"centered": True}, {}]),
    (RMSprop, [{"momentum": 0.5}, {}]),
]


@pytest.mark.parametrize(("make", "changes"), NOT_DONE)
def test_what_is_left_to_torch(make, changes) -> None:
    """Options that are not done here, or that differ where they must not, are left to torch's own optimizers."""
    assert not ELEMENTWISE[make].suits(groups(make, *changes))
    assert ELEMENTWISE[make].suits(groups(make, {}, {"lr": 0.7}))
    assert not ELEMENTWISE[make].suits([own * 2 for own in groups(make, {}, {})])


def test_what_does_not_change_the_result() -> None:
    """How torch would compute a step does not matter, nor does what a scheduler remembers."""
    assert ELEMENTWISE[Adam].suits(groups(Adam, {"fused": True, "initial_lr": 3}, {"foreach": False}))
    assert flatten({"lr": 1, "betas": (0.1, 0.2), "fused": None}) == {"lr": 1, "beta1": 0.1, "beta2": 0.2}


def test_what_is_held() -> None:
    """A memory is held if all parameters have the same in it, and nothing that is not known."""
    tensor, step = torch.ones(2), torch.tensor(3.0)
    whole = {"step": step, "exp_avg": tensor, "exp_avg_sq": tensor}
    holds = ELEMENTWISE[Adam].holds
    assert holds({}, 2)
    assert holds({0: whole, 1: dict(whole)}, 2)
    assert not holds({0: whole}, 2)
    assert not holds({0: whole, 1: {**whole, "step": torch.tensor(2.0)}}, 2)
    assert not holds({0: whole, 1: {"step": step}}, 2)
    assert not holds({i: {**whole, "max_exp_avg_sq": tensor} for i in range(2)}, 2)
    assert ELEMENTWISE[SGD].holds({0: {"momentum_buffer": None}, 1: {"momentum_buffer": None}}, 2)


def test_one_of_your_own() -> None:
    """The documented way to add one: what it remembers, what may differ, how it steps."""

    class Sign(Elementwise):
        numbers = ("lr",)
        remembers = ("last",)

        def update(self, p, g, step):
            p.addcmul_(g.sign(), self.setting("lr"), value=-1)
            self.kept["last"].copy_(g * step)

    rows = Rows({"w": torch.zeros(2)}, 2, "cpu")
    stepper = Sign(rows, rows.flat)
    stepper.configure([[{"lr": 0.5}], [{"lr": 0.25}]])
    stepper.step([torch.tensor([[3.0, -1.0], [0.0, 2.0]])])
    assert rows.views["w"].tolist() == [[-0.5, 0.5], [0.0, -0.25]]
    assert stepper.dump(1)[0]["last"].tolist() == [0.0, 2.0]
    assert stepper.dump(1)[0]["step"] == 1
