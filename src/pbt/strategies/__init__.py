"""Further algorithms, one module each; docs/choosing.md compares them.

`MultipleFrequencies`, `IPBT`, `Backtracking`, `Fire`, `PB2`, `PB2Mix`, `BGPBT` and `PairwiseLearning` replace a `Plan`;
`guarded`, `trimmed_deviation`, `since_copy`, `augmentation_step` and `pareto` are rules for one.
"""

from pbt.strategies.augmentation import augmentation_step
from pbt.strategies.backtracking import Backtracking
from pbt.strategies.base import Rounds
from pbt.strategies.bg_pbt import BGPBT
from pbt.strategies.fire import Fire
from pbt.strategies.gpbt_pl import PairwiseLearning
from pbt.strategies.guarded import guarded, since_copy, trimmed_deviation
from pbt.strategies.ipbt import IPBT
from pbt.strategies.mf_pbt import MultipleFrequencies
from pbt.strategies.multi_objective import pareto
from pbt.strategies.pb2 import PB2
from pbt.strategies.pb2_mix import PB2Mix

__all__ = [
    "BGPBT",
    "IPBT",
    "PB2",
    "Backtracking",
    "Fire",
    "MultipleFrequencies",
    "PB2Mix",
    "PairwiseLearning",
    "Rounds",
    "augmentation_step",
    "guarded",
    "pareto",
    "since_copy",
    "trimmed_deviation",
]
