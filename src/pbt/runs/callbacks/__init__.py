"""Callbacks: user code at the events of a run, which it receives as plain records."""

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
