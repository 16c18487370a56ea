"""PB2: Population Based Bandits (Parker-Holder, Nguyen and Roberts 2020, arXiv 2002.02518)."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pbt.core.events import Decision, Retired
from pbt.core.exploit import Copy, Truncation
from pbt.core.population import Member, View
from pbt.core.rng import Rng
from pbt.core.strategy import Proposal, hand_over, replacement
from pbt.errors import UsageError
from pbt.space import HParams, Space, Value
from pbt.strategies.base import Rounds
from pbt.strategies.gains import Bounds, GainRow, at_share, choices, numbers, observed, points, row_of, standardized
from pbt.strategies.surrogate import Acquisition, Kernel, fit, propose

FACTORS = (0.8, 1.2)
"""What a choice is perturbed by: to its neighbor before or behind, or to a new draw."""
RESTARTS = 10
MODELED = "model"
"""What `draws` says of a value that the Gaussian process chose."""
Explored = tuple[dict[str, Value], dict[str, Value]]
"""New values, and what was drawn per changed name."""


@dataclass(slots=True, kw_only=True)
class Wave:
    """What is known while the members of one round are decided on, one after the other."""

    view: View
    rows: Sequence[GainRow]
    notes: dict[str, Any]
    """What the strategy will remember beside the rows."""
    times: Bounds
    scores: Bounds
    """The ranges of what was seen, and of now."""
    pending: list[GainRow]
    """What is settled for the next round; of a gain that nobody knows yet."""
    kernels: dict[tuple[GainRow, ...], Kernel]
    """Fitted so far, by the rows they were fitted to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandits(Rounds):
    """What PB2 and PB2-Mix share: truncation, the rows of gains, and a Gaussian process over them.

    A round begins with the score of the state it starts from, a donor's if that was copied. What is observed is only
    ever a member's own report: an inherited score is no observation, and a failed round makes none.
    """

    quantile: float = 0.25
    acquisition: Acquisition = "variance"
    time: Literal["run", "rounds"] = "run"
    eps_cap: float = 0.5
    rows: int = 1000

    def __post_init__(self) -> None:
        Rounds.__post_init__(self)
        Truncation(self.quantile)
        for name, allowed in (("acquisition", ("variance", "std")), ("time", ("run", "rounds"))):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{self._name}: expected {name} to be one of {allowed}, got {getattr(self, name)!r}")
        if not 0 <= self.eps_cap < 1:
            raise UsageError(f"{self._name}: expected eps_cap from 0 to below 1, got {self.eps_cap!r}")
        if not 2 <= self.rows <= 1000:
            raise UsageError(f"{self._name}: expected 2 to 1000 rows (more take too long), got {self.rows!r}")

    @property
    def _name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def learn(self, view: View, fresh: Sequence[GainRow]) -> dict[str, Any]:
        """What to remember beside the rows, now that these are new."""

    @abstractmethod
    def choose(self, hparams: HParams, wave: Wave, rng: Rng) -> Explored:
        """The values with new choices."""

    @abstractmethod
    def compared(self, space: Space) -> Sequence[str]:
        """The choices that the kernel compares."""

    @abstractmethod
    def telling(self, rows: Sequence[GainRow], now: GainRow, space: Space) -> Sequence[GainRow]:
        """Those of the rows that tell something about what is to be tried now."""

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """First everybody who goes on unchanged; then each copy, by id, to which all before it are pending."""
        ready = sorted(ready, key=lambda member: member.id)
        wave = self._wave(view, ready)
        donors = {member.id: self._donor(member, view) for member in ready}
        decisions: list[Decision] = []
        for member in ready:
            donor, why = donors[member.id]
            if donor is None and member.status == "live":
                wave.pending.append(row_of(member.round, member.score, member.hparams, view.space))
                decisions.append(hand_over(member, member.hparams, why=why))
        for member in ready:
            donor, why = donors[member.id]
            if donor is not None:
                hparams, draws, how = self._explore(member, donor, wave)
                wave.pending.append(row_of(member.round, donor.score, hparams, view.space))
                why = f"{why}; {how}"
                decisions.append(hand_over(member, hparams, source=donor, origin=donor, draws=draws, why=why))
        answered = {decision.member: decision for decision in decisions}
        gone = [m for m in ready if m.id not in answered]
        opened = {
            # As they are pending, in the same order: what the next report of each is to be compared with.
            str(decision.member): [decision.round, row.before]
            for decision, row in zip(decisions, wave.pending, strict=True)
        }
        memory = {"rows": [[*row[:3], [*row.values]] for row in wave.rows], "opened": opened, **wave.notes}
        retirements = [Retired(member=m.id, round=m.round, why="failed, and nobody is healthy") for m in gone]
        return Proposal(decisions=decisions, retirements=retirements, memory=memory)

    def _wave(self, view: View, ready: Sequence[Member]) -> Wave:
        opened = view.memory.get("opened", {})
        fresh = [row for member in ready if (row := observed(member, opened, view.space)) is not None]
        known = [GainRow(row[0], row[1], row[2], tuple(row[3])) for row in view.memory.get("rows", ())]
        rows = [*known, *fresh][-self.rows :]
        # Of now as well: a donor may be better than any state that a row began with.
        scores = [row.before for row in rows] + [member.score for member in view.ranking]
        times = [row.round for row in rows] + [view.round]
        return Wave(
            view=view,
            rows=rows,
            notes=self.learn(view, fresh),
            times=(min(times), max(times)) if self.time == "run" else (0.0, 1.0),
            scores=(min(scores, default=0.0), max(scores, default=0.0)),
            pending=[],
            kernels={},
        )

    def _donor(self, member: Member, view: View) -> tuple[Member | None, str]:
        """Whom the member copies, if anybody, and why."""
        if member.status == "failed":
            return replacement(member, view), "failed"
        choice = Truncation(self.quantile)(member, view, _rng(view, member, "exploit"))
        return (view.member(choice.donor) if isinstance(choice, Copy) else None), choice.why

    def _explore(self, member: Member, donor: Member, wave: Wave) -> tuple[HParams, dict[str, Value], str]:
        """The donor's values with new choices, and the numbers that the process finds best beside those."""
        space, rng = wave.view.space, _rng(wave.view, member, "explore")
        chosen, draws = self.choose(donor.hparams, wave, rng)
        hparams = space.settle(chosen, rng)
        moving = {name: domain for name, domain in numbers(space).items() if name in hparams}
        now = row_of(member.round, donor.score, hparams, space)
        rows = self.telling(wave.rows, now, space)
        if len(rows) < 2 or not moving:
            return hparams, draws, f"{len(rows)} rows tell nothing about its numbers"
        kernel, places = self._ask(now, rows, list(moving), wave, rng)
        moved = {name: at_share(domain, places[name]) for name, domain in moving.items()}
        why = f"{len(rows)} rows, eps {kernel.eps:.2g}"
        return {**hparams, **moved}, draws | dict.fromkeys(moving, MODELED), why

    def _ask(
        self, now: GainRow, rows: Sequence[GainRow], names: Sequence[str], wave: Wave, rng: Rng
    ) -> tuple[Kernel, dict[str, float]]:
        """The kernel for these rows, and the best place in its range for each name."""
        space, key = wave.view.space, tuple(rows)
        pending = self.telling(wave.pending, now, space)
        kinds = self.compared(space)
        seen, tried, here = (points(part, space, kinds, wave.times, wave.scores) for part in (rows, pending, [now]))
        gains = standardized([row.gain for row in rows])
        if key not in wave.kernels:
            # PB2-Mix starts at 0, PB2 at 0.1.
            wave.kernels[key] = fit(seen, gains, eps=0.0 if seen.kinds else 0.1, eps_cap=self.eps_cap)
        # Column 0 is the score before.
        columns = {name: 1 + i for i, name in enumerate(numbers(space)) if name in names}
        starts = [{column: rng.random() for column in columns.values()} for _ in range(RESTARTS)]
        best = propose(wave.kernels[key], seen, gains, tried, here, starts, self.acquisition)
        return wave.kernels[key], {name: best[column] for name, column in columns.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PB2(Bandits):
    """The worst copy the best, and a Gaussian process says which numbers the copies try.

    The process learns how much a round gains from the hyperparameters, the score before and the time; it forgets at a
    rate that it learns too. Choices are perturbed as in plain PBT (`PB2Mix` learns those as well).

    Use it for small populations (4 to 8) with one to about six numbers in wide ranges, where random factors would
    need many rounds to leave a bad prior. Not for large populations, where factors alone search well and a copy
    costs up to 0.3 s of one core; not where the gain of a single round is mostly noise; and not where greed is wrong:
    what it models is the next gain, so it is greedier than PBT itself.

    The first round is compared with nothing, so at the first ready point copies keep the donor's numbers.

    Args:
        interval: Training steps of a round.
        quantile: Share of the population that is replaced, 0 to 0.5.
        acquisition: Uncertainty counts as `"variance"`, as in the published programs, or as `"std"`, as in the paper.
        time: `"run"`: from the oldest row to now is one unit, as published, so that with `eps_cap` 0.5 the oldest row
            still correlates by 0.71 with the newest. `"rounds"`: a round is one unit, which forgets as fast as needed.
        eps_cap: The most that is forgotten per two units of time, as a share of the correlation; 0 forgets nothing.
        rows: Rounds of single members that are remembered, 2 to 1000. All are logged every round: about 100 kB
            for 1000 rows of three values.

    Raises:
        UsageError: A value outside these.
    """

    def learn(self, view: View, fresh: Sequence[GainRow]) -> dict[str, Any]:  # noqa: ARG002 (the form of the base)
        """Nothing."""
        return {}

    def choose(self, hparams: HParams, wave: Wave, rng: Rng) -> Explored:
        """Every choice perturbed."""
        space = wave.view.space
        factors = {name: rng.choice(FACTORS) for name in choices(space) if name in hparams}
        moved = {name: choices(space)[name].perturb(hparams[name], factor, rng) for name, factor in factors.items()}
        return {**hparams, **moved}, {**factors}

    def compared(self, space: Space) -> Sequence[str]:  # noqa: ARG002
        """None."""
        return ()

    def telling(self, rows: Sequence[GainRow], now: GainRow, space: Space) -> Sequence[GainRow]:  # noqa: ARG002
        """All of them."""
        return rows


def _rng(view: View, member: Member, purpose: str) -> Rng:
    return view.rng("decide", member.id, member.round, purpose)
