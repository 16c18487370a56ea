"""Runs to be looked at, and a server of them."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pbt
from pbt.core.events import Born, Decided, Decision, Event, Reported
from pbt.core.population import StateRef, Stored
from pbt.dashboard.serve import listen, made
from pbt.space import HParams, Space
from pbt.store.sqlite import RunStore

SPACE = {"lr": pbt.Float(0.01, 1.0, "log"), "layers": pbt.Int(1, 4)}


def climb(hparams: HParams, state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, Any]:
    """Goes up to 3, faster with a large lr."""
    place = 3.0 if state is None else state["place"]
    for step in range(ctx.first_step + 1, ctx.first_step + steps + 1):
        ctx.report(step, loss=place / step, rate=float(hparams["lr"]))
    return {"place": place * (1 - 0.1 * float(hparams["lr"])) ** steps}, {"score": 3 - place}


CLIMB: dict[str, Any] = {
    "task": climb,
    "space": SPACE,
    "plan": pbt.Plan(exploit=pbt.truncation(0.25), interval=5),
    "population": 6,
    "rounds": 4,
    "seed": 4,
}


class Written:
    """A run that is being written, a round at a time, by hand."""

    def __init__(self, path: Path, *, members: int = 3, **meta: Any) -> None:
        known = {"seed": 1, "population": members, "rounds": 9, "space": Space(SPACE).to_dict(), **meta}
        self.store = RunStore.create(path, known)
        self.members = range(members)
        self.rounds = 0

    def round(self) -> None:
        """Everybody finishes one more round."""
        events: list[Event] = []
        self.rounds += 1
        stored: dict[StateRef, Stored] = {}
        for m in self.members:
            hparams: HParams = {"lr": 0.1 + m / 10, "layers": 1 + m % 4}
            if self.rounds == 1:
                events.append(Born(member=m, hparams=hparams))
            else:
                start, step = StateRef(m, self.rounds - 1), 10 * (self.rounds - 1)
                go_on = Decision(member=m, round=self.rounds, start=start, step=step, hparams=hparams)
                events.append(Decided(decision=go_on))
        for m in self.members:
            ref = StateRef(m, self.rounds)
            stored[ref] = self.store.states.put(ref, {"theta": float(m)})
            score, step = self.rounds + m / 10, 10 * self.rounds
            digest = stored[ref].digest
            events.append(Reported(member=m, round=self.rounds, step=step, scores=(score,), state=ref, digest=digest))
        self.store.commit(events, stored)

    def begin(self) -> None:
        """Everybody starts the next round."""
        start, step = self.rounds, 10 * self.rounds
        hparams: HParams = {"lr": 0.1, "layers": 1}
        decisions = [
            Decision(member=m, round=start + 1, start=StateRef(m, start), step=step, hparams=hparams)
            for m in self.members
        ]
        self.store.commit([Decided(decision=decision) for decision in decisions])


class Client:
    """Questions over a real socket."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str = "/", method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        """The answer, read; underscores in the names of headers are dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": f"127.0.0.1:{self.port}", **headers}.items():
            if value:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        answer.body = answer.read()  # type: ignore[attr-defined]
        connection.close()
        return answer


@contextmanager
def served(place: Path, token: str | None = None, host: str = "127.0.0.1") -> Iterator[Client]:
    """A server in this process."""
    address = listen(host, 0)
    server = made(place, address, token)
    thread = threading.Thread(target=lambda: server.run([address.listener]))
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield Client(address.port)
    finally:
        server.should_exit = True
        thread.join(30)
        address.listener.close()
    assert not thread.is_alive()
