"""A character model on the documentation of the Python language, which benefits from a learning-rate schedule.

Tests whether evolution finds a schedule that beats every constant rate of the same search. The text is
`pydoc_data.topics`, a part of Python, so nothing is downloaded. It differs between versions of Python, so that losses
cannot be compared between versions; each run records the digest of its text.

Reference: Bengio et al. 2003 (a neural model of the next symbol after a fixed context).
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from pbt.core.exploit import never, truncation
from pbt.core.explore import keep, perturb
from pbt.core.strategy import Plan
from pbt.domains import Float
from pbt.errors import DataError
from pbt.pytorch import Data, Split, SupervisedTask, optimizer
from pbt.runs.experiment import Experiment
from pbt.runs.placement import Placement

CONTEXT, HIDDEN, BATCH, MOMENTUM = 5, 64, 32, 0.9
STEPS, ROUNDS, MEMBERS = 150, 20, 10
SYMBOLS = "\n" + "".join(map(chr, range(32, 127)))
"""Known characters; all others are mapped to one further symbol."""
KINDS = len(SYMBOLS) + 1
HELD_OUT = 5_000
"""Largest number of predicted characters in validation and test each, evenly spaced."""


@cache
def paragraphs() -> tuple[str, ...]:
    """Distinct paragraphs of all topics, in the order of the topics' names.

    Raises:
        DataError: This Python lacks its documentation.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "expected the module pydoc_data.topics of the standard library, the training text; this Python lacks it, "
            "use one with the complete standard library"
        ) from error
    found = (part.strip("\n") for name in sorted(topics) for part in topics[name].split("\n\n"))
    return tuple(dict.fromkeys(part for part in found if part))


def digest() -> str:
    """The first 12 hexadecimal digits of the SHA-256 of the text."""
    return hashlib.sha256("\n\n".join(paragraphs()).encode()).hexdigest()[:12]


def splits() -> tuple[list[str], list[str], list[str]]:
    """Of every ten paragraphs, the ninth is for validation and the tenth for testing, for any seed."""
    parts = paragraphs()
    return [part for i, part in enumerate(parts) if i % 10 < 8], list(parts[8::10]), list(parts[9::10])


def examples(parts: Sequence[str], most: int | None = None) -> Split:
    """Each character of these paragraphs with the five before it, as codes; at most `most`, evenly spaced."""
    codes = {symbol: code for code, symbol in enumerate(SYMBOLS)}
    text = "".join("\n\n" + part for part in parts)
    line = torch.tensor([codes.get(symbol, KINDS - 1) for symbol in text], dtype=torch.uint8)
    windows = line.unfold(0, CONTEXT + 1, 1)
    if most is not None and len(windows) > most:
        windows = windows[torch.arange(most) * len(windows) // most]
    return Split(windows[:, :CONTEXT].clone(), windows[:, CONTEXT].long())


@cache
def text_data() -> Data:
    """Contexts (n, 5) and following characters (n,)."""
    train, validation, test = splits()
    return Data(train=examples(train), validation=examples(validation, HELD_OUT), test=examples(test, HELD_OUT))


def one_hot(codes: Tensor) -> Tensor:
    """Encode contexts (n, 5) as inputs (n, 5 * 97)."""
    return F.one_hot(codes.long(), KINDS).flatten(1).float()


def character_model() -> nn.Module:
    """A network with one hidden layer, from a context to logits of the next character."""
    return nn.Sequential(nn.Linear(CONTEXT * KINDS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, KINDS))


def text() -> Experiment:
    """SGD with momentum and learning rates from 0.0001 to 1; the score is the validation loss in nats."""
    return _experiment(Plan(exploit=truncation(0.2), explore=perturb((0.8, 1.25)), interval=STEPS))


def text_cosine() -> Experiment:
    """The same search without evolution: each member's rate is the peak of a cosine decay to zero in 3,000 steps."""
    decay = partial(CosineAnnealingLR, T_max=STEPS * ROUNDS)
    return _experiment(Plan(exploit=never(), explore=keep(), interval=STEPS), decay)


def _experiment(plan: Plan, scheduler: Callable[[Optimizer], CosineAnnealingLR] | None = None) -> Experiment:
    text_data()  # reports a missing text before the first round
    return Experiment(
        task=SupervisedTask(
            model=character_model,
            data=text_data,
            optimizer=partial(torch.optim.SGD, lr=0.1, momentum=MOMENTUM),
            bind={"lr": optimizer("lr")},
            metrics={},
            means=("loss",),
            score="loss",
            batch_size=BATCH,
            evaluation_batch=HELD_OUT,
            prepare=one_hot,
            scheduler=scheduler,
        ),
        space={"lr": Float(1e-4, 1.0, "log")},
        plan=plan,
        population=MEMBERS,
        rounds=ROUNDS,
        objective="minimize",
        # Takes half the time of one member after another.
        placement=Placement(executor="vectorized", workers=1, threads=1),
        note=f"pydoc_data.topics, SHA-256 {digest()}",
    )
