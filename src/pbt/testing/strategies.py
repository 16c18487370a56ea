"""The contract of strategies: subclass `StrategyContract`, implement `make_strategy`, and run pytest.

```python
class TestMyStrategy(StrategyContract):
    def make_strategy(self):
        return MyStrategy()
```

The tests run the strategy on populations without training: scores are drawn, and some members fail.
"""

# ruff: noqa: S101 (these are tests)

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pbt.core.ages import Ages
from pbt.core.events import Decided, Event, Failed, MemoryUpdated, Reported
from pbt.core.fold import apply
from pbt.core.population import Member, StateRef, View
from pbt.core.rng import Rng
from pbt.core.strategy import Proposal, Strategy
from pbt.domains import Choice, Float, Int
from pbt.space import HParams, Space

Score = Callable[[Member], float | None]
"""The score of a member's round; None for a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One ready point of a simulated run."""

    view: View
    ready: tuple[Member, ...]
    proposal: Proposal


def _small_in_sum(hparams: HParams) -> bool:
    """A constraint that refuses some of the values."""
    return bool(hparams.get("lr", 0.0) < 0.6 or hparams.get("layers", 0) + hparams.get("decay", 0.0) < 2)


def _made_small_in_sum(hparams: HParams) -> HParams:
    """The same constraint as a repair."""
    return hparams if _small_in_sum(hparams) else {**hparams, "lr": 0.5 * hparams["lr"]}


