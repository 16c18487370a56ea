"""What went wrong, as outcomes: with one member, or with the program that all share."""

import re

from pbt.executors.base import Failure, RoundTask
from pbt.executors.worker import blame

CHECKPOINTED = "what torch.utils.checkpoint or another saved-tensor hook computes again on the way back is one member's"
"""Why a network with such a hook cannot stand for all members."""


def broken(error: BaseException) -> str:
    """What a user is told whose task cannot be one program."""
    text = " ".join(str(error).split())
    operation = re.search(r"not implemented for (aten::[\w.]+)", text)
    if operation is not None:
        text = f"torch.func.vmap has no rule for the operation '{operation[1]}'"
    elif "data-dependent control flow" in text or ".item()" in text:
        text = "it decides by the values in a tensor, which members do not share"
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
    """What went wrong with one member, as a worker would tell it.

    Raises:
        KeyboardInterrupt: An interrupt lies behind it, which is no member's failure.
    """
    return blame(task, error)
