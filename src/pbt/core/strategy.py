"""What every algorithm must answer, and the default answer: `Plan`, one exploit and one explore.

An algorithm is a pure function from what it sees (`View`) to what shall happen (`Proposal`). It never calls back,
keeps nothing, and draws only from generators that the view makes by key.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from pbt.core.ages import at_equal_age, renewal
from pbt.core.describe import describe_record
from pbt.core.events import Born, Decision, DecisionKind, Retired
from pbt.core.exploit import AtRandom, Copy, Exploit, Mutate, Never, Stay, Truncation
from pbt.core.explore import Explore, Perturb, explored
from pbt.core.population import Member, Rank, StateRef, View, by_score
from pbt.core.rng import Rng
from pbt.core.rules import resolved, whole
from pbt.errors import UsageError
from pbt.space import HParams, Value

Mode = Literal["sync", "async"]
Inherit = Literal["both", "state", "hparams"]
Interval = int | Callable[[int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What shall happen at a ready point."""

    decisions: Sequence[Decision] = ()
    starts: Sequence[Born] = ()
    """Members that enter."""
    retirements: Sequence[Retired] = ()
    memory: Mapping[str, Any] | None = None
    """The strategy's new memory, complete; None: unchanged."""


class Strategy(Protocol):
    """What every algorithm must answer. `Plan` is the default one."""

    @property
    def mode(self) -> Mode:
        """`sync`: everyone waits at the end of a round, and is decided on at once. `async`: each alone."""

    @property
    def lookback(self) -> int:
        """How many earlier reports of each member the view shall hold."""

    def next_ready(self, step: int) -> int:
        """The step at which a member that stands at `step` is ready again; more than `step`."""

    def begin(self, view: View, population: int, initial: Sequence[HParams]) -> Proposal:
        """The first members; `initial` are values that the user asks the first ones to start with."""

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """A decision for every ready member that shall go on, a retirement for every one that shall not.

        `ready` is the whole wave in synchronous mode, one member in asynchronous mode; all of it is in `view`,
        and everything is read from there.
        """

    def retain(self, view: View) -> set[StateRef]:
        """States that must be kept although no member stands on them and no recent round made them."""

    def describe(self) -> dict[str, Any]:
        """Plain values that say which algorithm this is, stored with the run and compared on resume."""


def births(view: View, population: int, initial: Sequence[HParams]) -> list[Born]:
    """One member per given set of values, the others drawn from the priors of the space.

    Raises:
        SpaceError: Given values that are not in the space.
    """
    given = [view.space.check(hparams, f"initial values of member {i}") for i, hparams in enumerate(initial)]
    return [
        Born(member=i, hparams=given[i] if i < len(given) else view.space.sample(view.rng("birth", i)))
        for i in range(population)
    ]


