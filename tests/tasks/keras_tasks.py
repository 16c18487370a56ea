"""Keras models, for workers to import; on the torch backend."""

import functools
import os
from typing import ClassVar

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

from pbt.pytorch import attribute, optimizer
from pbt.tasks.keras import KerasTask

RNG = np.random.default_rng(0)
X = RNG.normal(size=(240, 4)).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype("int64")


def data():
    return (X[:160], Y[:160]), (X[160:200], Y[160:200]), (X[200:], Y[200:])


def build(hparams, ctx, made=None, compiled=True):
    net = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.1, name="drop"),
            keras.layers.Dense(2),
        ]
    )
    if compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        net.compile(optimizer=made or keras.optimizers.Adam(0.01), loss=loss, metrics=["accuracy"])
    return net


def scheduled(hparams, ctx):
    return build(hparams, ctx, keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)))


def uncompiled(hparams, ctx):
    return build(hparams, ctx, compiled=False)


def unbuilt(hparams, ctx):
    net = keras.Sequential([keras.layers.Dense(2)])
    net.compile(optimizer="adam", loss="mse")
    return net


def failing(hparams, ctx):
    if 0.02 < hparams["lr"] < 0.04:
        raise ArithmeticError("no such rate")
    return build(hparams, ctx)


class Halve(keras.callbacks.Callback):
    """Halves the rate after every epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2


class Watch(keras.callbacks.Callback):
    """Records the live values before every batch."""

    seen: ClassVar[list] = []

    def on_train_batch_begin(self, batch, logs=None):
        drop = next(layer for layer in self.model.layers if layer.name == "drop")
        self.seen.append((float(self.model.optimizer.learning_rate), drop.rate))


def halving():
    return [Halve()]


def watching():
    return [Watch()]


BIND = {"lr": optimizer("learning_rate"), "p": attribute("drop.rate"), "beta": optimizer("beta_1")}
task = functools.partial(KerasTask, build=build, data=data, bind=BIND, score="accuracy", fit={"batch_size": 40})
