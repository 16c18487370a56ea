"""Health of a run per round: founders, copies, failures and training time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pbt.report.data.axes import quantile, thin, thinned
from pbt.report.snapshot import RunSnapshot

ROUNDS = 500
"""The most rounds drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Values per round, as counted by each member; failed rounds count."""

    rounds: tuple[int, ...]
    founders: tuple[int, ...]
    """Number of founders with descendants."""
    copied: tuple[float, ...]
    """Share of the members that started the round from a copy."""
    failed: tuple[int, ...]
    seconds: tuple[float | None, ...]
    """Training time of the median member; None if not recorded."""
    slowest: tuple[float | None, ...]
    """Training time of the slowest member; None if not recorded."""
    total_seconds: float | None
    """Training time of all rounds of all members."""
    failures: int
    worst: tuple[tuple[str, int], ...]
    """The three most frequent causes of failure, with their counts."""
    note: str


def health(snapshot: RunSnapshot) -> Health:
    """The data of the four health panels."""
    founders: dict[int, set[int]] = {}
    trained: Counter[int] = Counter()
    times: dict[int, list[float]] = {}
    for state in snapshot.counted:
        founders.setdefault(state.round, set()).add(state.founder)
        trained[state.round] += 1
        if state.state in snapshot.seconds:
            times.setdefault(state.round, []).append(snapshot.seconds[state.state])
    failed = Counter(failure.round for failure in snapshot.failures)
    copied = Counter(decision.round for decision in snapshot.copies)
    every = sorted(trained.keys() | failed.keys())
    rounds = thin(every, ROUNDS)
    return Health(
        rounds=tuple(rounds),
        founders=tuple(len(founders.get(r, ())) for r in rounds),
        copied=tuple(copied[r] / (trained[r] + failed[r]) for r in rounds),
        failed=tuple(failed[r] for r in rounds),
        seconds=tuple(_middle(times.get(r, ())) for r in rounds),
        slowest=tuple(max(times[r]) if r in times else None for r in rounds),
        total_seconds=sum(snapshot.seconds.values()) if snapshot.seconds else None,
        failures=len(snapshot.failures),
        worst=tuple(Counter(f"{f.cause}: {f.message}" for f in snapshot.failures).most_common(3)),
        note=thinned("rounds", len(rounds), len(every)),
    )


def _middle(times: Sequence[float]) -> float | None:
    return quantile(sorted(times), 0.5) if times else None
