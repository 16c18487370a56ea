"""Cases of operations on tensors, and of shapes and types."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import grad, jacrev, vmap

from tests.pytorch.vectorized.zoo.cases import add, examples, net, refused

WIDE = partial(nn.Linear, 6, 6)


def op(name, function, word="equal", **options):
    """A case of one operation on (n, 6), between two linear layers."""

    def body(m, x):
        y = function(m.first(x))
        return m.head(y.reshape(len(x), -1)[:, :6])

    body.__name__ = f"op_{name}"
    net(word, first=WIDE, head=lambda: nn.Linear(6, 3), **options)(body)


def square(x):
    """(n, 2, 2) of full rank."""
    return x[:, :4].reshape(-1, 2, 2) * 0.3 + 2 * torch.eye(2)


for name, function in {
    "einsum": lambda x: torch.einsum("ni,nj->nij", x, x),
    "matmul_batch": lambda x: (x.view(-1, 2, 3) @ x.view(-1, 3, 2)).flatten(1).repeat(1, 2),
    "bmm": lambda x: torch.bmm(x.view(-1, 2, 3), x.view(-1, 3, 2)).repeat(1, 1, 2),
    "outer": lambda x: torch.outer(x[:, 0], x[:, 1])[:, :1] * x,
    "gather": lambda x: x.gather(1, torch.arange(6).flip(0).expand(len(x), 6)),
    "gather_own": lambda x: x.gather(1, x.argsort(1)),
    "scatter": lambda x: torch.zeros_like(x).scatter(1, x.argsort(1), x),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add_(1, x.argsort(1) // 2, x),
    "scatter_reduce": lambda x: torch.zeros_like(x).scatter_reduce(1, x.argsort(1) // 2, x, "amax", include_self=False),
    "index_add": lambda x: torch.zeros_like(x).index_add_(1, torch.tensor([0, 1, 1, 2, 3, 5]), x),
    "index_select": lambda x: x.index_select(1, torch.tensor([5, 0, 1, 1, 2, 3])),
    "index_put": lambda x: torch.zeros_like(x).index_put((torch.arange(len(x)), torch.arange(len(x)) % 6), x[:, 0]) + x,
    "advanced_index": lambda x: x[:, torch.tensor([0, 0, 1, 2, 5, 5])],
    "advanced_index_own": lambda x: x[torch.arange(len(x))[:, None], x.argsort(1)],
    "sort": lambda x: x.sort(1).values,
    "argsort_stable": lambda x: x * x.argsort(dim=1, stable=True),
    "topk": lambda x: torch.cat([x.topk(3).values, x.topk(3, largest=False).values], 1),
    "kthvalue": lambda x: x - x.kthvalue(2, dim=1).values[:, None],
    "median": lambda x: x - x.median(1).values[:, None],
    "quantile": lambda x: x - x.quantile(0.3, dim=1)[:, None],
    "mode_max": lambda x: x.max(1).values[:, None] - x.min(1).values[:, None] + x,
    "cumsum": lambda x: x.cumsum(1),
    "cumprod": lambda x: x.cumprod(1),
    "cummax": lambda x: x.cummax(1).values,
    "logcumsumexp": lambda x: x.logcumsumexp(1),
    "logsumexp": lambda x: x - x.logsumexp(1, keepdim=True),
    "var_std": lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + x.std(1, keepdim=True)),
    "norms": lambda x: x / x.norm(dim=1, keepdim=True) + torch.linalg.vector_norm(x, 3, dim=1, keepdim=True),
    "prod": lambda x: x + x.prod(1, keepdim=True),
    "where": lambda x: torch.where(x > 0, x, x * 0.1),
    "masked_fill": lambda x: x.masked_fill(x < 0, -0.5),
    "masked_scatter": lambda x: x.masked_scatter(torch.tensor([True, False] * 3), x.flip(0)),
    "clamp": lambda x: x.clamp(-0.5, 0.7),
    "clamp_own": lambda x: x.clamp(max=x.mean(1, keepdim=True)),
    "roll_flip": lambda x: x.roll(2, 1) + x.flip(1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "tile_stack": lambda x: torch.stack([x, x.tile(1, 1)], 1).sum(1),
    "chunk_split": lambda x: torch.cat([x.chunk(2, 1)[1], x.split([1, 2, 3], 1)[2]], 1),
    "unbind": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "tril_triu": lambda x: (torch.tril(x[:, :, None] * x[:, None]) + torch.triu(x[:, :, None] * x[:, None])).sum(2),
    "diag": lambda x: torch.diag_embed(x).sum(1) + torch.diagonal(x[:, :, None] * x[:, None], dim1=1, dim2=2),
    "unfold_method": lambda x: x.unfold(1, 3, 1).sum(2).repeat(1, 2),
    "as_strided_view": lambda x: x.view(-1, 3, 2).transpose(1, 2).reshape(-1, 6),
    "fft": lambda x: torch.cat([torch.fft.rfft(x).real, torch.fft.rfft(x).imag], 1),
    "ifft2": lambda x: torch.fft.ifft2(torch.fft.fft2(x.view(-1, 2, 3)) * 0.5).real.repeat(1, 1, 1),
    "stft_like": lambda x: torch.fft.fft(x, n=8).abs()[:, :6],
    "bucketize": lambda x: x + torch.bucketize(x.detach(), torch.tensor([-1.0, 0.0, 1.0])),
    "searchsorted": lambda x: x + torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]), x.detach().contiguous()),
    "one_hot": lambda x: x + F.one_hot(torch.arange(len(x)) % 6, 6),
    "cdist": lambda x: torch.cdist(x, x + 1)[:, :1] * x,
    "grid_sample": lambda x: F.grid_sample(
        x.view(-1, 1, 2, 3), F.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), [len(x), 1, 2, 3], False),
        align_corners=False).flatten(1),
    "interpolate": lambda x: F.interpolate(x[:, None], size=9, mode="nearest-exact")[:, 0],
    "normalize": lambda x: F.normalize(x, dim=1) + F.layer_norm(x, (6,)),
    "sdpa": lambda x: F.scaled_dot_product_attention(*[x.view(-1, 1, 3, 2)] * 3, is_causal=True).flatten(1),
    "inverse": lambda x: torch.cat([torch.linalg.inv(square(x)).flatten(1), x[:, :2]], 1),
    "solve": lambda x: torch.cat([torch.linalg.solve(square(x), x[:, :2]), x[:, :4]], 1),
    "cholesky": lambda x: torch.cat([torch.linalg.cholesky(square(x) @ square(x).mT).flatten(1), x[:, :2]], 1),
    "det": lambda x: x * torch.linalg.det(square(x))[:, None] + torch.linalg.slogdet(square(x)).logabsdet[:, None],
    "svd": lambda x: torch.cat([torch.linalg.svdvals(square(x) + torch.tensor([[1.0, 0.3], [0, 0]])), x[:, :4]], 1),
    "qr": lambda x: torch.cat([torch.linalg.qr(square(x)).R.flatten(1), x[:, :2]], 1),
    "eigh": lambda x: torch.cat([torch.linalg.eigvalsh(square(x) + square(x).mT), x[:, :4]], 1),
    "matrix_exp": lambda x: torch.cat([torch.linalg.matrix_exp(square(x) * 0.2).flatten(1), x[:, :2]], 1),
    "matrix_norm": lambda x: x * torch.linalg.matrix_norm(square(x))[:, None],
    "pinv": lambda x: torch.cat([torch.linalg.pinv(square(x)).flatten(1), x[:, :2]], 1),
    "lstsq": lambda x: torch.cat([torch.linalg.lstsq(square(x), x[:, :2, None]).solution[..., 0], x[:, :4]], 1),
    "triangular": lambda x: torch.cat(
        [torch.linalg.solve_triangular(square(x).tril(), x[:, :2, None], upper=False)[..., 0], x[:, :4]], 1),
    "kron": lambda x: torch.kron(x[:, :2], torch.ones(1, 3)),
    "cross": lambda x: torch.linalg.cross(x[:, :3], x[:, 3:]).repeat(1, 2),
    "special": lambda x: torch.special.expit(x) + torch.special.erf(x) + torch.lgamma(x.abs() + 1),
    "remainder_floor": lambda x: x.remainder(0.5) + x.floor() * 0 + x.frac(),
    "lerp_addcmul": lambda x: torch.lerp(x, x.flip(1), 0.3).addcmul(x, x, value=0.1).addcdiv(x, x.abs() + 1),
    "view_as_complex": lambda x: torch.view_as_real(torch.view_as_complex(x.view(-1, 3, 2)) * 1j).flatten(1),
    "in_place_on_copy": lambda x: x.clone().mul_(2).add_(1),
    "in_place_slice": lambda x: _set(x.clone()),
    "detach_part": lambda x: x * x.detach().abs().mean(),
    "no_grad_part": lambda x: x + _without(x),
    "new_zeros_slices": lambda x: _filled(x),  # noqa: PLW0108 (defined below)
    "vmap_inside": vmap(lambda row: row * row.sum()),
    "grad_inside": vmap(grad(lambda row: row.pow(3).sum())),
    "jacobian_inside": lambda x: vmap(jacrev(lambda row: row[:2] ** 2))(x).flatten(1)[:, [0, 1, 6, 7, 7, 7]],
    "autograd_grad": lambda x: x,
    "empty_part": lambda x: torch.cat([x[:, :0], x], 1) + x[:, :0].sum(1, keepdim=True),
    "zero_rows": lambda x: x + x[:0].sum(0),
    "complex_product": lambda x: (torch.complex(x, x.flip(1)) * torch.complex(x, -x)).real,
    "polar": lambda x: torch.polar(x.abs() + 1, x).imag,
    "bfloat16_part": lambda x: x,
    "integer_part": lambda x: x + (x.detach() * 3).long().remainder(3),
}.items():  # fmt: skip
    if name not in {"autograd_grad", "bfloat16_part"}:
        op(name, function, sample=name in {"scatter_add", "cumsum", "solve", "fft"})


def _set(x):
    x[:, 2:4] = x[:, :2]
    x[x.shape[0] // 2 :, 0] = 0.5
    return x


def _without(x):
    with torch.no_grad():
        return x * 0.5


def _filled(x):
    y = x.new_zeros(len(x), 8)
    y[:, 1:7] = x
    return y


def _masked(x):
    y = x.clone()
    y[y < 0] = 0.0
    return y


ITEM = refused("values in a tensor")
op("nonzero", lambda x: x + x.nonzero().shape[0], refused("aten::nonzero"))
op("unique", lambda x: x + (x * 2).round().unique().numel(), refused("aten::_unique2"))
op("boolean_index", lambda x: x + x[x > 0].sum(), refused("mask"))
op("masked_select", lambda x: x + x.masked_select(x > 0).sum(), refused("masked_select"))
op("item", lambda x: x * x.sum().item(), ITEM, sample=True)
op("tolist", lambda x: x * sum(x.sum(1).tolist()), ITEM)
op("float_of", lambda x: x * float(x.mean()), ITEM)
op("numpy_of", lambda x: x * float(x.detach().numpy().mean()), ITEM)
op("branch", lambda x: x if x.sum() > 0 else -x, ITEM)
op("all_of", lambda x: x if bool((x > -99).all()) else -x, ITEM)
op("allclose", lambda x: x if torch.allclose(x, x) else -x, ITEM)
op("equal_of", lambda x: x if torch.equal(x, x) else -x, ITEM)
op("histc", lambda x: x + torch.histc(x.detach(), 6))
op("bincount", lambda x: x + torch.bincount(x.detach().argmax(1), minlength=6))
op("sparse", lambda x: torch.sparse.mm(x.detach().to_sparse(), torch.ones(6, 6)) + x, refused("Sparse"))
op("nested", lambda x: torch.nested.nested_tensor(list(x.unbind())).to_padded_tensor(0.0), refused("ested"))
op(
    "jagged",
    lambda x: (
        torch.nested.to_padded_tensor(torch.nested.as_nested_tensor([x[:1], x[1:]], layout=torch.jagged), 0.0).sum(
            (0, 1)
        )
        + x
    ),
    refused("ested"),
)
op(
    "packed",
    lambda x: nn.utils.rnn.pad_packed_sequence(
        nn.utils.rnn.pack_padded_sequence(x.view(-1, 3, 2), torch.full((len(x),), 3), batch_first=True),
        batch_first=True,
    )[0].flatten(1),
)
op("data_attribute", lambda x: x + x.data.mean(), refused("`data`"))
op("storage", lambda x: x + (x.data_ptr() == 0), ITEM)
op("set_item_mask", _masked, refused("boolean mask"))
op("lists", lambda x: torch.stack([row * i for i, row in enumerate(x)]))
op("device_and_shape", lambda x: x.to(x.device) * x.shape[0] + torch.ones(x.size(), device=x.device) * x.dim())


@net(head=lambda: nn.Linear(6, 3))
def dictionary_inputs(m, x):
    return m.head({"x": x}["x"])


def first_of(outputs, targets):
    y = outputs["y"] if isinstance(outputs, dict) else outputs[0]
    return F.cross_entropy(y, targets)


@net(loss=first_of)
def returns_tuple(m, x):
    return m.head(x), x.mean()


@net(loss=first_of, sample=True)
def returns_dictionary(m, x):
    return {"y": m.head(x), "other": [m.head.weight.sum(), x]}


def named_loss(outputs, targets):
    return F.cross_entropy(outputs.y, targets)


@net(loss=first_of)
def returns_nested(m, x):
    return (m.head(x), {"deep": (x, [x + 1])})


@net(loss=first_of, word=refused("by any executor", "NoneType", remedy=False))
def returns_none_inside(m, x):
    return m.head(x), None


@net(data=partial(examples, second=(3,)))
def two_inputs(m, x, shift):
    return m.head(x) + shift


@net(data=partial(examples, (0,)), head=lambda: nn.Linear(1, 3))
def zero_size_inputs(m, x):
    return m.head(x.sum(1, keepdim=True)) + m.head.bias


add(
    "zero_size_layer",
    lambda: nn.Sequential(nn.Linear(6, 0), nn.Linear(0, 3)),
    hparams=({"lr": 0.05}, {"lr": 0.1}, {"lr": 0.02}),
)
add(
    "last_batch_of_one",
    lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)),
    data=partial(examples, count=21),
    sample=True,
)
add("batch_of_one", lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)), batch_size=1)
add("one_validation_example", lambda: nn.Linear(6, 3), data=partial(examples, held_out=1))
add("drop_last", lambda: nn.Linear(6, 3), drop_last=True)
for kind in (torch.float32, torch.float16, torch.bfloat16):
    add(f"parameters_{str(kind)[6:]}", partial(nn.Linear, 6, 3, dtype=kind), data=partial(examples, kind=kind),
        dtype=kind if kind is torch.float32 else torch.float32,
        tolerance={torch.float32: 2e-4, torch.float16: 3e-3, torch.bfloat16: 3e-2}[kind],
        moves=kind is torch.float32)  # fmt: skip
add(
    "net_float32",
    lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
    dtype=torch.float32,
)


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 5, dtype=torch.float32), nn.Linear(5, 3)

    def forward(self, x):
        return self.second(self.first(x.float()).double())


add("two_types", Mixed, tolerance=2e-4)
