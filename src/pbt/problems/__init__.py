"""Problems to compare algorithms on, by name: from toys whose answer is known to small networks and an agent.

`load("digits")` gives the `pbt.Experiment` of a problem; another plan, population or seed is put in with
`dataclasses.replace`. Each reports what selection never sees as `test` (`mnist-fc`, which every executor can train, as
`test_accuracy`, `text` as `test_loss`); the toys, whose score is exact, report nothing. `docs/benchmarks-problems.md`
says what each is for.
Nothing is imported, and no data set read, before a problem is asked for.
"""

import importlib
from collections.abc import Mapping

from pbt.errors import UsageError, nearest
from pbt.runs.experiment import Experiment

PROBLEMS: Mapping[str, str] = {
    "fig2": "pbt.problems.toys:fig2",
    "nqm": "pbt.problems.toys:nqm",
    "toy-plain": "pbt.problems.toys:toy_plain",
    "toy-deceptive": "pbt.problems.toys:toy_deceptive",
    "digits": "pbt.problems.digits:digits",
    "digits-centred": "pbt.problems.digits:digits_centred",
    "mnist-fc": "pbt.problems.mnist_fc:mnist_fc",
    "cartpole": "pbt.problems.cartpole:cartpole",
    "vae": "pbt.problems.vae:vae",
    "text": "pbt.problems.text:text",
    "text-cosine": "pbt.problems.text:text_cosine",
}
"""Name to "module:function"; the function takes nothing and returns a `pbt.Experiment`."""


def load(name: str) -> Experiment:
    """The experiment of a problem.

    Args:
        name: One of `PROBLEMS`.

    Raises:
        UsageError: There is no such problem.
        MissingExtraError: It needs packages that are not installed.
    """
    if name not in PROBLEMS:
        raise UsageError(f"expected the name of a problem, got {name!r}{nearest(name, PROBLEMS)}")
    module, _, function = PROBLEMS[name].partition(":")
    experiment: Experiment = getattr(importlib.import_module(module), function)()
    return experiment


__all__ = ["PROBLEMS", "load"]
