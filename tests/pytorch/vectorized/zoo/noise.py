"""Cases of draws in `forward`: keyed by member and step, or documented noise."""

import random
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.pytorch.vectorized.zoo.cases import NOISE, Net, add, examples, refused, task_of

INPLACE = refused("inplace randomness")


def draws(name, body, word=NOISE, *, data=examples, sample=False, **layers):
    """A network whose draws are multiplied by `scale`; 0 in the silent task."""
    made = {"head": partial(nn.Linear, 6, 3), **layers}
    loud, still = ({**made, "scale": scale} for scale in (0.5, 0.0))
    add(f"draw_{name}", partial(Net, body, loud), word, data, silent=task_of(partial(Net, body, still), data),
        sample=sample)  # fmt: skip


def training(function):
    """Draws in training only."""
    return lambda m, x: m.head(x + m.scale * function(m, x) if m.training else x)


draws("randn_like", training(lambda m, x: torch.randn_like(x)), sample=True)
draws("rand_like", training(lambda m, x: torch.rand_like(x)))
draws("randn", training(lambda m, x: torch.randn(x.shape)))
draws("rand_shape", training(lambda m, x: torch.rand(6)))
draws("randint", training(lambda m, x: torch.randint(3, x.shape)))
draws("randint_like", training(lambda m, x: torch.randint_like(x, 3)))
draws("normal", training(lambda m, x: torch.normal(x.detach(), 0.1)))
draws("bernoulli", training(lambda m, x: torch.bernoulli(x.detach().sigmoid())))
draws("bernoulli_in_place", training(lambda m, x: torch.empty_like(x).bernoulli_(0.3)), INPLACE)
draws("normal_in_place", training(lambda m, x: torch.empty(6).normal_()), INPLACE)
draws("uniform_in_place", training(lambda m, x: x.new_empty(x.shape).uniform_()), INPLACE)
draws("exponential", training(lambda m, x: torch.zeros_like(x).exponential_()), INPLACE)
draws("multinomial", training(lambda m, x: torch.multinomial(x.detach().softmax(1), 6, replacement=True)))
draws("randperm", training(lambda m, x: torch.randperm(6)))
draws("poisson", training(lambda m, x: torch.poisson(x.detach().abs())))
draws("of_weights", lambda m, x: F.linear(x, m.head.weight + m.scale * torch.randn_like(m.head.weight) * m.training))
draws("evaluation", lambda m, x: m.head(x + m.scale * torch.randn_like(x)), sample=True)
draws("python", training(lambda m, x: random.random()))
draws("numpy", training(lambda m, x: float(np.random.rand())))  # noqa: NPY002
draws("numpy_array", training(lambda m, x: torch.as_tensor(np.random.rand(6))), sample=True)  # noqa: NPY002
draws("dropout_function", lambda m, x: m.head(F.dropout(x, m.scale, m.training)), sample=True)
draws("dropout_channels", lambda m, x: m.head(F.dropout1d(x.view(-1, 2, 3), m.scale, m.training).flatten(1)))
draws("alpha_dropout_function", lambda m, x: m.head(F.alpha_dropout(x, m.scale, m.training)))
draws("feature_alpha_dropout_function", lambda m, x: m.head(
    F.feature_alpha_dropout(x.view(-1, 2, 3), m.scale, m.training).flatten(1)))  # fmt: skip
draws("rrelu_function", lambda m, x: m.head(F.rrelu(m.inner(x), 0.2 - 0.2 * m.scale, 0.2, m.training)),
      word=refused("rrelu"), inner=partial(nn.Linear, 6, 6))  # fmt: skip
draws("gumbel", lambda m, x: m.head(m.inner(x) + m.scale * m.training * F.gumbel_softmax(m.inner(x), dim=1)),
      inner=partial(nn.Linear, 6, 6))  # fmt: skip
draws("reparameterized", lambda m, x: m.head(
    torch.distributions.Normal(m.inner(x), 1e-3).rsample() if m.training and m.scale else m.inner(x)), INPLACE,
    inner=partial(nn.Linear, 6, 6))  # fmt: skip
draws("fractional_pool", lambda m, x: m.head(
    F.fractional_max_pool2d(x, 2, 4) if m.training and m.scale else x[..., :4, :4]).mean((1, 2)),
    data=partial(examples, (2, 6, 6)), head=partial(nn.Linear, 4, 3))  # fmt: skip
draws("stochastic_depth", lambda m, x: m.head(
    x + m.scale * m.training * m.inner(x) * torch.bernoulli(torch.full((len(x), 1), 0.7))),
    inner=partial(nn.Linear, 6, 6))  # fmt: skip
draws("attention_dropout", lambda m, x: m.head(F.scaled_dot_product_attention(
    *[x.view(-1, 1, 3, 2)] * 3, dropout_p=m.scale * m.training).flatten(1)), INPLACE)  # fmt: skip
draws(
    "own_generator",
    training(lambda m, x: torch.randn(6, generator=torch.Generator().manual_seed(3))),
    refused("its own generator"),
    sample=True,
)
draws("in_no_grad", training(lambda m, x: _without(x)))


def _without(x):
    with torch.no_grad():
        return torch.randn_like(x)


class Dropped(nn.Module):
    """A layer that draws in training, with a probability of 0 for the silent task."""

    def __init__(self, make, p, shape):
        super().__init__()
        self.gain, self.layer = nn.Parameter(torch.ones(1)), make(p)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        y = self.layer(x * self.gain)
        return self.head(y.flatten(1)[:, :6])


def drawing_layer(name, make, shape=(6,), word=NOISE, p=0.3):
    data = partial(examples, shape)
    add(f"draw_layer_{name}", partial(Dropped, make, p, shape), word, data,
        silent=task_of(partial(Dropped, make, 0.0, shape), data))  # fmt: skip


drawing_layer("alpha_dropout", nn.AlphaDropout)
drawing_layer("feature_alpha_dropout", nn.FeatureAlphaDropout, (2, 3))
drawing_layer("rrelu", lambda p: nn.RReLU(0.2 - p / 2, 0.2), word=refused("'layer' (RReLU)"))


class Attended(nn.Module):
    """Dropout inside `nn.MultiheadAttention`."""

    def __init__(self, p, weights):
        super().__init__()
        self.attend, self.head = nn.MultiheadAttention(4, 2, p, batch_first=True), nn.Linear(4, 3)
        self.weights = weights

    def forward(self, x):
        return self.head(self.attend(x, x, x, need_weights=self.weights)[0].mean(1))


for weights in (True, False):
    data = partial(examples, (5, 4))
    add(f"draw_layer_attention_{'with' if weights else 'without'}_weights", partial(Attended, 0.2, weights), NOISE,
        data, silent=task_of(partial(Attended, 0.0, weights), data))  # fmt: skip


class Encoded(nn.Module):
    """A whole encoder with dropout."""

    def __init__(self, p):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, p, batch_first=True), 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


add("draw_layer_encoder", partial(Encoded, 0.2), NOISE, partial(examples, (5, 4)),
    silent=task_of(partial(Encoded, 0.0), partial(examples, (5, 4))))  # fmt: skip
