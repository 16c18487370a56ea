"""Built-in problems for comparing algorithms, by name: toys with known solutions, small networks and an agent.

`load("digits")` returns the `pbt.Experiment` of a problem; `dataclasses.replace` changes its plan, population or seed.
Each problem reports a test metric that selection never uses: `test`, for `mnist-fc` `test_accuracy`, for `text`
`test_loss`. The toys, whose score is exact, report none. docs/benchmarks-problems.md describes each problem. Modules
and data sets are loaded only when a problem is requested.
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
"""Name to "module:function"; the function takes no arguments and returns a `pbt.Experiment`."""


def load(name: str) -> Experiment:
    """Load the experiment of a problem.

    Args:
        name: One of `PROBLEMS`.

    Raises:
        UsageError: The problem does not exist.
        MissingExtraError: A required package is not installed.
    """
    if name not in PROBLEMS:
        raise UsageError(f"expected the name of a problem, got {name!r}{nearest(name, PROBLEMS)}")
    module, _, function = PROBLEMS[name].partition(":")
    experiment: Experiment = getattr(importlib.import_module(module), function)()
    return experiment


__all__ = ["PROBLEMS", "load"]
