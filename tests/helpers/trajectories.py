"""Train rounds of a population step by step, and compare the results of two executors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pbt.core.population import StateRef, Stored
from pbt.executors.base import Executor, Failure, Report
from pbt.testing.executors import finish, make_task
from pbt.testing.states import CLOSE, check_close, state_of

Values = dict[str, Any]

RECORDED = 1e-5
"""Tolerance for values recorded from training batches, in single precision."""


@dataclass
class Trajectory:
    """A population that is trained round by round.

    Args:
        executor: The executor.
    """

    executor: Executor
    step: int = 0
    round: int = 0
    stored: dict[int, Stored] = field(default_factory=dict)
    """The last state of each member that has one."""
    failures: dict[int, Failure] = field(default_factory=dict)
    reports: dict[int, Report] = field(default_factory=dict)
    """The reports of the last round."""

    def train(
        self, steps: int, hparams: Mapping[int, Values], sources: Mapping[int, int] | None = None
    ) -> "Trajectory":
        """Train one round of these members, each from its own last state or from that of its source."""
        self.round += 1
        tasks = []
        for member, values in hparams.items():
            source = (sources or {}).get(member, member)
            start = (StateRef(source, self.round - 1), self.stored[source]) if self.round > 1 else None
            given = {"hparams": values, "first_step": self.step, "steps": steps}
            tasks.append(make_task(member, self.round, start, **given))
        outcomes = {member: outcome for (member, _), outcome in finish(self.executor, tasks).items()}
        self.step += steps
        self.reports = {m: outcomes[m] for m in sorted(outcomes) if isinstance(outcomes[m], Report)}  # type: ignore[misc]
        self.failures = {m: outcomes[m] for m in sorted(outcomes) if isinstance(outcomes[m], Failure)}  # type: ignore[misc]
        self.stored.update({member: report.stored for member, report in self.reports.items()})
        return self

    @property
    def digests(self) -> dict[int, str]:
        """The digests of the states after the last round."""
        return {member: report.stored.digest for member, report in self.reports.items()}


def check_same_course(found: Trajectory, expected: Trajectory) -> None:
    """Assert that the last rounds agree in failures, states, scores and reported values."""
    assert {m: f.cause for m, f in found.failures.items()} == {m: f.cause for m, f in expected.failures.items()}
    assert list(found.reports) == list(expected.reports)
    for member, report in expected.reports.items():
        own = found.reports[member]
        check_close(state_of(own.stored), state_of(report.stored), f"member {member}")
        check_close(own.scores, report.scores, f"scores of member {member}")
        for training, tolerance in ((True, RECORDED), (False, CLOSE)):
            reported, reference = (
                {name: value for name, value in one.reported.items() if name.startswith("train") == training}
                for one in (own, report)
            )
            check_close(reported, reference, f"reported of member {member}", tolerance)
