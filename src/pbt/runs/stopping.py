"""Conditions that stop a run before its last round.

They are tested whenever decisions were logged, so that a stopped run can be resumed to the same end.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pbt.core.population import View
from pbt.core.rules import is_number, whole
from pbt.errors import UsageError
from pbt.text import number, span

StopRule = Callable[[View], bool | str]
"""A pure function of the population so far: whether to stop, or the reason to stop as a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Stop a run before its last round; the first condition that holds is logged as the reason.

    Args:
        score: Stop when a member has reached this score: at least, or at most if the score is minimized.
        seconds: Stop at the first decision after this time of training, counted from the start of this process: a
            resumed run has it anew.
        patience: Stop when the best score has not improved for this many rounds.

    Raises:
        UsageError: No condition, or a value out of range.
    """

    score: float | None = None
    seconds: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if (self.score, self.seconds, self.patience) == (None, None, None):
            raise UsageError("stop: expected at least one of score, seconds and patience")
        if self.score is not None and not is_number(self.score):
            raise UsageError(f"stop: expected a finite score, got {self.score!r}")
        if self.seconds is not None and not (is_number(self.seconds) and self.seconds > 0):
            raise UsageError(f"stop: expected seconds above 0, got {self.seconds!r}")
        if self.patience is not None and (whole(self.patience) or 0) < 1:
            raise UsageError(f"stop: expected a patience of at least 1 round, got {self.patience!r}")


StopLike = Stop | StopRule | Sequence[Stop | StopRule] | None


class Stopper:
    """The conditions of a run that has started.

    Args:
        conditions: A `Stop`, a function of the view, several of them, or None.

    Raises:
        UsageError: A condition is neither.
    """

    def __init__(self, conditions: StopLike) -> None:
        given = () if conditions is None else conditions if isinstance(conditions, (list, tuple)) else (conditions,)
        for condition in given:
            if not isinstance(condition, Stop) and (isinstance(condition, type) or not callable(condition)):
                raise UsageError(f"stop: expected pbt.Stop(...) or a function of the view, got {condition!r:.80}")
        self._conditions = tuple(given)
        self._began = time.monotonic()

    def reason(self, view: View) -> str:
        """Why the run stops now; empty if it continues."""
        for condition in self._conditions:
            found = self._of(condition, view) if isinstance(condition, Stop) else _called(condition, view)
            if found:
                return f"stopped: {found}"
        return ""

    def _of(self, stop: Stop, view: View) -> str:
        best, elapsed = view.best, time.monotonic() - self._began
        if stop.score is not None and best is not None and best.score >= view.sign * stop.score:
            return f"score {number(view.sign * best.score)} reached {number(float(stop.score))}"
        if stop.patience is not None and best is not None and view.round - best.state.round >= stop.patience:
            return f"no better score in {view.round - best.state.round} rounds"
        if stop.seconds is not None and elapsed >= stop.seconds:
            return f"{span(elapsed)} of training reached {span(float(stop.seconds))}"
        return ""


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(option: str, text: str) -> float:
    """The seconds of a duration such as `90s`, `30m`, `8h` or `2d`; a number alone is in seconds.

    Raises:
        UsageError: Not such a text; the message starts with the name of the option.
    """
    number_text, unit = (text, "") if text[-1:].isdigit() else (text[:-1], text[-1:])
    try:
        seconds = float(number_text) * _UNITS[unit]
    except (ValueError, KeyError):
        seconds = 0.0
    if not (is_number(seconds) and seconds > 0):
        raise UsageError(f"{option}: expected a duration such as 90s, 30m, 8h or 2d, got {text!r}")
    return seconds


def _called(rule: StopRule, view: View) -> str:
    name = getattr(rule, "__name__", type(rule).__name__)
    answer = rule(view)
    if isinstance(answer, str):
        return answer
    if answer in (True, False, None):
        return name if answer else ""
    raise UsageError(f"stop={name}: expected True, False or a reason, got {answer!r:.80}")
