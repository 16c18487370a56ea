"""Cases of what a network may do besides computing: structure, hooks, buffers, counters, draws."""

import random
from collections import deque
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from tests.pytorch.vectorized.zoo.cases import add, examples, net, refused

SMALL = partial(nn.Linear, 6, 6)


# Structure


@net(one=SMALL, sample=True)
def shared_submodule(m, x):
    return m.head(torch.tanh(m.one(torch.tanh(m.one(x)))))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = SMALL(), SMALL(), nn.Linear(6, 3)
        self.b.weight = self.a.weight
        self.again = self.a

    def forward(self, x):
        return self.head(self.b(self.a(x).tanh()) + self.again(x))


add("tied_weights", Tied, sample=True)


def twice_in_chain():
    one = SMALL()
    return nn.Sequential(one, nn.Tanh(), one, nn.Linear(6, 3))


add("same_layer_twice_in_chain", twice_in_chain)


@net(layers=lambda: nn.ModuleList([SMALL(), SMALL()]))
def module_list(m, x):
    for one in m.layers:
        x = torch.tanh(one(x))
    return m.head(x)


@net(layers=lambda: nn.ModuleDict({"a": SMALL(), "b": nn.Tanh()}))
def module_dict(m, x):
    return m.head(m.layers["b"](m.layers["a"](x)))


@net(values=lambda: nn.ParameterList([nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))]))
def parameter_list(m, x):
    return m.head(x * m.values[0] + m.values[1])


@net(values=lambda: nn.ParameterDict({"gain": nn.Parameter(torch.ones(6))}))
def parameter_dict(m, x):
    return m.head(x * m.values["gain"])


@net(unused=SMALL)
def unused_layer(m, x):
    return m.head(x)


@net(frozen=lambda: SMALL().requires_grad_(False), sample=True)
def frozen_layer(m, x):
    return m.head(torch.tanh(m.frozen(x)))


@net(gain=lambda: nn.Parameter(torch.ones(())))
def scalar_parameter(m, x):
    return m.head(x * m.gain)


@net()
def loops_over_parameters(m, x):
    return m.head(x) + sum(p.square().mean() for p in m.parameters())


@net()
def reads_state_dict(m, x):
    return m.head(x) + sum(value.abs().mean() for value in m.state_dict().values())


@net(inner=SMALL, sample=True)
def functional_call_inside(m, x):
    return m.head(functional_call(m.inner, {"weight": m.inner.weight * 0.5}, (x,)))


@net(inner=lambda: [SMALL()], word=refused("'inner.0.weight'"))
def layer_in_plain_list(m, x):
    return m.head(m.inner[0](x))


