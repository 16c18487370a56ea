"""One torch optimizer per member, on views of its row; and clipping of each member's own gradient."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from pbt.pytorch.vectorized.optimizers import Separate, clip
from pbt.pytorch.vectorized.stacked_tensors import Rows

LIKE = {"w": torch.zeros(2, 3), "b": torch.zeros(2)}


def make_rows(members=3):
    rows = Rows(LIKE, members, "cpu")
    generator = torch.Generator().manual_seed(1)
    for view in rows.views.values():
        view.copy_(torch.randn(view.shape, generator=generator))
    return rows


def gradients(seed, members=3, dtype=None):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(members, *tensor.shape, generator=generator, dtype=dtype) for tensor in LIKE.values()]


def plain(values, make, seeds, member):
    """The parameters of one member after these steps, by torch alone."""
    params = [value.clone().requires_grad_() for value in values]
    optimizer = make(params)
    for seed in seeds:
        for p, g in zip(params, gradients(seed), strict=True):
            p.grad = g[member]
        optimizer.step()
    return [p.detach() for p in params], optimizer.state_dict()["state"]


def backwards(params):
    return torch.optim.Adam(list(params)[::-1], fused=True)


def partly(params):
    return torch.optim.Adam(list(params)[:1], fused=True)


ADAMS = [
    partial(torch.optim.Adam, fused=True),
    partial(torch.optim.Adam, fused=True, maximize=True, weight_decay=0.1, betas=(0.8, 0.99), eps=1e-3),
    partial(torch.optim.AdamW, fused=True, weight_decay=0.1),
    partial(torch.optim.Adam, fused=True, amsgrad=True),
    backwards,
    partly,
]


@pytest.mark.parametrize("make", [torch.optim.NAdam, torch.optim.Adagrad, *ADAMS])
def test_any_optimizer(make) -> None:
    """Each member's row is stepped as torch steps it alone, to the bit."""
    rows = make_rows()
    before = [[x.clone() for x in rows.row(i).values()] for i in range(3)]
    separate = Separate(make, rows, [True, True])
    for seed in range(4):
        separate.step(gradients(seed))
    for i in range(3):
        values, memory = plain(before[i], make, range(4), i)
        assert all(torch.equal(a, b) for a, b in zip(rows.row(i).values(), values, strict=True))
        found = separate.dump(i)
        assert found.keys() == memory.keys()
        for place, kept in memory.items():
            assert all(torch.equal(found[place][name], value) for name, value in kept.items())


def test_hooks_are_called() -> None:
    """What a user hangs on an optimizer's step happens at every step."""
    called = []

    def make(params):
        optimizer = torch.optim.Adam(params, fused=True)
        optimizer.register_step_post_hook(lambda *_: called.append(1))
        return optimizer

    separate = Separate(make, make_rows(), [True, True])
    for seed in range(3):
        separate.step(gradients(seed))
    assert len(called) == 9


def test_new_settings_and_missing_gradients() -> None:
    """Settings that change between steps, and a step without some gradient, are as torch does them."""
    rows = make_rows(1)
    params = [x.clone().requires_grad_() for x in rows.row(0).values()]
    alone = torch.optim.Adam(params, lr=0.1, fused=True)
    separate = Separate(partial(torch.optim.Adam, lr=0.1, fused=True), rows, [True, True])
    for seed, lr in enumerate((0.1, 0.1, 0.5, 0.5, 0.5)):
        given = [g if seed != 3 or place else None for place, g in enumerate(gradients(seed, 1))]
        separate.configure([[{"lr": lr}]])
        separate.step(given)
        alone.param_groups[0]["lr"] = lr
        for p, g in zip(params, given, strict=True):
            p.grad = None if g is None else g[0]
        alone.step()
    assert all(torch.equal(a, b) for a, b in zip(rows.row(0).values(), params, strict=True))


def test_settings() -> None:
    """Each member has settings of its own, in groups that the task makes by what its parameters are."""

    def make(params):
        params = list(params)
        flat = [p for p in params if p.dim() == 1]
        deep = [p for p in params if p.dim() > 1 and p.requires_grad]
        return torch.optim.SGD([{"params": deep}, {"params": flat, "lr": 0.0}], lr=1.0)

    rows = make_rows()
    before = {name: view.clone() for name, view in rows.views.items()}
    separate = Separate(make, rows, [True, True])
    separate.configure([[{"lr": rate}, {}] for rate in (0.0, 0.5, 2.0)])
    (of_w, of_b) = gradients(0)
    separate.step([of_w, of_b])
    rates = torch.tensor([0.0, 0.5, 2.0])
    torch.testing.assert_close(rows.views["w"], before["w"] - rates[:, None, None] * of_w)
    assert torch.equal(rows.views["b"], before["b"])