class StrategyContract(ABC):
    """The laws of a strategy, one test each. The attributes describe the simulated populations."""

    space = Space(
        {
            "lr": Float(1e-4, 1.0, "log"),
            "decay": Float(0.0, 0.1),
            "layers": Int(1, 4),
            "rule": Choice(("a", "b", "c")),
        }
    )
    population = 8
    rounds = 6
    objectives = 1
    """Scores per report."""
    series = 10
    """Values of the series in each report."""

    @abstractmethod
    def make_strategy(self) -> Strategy:
        """A new strategy; two calls must return equal ones."""

    def test_pure(self) -> None:
        """Equal views and ready members give equal proposals, whatever the state of the global generator."""
        for moment in self._run(_mixed):
            random.seed(moment.view.round)
            again = self.make_strategy().decide(moment.view, moment.ready)
            assert again == moment.proposal

    def test_order_of_ready(self) -> None:
        """The order of the ready members does not affect decisions."""
        strategy = self.make_strategy()
        for moment in self._run(_mixed):
            turned = strategy.decide(moment.view, moment.ready[::-1])
            assert {d.member: d for d in turned.decisions} == {d.member: d for d in moment.proposal.decisions}
            assert {r.member for r in turned.retirements} == {r.member for r in moment.proposal.retirements}
            assert list(turned.starts) == list(moment.proposal.starts)
            assert turned.memory == moment.proposal.memory

    def test_everybody_is_answered(self) -> None:
        """Each ready member gets one decision, which opens its next round, or one retirement; others get none."""
        for moment in self._run(_mixed):
            answered = [d.member for d in moment.proposal.decisions] + [r.member for r in moment.proposal.retirements]
            assert sorted(answered) == sorted(member.id for member in moment.ready)
            for decision in moment.proposal.decisions:
                assert decision.round == moment.view.member(decision.member).round + 1

    def test_inside_the_bounds(self) -> None:
        """The hyperparameters of initial members and of all decisions are in the space."""
        for moment in self._run(_mixed):
            for decision in moment.proposal.decisions:
                assert self.space.contains(decision.hparams), decision
            for start in moment.proposal.starts:
                assert self.space.contains(start.hparams), start

    def test_the_constraint_holds(self) -> None:
        """A predicate or a repair over all values holds for initial members and for all decisions."""
        for constraint in (_small_in_sum, _made_small_in_sum):
            space = Space(self.space, constraint)
            for moment in self._run(_mixed, space=space):
                for hparams in (
                    opening.hparams for part in (moment.proposal.decisions, moment.proposal.starts) for opening in part
                ):
                    assert space.contains(hparams), hparams
                    assert space.allows(hparams), hparams

    def test_states_that_are_there(self) -> None:
        """A decision starts from a member's current state or a retained one, with the step of that state."""
        strategy = self.make_strategy()
        retained: set[StateRef] = set()
        steps: dict[StateRef, int] = {}
        for moment in self._run(_mixed):
            members = moment.view.members
            steps |= {m.state: m.step for m in members if m.state is not None and not m.inherited}
            there = {m.state for m in members} | retained | ({moment.view.best.state} if moment.view.best else set())
            for decision in moment.proposal.decisions:
                assert decision.start in there
                assert decision.step == (steps[decision.start] if decision.start is not None else 0)
            retained = strategy.retain(moment.view)
            assert retained <= steps.keys()

    def test_failed_members_are_replaced(self) -> None:
        """A failed member is replaced by a copy of a healthy one or retired, and is never a donor."""
        met = 0
        for moment in self._run(_mixed):
            healthy = {member.id for member in moment.view.ranking}
            failed = {member.id for member in moment.ready if member.status == "failed"}
            met += len(failed)
            for decision in moment.proposal.decisions:
                failing = {moment.view.member(id_).status == "failed" for id_ in (decision.donor,) if id_ is not None}
                assert True not in failing, "a failed member must not be a donor"
                if decision.member in failed and healthy:
                    assert decision.kind == "replace"
                    assert decision.donor != decision.member
        assert met > 0

    def test_awkward_populations(self) -> None:
        """Equal scores, a single survivor and a population of one are handled."""
        for score in (_equal, _one_survivor):
            assert list(self._run(score))
        assert list(self._run(_equal, population=1))

    def test_memory_is_plain(self) -> None:
        """The strategy's memory survives a round trip through JSON."""
        for moment in self._run(_mixed):
            memory = moment.proposal.memory
            assert memory is None or json.loads(json.dumps(memory)) == memory

    def test_description_is_plain(self) -> None:
        """`describe` returns plain values, equal for equal strategies."""
        plain = self.make_strategy().describe()
        assert json.loads(json.dumps(plain)) == json.loads(json.dumps(self.make_strategy().describe()))

    def test_beginning(self) -> None:
        """Initial members have unique ids; given values are assigned first, and the others are in the space."""
        initial = [self.space.sample(Rng("initial"))]
        view = View(seed=1, space=self.space)
        begun = self.make_strategy().begin(view, self.population, initial)
        assert begun == self.make_strategy().begin(view, self.population, initial)
        assert len({start.member for start in begun.starts}) == len(begun.starts) >= self.population
        for given, start in zip(initial, begun.starts, strict=False):
            assert dict(start.hparams) == given
        assert all(self.space.contains(start.hparams) for start in begun.starts)

    def test_time_goes_on(self) -> None:
        """The next ready step is always later."""
        strategy = self.make_strategy()
        assert strategy.mode in ("sync", "async")
        assert strategy.lookback >= 0
        step = 0
        for _ in range(5):
            later = strategy.next_ready(step)
            assert later > step
            step = later

    def _run(self, score: Score, population: int | None = None, space: Space | None = None) -> Iterator[Moment]:
        """The ready points of a simulated run with these scores."""
        strategy = self.make_strategy()
        ages = Ages() if getattr(strategy, "by_age", False) else None
        view = View(seed=3, space=space or self.space, lookback=strategy.lookback, ages=ages)
        begun = strategy.begin(view, population or self.population, ())
        view = apply(view, [*begun.starts, *_noted(view, begun)])
        for _ in range(self.rounds):
            due = [m for m in view.members if m.status == "live" and m.opened == m.round + 1]
            waves = [due] if strategy.mode == "sync" else [[member] for member in due]
            for wave in waves:
                view = apply(view, [self._outcome(strategy, member, score) for member in wave])
                if strategy.mode == "async" and not view.ranking:
                    continue
                if all(member.status == "failed" for member in view.population):
                    return
                ready = tuple(m for m in view.members if m.status != "retired" and m.opened == m.round)
                for answered in [ready] if strategy.mode == "sync" else [(member,) for member in ready]:
                    proposal = strategy.decide(view, answered)
                    yield Moment(view=view, ready=answered, proposal=proposal)
                    view = apply(view, _events(view, proposal))

    def _outcome(self, strategy: Strategy, member: Member, score: Score) -> Event:
        value = score(member)
        if value is None:
            return Failed(member=member.id, round=member.opened, cause="score", message="drawn")
        rng = Rng("scores", member.id, member.opened)
        return Reported(
            member=member.id,
            round=member.opened,
            step=strategy.next_ready(member.step),
            scores=(value, *(rng.random() for _ in range(self.objectives - 1))),
            series=tuple(value + 0.1 * rng.normal() for _ in range(self.series)),
            state=StateRef(member.id, member.opened),
            digest="",
        )


def _mixed(member: Member) -> float | None:
    """A drawn score; about one round in seven fails, never all members at once."""
    value = Rng("mixed", member.id, member.opened).random()
    return value if member.id == 0 or value > 0.15 else None


def _equal(member: Member) -> float:  # noqa: ARG001
    return 0.5


def _one_survivor(member: Member) -> float | None:
    return 0.5 if member.id == 0 else None


def _events(view: View, proposal: Proposal) -> Sequence[Event]:
    """The proposal as the events that an engine logs."""
    decided = [Decided(decision=decision) for decision in proposal.decisions]
    return [*decided, *proposal.retirements, *proposal.starts, *_noted(view, proposal)]


def _noted(view: View, proposal: Proposal) -> list[Event]:
    return [] if proposal.memory is None else [MemoryUpdated(round=view.round, memory=proposal.memory)]
