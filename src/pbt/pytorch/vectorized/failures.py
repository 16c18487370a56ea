"""Failures of one member as outcomes, and error messages of the whole program."""

import re

from pbt.executors.base import Failure, RoundTask
from pbt.executors.devices import need_of, out_of_memory
from pbt.executors.worker import LESS_MEMORY, blame

CHECKPOINTED = "torch.utils.checkpoint or another saved-tensor hook recomputes one member's part in the backward pass"
"""The reason to refuse a network with such a hook."""


def broken(error: BaseException) -> str:
    """The error message for a task that cannot be one program."""
    if out_of_memory(error):
        return f"one member does not fit into the memory of the device ({need_of(error)}); {LESS_MEMORY}"
    text = " ".join(str(error).split())
    operation = re.search(r"not implemented for (aten::[\w.]+)", text)
    if operation is not None:
        text = f"torch.func.vmap has no rule for the operation '{operation[1]}'"
    elif "data-dependent control flow" in text or ".item()" in text:
        text = "it decides by the values in a tensor, which differ between members"
    elif CHECKPOINTED in text:
        text = CHECKPOINTED
    elif "must override the setup_context" in text:
        text = (
            "an autograd.Function, of the task or of torch.utils.checkpoint with use_reentrant=True, has no rule for "
            "several members"
        )
    else:
        text = f"{type(error).__name__}: {text}"
    return (
        f"the task cannot be trained as one program: {text}; "
        "use the executor 'processes', which trains members one by one"
    )


def blamed(task: RoundTask, error: BaseException) -> Failure:
    """The failure of one member, as reported by a worker.

    Raises:
        KeyboardInterrupt: The error was caused by an interrupt.
    """
    return blame(task, error)
