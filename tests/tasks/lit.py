"""A small Lightning program: what a user has, with a spy that records the rates that the optimizer really has."""

from functools import partial

import lightning.pytorch as L
import torch
from torch.utils.data import DataLoader, TensorDataset

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(50, 4, generator=GENERATOR)
Y = X.sum(1, keepdim=True)
SEEN = []
"""(member, step, learning rate, weight decay, sum of the batch) at every step of this process."""


class Spy(L.Callback):
    """Reads the live optimizer just before it steps."""

    def __init__(self, member):
        self.member = member

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        group = optimizer.param_groups[0]
        SEEN.append((self.member, trainer.global_step, group["lr"], group["weight_decay"], pl_module.batch))


class Net(L.LightningModule):
    """Dropout, a buffer that counts hooks, and one of three kinds of schedulers."""

    def __init__(self, schedule="step", factor=1.0):
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        )
        self.register_buffer("hooks", torch.zeros(2))
        self.factor, self.batch = factor, 0.0

    def training_step(self, batch, index):
        self.batch = float(batch[0].sum())
        loss = self.factor * (self.layers(batch[0]) - batch[1]).square().mean()
        self.log("train_loss", loss)
        return loss

    def on_train_batch_end(self, outputs, batch, index):
        self.hooks[0] += 1

    def on_train_epoch_end(self):
        self.hooks[1] += 1

    def validation_step(self, batch, index):
        self.log("val_loss", (self.layers(batch[0]) - batch[1]).square().mean())

    def configure_optimizers(self):
        adamw = torch.optim.AdamW(self.parameters(), lr=0.01)
        if self.hparams["schedule"] == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(adamw, patience=0, threshold=0.5)
            return {"optimizer": adamw, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}
        steps = torch.optim.lr_scheduler.StepLR(adamw, 3, 0.5)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": steps, "interval": self.hparams["schedule"]}}


def loaders():
    """Seven batches an epoch, in a new order each, and all examples for validation."""
    return DataLoader(TensorDataset(X, Y), 8, shuffle=True), DataLoader(TensorDataset(X, Y), 50)


def build(hparams, ctx, schedule="step", **settings):
    """The user's own trainer, module and data."""
    trainer = L.Trainer(max_epochs=50, accelerator="cpu", callbacks=[Spy(ctx.member)], **settings)
    return trainer, Net(schedule), *loaders()


def in_order(hparams, ctx, rate=0.01, decay=0.01, steps=50, **settings):
    """No dropout, and the batches in the order of the data."""
    trainer, module, _, validation = build(hparams, ctx, max_steps=steps, **settings)
    module.layers[1].p = 0.0
    module.configure_optimizers = partial(_optimizer, module, rate, decay)
    return trainer, module, DataLoader(TensorDataset(X, Y), 8), validation


class Data(L.LightningDataModule):
    """The same data as a data module."""

    def train_dataloader(self):
        return loaders()[0]

    def val_dataloader(self):
        return loaders()[1]


def with_data_module(hparams, ctx):
    trainer, module, *_ = build(hparams, ctx)
    return trainer, module, Data()


def failing(hparams, ctx):
    """Raises in training for some values."""
    trainer, module, *data = build(hparams, ctx)
    if 0.2 < hparams["lr"] < 0.4:
        module.training_step = partial(_raise, hparams["lr"])
    if hparams["lr"] > 0.9:
        module.factor = float("nan")
    return trainer, module, *data


def _raise(rate, *_):
    raise ValueError(f"rate {rate} breaks the user's step")


def reading(hparams, ctx):
    """Takes the rate and the decay from hparams by itself."""
    trainer, module, *data = build(hparams, ctx)
    module.configure_optimizers = partial(_optimizer, module, hparams["lr"], hparams["decay"])
    return trainer, module, *data


def _optimizer(module, rate, decay):
    return torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=decay)


def stopping(hparams, ctx):
    """Has a callback that stops too early."""
    trainer, *others = build(hparams, ctx)
    trainer.callbacks.append(Stop())
    return trainer, *others


class Stop(L.Callback):
    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == 2


def wrong(hparams, ctx):
    return Net()


def without_decay(hparams, ctx):
    """Every parameter group has a decay of 0, while the optimizer's default is another."""
    trainer, module, *data = build(hparams, ctx)
    module.configure_optimizers = lambda: torch.optim.AdamW([{"params": [*module.parameters()], "weight_decay": 0.0}])
    return trainer, module, *data