def test_no_gradient() -> None:
    """What has no gradient is left alone and not remembered; an optimizer may ask what has one."""
    rows = make_rows()
    before = rows.views["w"].clone()
    separate = Separate(torch.optim.Adam, rows, [False, True])
    separate.step([None, gradients(0)[1]])
    assert torch.equal(rows.views["w"], before)
    assert list(separate.dump(0)) == [1]
    asking = Separate(lambda params: torch.optim.Adam(p for p in params if p.requires_grad), rows, [False, True])
    asking.step([None, gradients(0)[1]])
    assert list(asking.dump(0)) == [0]


def test_gather() -> None:
    """Each remembers what its source did, however the sources lie, and two copies do not share their memory."""
    for sources in ([1, 2, 0], [0, 0, 0], [1, 1, 2]):
        separate = Separate(torch.optim.Adam, make_rows(), [True, True])
        for i in range(3):
            separate.load(i, {p: {"step": torch.tensor(float(i)), "exp_avg": torch.full(x.shape, i), "exp_avg_sq": x}
                              for p, x in enumerate(LIKE.values())})  # fmt: skip
        separate.gather(sources)
        assert [separate.dump(i)[1]["step"].item() for i in range(3)] == sources
        assert [separate.dump(i)[1]["exp_avg"].mean().item() for i in range(3)] == sources
        separate.dump(0)[0]["exp_avg"].fill_(9.0)
        separate.dump(0)[0]["step"].fill_(9.0)
        assert [separate.dump(i)[0]["step"].item() for i in (1, 2)] == sources[1:]
        assert [separate.dump(i)[0]["exp_avg"].mean().item() for i in (1, 2)] == sources[1:]


def test_load_copies() -> None:
    """What was handed in is not stepped, nor is the memory of all members kept for one view of it."""
    separate = Separate(torch.optim.Adam, make_rows(), [True, True])
    stack = torch.zeros(3, 6)
    memory = {p: {"step": torch.tensor(1.0), "exp_avg": stack[1, : x.numel()].view(x.shape), "exp_avg_sq": x.clone()}
              for p, x in enumerate(LIKE.values())}  # fmt: skip
    kept = copy.deepcopy(memory)
    separate.load(1, memory)
    separate.step(gradients(0))
    assert all(torch.equal(memory[p][name], kept[p][name]) for p in memory for name in memory[p])
    assert separate.dump(1)[0]["exp_avg"].untyped_storage().nbytes() == 6 * 4
    separate.load(1, {})
    assert separate.dump(1) == {}


# Clipping


def limits(norms):
    return torch.tensor([math.inf if norm is None else norm for norm in norms], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128])
def test_clip(dtype) -> None:
    """Each member's gradient is scaled as torch scales it alone; members without a norm are left alone."""
    norms = [0.1, 100.0, None, 3.3]
    grads = gradients(4, members=4, dtype=dtype)
    expected = []
    for i, norm in enumerate(norms):
        params = [nn.Parameter(torch.zeros_like(g[i])) for g in grads]
        for p, g in zip(params, grads, strict=True):
            p.grad = g[i].clone()
        if norm is not None:
            nn.utils.clip_grad_norm_(params, norm)
        expected.append([p.grad for p in params])
    clipped = [g.clone() for g in grads]
    clip([clipped[0], None, clipped[1]], limits(norms))
    tolerance = 1e-6 if dtype == torch.float32 else 1e-15
    for i, own in enumerate(expected):
        for g, e in zip(clipped, own, strict=True):
            torch.testing.assert_close(g[i], e, rtol=tolerance, atol=0)
    assert torch.equal(clipped[0][2], grads[0][2])


def test_clip_of_broken_gradients() -> None:
    """One member's infinity or NaN scales nobody else's gradient."""
    grads = [g.double() for g in gradients(4)]
    alone = [g.clone() for g in grads]
    clip(alone, limits([0.5] * 3))
    grads[0][1, 0, 0] = math.inf
    grads[1][2, 1] = math.nan
    clip(grads, limits([0.5] * 3))
    for g, a in zip(grads, alone, strict=True):
        assert torch.equal(g[0], a[0])
    assert grads[0][1, 0, 0].isnan()
    assert grads[0][2].isnan().all()


def test_nothing_to_clip() -> None:
    """Without gradients, or without norms, nothing happens."""
    clip([None, None], limits([1.0, 1.0]))
    grads = gradients(0)
    kept = [g.clone() for g in grads]
    clip(grads, limits([None] * 3))
    assert all(torch.equal(a, b) for a, b in zip(grads, kept, strict=True))