class ByList(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.both = [self.head.weight, self.head.bias]

    def forward(self, x):
        return F.linear(x, *self.both)


add("parameters_by_a_list", ByList, word=refused("'head.weight'", "a reference other than an attribute"), sample=True)


class Captured(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = SMALL(), nn.Linear(6, 3)
        weight = self.inner.weight
        self.of = lambda x: F.linear(x, weight)

    def forward(self, x):
        return self.head(self.of(x) + self.inner(x))


add("parameters_by_a_closure", Captured, word=refused("'inner.weight'"))


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.LazyLinear(5), nn.Linear(5, 3)
        self.inner(torch.zeros(1, 6))

    def forward(self, x):
        return self.head(self.inner(x))


add("lazy_layer", Lazy)


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        return


add("extra_state", partial(Extra, 6, 3), word=refused("'_extra_state'"))


class Tripled(torch.Tensor):
    """A subclass of Tensor."""


class OfSubclass(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 6).as_subclass(Tripled))

    def forward(self, x):
        return x @ self.weight.mT.as_subclass(torch.Tensor)


add("parameter_of_a_subclass", OfSubclass)


# Hooks


class Hooked(nn.Module):
    """A network with one hook, on its layer, its parameter or itself."""

    def __init__(self, register, place="inner"):
        super().__init__()
        self.inner, self.head, self.seen = SMALL(), nn.Linear(6, 3), []
        register(self.get_submodule(place))

    def forward(self, x):
        return self.head(torch.tanh(self.inner(x)))


def doubles_output(module, args, output):
    return output * 2


def halves_input(module, args):
    return (args[0] / 2,)


def doubles_gradient(module, given, of):
    return (None if given[0] is None else given[0] * 2,)


def doubles_later_gradient(module, of):
    return (of[0] * 2,)


def twice(gradient):
    return gradient * 2


add("hook_forward", partial(Hooked, lambda m: m.register_forward_hook(doubles_output)), sample=True)
add("hook_forward_pre", partial(Hooked, lambda m: m.register_forward_pre_hook(halves_input)))
add("hook_forward_root", partial(Hooked, lambda m: m.register_forward_hook(doubles_output), ""))
add("hook_backward", partial(Hooked, lambda m: m.register_full_backward_hook(doubles_gradient), "head"),
    word=refused("'head'", "backward hook"), sample=True)  # fmt: skip
add("hook_backward_pre", partial(Hooked, lambda m: m.register_full_backward_pre_hook(doubles_later_gradient)),
    word=refused("'inner'", "backward hook"))  # fmt: skip
add("hook_backward_root", partial(Hooked, lambda m: m.register_full_backward_pre_hook(doubles_later_gradient), ""),
    word=refused("network", "backward hook"))  # fmt: skip
add("hook_backward_old", partial(Hooked, lambda m: m.register_backward_hook(lambda *_: None)),
    word=refused("'inner'", "backward hook"))  # fmt: skip
add("hook_of_parameter", partial(Hooked, lambda m: m.weight.register_hook(twice)),
    word=refused("'inner.weight'", "hook"))  # fmt: skip
add("hook_after_accumulation",
    partial(Hooked, lambda m: m.weight.register_post_accumulate_grad_hook(lambda p: None)),
    word=refused("'inner.weight'", "hook"))  # fmt: skip


@net(inner=SMALL, word=refused("hook", "a tensor"), sample=True)
def hook_of_tensor(m, x):
    h = m.inner(x)
    if h.requires_grad:
        h.register_hook(twice)
    return m.head(h)


@net(inner=SMALL, word=refused("hook", "a tensor"))
def hook_of_tensor_always(m, x):
    h = m.inner(x)
    if m.training:
        h.register_hook(twice)
    return m.head(h)


@net(inner=SMALL, word=refused("retain_grad()"))
def retains_gradient(m, x):
    h = m.inner(x)
    if m.training:
        h.retain_grad()
    return m.head(h)


def counting_hook(module, args, output):
    module.calls = getattr(module, "calls", 0) + 1
    return output * (1 + module.calls % 2)


def state_hook(module, state, *_):
    for name in state:
        state[name] = state[name] * 1.0


add("hook_of_state_dict", partial(Hooked, lambda m: m._register_state_dict_hook(state_hook)),
    word=refused("'inner.weight'"))  # fmt: skip


# Buffers, counters, attributes


class Buffers(nn.Module):
    """Keeps a mean in a buffer, replaced or changed in place, saved or not."""

    def __init__(self, persistent, replace):
        super().__init__()
        self.head, self.replace = nn.Linear(6, 3), replace
        self.register_buffer("mean", torch.zeros(6), persistent=persistent)

    def forward(self, x):
        if self.training:
            now = x.detach().mean(0) * self.head.weight.detach().mean()
            if self.replace:
                self.mean = 0.9 * self.mean + 0.1 * now
            else:
                self.mean.mul_(0.9).add_(now, alpha=0.1)
        return self.head(x + self.mean)


for persistent in (True, False):
    for replaced in (True, False):
        add(f"buffer_{'saved' if persistent else 'unsaved'}_{'replaced' if replaced else 'in_place'}",
            partial(Buffers, persistent, replaced), sample=persistent and replaced)  # fmt: skip


class GrowingBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        if self.training:
            self.seen = torch.cat([self.seen, x.detach().mean().view(1)])
        return self.head(x + self.seen.mean())


add("buffer_that_grows", GrowingBuffer, word=refused("'seen'", "shape", remedy=False), sample=True)


add("attribute_made_in_forward", partial(Hooked, lambda m: m.register_forward_hook(counting_hook)), sample=True)


class Collects(nn.Module):
    """Keeps an object that it changes: a deque, a set, an array, an object."""

    def __init__(self, kind):
        super().__init__()
        self.head, self.kind = nn.Linear(6, 3), kind
        self.kept = {
            "deque": deque,
            "set": set,
            "array": lambda: np.zeros(1),
            "object": Kept,
            "tensor": partial(torch.zeros, 1),
        }[kind]()

    def forward(self, x):
        if self.kind == "deque":
            self.kept.append(1.0)
        elif self.kind == "set":
            self.kept.add(len(self.kept))
        elif self.kind == "object":
            self.kept.n += 1
        else:
            self.kept += 1
        size = {"object": lambda: self.kept.n, "deque": lambda: len(self.kept), "set": lambda: len(self.kept)}
        return self.head(x) * (1 + 0.1 * float(size.get(self.kind, lambda: self.kept[0])()))


class Kept:
    n = 0


class DrawsByItself(nn.Module):
    """Has a generator of NumPy or Python, which every round and every member starts anew."""

    def __init__(self, make):
        super().__init__()
        self.head, self.rng = nn.Linear(6, 3), make(3)

    def forward(self, x):
        return self.head(x) * (1 + self.rng.random())


add("generator_of_numpy", partial(DrawsByItself, np.random.default_rng))
add("generator_of_python", partial(DrawsByItself, random.Random), sample=True)


for kind in ("deque", "set", "array", "object", "tensor"):
    add(f"collects_{kind}", partial(Collects, kind))


class ReplacesParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        with torch.no_grad():
            self.head.weight = nn.Parameter(self.head.weight.clamp(-0.2, 0.2))
        return self.head(x)


add("replaces_parameter", ReplacesParameter, word=refused("'head.weight'", remedy=False))


class LateBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.register_buffer("late", None)

    def forward(self, x):
        if self.late is None:
            self.late = x.detach().mean(0)
        return self.head(x - self.late)


add("buffer_made_in_forward", LateBuffer, word=refused("'late'", remedy=False))


class Warm(nn.Module):
    """A plain tensor attribute that the network makes in training."""

    def __init__(self):
        super().__init__()
        self.head, self.last = nn.Linear(6, 3), None

    def forward(self, x):
        shift = 0.0 if self.last is None else self.last
        y = self.head(x + shift)
        self.last = y.detach().mean()
        return y


add("tensor_kept_in_attribute", Warm, sample=True)


class InList(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.kept = nn.Linear(6, 3), []

    def forward(self, x):
        y = self.head(x)
        self.kept.append(y.detach().mean())
        return y + sum(self.kept[:-1][-1:])


add("tensors_kept_in_list", InList)


class Counting(nn.Module):
    """Counts its uses in an attribute, in training or always, as a number or a list."""

    def __init__(self, always):
        super().__init__()
        self.head, self.always, self.count = nn.Linear(6, 3), always, 0

    def forward(self, x):
        self.count += self.training or self.always
        return self.head(x) * (1 + self.count % 3)


add("counter_in_training", partial(Counting, False), sample=True)
add("counter_always", partial(Counting, True))


for name, make, word in (
    ("attribute", Warm, refused("'head' (Linear)")),
    ("list", InList, refused("doesn't match")),
    ("counter", partial(Counting, True), "equal"),
):
    # Evaluated one member after the other, because the examples are many.
    add(f"groups_of_members_{name}", make, word, partial(examples, held_out=1200), evaluation_batch=600)


class CountsBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        if self.training:
            self.count += 1
        return self.head(x) / (1 + self.count)


add("counter_in_buffer", CountsBuffer)


class Sometimes(nn.Module):
    def __init__(self):
        super().__init__()
        self.often, self.rarely, self.steps = nn.Linear(6, 3), nn.Linear(6, 3), 0

    def forward(self, x):
        self.steps += self.training
        return self.often(x) + (self.rarely(x) if self.training and self.steps % 3 == 0 else 0)


add("layer_used_now_and_then", Sometimes, optimizer=partial(torch.optim.Adam, lr=0.01))


class ChangesParameter(nn.Module):
    """Normalizes its weights in place before each use."""

    def __init__(self, how):
        super().__init__()
        self.head, self.how = nn.Linear(6, 3), how

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                if self.how == "data":
                    self.head.weight.data.clamp_(-0.2, 0.2)
                elif self.how == "in_place":
                    self.head.weight.clamp_(-0.2, 0.2)
                else:
                    self.head.weight = nn.Parameter(self.head.weight.clamp(-0.2, 0.2))
        return self.head(x)


add("parameter_clamped_in_place", partial(ChangesParameter, "in_place"), sample=True)
add("parameter_clamped_by_data", partial(ChangesParameter, "data"), word=refused("data"))


class Spared(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        self.head.weight.requires_grad_(False)
        return self.head(x)


add("freezes_in_forward", Spared, word=refused("requires_grad_"))


def drawn(place):
    class Drawn(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 3)
            value = {
                "python": random.random, "numpy": lambda: np.random.rand(6),  # noqa: NPY002
                "torch": lambda: torch.randn(6), "item": lambda: float(torch.rand(())),
                "choice": lambda: ("tanh", "relu", "sigmoid", "gelu")[int(torch.randint(4, ()))],
            }[place]()  # fmt: skip
            self.own = value

        def forward(self, x):
            if isinstance(self.own, str):
                return self.head(getattr(torch, self.own, F.gelu)(x))
            return self.head(x * torch.as_tensor(self.own))

    return Drawn()


for place in ("python", "numpy", "torch", "item", "choice"):
    add(f"drawn_in_init_{place}", partial(drawn, place), word=refused("'own'", "depends on the seed"),
        sample=place == "item")  # fmt: skip


class DrawnOrder(nn.Module):
    """Draws a structure: the order of its layers, or their activations."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.act = nn.Tanh() if torch.rand(()) < 0.5 else nn.Sigmoid()
        self.order = torch.randperm(6).tolist()

    def forward(self, x):
        return self.head(self.act(x[:, self.order]))


add("drawn_order", DrawnOrder, word=refused("'order"))


class DrawnLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.act = (nn.Tanh, nn.Sigmoid, nn.ReLU, nn.GELU, nn.ELU, nn.SiLU)[int(torch.randint(6, ()))]()

    def forward(self, x):
        return self.head(self.act(x))


add("drawn_layer", DrawnLayer, word=refused("'act'", "depends on the seed"), sample=True)


class DrawnFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.act = (torch.tanh, torch.sigmoid, torch.relu, F.gelu, F.elu, F.silu)[int(torch.randint(6, ()))]

    def forward(self, x):
        return self.head(self.act(x))


add("drawn_function", DrawnFunction, word=refused("'act'", "depends on the seed"))


class DrawnTied(nn.Module):
    """Freezes one of its layers at random."""

    def __init__(self):
        super().__init__()
        self.layers, self.head = nn.ModuleList([SMALL() for _ in range(5)]), nn.Linear(6, 3)
        self.layers[int(torch.randint(5, ()))].requires_grad_(False)

    def forward(self, x):
        for one in self.layers:
            x = torch.tanh(one(x))
        return self.head(x)


add("drawn_freezing", DrawnTied, word=refused("'layers.", "requires_grad", "depends on the seed"))


class Numbered(nn.Module):
    """Its parameters are scaled by what it drew: these are saved."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        with torch.no_grad():
            self.head.weight.mul_(random.random() + float(np.random.rand()))  # noqa: NPY002

    def forward(self, x):
        return self.head(x)


add("drawn_into_parameters", Numbered)
