"""The loop of a run: the engine's tasks go to an executor, and its outcomes back to the engine."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from pbt.core.population import View
from pbt.errors import WorkerError
from pbt.executors.base import Executor
from pbt.runs.engine import Engine, Observer

log = logging.getLogger("pbt")


def drive(
    engine: Engine,
    executor: Executor,
    observers: Sequence[Observer] = (),
    stop: Callable[[View], str] = lambda _view: "",
) -> None:
    """Run to the end: pass tasks to the executor and outcomes to the engine.

    Args:
        engine: The run.
        executor: Where it is trained; closed at the end.
        observers: They see every step.
        stop: Why the run ends now, called whenever decisions were logged; empty: it continues.

    Raises:
        WorkerError: The executor has no work left although outcomes are missing.
        PBTError: Errors of `Engine.tell`; the run can be resumed.
    """
    with ExitStack() as closing:
        # Observers are closed in their order, each even if another one raises.
        for observer in observers[::-1]:
            closing.callback(observer.close)
        for observer in observers:
            observer.on_start(engine)
        why = stop(engine.view) if engine.view.round else ""  # there is nothing to judge yet
        if not (engine.finished or why):
            with executor:
                why = _train(engine, executor, observers, stop)
        if events := engine.stop(why) if why else []:
            log.info("%s after round %d of %d", why, engine.view.rounds_done, engine.course.rounds)
            for observer in observers:
                observer.on_commit(engine, events)
        engine.save_checkpoint()
        for observer in observers:
            observer.on_end(engine)


def _train(engine: Engine, executor: Executor, observers: Sequence[Observer], stop: Callable[[View], str]) -> str:
    """Train until the run is finished or stopped; returns why it stopped, empty after the last round."""
    why = ""
    while not engine.finished and not why:
        if _turn(engine, executor, observers):
            why = stop(engine.view)
    return why


def _turn(engine: Engine, executor: Executor, observers: Sequence[Observer]) -> bool:
    """Wait for outcomes and pass them on; returns whether events were logged."""
    tasks = engine.ask()
    if tasks:
        executor.submit(tasks)
    outcomes = executor.wait()
    for incident in executor.incidents():
        where = "" if incident.member is None else f"member {incident.member}, round {incident.round}: "
        log.warning("%s%s", where, incident.message)
        if incident.members_per_program is not None:
            place = {**engine.store.meta["place"], "members_per_program": incident.members_per_program}
            engine.store.update_meta(place=place)
        engine.store.note(
            incident.kind,
            message=incident.message,
            member=incident.member,
            round=incident.round,
            attempt=incident.attempt,
        )
    if not outcomes:
        raise WorkerError("the executor lost tasks: it has no work left, but outcomes are missing")
    for observer in observers:
        for outcome in outcomes:
            observer.on_outcome(engine, outcome)
    events = engine.tell(outcomes)
    if events:
        for observer in observers:
            observer.on_commit(engine, events)
    return bool(events)
