"""The contract of stores: subclass `StoreContract`, implement `make_store`, and run pytest.

```python
class TestMyStore(StoreContract):
    def make_store(self, meta):
        return MyStore(meta)
```
"""

# ruff: noqa: S101 (these are tests)

import json
import math
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from pbt.core.events import Born, Decided, Decision, Ended, Event, Failed, MemoryUpdated, Reported, Retired
from pbt.core.population import StateRef, Stored
from pbt.domains import Float
from pbt.errors import CorruptError, RunError, UsageError
from pbt.space import Space
from pbt.store.base import NewEntry, Store

SPACE = Space({"lr": Float(1e-4, 1.0, "log"), "optimizer.momentum": Float(0.0, 1.0)})
META: Mapping[str, Any] = {"seed": 7, "space": SPACE.to_dict(), "rounds": 3}
HPARAMS = {"lr": 0.1, "optimizer.momentum": 0.5}
SMALL, LARGE = 4, 20_000
"""Elements of a state that is small enough for the database, and of one that needs a file."""


def make_state(member: int, round_: int, size: int = SMALL) -> dict[str, Any]:
    """A state unique to this member and round."""
    return {"weights": np.full(size, member + round_ / 1000), "step": round_, "nested": [None, (member, "text")]}


def report(store: Store, member: int, round_: int, size: int = SMALL) -> tuple[Reported, dict[StateRef, Stored]]:
    """Store a state; returns the event that reports it, and its record."""
    ref = StateRef(member, round_)
    stored = store.states.put(ref, make_state(member, round_, size))
    event = Reported(
        member=member, round=round_, step=10 * round_, scores=(float(member),), state=ref, digest=stored.digest
    )
    return event, {ref: stored}


def decide(member: int, round_: int, start: StateRef | None) -> Decided:
    """A decision that opens this round."""
    return Decided(decision=Decision(member=member, round=round_, start=start, step=10 * (round_ - 1), hparams=HPARAMS))


def fill(store: Store, members: int = 2, rounds: int = 2, size: int = SMALL) -> list[Event]:
    """Commit a short run, one commit per round; returns its events."""
    births = [Born(member=i, hparams=HPARAMS) for i in range(members)]
    store.commit(births)
    log: list[Event] = [*births]
    for round_ in range(1, rounds + 1):
        reports = [report(store, member, round_, size) for member in range(members)]
        events: list[Event] = [event for event, _ in reports]
        events += [decide(member, round_ + 1, StateRef(member, round_)) for member in range(members)]
        store.commit(events, {ref: record for _, stored in reports for ref, record in stored.items()})
        log += events
    return log


def same(found: Any, expected: Any) -> bool:
    """Whether two states are equal, arrays compared by type, shape and bytes."""
    if isinstance(expected, np.ndarray):
        return (
            isinstance(found, np.ndarray)
            and (found.dtype, found.shape) == (expected.dtype, expected.shape)
            and found.tobytes() == expected.tobytes()
        )
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, (list, tuple)):
        pairs = zip(found, expected, strict=False)
        return (type(found), len(found)) == (type(expected), len(expected)) and all(same(*pair) for pair in pairs)
    return type(found) is type(expected) and bool(found == expected)


