"""Descriptions of small training programs; `pbt.testing.programs` builds them.

`recipes(form)` is the Hypothesis strategy that draws them, `drawn(form, ...)` a fixed list of draws.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from pbt.testing.schedulers import BASE, SCHEDULERS, kind_of

Form = Literal["function", "class", "supervised", "vectorized"]
FORMS: tuple[Form, ...] = ("function", "class", "supervised", "vectorized")
Values = dict[str, Any]

STEPS, ROUNDS = 2, 4
TOTAL = STEPS * ROUNDS
"""Steps of a round, rounds, and steps in all."""
DECAY = 0.01
"""The weight decay with which optimizers are built if it is a hyperparameter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The parts of a small program."""

    scheduler: str = "none"
    """An entry of `SCHEDULERS`, or `none`."""
    optimizer: str = "sgd"
    """An entry of `programs.OPTIMIZERS`."""
    groups: str = "one"
    """Parameter groups: `one`; `rates` (each its own rate); `no_decay` (biases without decay); `own` (two named
    groups, each bound to a hyperparameter of its own)."""
    buffers: str = "none"
    """`persistent` (counts batches), `hidden` (a draw of `build` and a cache, outside of state_dict), `batch_norm`."""
    average: bool = False
    """An exponential moving average of the weights, used in evaluation."""
    counter: str = "none"
    """A part that counts, in a `number` or in a `Counter`."""
    features: bool = False
    """A random matrix drawn by `build`, outside of every state_dict."""
    unfreeze: str = "never"
    """How the head is unfrozen during training: `flag`, `group`, `default_group` (without a rate of its own)."""
    at: int = 0
    """The step at which the head is unfrozen."""
    scratch: bool = False
    """A part without state_dict, declared as scratch."""
    evaluation: str = "pure"
    """The effect of evaluation: none (`pure`), a count in the state (`kept`), or one outside of it (`dropped`)."""
    decay: bool = False
    activation: bool = False
    kind: bool = False
    slope: bool = False
    """Whether weight decay, activation, kind of optimizer and slope are hyperparameters, besides the learning rate."""

    @property
    def saved(self) -> "Recipe":
        """The same program without draws of `build` that are outside of every state_dict."""
        buffers = "persistent" if self.buffers == "hidden" else self.buffers
        return replace(self, features=False, buffers=buffers)

    def births(self) -> dict[int, Values]:
        """The hyperparameters of the three members."""
        values: Values = {"lr": (BASE, 0.05, 0.13)}
        if self.groups == "own":
            values["head_lr"] = (0.02, 0.04, 0.01)
        if self.decay:
            values["decay"] = (DECAY, 0.1, 0.002)
        if self.activation:
            values["activation"] = ("tanh", "sigmoid", "softplus")
        if self.kind:
            values["kind"] = ("momentum", "adamw", "momentum")
        if self.slope:
            values["slope"] = (0.1, 0.3, 0.05)
        return {member: {name: of[member] for name, of in values.items()} for member in range(3)}

    def changed(self, values: Values) -> Values:
        """Other values of every hyperparameter."""
        moved: Values = {name: value * 1.5 for name, value in values.items() if isinstance(value, float)}
        if self.activation:
            moved["activation"] = "sigmoid"
        if self.kind:
            moved["kind"] = "adamw"
        return {**values, **moved}


@st.composite
def recipes(draw: Any, form: Form, scheduler: str | None = None) -> Recipe:
    """A recipe that this form can express, with the given scheduler if any."""
    alone = form in ("supervised", "vectorized")

    def one_of(*options: str) -> Any:
        return draw(st.sampled_from(options))

    def maybe() -> Any:
        return draw(st.booleans())

    scheduler = scheduler or one_of("none", *SCHEDULERS)
    counter = "none" if alone else one_of("none", "number", "Counter")
    evaluation = "pure" if form != "class" or counter == "none" else one_of("pure", "kept", "dropped")
    unfreeze = "never" if alone else one_of("never", "flag", "group", "default_group")
    # After `add_param_group`, schedulers of torch that index groups by number fail.
    if scheduler != "none" and unfreeze.endswith("group"):
        unfreeze = "flag"
    one = unfreeze.endswith("group")
    # OneCycleLR and CyclicLR overwrite the groups' rates and remember which setting they cycle; the cosine schedulers
    # have one bound for all groups.
    cycles = kind_of(scheduler) in ("OneCycleLR", "CyclicLR")
    apart = not cycles and kind_of(scheduler) not in ("CosineAnnealingLR", "CosineAnnealingWarmRestarts")
    several = [] if one else ["rates", "no_decay"] + (["own"] if form != "function" and apart else [])
    return Recipe(
        scheduler=scheduler,
        optimizer=one_of("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "counting"),
        groups=one_of("one", *several),
        buffers=one_of("none", "persistent", "hidden", "batch_norm"),
        average=maybe(),
        counter=counter,
        features=maybe(),
        unfreeze=unfreeze,
        at=draw(st.integers(0, TOTAL - 1)),
        scratch=form == "class" and maybe(),
        evaluation=evaluation,
        decay=maybe(),
        activation=not alone and maybe(),
        kind=form == "class" and not cycles and maybe(),
        slope=form != "function" and maybe(),
    )


def drawn(form: Form, each: int = 1, start: int = 0) -> list[Recipe]:
    """A fixed list of recipes for every scheduler.

    Args:
        form: The form of task.
        each: Number of recipes per scheduler; ten times as many without a scheduler.
        start: The seed of the draws.
    """
    names = ["none"] * 10 * each + [name for name in SCHEDULERS for _ in range(each)]
    examples = (_example(recipes(form, name), 1000 * start + number) for number, name in enumerate(names))
    return list(dict.fromkeys(examples))


def _example(strategy: st.SearchStrategy[Recipe], number: int) -> Recipe:
    """The example of a strategy for this number, the same at every call."""
    found: list[Recipe] = []

    @seed(number)
    @settings(
        max_examples=8, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def collect(recipe: Recipe) -> None:
        found.append(recipe)

    collect()
    # The first examples of Hypothesis are the simplest.
    return found[-1]