def replacement(member: Member, view: View) -> Member | None:
    """A donor for a failed member: any of the better half, each equally likely; None: nobody is healthy."""
    if not view.ranking:
        return None
    return view.ranking[_rng(view, member, "replace").below((len(view.ranking) + 1) // 2)]


def hand_over(
    member: Member,
    hparams: HParams,
    *,
    source: Member | None = None,
    origin: Member | None = None,
    draws: Mapping[str, Value] | None = None,
    why: str = "",
    compared: int | None = None,
) -> Decision:
    """The decision that opens a member's next round.

    Args:
        member: Who goes on.
        hparams: The complete values it goes on with.
        source: Whose state it starts from, as that member was when it stood on it; None: its own.
        origin: Whose hyperparameters these were before they were explored; None: its own.
        draws: What was drawn per changed name.
        why: For people.
        compared: The step at which the member was compared, where it was not at the present moment.
    """
    donor = source or origin
    failed = member.status == "failed"
    start = source or member
    kind: DecisionKind = "exploit" if donor is not None else "explore" if hparams != member.hparams else "continue"
    return Decision(
        member=member.id,
        round=member.round + 1,
        start=start.state,
        step=start.step,
        scores=() if source is None else source.scores,
        series=() if source is None else source.series,
        hparams=hparams,
        donor=None if donor is None else donor.id,
        hparams_from=(origin or member).id,
        kind="replace" if failed else kind,
        draws={} if draws is None else draws,
        why=why,
        compared=compared,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Population Based Training as one exploit and one explore (Jaderberg et al. 2017, arXiv 1711.09846).

    `Plan(exploit=truncation(0.2), explore=perturb((0.8, 1.2)))` reads as what it does.

    Args:
        exploit: Who copies whom: `truncation`, `binary_tournament`, `t_test`, `never()`, or any function
            `(member, view, rng) -> Copy | Mutate | Stay`.
        explore: How copied values change: `perturb`, `resample`, `perturb_or_resample`, `jitter`,
            `random_subset`, `follow`, `keep()`, or any function `(hparams, member, view, rng) -> (hparams, draws)`.
        interval: Training steps of a round, or a function from a step to the next ready step.
        burn_in: Steps a member trains before it may copy or change.
        mode: `"sync"` (reproducible: the same seed and scores give the same decisions) or `"async"`.
        inherit: What a copy takes: `"both"`, `"state"` (own values kept and explored) or `"hparams"` (own state
            kept).
        rank: The order of the members, best first.
        lookback: Earlier reports per member that exploit and explore may see.
        age_gap: Asynchronous mode alone. 0: members are compared at the same step, and copy states of that age. A
            larger number: a member is compared at once with those whose newest report is at most so many steps older
            or younger than its own, and copies the state that they stand on.

    In asynchronous mode a member is done when its state has as many steps as `rounds` rounds come to, whatever it
    copied on the way. With `age_gap=0` the members that report a step one after the other, two thirds of the population
    and then the rest, are compared with each other once all of them have; the decision follows at the next ready point
    of each. docs/choosing.md has the reasons and the numbers.

    A rule that is passed without being called (`exploit=truncation`) is called with its defaults.

    Raises:
        UsageError: A value outside these.
    """

    exploit: Exploit = field(default_factory=Truncation)
    explore: Explore = field(default_factory=Perturb)
    interval: Interval = 1
    burn_in: int = 0
    mode: Mode = "sync"
    inherit: Inherit = "both"
    rank: Rank = by_score
    lookback: int = 0
    age_gap: int = 0

    def __post_init__(self) -> None:
        if self.mode not in ("sync", "async"):
            raise UsageError(f"plan: expected mode 'sync' or 'async', got {self.mode!r}")
        if self.inherit not in ("both", "state", "hparams"):
            raise UsageError(f"plan: expected inherit 'both', 'state' or 'hparams', got {self.inherit!r}")
        for kind in ("exploit", "explore", "rank"):
            object.__setattr__(self, kind, resolved(getattr(self, kind), kind, "plan"))
        if not callable(self.interval):
            steps = whole(self.interval)
            if steps is None or steps < 1:
                raise UsageError(
                    f"plan: expected an interval of at least 1 step, got {self.interval!r}; write a whole number, or a "
                    "function from a step to the next ready step"
                )
            object.__setattr__(self, "interval", steps)
        for name in ("burn_in", "lookback", "age_gap"):
            if whole(getattr(self, name)) is None:
                raise UsageError(f"plan: expected {name} to be a whole number, got {getattr(self, name)!r}")
        if self.burn_in < 0 or self.lookback < 0:
            raise UsageError(f"plan: burn_in ({self.burn_in}) and lookback ({self.lookback}) must not be negative")
        if self.age_gap < 0 or (self.age_gap and self.mode == "sync"):
            raise UsageError(
                f"plan: expected an age_gap of at least 0, and only with mode='async', got {self.age_gap} with "
                f"mode={self.mode!r}"
            )

    @property
    def by_age(self) -> bool:
        """Whether the view shall hold the reports at earlier steps that members are compared by."""
        return self.mode == "async" and self.age_gap == 0

    def next_ready(self, step: int) -> int:
        """The step at which a member that stands at `step` is ready again."""
        if isinstance(self.interval, int):
            return step + self.interval
        given = self.interval(step)
        ready = whole(given)
        if ready is None or ready <= step:
            raise UsageError(f"plan: interval({step}) must give a later step, got {given!r}; expected a whole number")
        return ready

    def begin(self, view: View, population: int, initial: Sequence[HParams]) -> Proposal:
        """The first members, from the given values and then from the priors."""
        return Proposal(starts=births(view, population, initial))

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """One decision for each ready member, all read from the same view."""
        view = view.ranked_by(self.rank)
        decisions, retirements = [], []
        for member in ready:
            if self.mode == "async" and self.age_gap:
                decision = self._decided(member, _near(member, view, self.age_gap))
            elif view.ages is not None and self.by_age and not isinstance(self.exploit, (Never, AtRandom)):
                decision = self._decided_at_equal_age(member, view)
            else:
                decision = self._decided(member, view)
            if decision is None:
                retirements.append(Retired(member=member.id, round=member.round, why="failed, and nobody is copied"))
            else:
                decisions.append(decision)
        return Proposal(decisions=decisions, retirements=retirements)

    def retain(self, view: View) -> set[StateRef]:
        """The states that exploit may still see in the history, and copy."""
        earlier = set() if view.ages is None else view.ages.states()
        return earlier | {past.state for pasts in view.history.values() for past in pasts if past.state is not None}

    def describe(self) -> dict[str, Any]:
        """Plain values that say which plan this is."""
        return describe_record(self)

    def _decided(self, member: Member, view: View) -> Decision | None:
        """The decision by the scores of the moment; None: it failed, and nobody is copied."""
        choice = self._choose(member, view)
        return None if choice is None else self._decision(choice, member, view)

    def _decided_at_equal_age(self, member: Member, view: View) -> Decision | None:
        """The decision by the first complete cohort in which the rule does not let the member go on unchanged."""
        ages = view.ages
        if ages is None:
            return self._decided(member, view)
        if member.status == "failed":
            donor = renewal(member, view, ages, self.next_ready(member.step))
            return None if donor is None else self._decision(Copy(donor=donor.id, why="failed"), member, view, donor)
        choice: Copy | Mutate | Stay = Stay(why="nobody to compare with yet")
        for cohort in ages.pending(member):
            equal = at_equal_age(member, cohort, view, ages)
            found = self._choose(equal.member(member.id), equal, cohort.step)
            choice = choice if found is None else found
            if isinstance(choice, Copy):
                # What the donor has become since, as far as it is no older than the member itself.
                donor = ages.newest(choice.donor, cohort.step, member.step) if choice.state is None else None
                choice = replace(choice, why=f"{choice.why}, at step {cohort.step}")
                return self._decision(choice, member, view, donor, cohort.step)
            if isinstance(choice, Mutate):
                break
        return self._decision(choice, member, view)

    def _choose(self, member: Member, view: View, *key: int) -> Copy | Mutate | Stay | None:
        if member.status == "failed":
            donor = None if isinstance(self.exploit, Never) else replacement(member, view)
            return None if donor is None else Copy(donor=donor.id, why="failed")
        if member.step < self.burn_in:
            return Stay(why=f"burn-in until step {self.burn_in}")
        choice = self.exploit(member, view, _rng(view, member, "exploit").child(*key))
        if not isinstance(choice, (Copy, Mutate, Stay)):
            raise UsageError(f"plan: expected exploit to return Copy, Mutate or Stay, got {choice!r}")
        return choice

    def _decision(
        self,
        choice: Copy | Mutate | Stay,
        member: Member,
        view: View,
        then: Member | None = None,
        compared: int | None = None,
    ) -> Decision:
        """The decision that a choice comes to; `then` is the donor as it was, where that is known already."""
        donor = then or (_donor(choice, view) if isinstance(choice, Copy) else None)
        # Neither the state nor the values of a failed member are worth keeping, whatever `inherit` says.
        whole = donor is not None and (member.status == "failed" or self.inherit == "both")
        source = donor if whole or self.inherit == "state" else None
        origin = donor if whole or self.inherit == "hparams" else None
        hparams: HParams = (origin or member).hparams
        draws: Mapping[str, Value] = {}
        if not isinstance(choice, Stay):
            hparams, draws = explored(self.explore, hparams, member, view, _rng(view, member, "explore"))
        return hand_over(member, hparams, source=source, origin=origin, draws=draws, why=choice.why, compared=compared)


def _near(member: Member, view: View, gap: int) -> View:
    """The view with those members alone that are at most so many steps older or younger; all, where none is healthy."""
    near = tuple(m for m in view.members if m.id == member.id or abs(m.step - member.step) <= gap)
    seen = replace(view, members=near)
    return seen if member.status == "live" or seen.ranking else view


def _rng(view: View, member: Member, purpose: str) -> Rng:
    """Keyed by member and round, never by order of arrival."""
    return view.rng("decide", member.id, member.round, purpose)


def _donor(copy: Copy, view: View) -> Member:
    """The member to copy, as it was when it stood on the state that is copied: its step, values and scores then."""
    donor = view.member(copy.donor)
    if copy.state is None or copy.state == donor.state:
        return donor
    for past in view.history.get(copy.state.member, ()):
        if past.state == copy.state:
            return past
    raise UsageError(
        f"plan: expected a state among the last {view.lookback} reports, got {copy.state}; raise the plan's lookback"
    )
