"""The toys of `pbt.testing.problems` as experiments, with known solutions and runs of less than a second.

They test algorithms over many seeds. The tasks give the references.
"""

from pbt.runs.experiment import Experiment
from pbt.testing.problems import FIG2, NQM, TOY_DECEPTIVE, TOY_PLAIN, ToyDeceptive, ToyPlain


def fig2() -> Experiment:
    """The two-worker example of the paper that introduced PBT: content of a copy, and ties."""
    return Experiment(**FIG2)


def nqm() -> Experiment:
    """The noisy quadratic model: discovery of schedules."""
    return Experiment(**NQM)


def toy_plain() -> Experiment:
    """A problem on which greedy selection is correct; reports its curve, for algorithms that compare curves."""
    return Experiment(**TOY_PLAIN | {"task": ToyPlain(curve=True)})


def toy_deceptive() -> Experiment:
    """A problem on which greedy selection is wrong; reports its curve, for algorithms that compare curves."""
    return Experiment(**TOY_DECEPTIVE | {"task": ToyDeceptive(curve=True)})
