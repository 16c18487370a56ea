"""The `Callback` base class and its hooks."""

from typing import Any

from pbt.errors import UsageError, nearest
from pbt.runs.callbacks.records import Copied, MemberFailure, MemberReport, RoundEnd, RunEnd, RunStart


class Callback:
    """Base class for user code that follows a run; every hook is optional.

    Hooks are called one after another in the process that drives the run, once the event is durable. Their arguments
    are copies: changing them changes nothing in the run. An exception in a hook is reported, once per hook, as a
    warning and in the run's journal; the run and the callback's hooks continue. `KeyboardInterrupt` and `SystemExit`
    end the run as anywhere.

    Raises:
        UsageError: A subclass has a method `on_...` that is not a hook and would never be called.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in vars(cls):
            if name.startswith("on_") and name not in HOOKS:
                raise UsageError(f"{cls.__name__}.{name}: expected the name of a hook{nearest(name, HOOKS)}")

    def on_run_start(self, start: RunStart) -> None:
        """The run starts or resumes: the first hook. Events of an earlier process are not repeated."""

    def on_member_reported(self, report: MemberReport) -> None:
        """A member finished a round."""

    def on_member_failed(self, failure: MemberFailure) -> None:
        """A member failed in a round."""

    def on_exploit(self, copied: Copied) -> None:
        """A member copied another."""

    def on_round_end(self, end: RoundEnd) -> None:
        """All members have finished the round, and its decisions are made and reported."""

    def on_run_end(self, end: RunEnd) -> None:
        """The run ends or stops: the last hook, called whenever `on_run_start` was."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))
"""Names of the hooks."""
