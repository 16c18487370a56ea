"""IPBT: the interval between evolutions is chosen during the run, and doubled by restarts.

Chebykin et al. 2025, "Iterated Population Based Training with Task-Agnostic Restarts", arXiv 2511.09190. The rules are
the paper's unless a docstring says otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pbt.core.events import Born, Decision, Retired
from pbt.core.explore import RESAMPLED, Explore, Perturb, explored, toward
from pbt.core.population import Member, View
from pbt.core.strategy import Proposal, births, hand_over, replacement, stay
from pbt.errors import UsageError
from pbt.space import HParams
from pbt.strategies.base import NO_DONOR, Rounds
from pbt.strategies.gains import ABSENT, at_share, numbers, share, standardized
from pbt.strategies.pb2 import MODELED, RESTARTS
from pbt.strategies.stagnation import PATIENCE, rises, smoothed, too_slow
from pbt.strategies.surrogate import Points, fit, propose
from pbt.values import Value

QUARTER = 0.25
"""The share that is replaced by an evolution, and whose states survive a restart."""
CANDIDATES = 2
"""Candidates per member at the start and at a restart."""
ROWS = 100
"""The most rows to which the process of a restart is fitted."""
Values = tuple[HParams, dict[str, Value], str]
"""Hyperparameters, their draws, and the reason for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """The outcome of an iteration for one of its initial candidates."""

    iteration: int
    places: Sequence[float]
    """The positions of its initial numbers in their ranges, 0 .. 1."""
    score: float
    """The best score among its descendants at the end; the population's lowest if none is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Iteration:
    """The memory of the strategy: an iteration is the time between two restarts."""

    number: int
    population: int
    interval: int
    """Rounds between two evolutions."""
    since: int
    """The round of the last evolution, selection or restart."""
    trial: bool
    """Whether more candidates than members are in training."""
    founders: Mapping[str, int]
    """The candidate from which each member descends."""
    places: Mapping[str, Sequence[float]]
    """The candidates' initial numbers, as in `_Row`."""
    series: Sequence[float] = ()
    """The best score at each evolution, higher is better."""
    stalls: int = 0
    """Evolutions in succession without a rise."""
    rows: Sequence[_Row] = ()

    def plain(self) -> dict[str, Any]:
        rows = [[row.iteration, list(row.places), row.score] for row in self.rows]
        return {**asdict(self), "rows": rows, "series": list(self.series)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "_Iteration":
        rows = [_Row(iteration=number, places=places, score=score) for number, places, score in plain["rows"]]
        return cls(**{**plain, "rows": rows})


@dataclass(frozen=True, slots=True, kw_only=True)
class IPBT(Rounds):
    """IPBT: truncation whose interval starts at one round and doubles at every restart.

    No interval between evolutions has to be chosen: only the length of a round, which is the shortest interval. The
    paper's is 1 % of the training. The others follow from the scores. A *restart* happens when the best score, smoothed
    over the evolutions since the last restart, did not rise three times in succession, or rose over the last 15 by
    less than its standard deviation. Then the interval doubles, the states of the best quarter replace those of all
    others, and every member gets new hyperparameters: half are drawn from the priors, half proposed by a Gaussian
    process over the initial values of earlier iterations and the scores that they led to. Twice as many candidates as
    members train for the first interval, at the start and after a restart; the better half of them is kept.

    Use it where no good interval is known and the run has a hundred rounds or more. Do not use it where a good interval
    is known, since the search for one costs training: on the toys of `pbt.testing.problems` it is worse than the best
    of five fixed intervals (docs/benchmarks-problems.md). Neither where greedy selection is wrong, since the first
    interval is the greediest and restarts keep the states that it selected; nor for short runs, which end before the
    first restart; nor where evaluation is expensive, since every round is evaluated, also between two evolutions.

    Differences from the paper. Copied states stay as they are: the paper shrinks and perturbs half of them, but a
    strategy cannot change a state. Copied values change by `explore`; the paper proposes them by a Gaussian process. A
    restart does not move a run back: all members have the steps of all rounds, and the candidates are trained in
    addition. A failed member is replaced after its round.

    Args:
        interval: Training steps of a round.
        horizon: Rounds of the run. A restart needs time for two of its intervals before the end. `pbt run --plan ipbt`
            and `pbt compare` set it to the rounds of the experiment.
        explore: How copied values change.

    Raises:
        UsageError: The horizon is below 1; at the start, the population is below 3.
    """

    horizon: int = 100
    explore: Explore = field(default_factory=lambda: Perturb((0.8, 1.25)))

    def __post_init__(self) -> None:
        Rounds.__post_init__(self)
        if type(self.horizon) is not int or self.horizon < 1:
            raise UsageError(f"IPBT: expected a horizon of at least 1 round, a whole number, got {self.horizon!r}")

    def begin(self, view: View, population: int, initial: Sequence[HParams]) -> Proposal:
        """Twice as many candidates as members, first with the given values, then with values drawn from the priors."""
        if not _quarter(population):
            raise UsageError(
                f"IPBT: expected a population of at least 3, of which a quarter is replaced, got {population}; "
                "take more members, or a plan such as pbt"
            )
        starts = births(view, CANDIDATES * population, initial)
        iteration = _Iteration(
            number=0,
            population=population,
            interval=1,
            since=0,
            trial=True,
            founders={str(start.member): start.member for start in starts},
            places={str(start.member): _places(start.hparams, view) for start in starts},
        )
        return Proposal(starts=starts, memory=iteration.plain())

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """Wait, select candidates, evolve or restart; in all cases failed members are replaced."""
        iteration = _Iteration.from_plain(view.memory)
        if iteration.population > len(view.members):  # in a log that another program changed, it may be any number
            raise ValueError(f"a population of {iteration.population} among {len(view.members)} members")
        wave = sorted(ready, key=lambda member: member.id)
        if not view.ranking or view.round - iteration.since < iteration.interval:
            return self._answered(wave, {}, view, iteration)
        iteration = replace(iteration, since=view.round, series=[*iteration.series, view.ranking[0].score])
        if iteration.trial:
            return self._selected(wave, view, replace(iteration, trial=False))
        curve = smoothed(iteration.series)
        iteration = replace(iteration, stalls=0 if rises(curve) else iteration.stalls + 1)
        longer = 2 * iteration.interval
        if (iteration.stalls >= PATIENCE or too_slow(curve)) and view.round + 2 * longer <= self.horizon:
            return _restarted(wave, view, iteration, longer)
        return self._answered(wave, _donors(wave, view), view, iteration)

    def _selected(self, wave: Sequence[Member], view: View, iteration: _Iteration) -> Proposal:
        """Keep the best candidates, as many as the population has members."""
        order = [*view.ranking, *(member for member in wave if not member.healthy)]
        kept = {member.id for member in order[: iteration.population]}
        proposal = self._answered([member for member in wave if member.id in kept], {}, view, iteration)
        why = f"not among the best {iteration.population} of {len(wave)} candidates"
        left = [Retired(member=m.id, round=m.round, why=why) for m in wave if m.id not in kept]
        after = _Iteration.from_plain(proposal.memory or {})
        founders = {id_: founder for id_, founder in after.founders.items() if int(id_) in kept}
        founded = {str(founder) for founder in founders.values()}
        places = {founder: places for founder, places in after.places.items() if founder in founded}
        memory = replace(after, places=places, founders=founders).plain()
        return replace(proposal, retirements=[*proposal.retirements, *left], memory=memory)

    def _answered(
        self, wave: Sequence[Member], donors: Mapping[int, Member], view: View, iteration: _Iteration
    ) -> Proposal:
        """The decisions of members that continue, copy these donors or are replaced, and the memory after them."""
        founders = dict(iteration.founders)
        decisions: list[Decision] = []
        retirements = []
        for member in wave:
            failed = member.status == "failed"
            donor = replacement(member, view) if failed else donors.get(member.id)
            if donor is not None:
                rng = view.rng("decide", member.id, member.round, "explore")
                hparams, draws = explored(self.explore, donor.hparams, member, view, rng)
                why = "failed" if failed else f"rank {view.position[member.id] + 1} of {len(view.ranking)}"
                decisions.append(hand_over(member, hparams, source=donor, origin=donor, draws=draws, why=why))
                founders[str(member.id)] = iteration.founders[str(donor.id)]
            elif failed:
                retirements.append(Retired(member=member.id, round=member.round, why=NO_DONOR))
                founders.pop(str(member.id))
            else:
                decisions.append(stay(member))
        memory = replace(iteration, founders=founders).plain()
        return Proposal(decisions=decisions, retirements=retirements, memory=memory)


def _quarter(population: int) -> int:
    """A quarter of the population, rounded to the nearest number and halves to the even one, as in the paper."""
    return round(QUARTER * population)


def _donors(wave: Sequence[Member], view: View) -> dict[int, Member]:
    """The donors of the worst quarter, each drawn from the best quarter; no member copies an equal score."""
    healthy = len(view.ranking)
    number = min(_quarter(len(view.population)), healthy // 2)
    donors = {}
    for member in wave:
        if number and member.healthy and view.position[member.id] >= healthy - number:
            donor = view.rng("decide", member.id, member.round, "exploit").choice(view.ranking[:number])
            if donor.scores != member.scores:
                donors[member.id] = donor
    return donors


def _outcomes(view: View, iteration: _Iteration) -> list[_Row]:
    """The rows of an iteration that ends."""
    lowest = view.ranking[-1].score
    scores = {int(founder): lowest for founder in iteration.places}
    for member in view.ranking:
        founder = iteration.founders[str(member.id)]
        scores[founder] = max(scores[founder], member.score)
    return [
        _Row(iteration=iteration.number, places=places, score=scores[int(founder)])
        for founder, places in sorted(iteration.places.items(), key=lambda item: int(item[0]))
    ]


def _restarted(wave: Sequence[Member], view: View, iteration: _Iteration, interval: int) -> Proposal:
    """A new iteration: all members and as many births, with states of the best quarter and new values."""
    rows = [*iteration.rows, *_outcomes(view, iteration)][-ROWS:]
    best = view.ranking[: max(1, _quarter(len(view.population)))]
    new = range(len(view.members), len(view.members) + CANDIDATES * iteration.population - len(wave))
    values = _new_values([*(member.id for member in wave), *new], rows, view, iteration.number + 1)
    decisions, starts = [], []
    for member in wave:
        hparams, draws, how = values[member.id]
        own = any(member.id == donor.id for donor in best)
        source = None if own else view.rng("restart", view.round, member.id, "state").choice(best)
        why = f"restart, interval of {interval} rounds; {how}"
        decisions.append(hand_over(member, hparams, source=source, draws=draws, why=why))
    for id_ in new:
        donor = view.rng("restart", view.round, id_, "state").choice(best)
        hparams = values[id_][0]
        starts.append(Born(member=id_, round=view.round + 1, hparams=hparams, start=donor.state, step=donor.step))
    after = _Iteration(
        number=iteration.number + 1,
        population=iteration.population,
        interval=interval,
        since=view.round,
        trial=True,
        founders={str(id_): id_ for id_ in values},
        places={str(id_): _places(hparams, view) for id_, (hparams, _, _) in values.items()},
        rows=rows,
    )
    return Proposal(decisions=decisions, starts=starts, memory=after.plain())


def _places(hparams: HParams, view: View) -> list[float]:
    return [share(domain, hparams[name]) if name in hparams else ABSENT for name, domain in numbers(view.space).items()]


def _new_values(candidates: Sequence[int], rows: Sequence[_Row], view: View, number: int) -> dict[int, Values]:
    """New hyperparameters of all candidates: alternately drawn from the priors and proposed by the process."""
    domains = numbers(view.space)
    drawn: dict[int, HParams] = {}
    values: dict[int, Values] = {}
    for id_ in candidates:
        drawn[id_] = view.space.sample(view.rng("restart", view.round, id_, "values"))
    modeled = candidates[1::2] if domains and len(rows) > 1 else ()
    proposals = _proposed(modeled, rows, view, number) if modeled else {}
    for id_, hparams in drawn.items():
        draws: dict[str, Value] = dict.fromkeys(hparams, RESAMPLED)
        if id_ not in proposals:
            values[id_] = hparams, draws, "values from the priors"
            continue
        moved = {n: at_share(d, place) for (n, d), place in zip(domains.items(), proposals[id_], strict=True)}
        rng = view.rng("restart", view.round, id_, "settle")
        found = view.space.settle({n: moved.get(n, value) for n, value in hparams.items()}, rng)
        draws |= {n: MODELED for n in moved if n in hparams}
        values[id_] = toward(view.space, hparams, found), draws, f"values from {len(rows)} earlier outcomes"
    return values


def _proposed(candidates: Sequence[int], rows: Sequence[_Row], view: View, number: int) -> dict[int, list[float]]:
    """The positions that a time-varying Gaussian process proposes; earlier proposals are pending for later ones.

    The kernel is that of PB2 with one length for all numbers (the paper's has one for each), over iterations instead of
    rounds. A point is worth its mean plus its weighted uncertainty.
    """
    seen = Points([row.iteration / number for row in rows], [row.places for row in rows])
    outcomes = standardized([row.score for row in rows])
    kernel = fit(seen, outcomes)
    columns = range(len(rows[0].places))
    found: dict[int, list[float]] = {}
    for id_ in candidates:
        rng = view.rng("restart", view.round, id_, "model")
        starts = [{column: rng.random() for column in columns} for _ in range(RESTARTS)]
        pending = Points([1.0] * len(found), list(found.values()))
        here = Points([1.0], [[ABSENT] * len(columns)])
        best = propose(kernel, seen, outcomes, pending, here, starts, "std")
        found[id_] = [best[column] for column in columns]
    return found
