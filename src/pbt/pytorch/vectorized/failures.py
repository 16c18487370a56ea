"""Failures of members as outcomes, and error messages of the whole program."""

import re
import traceback
from types import TracebackType
from typing import Any

from torch import nn

from pbt.executors.base import Failure, RoundTask
from pbt.executors.devices import need_of, out_of_memory
from pbt.executors.source_lines import users_line
from pbt.executors.worker import LESS_MEMORY, blame, error_text, failure

REMEDY = "use the executor 'processes'"
"""The remedy for tasks that members alone can be trained with."""
CHECKPOINTED = "torch.utils.checkpoint or another saved-tensor hook recomputes one member's part in the backward pass"
"""The reason to refuse a network with such a hook."""
_READS = ("data-dependent control flow", ".item()", "torch.allclose", "'aten::equal", "that doesn't have storage")
"""Texts of errors of functions that read the values of a tensor."""


def broken(error: BaseException) -> str:
    """The error message for a task that cannot be one program."""
    if out_of_memory(error):
        return f"one member does not fit into the memory of the device ({need_of(error)}); {LESS_MEMORY}"
    text = " ".join(str(error).split())
    operation = re.search(r"not implemented for (aten::[\w.]+)", text)
    if CHECKPOINTED in text:
        text = CHECKPOINTED
    elif any(part in text for part in _READS) or (operation is not None and operation[1] == "aten::equal."):
        text = "it decides by the values in a tensor, which differ between members, or reads them"
    elif operation is not None:
        text = f"torch.func.vmap has no rule for the operation '{operation[1].rstrip('.')}'"
    elif "must override the setup_context" in text or "it does not have vmap support" in text:
        text = (
            f"the autograd.Function '{_function(error)}', of the task or of torch.utils.checkpoint with "
            "use_reentrant=True, has no rule for several members"
        )
    else:
        text = f"{type(error).__name__}: {text}"
    return (
        f"the task cannot be trained as one program: {text}{_layer(error)}; {REMEDY}, which trains members one by one"
    )


def _frames(error: BaseException) -> list[dict[str, Any]]:
    """The local variables of the traceback's functions, the innermost last."""
    trace: TracebackType | None = error.__traceback__
    return [frame.f_locals for frame, _ in traceback.walk_tb(trace)]


def _function(error: BaseException) -> str:
    """The name of the `autograd.Function` that was called last."""
    names = [vars_["cls"].__name__ for vars_ in _frames(error) if isinstance(vars_.get("cls"), type)]
    return names[-1] if names else "?"


def _layer(error: BaseException) -> str:
    """The innermost layer of the network in which an error was raised, for a message; empty: in none."""
    modules = [vars_["self"] for vars_ in _frames(error) if isinstance(vars_.get("self"), nn.Module)]
    if not modules:
        return ""
    paths = (path for path, module in modules[0].named_modules() if module is modules[-1] and path)
    path = next(paths, "")
    return f", in the layer '{path}' ({type(modules[-1]).__name__})" if path else ""


def blamed(task: RoundTask, error: BaseException) -> Failure:
    """The failure of one member, as reported by a worker.

    Raises:
        KeyboardInterrupt: The error was caused by an interrupt.
    """
    return blame(task, error)


def ended(task: RoundTask, error: BaseException, cause: str, message: str) -> Failure:
    """The failure of a member whose task ends the run."""
    return failure(task, cause, message, error_text(error)[1], users_line(error.__traceback__))
