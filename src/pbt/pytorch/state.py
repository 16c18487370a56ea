"""A live network's state as nested plain containers, and back."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from pbt.errors import TaskError


def capture(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The `state_dict` of every part that has one; tensors are shared with the parts, not copied."""
    return {name: part.state_dict() for name, part in parts.items() if hasattr(part, "state_dict")}


def restore(parts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Load what `capture` returned.

    Raises:
        TaskError: The state does not fit the parts.
    """
    stateful = {name for name, part in parts.items() if hasattr(part, "load_state_dict")}
    if stateful != set(state):
        raise TaskError(f"expected a state of {sorted(stateful)}, got one of {sorted(state)}")
    for name in sorted(stateful):
        try:
            parts[name].load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise TaskError(
                f"the state of '{name}' does not fit what was built ({error}); a hyperparameter must not change shapes"
            ) from error


def seed_global(seed: int, device: str) -> None:
    """Seed torch's global generators of the CPU and of this device.

    Unlike `torch.manual_seed`, which on a machine without CUDA remembers every call with its traceback.
    """
    torch.default_generator.manual_seed(seed)
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """This many CPU threads inside, as many as before outside."""
    before = torch.get_num_threads()
    if before != count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if before != count:
            torch.set_num_threads(before)
