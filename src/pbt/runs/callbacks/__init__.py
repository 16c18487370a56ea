"""Code of one's own at the turns of a run: what happened, as plain records, told to whoever derives from `Callback`."""

from pbt.runs.callbacks.base import HOOKS, Callback
from pbt.runs.callbacks.dispatcher import Callbacks
from pbt.runs.callbacks.records import (
    CallbackRecord,
    Copied,
    MemberFailure,
    MemberReport,
    RoundEnd,
    RunEnd,
    RunStart,
    past,
)

__all__ = [
    "HOOKS",
    "Callback",
    "CallbackRecord",
    "Callbacks",
    "Copied",
    "MemberFailure",
    "MemberReport",
    "RoundEnd",
    "RunEnd",
    "RunStart",
    "past",
]