class StoreContract(ABC):
    """The laws of a store, one test each. Override `reopen`, too, if a store outlives its object."""

    @abstractmethod
    def make_store(self, meta: Mapping[str, Any]) -> Store:
        """A new, empty store."""

    def reopen(self, store: Store) -> Store:
        """The same store after its writer has closed; the store itself if it cannot be reopened."""
        return store

    @contextmanager
    def filled(self, size: int = SMALL) -> Iterator[tuple[Store, list[Event]]]:
        """A store with a short run, and its log."""
        with self.make_store(META) as store:
            yield store, fill(store, size=size)

    def test_a_new_store_holds_its_meta_and_nothing_else(self) -> None:
        """A new store has its metadata, an empty log and an empty journal."""
        with self.make_store(META) as store:
            assert (store.events(), store.journal(), store.verify()) == ([], [], [])
            assert store.meta == dict(META)
            assert Space.from_dict(store.meta["space"]) == SPACE

    def test_events_come_back_equal_and_in_order(self) -> None:
        """The log equals the committed events, also after reopening."""
        with self.filled() as (store, log):
            assert store.events() == log
            again = self.reopen(store)
            with again:
                assert again.events() == log

    def test_a_part_of_the_log_comes_back(self) -> None:
        """Events are numbered from 1; a part is read after one event, up to another."""
        with self.filled() as (store, log):
            assert store.last() == len(log)
            assert store.events(2) == log[2:]
            assert store.events(2, 6) == log[2:6]
            assert store.events(len(log)) == []

    def test_a_checkpoint_is_kept_as_it_was_saved(self) -> None:
        """The newest one, also after more events and after reopening; or none, in a store that keeps none."""
        with self.filled() as (store, log):
            assert store.checkpoint() is None
            store.save_checkpoint(2, {"of": 2})
            store.save_checkpoint(len(log), {"of": [1.5, None, "ä"]})
            store.commit([Ended(round=2, why="done")])
            again = self.reopen(store)
            with again:
                for saved in filter(None, (store.checkpoint() if again is store else None, again.checkpoint())):
                    assert (saved.last, json.loads(saved.text)) == (len(log), {"of": [1.5, None, "ä"]})
                assert again.events() == [*log, Ended(round=2, why="done")]

    def test_every_kind_of_event_and_number_is_kept(self) -> None:
        """Infinities, empty tuples, None and nested memory are preserved."""
        events: list[Event] = [
            Born(member=0, hparams={"lr": 0.1, "name": None}, role="elite", group=3),
            Failed(member=0, round=1, cause="score", message="nän\n\x00"),
            MemoryUpdated(round=1, memory={"a": [1, 2.5, {"float": "nan"}], "b": {"c": -math.inf}}),
            Retired(member=0, round=1, why="failed"),
            Ended(round=1, why="done"),
        ]
        with self.make_store(META) as store:
            store.commit(events)
            assert store.events() == events

    def test_a_score_that_is_no_number_comes_back(self) -> None:
        """NaN is preserved, although JSON has none."""
        with self.make_store(META) as store:
            event, stored = report(store, 0, 1)
            nan = Reported(member=0, round=1, step=1, scores=(math.nan,), state=event.state, digest=event.digest)
            store.commit([nan], stored)
            (found,) = store.events()
            assert isinstance(found, Reported)
            assert math.isnan(found.scores[0])

    def test_states_come_back_equal(self) -> None:
        """Small and large states are preserved, also after reopening."""
        for size in (SMALL, LARGE):
            with self.filled(size) as (store, _):
                assert same(store.load_state(StateRef(1, 2)), make_state(1, 2, size))
                with self.reopen(store) as again:
                    assert same(again.load_state(StateRef(1, 2)), make_state(1, 2, size))
                    there = again.stored(StateRef(1, 2))
                    assert same(again.states.get(StateRef(1, 2), there.digest, there.blob), make_state(1, 2, size))

    def test_a_loaded_state_may_be_changed(self) -> None:
        """Every load returns a separate copy, so a task may modify its state."""
        for size in (SMALL, LARGE):
            with self.filled(size) as (store, _):
                store.load_state(StateRef(0, 1))["weights"][:] = -1
                assert same(store.load_state(StateRef(0, 1)), make_state(0, 1, size))

    def test_states_travel_to_other_processes(self) -> None:
        """`store.states` can be pickled and still loads states."""
        with self.filled(LARGE) as (store, _):
            states = pickle.loads(pickle.dumps(store.states))  # noqa: S301 (made in the line itself)
            there = store.stored(StateRef(0, 1))
            assert same(states.get(StateRef(0, 1), there.digest, there.blob), make_state(0, 1, LARGE))

    def test_a_state_under_another_digest_is_refused(self) -> None:
        """A loaded state is checked against the digest in the log."""
        for size in (SMALL, LARGE):
            with self.filled(size) as (store, _), raises(CorruptError):
                store.states.get(StateRef(0, 1), "0" * 64, store.stored(StateRef(0, 1)).blob)

    def test_a_report_without_its_state_is_refused(self) -> None:
        """A report must not name a state that is not stored, and a refused commit leaves no traces."""
        with self.filled() as (store, log):
            event, stored = report(store, 0, 3)
            with raises(RunError):
                store.commit([event])
            with raises(RunError):
                wrong = Stored(digest="0" * 64, size=1, blob=b"")
                store.commit([event], {event.state: wrong})
            assert store.events() == log
            store.commit([event], stored)

    def test_a_decision_without_its_start_is_refused(self) -> None:
        """A decision or birth can only start from a stored state."""
        with self.filled() as (store, log):
            with raises(RunError):
                store.commit([decide(0, 4, StateRef(5, 5))])
            with raises(RunError):
                store.commit([Born(member=9, hparams=HPARAMS, start=StateRef(5, 5))])
            assert store.events() == log

    def test_a_state_is_never_changed(self) -> None:
        """A stored state cannot be stored again."""
        with self.filled() as (store, _):
            ref = StateRef(0, 1)
            with raises(RunError):
                store.commit((), {ref: store.stored(ref)})

    def test_values_that_are_not_plain_are_refused(self) -> None:
        """An event, journal entry or metadata with values that are not plain writes nothing."""
        with self.filled() as (store, log):
            with raises(UsageError):
                store.commit([MemoryUpdated(round=1, memory={"x": object()})], notes=[NewEntry(kind="n")])
            with raises(UsageError):
                store.commit([Ended(round=1, why="x")], notes=[NewEntry(kind="n", details={"x": np.float32(1)})])
            with raises(UsageError):
                store.update_meta(x={1, 2})
            assert (store.events(), store.journal()) == (log, [])
            assert store.meta == dict(META)

    def test_the_journal_is_apart_from_the_log(self) -> None:
        """Journal entries are kept in order with their time, separate from the log."""
        with self.filled() as (store, log):
            store.note("retry", member=1, attempt=2, seconds=math.inf)
            store.commit((), notes=[NewEntry(kind="timing", details={"round": 1}), NewEntry(kind="timing")])
            with self.reopen(store) as again:
                entries = again.journal()
                assert [(e.id, e.kind, e.details) for e in entries] == [
                    (1, "retry", {"member": 1, "attempt": 2, "seconds": math.inf}),
                    (2, "timing", {"round": 1}),
                    (3, "timing", {}),
                ]
                assert (again.journal(after=1), again.journal("retry", after=1)) == (entries[1:], [])
                assert again.journal("timing", after=2) == entries[2:]
                assert all(entry.clock > 1e9 for entry in entries)
                assert again.events() == log

    def test_meta_can_be_added_to(self) -> None:
        """Metadata keys can be changed and added; the returned mapping is a copy."""
        with self.make_store(META) as store:
            store.update_meta(rounds=9, note={"a": [1.5, None]})
            store.meta["seed"] = "changed"
            with self.reopen(store) as again:
                assert again.meta == {**META, "rounds": 9, "note": {"a": [1.5, None]}}

    def test_a_sweep_forgets_what_is_not_kept(self) -> None:
        """After a sweep kept states can be loaded and others are unknown; a second sweep removes nothing."""
        for size in (SMALL, LARGE):
            with self.filled(size) as (store, log):
                keep = {StateRef(0, 2), StateRef(1, 1)}
                assert (store.sweep(keep), store.sweep(keep)) == (2, 0)
                for member, round_ in ((0, 1), (1, 2)):
                    with raises(KeyError):
                        store.stored(StateRef(member, round_))
                    with raises(KeyError):
                        store.load_state(StateRef(member, round_))
                store.note("swept")
                with self.reopen(store) as again:
                    assert again.sweep(keep) == 0
                    assert same(again.load_state(StateRef(0, 2)), make_state(0, 2, size))
                    assert again.events() == log

    def test_a_lost_state_is_found(self) -> None:
        """`verify` finds no problem in an intact run, and reports a needed state that is missing."""
        with self.filled() as (store, _):
            assert store.verify() == []
            store.sweep({StateRef(0, 2)})
            store.note("swept")
            found = {problem.what for problem in store.verify() if not problem.harmless}
            assert found == {"000001-000001.safetensors", "000001-000002.safetensors"}  # the best; where 1 stands


@contextmanager
def raises(kind: type[BaseException]) -> Iterator[None]:
    """Fail unless this error is raised; like `pytest.raises`, but without a dependency on pytest."""
    try:
        yield
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}, got no exception")
