"""The network of a stored state, as its task builds it."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from pbt.errors import TaskError
from pbt.executors.base import State
from pbt.pytorch.bind import AttributeBinding, Binding, DropoutBinding
from pbt.pytorch.frozen import whole
from pbt.pytorch.live import Live
from pbt.pytorch.noise import DROPOUT
from pbt.pytorch.state import EXTRAS, restore_extras
from pbt.space import HParams


def network_of(model: nn.Module, state: State, hparams: HParams, bind: Mapping[str, Binding]) -> nn.Module:
    """Load a state into a new network.

    Args:
        model: The network of a `SupervisedTask`, as its `model` returns it; dropout draws from torch's generator.
        state: The state; with an average, its weights are taken.
        hparams: The hyperparameters of the state, of which those of the network are set.
        bind: Their bindings.

    Returns:
        The same network, in evaluation mode.
    """
    weights = {**whole(state["model"]), **whole(state.get("ema", {}))}
    model.load_state_dict(weights)
    trainable = state.get(EXTRAS, {}).get("trainable", {})
    restore_extras({"model": model}, {"trainable": {"model": trainable.get("model", {})}})
    live = Live(parts={"model": model})
    for name, value in hparams.items():
        binding = bind[name]
        if isinstance(binding, AttributeBinding) and binding.path.startswith("model."):
            binding.apply(live, value)
        if isinstance(binding, DropoutBinding):
            for layer in model.modules():
                if isinstance(layer, DROPOUT):
                    layer.p = binding.probability(value)
    return model.eval()


def only_network(parts: Mapping[str, Any]) -> nn.Module:
    """The network among the parts of a task: the one named `model`, or the only one.

    Raises:
        TaskError: There is none, or there are several.
    """
    networks = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    if "model" in networks or len(networks) == 1:
        return networks.get("model") or next(iter(networks.values()))
    raise TaskError(
        f"run.model(): expected a part named 'model', or a single network among the parts, got {sorted(parts)}; "
        "run.load_state() returns the state of every part"
    )
