"""Tasks of every form from a `Recipe`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F

from pbt.executors.base import scratch
from pbt.executors.worker import Context, Metrics
from pbt.pytorch import Binding, SupervisedTask, argument, attribute, optimizer
from pbt.pytorch import modules as class_form
from pbt.testing.programs import BATCH, KEEP, Net, Recent, build, data, evaluate, make_optimizer, make_scheduler, train
from pbt.testing.recipes import Form, Recipe, Values


@dataclass(frozen=True)
class DrawnProgram:
    """A recipe as a class with `build`, `train` and `evaluate`."""

    recipe: Recipe

    @property
    def bind(self) -> dict[str, Binding]:
        """The bindings of the hyperparameters."""
        return bindings(self.recipe)

    def build(self, hparams: Values, ctx: Context) -> Mapping[str, Any]:  # noqa: ARG002 (torch's generator is seeded)
        """New parts."""
        parts = build(self.recipe, hparams)
        if self.recipe.scratch:
            parts["recent"] = scratch(Recent())
        return parts

    def train(self, parts: Mapping[str, Any], hparams: Values, steps: int, ctx: Context) -> None:
        """The steps of a round."""
        train(self.recipe, parts, hparams["lr"], range(ctx.first_step, ctx.first_step + steps))

    def evaluate(self, parts: Mapping[str, Any], ctx: Context) -> Metrics:  # noqa: ARG002 (nothing is drawn)
        """The score and the settings in effect."""
        return evaluate(self.recipe, parts)


class Apart(DrawnProgram):
    """A program whose evaluation does not change the state."""

    keep_evaluation = False


def bindings(recipe: Recipe) -> dict[str, Binding]:
    """The bindings of a recipe's hyperparameters, for the forms that have bindings."""
    table: dict[str, Binding] = {
        "lr": optimizer("lr"),
        "decay": optimizer("weight_decay"),
        "activation": argument(),
        "kind": argument(),
        "slope": attribute("model.slope"),
    }
    if recipe.groups == "own":
        table["lr"], table["head_lr"] = optimizer("lr", group=0), optimizer("lr", group="vectors")
    return {name: table[name] for name in recipe.births()[0]}


def loop(recipe: Recipe, hparams: Values, state: Any, steps: int, ctx: Context) -> tuple[Any, Metrics]:
    """A recipe as a single function, which saves and loads its state itself."""
    parts = build(recipe, hparams)
    model, of = parts["model"], parts["optimizer"]
    if state is not None:
        for p, trained in zip(model.parameters(), state["trained"], strict=True):
            p.requires_grad_(trained)
        if len(state["parts"]["optimizer"]["param_groups"]) > len(of.param_groups):
            of.add_param_group({"params": list(model.head.parameters())})
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        model.features = state["features"]
        if recipe.buffers == "hidden":
            model.shift.copy_(state["shift"])
        if recipe.average:
            parts["average"].module.features = state["features"]
            if recipe.buffers == "hidden":
                parts["average"].module.shift.copy_(state["shift"])
    settings = {"lr": hparams["lr"]} | ({"weight_decay": hparams["decay"]} if recipe.decay else {})
    ctx.apply(of, **settings, schedulers=parts.get("scheduler", ()))
    if recipe.activation:
        ctx.in_effect(activation=model.activation)
    train(recipe, parts, hparams["lr"], range(ctx.first_step, ctx.first_step + steps))
    metrics = evaluate(recipe, parts)
    saved = {name: part.state_dict() for name, part in parts.items()}
    trained = [p.requires_grad for p in model.parameters()]
    return {
        "parts": saved,
        "trained": trained,
        "features": model.features,
        "shift": model.shift if recipe.buffers == "hidden" else None,
    }, metrics


def supervised(recipe: Recipe) -> SupervisedTask:
    """A recipe as a `SupervisedTask`."""
    more: Values = {}
    if recipe.scheduler != "none":
        more["scheduler"] = partial(make_scheduler, recipe)
    if recipe.average:
        more["ema"] = KEEP
    return SupervisedTask(
        model=partial(Net, recipe),
        data=data,
        optimizer=partial(make_optimizer, recipe),
        bind=bindings(recipe),
        loss=F.mse_loss,
        metrics={},
        score="loss",
        batch_size=BATCH,
        **more,
    )


def task_of(form: Form, recipe: Recipe) -> Any:
    """The task in this form, ready to be opened by a worker."""
    if form == "function":
        return partial(loop, recipe)
    if form == "class":
        program: Any = (Apart if recipe.evaluation == "dropped" else DrawnProgram)(recipe)
        return class_form.ModuleTask(program)
    return supervised(recipe)
