"""The toys of `pbt.testing.problems` as experiments: their answers are known, and a run takes less than a second.

Good for: seeing whether an algorithm does what it says, over many seeds. References stand with the tasks.
"""

from pbt.runs.experiment import Experiment
from pbt.testing.problems import FIG2, NQM, TOY_DECEPTIVE, TOY_PLAIN, ToyDeceptive, ToyPlain


def fig2() -> Experiment:
    """The two-worker example of the paper that introduced PBT: what a copy takes, and what a tie does."""
    return Experiment(**FIG2)


def nqm() -> Experiment:
    """The noisy quadratic model: whether schedules are found."""
    return Experiment(**NQM)


def toy_plain() -> Experiment:
    """The problem on which being greedy is right; with its curve, for algorithms that compare curves."""
    return Experiment(**TOY_PLAIN | {"task": ToyPlain(curve=True)})


def toy_deceptive() -> Experiment:
    """The problem on which being greedy is wrong; with its curve, for algorithms that compare curves."""
    return Experiment(**TOY_DECEPTIVE | {"task": ToyDeceptive(curve=True)})
