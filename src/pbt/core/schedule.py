"""Hyperparameter schedules: values as a function of the training step."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pbt.errors import UsageError
from pbt.space import HParams
from pbt.values import is_exact
from pbt.values import plain as plain_value


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Constant values of a schedule from step `start` up to, not including, step `stop`."""

    start: int
    stop: int
    hparams: HParams


@dataclass(frozen=True, slots=True)
class Schedule:
    """Hyperparameters as a function of the training step; contiguous segments from step 0.

    Raises:
        UsageError: No segments, or segments with gaps or overlaps.
    """

    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        edges = [0, *(segment.stop for segment in self.segments)]
        if not self.segments or any(
            segment.start != start or segment.stop <= start
            for segment, start in zip(self.segments, edges, strict=False)
        ):
            raise UsageError("schedule: expected one or more segments that join without gaps, from step 0")

    def at(self, step: int) -> HParams:
        """The values at a step; after the end, the last values."""
        for segment in self.segments:
            if step < segment.stop:
                return segment.hparams
        return self.segments[-1].hparams

    @property
    def steps(self) -> int:
        """Total number of steps."""
        return self.segments[-1].stop

    def stretched(self, steps: int) -> "Schedule":
        """The same schedule over another number of steps; segments that shrink to less than one step are dropped.

        Raises:
            UsageError: `steps` is less than one.
        """
        if type(steps) is not int or steps < 1:
            raise UsageError(f"stretched: expected a whole number of steps, at least 1, got {steps!r}")
        # In integers, so that a stretch by an integer factor and back is exact at any length.
        edges = [(2 * stop * steps + self.steps) // (2 * self.steps) for stop in (0, *(s.stop for s in self.segments))]
        parts = zip(itertools.pairwise(edges), self.segments, strict=True)
        return Schedule(tuple(Segment(start=a, stop=b, hparams=s.hparams) for (a, b), s in parts if a < b))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: a list of segments."""
        return {
            "segments": [
                {"start": segment.start, "stop": segment.stop, "hparams": dict(segment.hparams)}
                for segment in self.segments
            ]
        }

    @classmethod
    def from_dict(cls, plain: Any) -> "Schedule":
        """The schedule that `to_dict` described; other keys are ignored.

        Raises:
            UsageError: Not the description of a schedule.
        """
        segments = plain.get("segments") if isinstance(plain, Mapping) else None
        if not isinstance(segments, (list, tuple)):
            raise UsageError("schedule: expected a mapping with a list of 'segments', found none")
        return cls(tuple(_segment(number, segment) for number, segment in enumerate(segments, 1)))


def _segment(number: int, plain: Any) -> Segment:
    """One validated segment of a description."""
    names = {"start", "stop", "hparams"}
    if not isinstance(plain, Mapping) or set(plain) != names:
        content = sorted(map(str, plain)) if isinstance(plain, Mapping) else repr(plain)
        raise UsageError(f"schedule, segment {number}: expected start, stop and hparams, found {content}")
    start, stop, hparams = plain["start"], plain["stop"], plain["hparams"]
    if type(start) is not int or type(stop) is not int:
        raise UsageError(f"schedule, segment {number}: expected whole numbers of steps, found {start!r} and {stop!r}")
    if not isinstance(hparams, Mapping) or not all(is_exact(plain_value(value)) for value in hparams.values()):
        raise UsageError(f"schedule, segment {number}: expected a value for each hyperparameter, found {hparams!r}")
    return Segment(start=start, stop=stop, hparams={str(name): plain_value(value) for name, value in hparams.items()})
