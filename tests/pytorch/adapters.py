"""Networks of which only a part is trained, as tasks for worker processes."""

from functools import partial

import torch
from torch import nn

from pbt.pytorch import Data, Split, SupervisedTask, optimizer


class LoRA(nn.Module):
    """A linear layer that is not trained, and a trained product of low rank beside it."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + (x @ self.down.T) @ self.up.T


def drawn(width=128, deep=3):
    """The layers of a base, from the generator of the member."""
    return [nn.Linear(8, width), *(nn.Linear(width, width) for _ in range(deep)), nn.Linear(width, 4)]


def base(width=128, deep=3):
    """The same base for every member."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return drawn(width, deep)


def adapted(layers=base, **settings):
    modules = [module for layer in layers(**settings) for module in (LoRA(layer), nn.Tanh())]
    return nn.Sequential(*modules[:-1])


def headed(layers=base):
    """Only the last layer is trained; without a layer of its own class."""
    first, *rest = layers()
    frozen = nn.Sequential(first, nn.ReLU(), *(module for layer in rest[:-1] for module in (layer, nn.ReLU())))
    return nn.Sequential(frozen.requires_grad_(False), nn.Dropout(0.1), rest[-1])


class Image(nn.Module):
    """Convolutions and normalization that are not trained, with running statistics that change all the same."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.first, self.norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
            self.second = nn.Conv2d(16, 64, 3)
        for layer in (self.first, self.norm, self.second):
            layer.requires_grad_(False)
        self.head = nn.Linear(64, 4)

    def forward(self, x):
        x = self.second(torch.relu(self.norm(self.first(x.view(-1, 1, 4, 2).repeat(1, 1, 1, 2)))))
        return self.head(x.mean(dim=(2, 3)))


class Teacher(nn.Module):
    """A frozen copy that follows the trained layer, in place."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = nn.Linear(8, 1024), nn.Linear(8, 1024)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.head = nn.Linear(1024, 4)

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.teacher.weight.lerp_(self.student.weight, 0.1)
        return self.head(torch.tanh(self.student(x)) + self.teacher(x).detach())


class Memory(nn.Module):
    """A large buffer that the network replaces, and one that it only reads."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.register_buffer("seen", torch.zeros(2048, 8))
        self.register_buffer("project", torch.randn(8, 1024, generator=generator))
        self.register_buffer("mask", torch.ones(1024, 8), persistent=False)
        self.head = nn.Linear(1024, 4)

    def forward(self, x):
        if self.training:
            self.seen = torch.cat([x.detach(), self.seen])[:2048]
        return self.head(torch.tanh(x @ self.project) * self.mask[:, 0]) + self.seen.mean()


class Tied(nn.Module):
    """One frozen table, at both ends."""

    def __init__(self):
        super().__init__()
        self.enter = base(width=128)[1].requires_grad_(False)
        self.leave = nn.Linear(128, 128, bias=False)
        self.leave.weight = self.enter.weight
        self.before, self.after = nn.Linear(8, 128), nn.Linear(128, 4)

    def forward(self, x):
        return self.after(self.leave(torch.tanh(self.enter(self.before(x)))))


class Bert(nn.Module):
    """A tiny transformer with adapters of `peft`, over numbers as tokens."""

    def __init__(self):
        super().__init__()
        from peft import LoraConfig, get_peft_model
        from transformers import BertConfig, BertForSequenceClassification

        sizes = {"vocab_size": 16, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = BertConfig(
            **sizes, intermediate_size=128, max_position_embeddings=16, num_labels=4, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = BertForSequenceClassification(config)
        lora = LoraConfig(r=2, target_modules=["query", "value"], lora_dropout=0.0, modules_to_save=["classifier"])
        self.network = get_peft_model(network, lora)

    def forward(self, x):
        return self.network(input_ids=((x + 4) * 2).clamp(0, 15).long()).logits


def data():
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(120, 8, generator=generator)
    y = (x[:, :4] + 0.3 * torch.randn(120, 4, generator=generator)).argmax(dim=1)
    return Data(train=Split(x[:80], y[:80]), validation=Split(x[80:], y[80:]))


def trained_alone(params):
    return torch.optim.AdamW([p for p in params if p.requires_grad], lr=1e-3)


def task(model=adapted, optimizer_of=trained_alone, **fields):
    return SupervisedTask(
        model=model, data=data, optimizer=optimizer_of, bind={"lr": optimizer("lr")}, batch_size=16, score="loss",
        metrics={}, **fields,
    )  # fmt: skip


TASK = task()
ALL_GIVEN = partial(torch.optim.AdamW, lr=1e-3)
"""An optimizer that is also given the parameters that are not trained."""
