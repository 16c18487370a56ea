"""The table of states that the figures point at: one row per trained state, so that figures repeat no values."""

from dataclasses import dataclass
from typing import Any

from pbt.core.history import TrainedState
from pbt.report.data.axes import Axis, axis_of, thin, thinned
from pbt.report.data.plane import frame_states
from pbt.report.snapshot import RunSnapshot
from pbt.text import number
from pbt.values import Value

STATES = 30_000
"""The most states of a run that are all in the table; of a larger run, those of the plane and of the best state."""
FAILURES = 500
"""The most failed rounds in the table."""
LONG = 300
"""The most characters of a message."""
KINDS = ("born", "continue", "explore", "exploit", "replace")
OWN = 0
"""In place of the start state: the member's own state after its previous round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateTable:
    """Trained states, in the order of the log."""

    score: str
    """The display name of the score."""
    sign: int
    axes: tuple[Axis, ...]
    """One per hyperparameter."""
    states: tuple[TrainedState, ...]
    failures: tuple[tuple[int, int, str], ...]
    """(member, round, message) of failed rounds."""
    note: str

    def plain(self) -> dict[str, Any]:
        """Columns of plain values, for JSON."""
        return {
            "score": self.score,
            "sign": self.sign,
            "hparams": [plain_axis(axis) for axis in self.axes],
            "member": [state.member for state in self.states],
            "round": [state.round for state in self.states],
            "depth": [state.depth for state in self.states],
            "step": [state.step for state in self.states],
            "score_of": [_short(state.score) for state in self.states],
            "kind": [_KIND["born" if state.decision is None else state.decision.kind] for state in self.states],
            "start": [_start(state) for state in self.states],
            "values": [[_short(state.hparams.get(axis.name)) for state in self.states] for axis in self.axes],
            "kinds": list(KINDS),
            "failures": [list(failure) for failure in self.failures],
            "note": self.note,
        }


_KIND = {kind: index for index, kind in enumerate(KINDS)}


def state_table(snapshot: RunSnapshot) -> StateTable:
    """The states that the figures of a run point at, at most about `STATES`."""
    states = snapshot.counted
    if len(states) > STATES:
        kept = {link.state for link in snapshot.path} | set(snapshot.living)
        kept.update(state.state for frame in frame_states(snapshot) for state in frame)
        states = tuple(state for state in states if state.state in kept)
    failures = thin(snapshot.failures, FAILURES)
    return StateTable(
        score=snapshot.score_name,
        sign=snapshot.sign,
        axes=tuple(axis_of(name, domain) for name, domain in snapshot.space.items()),
        states=states,
        failures=tuple((f.member, f.round, f"{f.cause}: {f.message}"[:LONG]) for f in failures),
        note=thinned("states", len(states), len(snapshot.counted)),
    )


def _start(state: TrainedState) -> list[int] | int | None:
    start = state.start
    if start is None:
        return None
    return OWN if start == (state.member, state.round - 1) else list(start)


def _short(value: Value) -> Value:
    """Six significant digits; NaN and infinities, which JSON lacks, and tuples as text."""
    if isinstance(value, tuple):
        return number(value)
    if not isinstance(value, float):
        return value
    text = f"{value:.6g}"
    return float(text) if text[-1].isdigit() else text


def plain_axis(axis: Axis) -> dict[str, Any]:
    """How a hyperparameter is drawn, as plain values."""
    return {
        "name": axis.name,
        "title": axis.title,
        "log": axis.log,
        "flipped": axis.flipped,
        "options": [_short(one) if isinstance(one, tuple) else one for one in axis.options],
    }
