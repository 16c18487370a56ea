"""Evaluation of the members of a program over a split, some of them at a time."""

import torch
from torch import Tensor

from pbt.pytorch.evaluation import Metric, Outputs, SplitMetrics, Targets, Weights, batches, joined, spared
from pbt.pytorch.sources import ExampleSource, Inputs
from pbt.pytorch.supervised import SupervisedTask
from pbt.pytorch.vectorized.attributes import Values
from pbt.pytorch.vectorized.program import Program

EVALUATED_TOGETHER = 64
"""Examples per member of one evaluation step, if their total exceeds the task's `evaluation_batch`."""


def evaluate(
    task: SupervisedTask, program: Program, measured: SplitMetrics, split: ExampleSource, device: str
) -> dict[str, Tensor]:
    """Each metric over the split, for each member; the loss does not use the settings bound to hyperparameters.

    The batches are the same for every executor, because a network may mix the examples of a batch. Some members are
    evaluated at a time to limit memory.
    """
    size = min(task.evaluation_batch, len(split))
    together = program.tuning.evaluated_together or EVALUATED_TOGETHER * program.members
    some = max(1, max(task.evaluation_batch, together) // size)
    measured = measured.renewed()
    values = torch.zeros((len(measured.names), program.members), dtype=torch.float64, device=device)
    rows = dict(zip(measured.names, values, strict=True))
    kept: dict[int, list[Outputs]] = {first: [] for first in range(0, program.members, some)}
    weights, read = Weights(measured, split), Targets(split, needed=bool(measured.whole))

    def measure(name: str, metric: Metric, outputs: Outputs, targets: Tensor, first: int, weight: float) -> None:
        # A copy: a metric may change its targets in place.
        own = spared(metric, outputs)
        measures = program.measure(metric, own, targets.clone(), shared=True, first=first)
        rows[name][first : first + some] += measures.detach().double() * weight

    # Each group of members continues with the network's attributes as its previous batch left them.
    plain = {first: program.plain.now() for first in kept if len(kept) > 1}
    for inputs, targets in batches(split, size, task.prepare):
        weights.begin(targets)
        read.add(targets)
        for first, outs in kept.items():
            outputs = _outputs(program, inputs, range(first, first + some), plain)
            for name, metric in measured.means.items():
                if weight := weights.of(name):
                    measure(name, metric, outputs, targets, first, weight)
            if measured.whole:
                outs.append(outputs)
    for first, outs in kept.items():
        for name, metric in measured.whole.items():
            measure(name, metric, joined(outs, [size, len(split)], dim=1), read.all, first, 1.0)
    for name in measured.counting:
        rows[name] *= weights.scale(name)
    return dict(zip(measured.names, values.cpu(), strict=True))


def _outputs(program: Program, inputs: Inputs, members: range, plain: dict[int, Values]) -> Outputs:
    """The outputs of a group of members, whose attributes of the network are in `plain`; empty: one group."""
    if plain:
        program.plain.set(plain[members.start])
    outputs = program.outputs(inputs, members.start, members.stop)
    if plain:
        plain[members.start] = program.plain.now()
    return outputs
