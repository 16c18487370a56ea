"""The autoencoder's score is the evidence lower bound, whatever a member trains with."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

import pbt
from pbt.problems import load
from pbt.problems.vae import CODE, PIXELS, Autoencoder, Vae, tensors

ALONE = pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=100)


def test_both_terms_are_those_of_the_bound():
    """Minus the log-likelihood of the image under its code, and the divergence of the code from the prior."""
    torch.manual_seed(0)
    model, x, noise = Autoencoder(), torch.rand(7, PIXELS).round(), torch.randn(7, CODE)
    error, divergence = model(x, noise)
    mean, log_variance = model.encoder(x).chunk(2, dim=1)
    code = Normal(mean, (0.5 * log_variance).exp())
    wanted = kl_divergence(code, Normal(torch.zeros(7, CODE), torch.ones(7, CODE))).sum(dim=1)
    pixels = Bernoulli(logits=model.decoder(mean + code.stddev * noise))
    assert torch.allclose(divergence, wanted, atol=1e-5)
    assert torch.allclose(error, -pixels.log_prob(x).sum(dim=1), atol=1e-4)


def test_the_score_has_weight_one():
    """The score is minus the two reported terms, with any beta; the test is measured on other images."""
    parts = Vae().build({}, context := pbt.Context(seed=0, member=0, round=1, first_step=0))
    metrics = Vae().evaluate(parts, context)
    assert metrics["score"] == pytest.approx(-(metrics["reconstruction"] + metrics["divergence"]))
    assert metrics["score"] == Vae().evaluate(parts, replace(context, member=5, round=9, first_step=800))["score"]
    assert metrics["score"] != metrics["test"]
    assert [len(x) for x in tensors(context.key("order"), "cpu")] == [1000, 397, 400]


def test_beta_acts():
    """After 200 steps a large weight has a smaller divergence and a larger error than a small one."""
    measured = []
    for beta in (0.1, 3.0):
        start = ({"lr": 3e-3, "beta": beta},)
        alone = replace(load("vae"), plan=ALONE, population=1, rounds=2, initial=start)
        run = replace(alone, placement=pbt.Placement(threads=1)).run()
        measured.append(run.best.reported)
    assert measured[0]["divergence"] > measured[1]["divergence"] + 1
    assert measured[0]["reconstruction"] < measured[1]["reconstruction"] - 1
