"""A generative adversarial network with two learning rates, one for each player.

Shows: a task with several networks and optimizers, each with its own hyperparameter (`part=`), and a score other than
the training losses. GAN losses only compare the players; the score is the distance between samples and data.

    pbt run examples/gan.py:experiment
"""

import math

import torch
from torch import nn
from torch.nn.functional import softplus

import pbt
from pbt.pytorch import optimizer

NOISE = 4


def data(n, draws):
    """Points on a ring of eight small clouds."""
    angle = 2 * math.pi / 8 * torch.randint(8, (n,), generator=draws)
    return torch.stack([angle.cos(), angle.sin()], dim=1) + 0.05 * torch.randn(n, 2, generator=draws)


def energy_distance(a, b):
    """Energy distance of two samples; zero for equal distributions (Szekely and Rizzo 2013)."""
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def network(inputs, outputs):
    return nn.Sequential(
        nn.Linear(inputs, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, outputs)
    )


class Gan:
    bind = {
        "lr_generator": optimizer("lr", part="generator_adam"),
        "lr_critic": optimizer("lr", part="critic_adam"),
    }

    def build(self, hparams, ctx):
        generator, critic = network(NOISE, 2), network(2, 1)
        return {
            "generator": generator,
            "critic": critic,
            "generator_adam": torch.optim.Adam(generator.parameters(), betas=(0.5, 0.9)),
            "critic_adam": torch.optim.Adam(critic.parameters(), betas=(0.5, 0.9)),
        }

    def train(self, parts, hparams, steps, ctx):
        generator, critic = parts["generator"], parts["critic"]
        for step in range(ctx.first_step, ctx.first_step + steps):
            draws = torch.Generator().manual_seed(ctx.key("step", ctx.member, step))
            real, made = data(64, draws), generator(torch.randn(64, NOISE, generator=draws))

            parts["critic_adam"].zero_grad()
            (softplus(-critic(real)) + softplus(critic(made.detach()))).mean().backward()
            parts["critic_adam"].step()

            parts["generator_adam"].zero_grad()
            softplus(-critic(made)).mean().backward()
            parts["generator_adam"].step()

    @torch.no_grad()
    def evaluate(self, parts, ctx):
        """Score with the same noise and real points for all members, so that they are comparable."""
        draws = torch.Generator().manual_seed(ctx.key("evaluate"))
        return -energy_distance(parts["generator"](torch.randn(1000, NOISE, generator=draws)), data(1000, draws))


experiment = pbt.Experiment(
    task=Gan(),
    space={
        "lr_generator": pbt.Float(1e-5, 1e-1, "log", prior=(1e-4, 1e-2)),
        "lr_critic": pbt.Float(1e-5, 1e-1, "log", prior=(1e-4, 1e-2)),
    },
    # The factors that the paper that introduced PBT uses for GANs.
    plan=pbt.Plan(exploit=pbt.truncation(0.25), explore=pbt.perturb((0.5, 2.0)), interval=50),
    population=8,
    rounds=15,
)

if __name__ == "__main__":
    run = experiment.run()
    print(f"energy distance {-run.best.score:.4f}")
    print(*run.best_schedule.segments, sep="\n")
