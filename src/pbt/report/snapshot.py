"""A run as the figures need it: every trained state with its place in the family tree.

Most figures share one horizontal axis, the training steps in a state. They always increase along an ancestry, whatever
was copied; along the rounds of one member they decrease when it copies a state with fewer steps.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pbt.core.events import Decision, Failed
from pbt.core.history import RunHistory, TrainedState
from pbt.core.population import StateRef, View
from pbt.runs.log_entries import points_of
from pbt.runs.results import Run
from pbt.space import Space
from pbt.store.base import JournalEntry
from pbt.store.live import LivePoints
from pbt.store.points import Points


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The states of the population with the same number of rounds in their ancestry."""

    depth: int
    step: int
    """The median of the states' training steps, but at least that of the previous generation."""
    states: tuple[TrainedState, ...]

    @property
    def scores(self) -> list[float]:
        """The scores in ascending order."""
        return sorted(state.score for state in self.states)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRound:
    """A round in progress."""

    member: int
    start: StateRef | None
    """The state from which it started; None: freshly built."""
    points: Points


@dataclass(frozen=True, kw_only=True)
class RunSnapshot:
    """One consistent snapshot of a run."""

    name: str
    status: str
    """`finished`, `running`, `interrupted`, or the reason why the run ended."""
    meta: Mapping[str, Any]
    space: Space
    sign: int
    """1 if the score is maximized, -1 if it is minimized."""
    members: tuple[int, ...]
    """Ids of all members ever born into the population, ascending; helpers such as evaluators are excluded."""
    tree: RunHistory
    """The index of the log."""
    living: tuple[StateRef, ...]
    """The current states of the healthy members."""
    copies: tuple[Decision, ...]
    """Decisions with a donor."""
    path: tuple[TrainedState, ...]
    """The ancestry of the best state, first to last; empty before the first score."""
    reported: Mapping[str, Any] = field(default_factory=dict)
    """Values reported with the best state, besides its score."""
    seconds: Mapping[tuple[int, int], float] = field(default_factory=dict)
    """Duration of each round by (member, round), where recorded."""
    wall: float | None = None
    """Seconds from the end of the first round to the end of the last."""
    points: Mapping[tuple[int, int], Points] = field(default_factory=dict)
    """Numbers reported during the rounds by (member, round), where there are any."""
    live: tuple[LiveRound, ...] = ()
    """The rounds in progress that report numbers."""
    unread: frozenset[str] = frozenset()
    """Hyperparameters that could not be read back after a hand-over because the task reads them itself."""
    statuses: Mapping[int, str] = field(default_factory=dict)
    """`live`, `failed` or `retired`, by member."""
    attempts: Mapping[tuple[int, int], Mapping[str, Any]] = field(default_factory=dict)
    """The journal of failed rounds by (member, round): attempt, traceback, file and line."""

    @property
    def states(self) -> Mapping[StateRef, TrainedState]:
        """All states, in the order of the log: a state comes after the one from which it started."""
        return self.tree.states

    @cached_property
    def failures(self) -> tuple[Failed, ...]:
        """The failed rounds, in the order of the log."""
        return tuple(self.tree.failures.values())

    @property
    def score_name(self) -> str:
        """The display name of the score."""
        return str((self.meta.get("application") or {}).get("score") or "score")

    @cached_property
    def rounds(self) -> int:
        """The highest round that a member has finished, failed rounds included."""
        ends = [state.round for state in self.counted] + [failure.round for failure in self.failures]
        return max(ends, default=0)

    def better(self, score: float, than: float) -> bool:
        """Whether one score, as returned by the task, is better than another."""
        return self.sign * score > self.sign * than

    @cached_property
    def counted(self) -> tuple[TrainedState, ...]:
        """The states of the population, without those of helpers such as evaluators."""
        members = frozenset(self.members)
        return tuple(state for state in self.states.values() if state.member in members)

    @cached_property
    def generations(self) -> tuple[Generation, ...]:
        """The states of the population by depth; `step` never decreases."""
        grouped: dict[int, list[TrainedState]] = {}
        for state in self.counted:
            grouped.setdefault(state.depth, []).append(state)
        generations: list[Generation] = []
        for depth in sorted(grouped):
            steps = sorted(state.step for state in grouped[depth])
            step = max(steps[len(steps) // 2], generations[-1].step if generations else 0)
            generations.append(Generation(depth=depth, step=step, states=tuple(grouped[depth])))
        return tuple(generations)

    @cached_property
    def by_member(self) -> Mapping[int, tuple[TrainedState, ...]]:
        """The states of each member of the population, by round."""
        grouped: dict[int, list[TrainedState]] = {}
        for state in self.counted:
            grouped.setdefault(state.member, []).append(state)
        return {member: tuple(states) for member, states in sorted(grouped.items())}

    @cached_property
    def surviving(self) -> frozenset[StateRef]:
        """The living states and all their ancestors."""
        return frozenset(self._back_from(self.living))

    @cached_property
    def common_ancestor(self) -> TrainedState | None:
        """The latest state from which all living states descend; None if there is none."""
        descendants = dict.fromkeys(self.living, 1)
        for ref in reversed(tuple(self.states)):
            start = self.states[ref].start
            if start is not None and ref in descendants:
                descendants[start] = descendants.get(start, 0) + descendants[ref]
        shared = [ref for ref, count in descendants.items() if count == len(self.living)]
        return max((self.states[ref] for ref in shared), key=lambda state: state.depth, default=None)

    def _back_from(self, refs: Iterable[StateRef]) -> set[StateRef]:
        seen: set[StateRef] = set()
        for ref in refs:
            current: StateRef | None = ref
            # Beyond the state where two ancestries meet, both are the same.
            while current is not None and current not in seen:
                seen.add(current)
                current = self.states[current].start
        return seen


def snapshot_of(
    run: Run, notes: Sequence[JournalEntry] = (), *, writing: bool = False, live: Sequence[LivePoints] = ()
) -> RunSnapshot:
    """Make the snapshot of a run.

    Args:
        run: The run.
        notes: Its journal, read after its log; entries about rounds that the log lacks are ignored.
        writing: Whether a process holds the run's write lock.
        live: The points of the rounds in progress; those of rounds that are over or unknown are ignored.
    """
    tree, view = run.tree, run.view
    sign = view.sign
    members = tuple(sorted(member.id for member in view.members if member.role == "member"))
    timed = [note for note in notes if note.kind == "round" and _ref(note) in tree.states]
    clocks = [note.clock for note in timed]
    best = view.best
    return RunSnapshot(
        name="a run in memory" if run.path is None else run.path.resolve().name,
        status=view.ended or ("running" if writing else "interrupted"),
        meta=run.meta,
        space=run.space,
        sign=sign,
        members=members,
        tree=tree,
        living=tuple(dict.fromkeys(m.state for m in view.ranking if m.state is not None)),
        copies=tuple(decision for decision in tree.decisions.values() if decision.donor is not None),
        path=tuple(tree.ancestry(best.state)) if best is not None else (),
        reported=tree.states[best.state].reported if best is not None else {},
        seconds={_ref(note): float(note.details["seconds"]) for note in timed if "seconds" in note.details},
        wall=max(clocks) - min(clocks) if clocks else None,
        points={ref: points for ref, points in points_of(notes).items() if ref in tree.states or ref in tree.failures},
        live=_in_progress(view, tree, live) if writing else (),
        unread=frozenset(name for note in notes if note.kind == "unread" for name in note.details.get("names", ())),
        statuses={member.id: member.status for member in view.members},
        attempts={_ref(note): note.details for note in notes if note.kind == "failure" and _ref(note) in tree.failures},
    )


def _in_progress(view: View, tree: RunHistory, live: Sequence[LivePoints]) -> tuple[LiveRound, ...]:
    members = {member.id: member for member in view.population}
    found = []
    for one in live:
        member = members.get(one.member)
        if member is not None and member.status == "live" and member.round < member.opened == one.round:
            found.append(LiveRound(member=one.member, start=tree.start(one.member, one.round), points=one.points))
    return tuple(found)


def _ref(note: JournalEntry) -> StateRef:
    return StateRef(note.details.get("member", -1), note.details.get("round", -1))
