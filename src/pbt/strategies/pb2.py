"""PB2: Population Based Bandits (Parker-Holder, Nguyen and Roberts 2020, arXiv 2002.02518)."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pbt.core.events import Decision, Retired
from pbt.core.exploit import Copy, Truncation
from pbt.core.explore import toward
from pbt.core.needs import Needs
from pbt.core.population import Member, View
from pbt.core.rng import Rng
from pbt.core.strategy import Proposal, hand_over, replacement
from pbt.errors import UsageError
from pbt.space import HParams, Space
from pbt.strategies.base import NO_DONOR, Rounds
from pbt.strategies.gains import Bounds, GainRow, at_share, choices, numbers, observed, points, row_of, standardized
from pbt.strategies.surrogate import Acquisition, Kernel, fit, joined, propose
from pbt.values import Value, plain

FACTORS = (0.8, 1.2)
"""Factors for choices: an ordered one moves to the previous or next option, another one is drawn anew."""
RESTARTS = 10
"""Number of starting points of the search."""
MODELED = "model"
"""The entry in `draws` of a value chosen by the Gaussian process."""
Explored = tuple[dict[str, Value], dict[str, Value]]
"""New values, and the draw of each changed name."""


@dataclass(slots=True, kw_only=True)
class Wave:
    """The working data of one round's decisions, which are made one after the other."""

    view: View
    rows: Sequence[GainRow]
    notes: dict[str, Any]
    """Entries of the strategy's memory besides the rows."""
    times: Bounds
    """The range of the rows' rounds, including the current one."""
    scores: Bounds
    """The range of the rows' scores, including the current ones."""
    pending: list[GainRow]
    """The decided rows of the next round, whose gains are not known yet."""
    kernels: dict[tuple[GainRow, ...], Kernel]
    """The fitted kernels by their rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandits(Rounds):
    """The base of PB2 and PB2-Mix: truncation, rows of gains, and a Gaussian process over them.

    The gain of a round is measured from the score of the state it starts from, a donor's after a copy. Only a member's
    own report is an observation: an inherited score is none, and neither is a failed round.
    """

    quantile: float = 0.25
    acquisition: Acquisition = "variance"
    time: Literal["run", "rounds"] = "run"
    eps_cap: float = 0.5
    rows: int = 1000
    refit: bool = True

    def __post_init__(self) -> None:
        Rounds.__post_init__(self)
        Truncation(self.quantile)
        for name, allowed in (("acquisition", ("variance", "std")), ("time", ("run", "rounds"))):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{self._name}: expected {name} to be one of {allowed}, got {getattr(self, name)!r}")
        if not 0 <= self.eps_cap < 1:
            raise UsageError(f"{self._name}: expected eps_cap from 0 to below 1, got {self.eps_cap!r}")
        if not 2 <= self.rows <= 1000:
            raise UsageError(f"{self._name}: expected 2 to 1000 rows (more would be too slow), got {self.rows!r}")

    @property
    def _name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def learn(self, view: View, fresh: Sequence[GainRow]) -> dict[str, Any]:
        """Update the entries of the memory besides the rows with these new rows."""

    @abstractmethod
    def choose(self, hparams: HParams, wave: Wave, rng: Rng) -> Explored:
        """Explore the choices among the values."""

    @abstractmethod
    def compared(self, space: Space) -> Sequence[str]:
        """The choices that the kernel compares."""

    @abstractmethod
    def relevant(self, rows: Sequence[GainRow], now: GainRow, space: Space) -> Sequence[GainRow]:
        """The rows that are informative about the candidate `now`."""

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """Decide on unchanged members first, then on copies by id; earlier decisions are pending for later ones."""
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
        decided = {decision.member: decision for decision in decisions}
        gone = [m for m in ready if m.id not in decided]
        opened = {
            # `pending` has the same order; its scores are the baseline of the next reports.
            str(decision.member): [decision.round, row.before]
            for decision, row in zip(decisions, wave.pending, strict=True)
        }
        memory = {"rows": [[*row[:3], [*row.values]] for row in wave.rows], "opened": opened, **wave.notes}
        retirements = [Retired(member=m.id, round=m.round, why=NO_DONOR) for m in gone]
        return Proposal(decisions=decisions, retirements=retirements, memory=memory)

    def _wave(self, view: View, ready: Sequence[Member]) -> Wave:
        opened = view.memory.get("opened", {})
        fresh = [row for member in ready if (row := observed(member, opened, view.space)) is not None]
        known = [GainRow(row[0], row[1], row[2], plain(row[3])) for row in view.memory.get("rows", ())]
        rows = [*known, *fresh][-self.rows :]
        # Current scores are included: a donor may be better than the baseline of every row.
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
        """The donor that the member copies, or None, and the reason."""
        if member.status == "failed":
            return replacement(member, view), "failed"
        choice = Truncation(self.quantile)(member, view, _rng(view, member, "exploit"))
        return (view.member(choice.donor) if isinstance(choice, Copy) else None), choice.why

    def _explore(self, member: Member, donor: Member, wave: Wave) -> tuple[HParams, dict[str, Value], str]:
        """The donor's values with explored choices, and the numbers that the Gaussian process proposes for them."""
        space, rng = wave.view.space, _rng(wave.view, member, "explore")
        chosen, draws = self.choose(donor.hparams, wave, rng)
        hparams = toward(space, donor.hparams, space.settle(chosen, rng))
        moving = {name: domain for name, domain in numbers(space).items() if name in hparams}
        now = row_of(member.round, donor.score, hparams, space)
        rows = self.relevant(wave.rows, now, space)
        if len(rows) < 2 or not moving:
            return hparams, draws, f"numbers kept, {len(rows)} rows to model"
        kernel, places = self._model(now, rows, list(moving), wave, rng)
        moved = {name: at_share(domain, places[name]) for name, domain in moving.items()}
        why = f"{len(rows)} rows, eps {kernel.eps:.2g}"
        proposed = toward(space, donor.hparams, space.settle({**hparams, **moved}, rng))
        return proposed, draws | dict.fromkeys(moving, MODELED), why

    def _model(
        self, now: GainRow, rows: Sequence[GainRow], names: Sequence[str], wave: Wave, rng: Rng
    ) -> tuple[Kernel, dict[str, float]]:
        """The kernel for these rows, and the best position in its range for each name."""
        space, key = wave.view.space, tuple(rows)
        pending = self.relevant(wave.pending, now, space)
        kinds = self.compared(space)
        seen, tried, here = (points(part, space, kinds, wave.times, wave.scores) for part in (rows, pending, [now]))
        gains = standardized([row.gain for row in rows])
        # As published: PB2-Mix starts at 0, PB2 at 0.1.
        eps = 0.0 if seen.kinds else 0.1
        if key not in wave.kernels:
            wave.kernels[key] = fit(seen, gains, eps=eps, eps_cap=self.eps_cap)
        unsure = None
        if self.refit:
            unsure = fit(joined(seen, tried), [*gains, *[0.0] * len(pending)], eps=eps, eps_cap=self.eps_cap)
        # Column 0 is the score before the round.
        columns = {name: 1 + i for i, name in enumerate(numbers(space)) if name in names}
        starts = [{column: rng.random() for column in columns.values()} for _ in range(RESTARTS)]
        best = propose(wave.kernels[key], seen, gains, tried, here, starts, self.acquisition, unsure)
        return wave.kernels[key], {name: best[column] for name, column in columns.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PB2(Bandits):
    """The worst members copy the best, and a Gaussian process proposes the numbers of the copies.

    The process models the gain of a round from the hyperparameters, the score before the round and the time; its rate
    of forgetting is fitted, too. Choices are perturbed as in plain PBT (`PB2Mix` models those as well).

    Use it for small populations (4 to 8) with one to about six numbers in wide ranges, where random factors would need
    many rounds to leave a bad prior. Do not use it for large populations, where factors search well and a copy costs up
    to 0.6 s of one core; where the gain of a single round is mostly noise; or where greedy choices are wrong: it models
    the gain of the next round, so it is greedier than PBT itself.

    The first round has no gain, so at the first ready point copies keep the donor's numbers.

    Args:
        interval: Training steps of a round.
        quantile: Share of the population that is replaced, 0 to 0.5.
        acquisition: The measure of uncertainty: `"variance"` as in the published programs, `"std"` as in the paper.
        time: The unit of time. `"run"`: from the oldest row to now, as published, so that with `eps_cap` 0.5 the oldest
            row still correlates by 0.71 with the newest. `"rounds"`: one round, which forgets as fast as needed.
        eps_cap: The upper bound of forgetting per two units of time, as a share of the correlation; with 0 nothing is
            forgotten.
        rows: The most rounds of single members that are remembered, 2 to 1000. All are logged every round: about 100 kB
            for 1000 rows of three values.
        refit: Whether the uncertainty is that of a second kernel, fitted to the pending rows as well, with gains of 0,
            as in the published programs. It takes a fit per copy; without it, one per round is enough.

    Raises:
        UsageError: An argument is outside its range.
    """

    resizable: ClassVar[bool] = True
    needs: ClassVar[Needs] = Needs(name="PB2", members=2, numbers=True)

    def learn(self, view: View, fresh: Sequence[GainRow]) -> dict[str, Any]:  # noqa: ARG002 (the form of the base)
        """PB2 has no memory besides the rows."""
        return {}

    def choose(self, hparams: HParams, wave: Wave, rng: Rng) -> Explored:
        """Perturb every choice."""
        space = wave.view.space
        factors = {name: rng.choice(FACTORS) for name in choices(space) if name in hparams}
        moved = {name: choices(space)[name].perturb(hparams[name], factor, rng) for name, factor in factors.items()}
        return {**hparams, **moved}, {**factors}

    def compared(self, space: Space) -> Sequence[str]:  # noqa: ARG002
        """PB2's kernel compares no choices."""
        return ()

    def relevant(self, rows: Sequence[GainRow], now: GainRow, space: Space) -> Sequence[GainRow]:  # noqa: ARG002
        """All rows are relevant."""
        return rows


def _rng(view: View, member: Member, purpose: str) -> Rng:
    return view.rng("decide", member.id, member.round, purpose)
