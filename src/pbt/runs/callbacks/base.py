"""The hooks."""

from typing import Any

from pbt.errors import UsageError, nearest
from pbt.runs.callbacks.records import Copied, MemberFailure, MemberReport, RoundEnd, RunEnd, RunStart


class Callback:
    """Is told what happens in a run; every hook may be left as it is.

    Hooks are called one after the other in the process that drives the run, when what they tell is durable. What they
    are given is theirs: changing it changes nothing in the run. What a hook raises is reported, once for each hook, as
    a warning and in the run's journal; the run goes on and so do the callback's hooks. `KeyboardInterrupt` and
    `SystemExit` end the run as anywhere.

    Raises:
        UsageError: A subclass has a method `on_...` that is no hook, so that nobody would ever call it.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in vars(cls):
            if name.startswith("on_") and name not in HOOKS:
                raise UsageError(f"{cls.__name__}.{name}: there is no hook of this name{nearest(name, HOOKS)}")

    def on_run_start(self, start: RunStart) -> None:
        """The run begins or goes on: the first hook. What an earlier process was told is not told again."""

    def on_member_reported(self, report: MemberReport) -> None:
        """A member finished a round."""

    def on_member_failed(self, failure: MemberFailure) -> None:
        """A member failed in a round."""

    def on_exploit(self, copied: Copied) -> None:
        """A member copied another."""

    def on_round_end(self, end: RoundEnd) -> None:
        """All members are through a round, and what follows from it is decided and was told."""

    def on_run_end(self, end: RunEnd) -> None:
        """The run is over or stops: the last hook, called wherever `on_run_start` was."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))
"""Their names."""
