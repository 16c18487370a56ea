"""Runs for the tests: histories told event by event, and real ones of toys."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pbt
from pbt.core.events import Born, Decided, Decision, Ended, Event, Failed, Reported
from pbt.core.population import StateRef
from pbt.domains import Domain
from pbt.report.snapshot import RunSnapshot, snapshot_of
from pbt.runs.results import Run
from pbt.space import HParams, Space
from pbt.store.base import JournalEntry

SPACE: dict[str, Domain] = {"lr": pbt.Float(0.001, 1.0, "log")}
INTERVAL = 10


class Told:
    """A log that was never on a disk."""

    def __init__(self, events: Sequence[Event], **meta: Any) -> None:
        self.meta = {"seed": 1, "population": 0, "rounds": 0, "objective": "maximize", **meta}
        self._events = list(events)

    def last(self) -> int:
        return len(self._events)

    def events(self, after: int = 0, until: int | None = None) -> list[Event]:
        return self._events[after:until]

    def checkpoint(self) -> None:
        return None

    def journal(self, kind: str | None = None) -> list[JournalEntry]:
        return []

    def load_state(self, ref: StateRef) -> Any:
        raise KeyError(ref)


def history(
    scores: Sequence[Sequence[float | None]],
    copies: Mapping[tuple[int, int], int] | None = None,
    values: Mapping[tuple[int, int], HParams] | None = None,
    space: Mapping[str, Domain] | None = None,
    **meta: Any,
) -> Run:
    """A synchronous run.

    Args:
        scores: By round, then by member; None: the round failed.
        copies: (round, member) to the donor whose state after the round before it began with.
        values: (round, member) to hyperparameters; where none are given those before stay, at birth lr = 0.1.
        space: Of the hyperparameters.
        meta: What else was recorded.
    """
    members, copies, values = range(len(scores[0])), copies or {}, values or {}
    hparams: dict[int, HParams] = {m: values.get((1, m), {"lr": 0.1}) for m in members}
    at: dict[int, StateRef | None] = dict.fromkeys(members)
    steps: dict[StateRef | None, int] = {None: 0}
    events: list[Event] = [Born(member=m, hparams=hparams[m]) for m in members]
    for round_, row in enumerate(scores, 1):
        for m in members if round_ > 1 else ():
            decision = _decision(m, round_, at, steps, hparams, copies, values)
            events.append(Decided(decision=decision))
        begun = dict(at)
        for m in members:
            at[m] = begun[copies.get((round_, m), m)]
        for m, score in enumerate(row):
            if score is None:
                events.append(Failed(member=m, round=round_, cause="score", message="nan"))
                continue
            ref = StateRef(m, round_)
            steps[ref] = steps[at[m]] + INTERVAL
            events.append(Reported(member=m, round=round_, step=steps[ref], scores=(score,), state=ref, digest=""))
            at[m] = ref
    events.append(Ended(round=len(scores), why="finished"))
    return Run(Told(events, **{"space": Space(space or SPACE).to_dict(), **meta}))


def _decision(
    m: int,
    round_: int,
    at: Mapping[int, StateRef | None],
    steps: Mapping[StateRef | None, int],
    hparams: dict[int, HParams],
    copies: Mapping[tuple[int, int], int],
    values: Mapping[tuple[int, int], HParams],
) -> Decision:
    donor = copies.get((round_, m))
    source = m if donor is None else donor
    hparams[m] = values.get((round_, m), hparams[source])
    return Decision(
        member=m,
        round=round_,
        start=at[source],
        step=steps[at[source]],
        hparams=hparams[m],
        donor=donor,
        kind="continue" if donor is None else "exploit",
    )


def went_back() -> Run:
    """Member 0 trains three rounds with lr 0.1, then copies what member 1 has after one, with lr 0.5."""
    run = history([[1.0, 2.0]], values={(1, 1): {"lr": 0.5}})
    events = run.events[:-1]
    for round_ in (2, 3):
        start, ref = StateRef(0, round_ - 1), StateRef(0, round_)
        step = (round_ - 1) * INTERVAL
        events.append(Decided(decision=Decision(member=0, round=round_, start=start, step=step, hparams={"lr": 0.1})))
        events.append(Reported(member=0, round=round_, step=step + INTERVAL, scores=(1.5,), state=ref, digest=""))
    back = Decision(
        member=0, round=4, start=StateRef(1, 1), step=INTERVAL, hparams={"lr": 0.5}, donor=1, kind="exploit"
    )
    last = Reported(member=0, round=4, step=2 * INTERVAL, scores=(3.0,), state=StateRef(0, 4), digest="")
    run.events = [*events, Decided(decision=back), last]
    return run


def told(*args: Any, **more: Any) -> RunSnapshot:
    """The story of a history."""
    return snapshot_of(history(*args, **more))


def rising(rounds: int, members: int) -> list[list[float]]:
    """Scores that rise by one a round; a higher member is a little better, always."""
    return [[round_ + m / 100 for m in range(members)] for round_ in range(rounds)]


def climb(hparams: HParams, state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, Any]:
    """Goes towards zero from 3; what has a large lr goes faster, and fails now and then."""
    place = 3.0 if state is None else state["place"]
    for step in range(ctx.first_step + 1, ctx.first_step + steps + 1):
        place *= 1 - 0.1 * float(hparams["lr"])
        ctx.report(step, loss=place**4, odd=math.nan if step % 2 else place)
    if float(hparams["lr"]) > 0.8 and (ctx.round + ctx.member) % 3 == 0:
        raise ValueError("too fast <b>$x$</b>")
    return {"place": place}, {"score": place, "test_accuracy": 1 / (1 + place)}


CLIMB: dict[str, Any] = {
    "task": climb,
    "space": {
        "lr": pbt.Float(0.01, 1.0, "log"),
        "gamma": pbt.Float(0.9, 0.999, "one_minus_log"),
        "layers": pbt.Int(1, 4),
        "rule": pbt.Choice(("relu", "<i>tanh</i>", "$x$", (2, "<b>"), None)),
        "extra": pbt.Float(0.0, 1.0, when=("rule", "relu")),
    },
    "plan": pbt.Plan(exploit=pbt.truncation(0.25), explore=pbt.perturb_or_resample((0.8, 1.25), 0.2), interval=5),
    "population": 8,
    "rounds": 12,
    "objective": "minimize",
    "seed": 4,
}
