"""The `Strategy` protocol, and its default implementation: `Plan`, one exploit rule and one explore rule.

A strategy is a pure function from a `View` to a `Proposal`. It keeps no state, and draws only from the view's keyed
generators.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol

from pbt.core.ages import at_equal_age, renewal
from pbt.core.describe import describe_record
from pbt.core.events import Born, Decision, DecisionKind, Retired
from pbt.core.exploit import AtRandom, Copy, Exploit, Mutate, Never, Stay, Truncation, for_all
from pbt.core.explore import Explore, Perturb, explored
from pbt.core.population import Member, Rank, StateRef, View, by_score
from pbt.core.rng import Rng
from pbt.core.rules import resolved, whole
from pbt.errors import UsageError
from pbt.space import HParams
from pbt.values import Value

Mode = Literal["sync", "async"]
Inherit = Literal["both", "state", "hparams"]
Interval = int | Callable[[int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The outcome of a ready point."""

    decisions: Sequence[Decision] = ()
    starts: Sequence[Born] = ()
    """Births."""
    retirements: Sequence[Retired] = ()
    memory: Mapping[str, Any] | None = None
    """The strategy's new memory, complete; None: unchanged."""


class Strategy(Protocol):
    """The interface of an algorithm; `Plan` is the default implementation."""

    @property
    def mode(self) -> Mode:
        """`sync`: all members finish a round before a common decision. `async`: each member is decided on alone."""

    @property
    def lookback(self) -> int:
        """Number of earlier reports per member that the view holds."""

    def next_ready(self, step: int) -> int:
        """The next ready step of a member at `step`; greater than `step`."""

    def begin(self, view: View, population: int, initial: Sequence[HParams]) -> Proposal:
        """The first members; `initial` holds the user's values for the first of them."""

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """A decision for every ready member that continues, a retirement for every one that does not.

        `ready` is the whole wave in synchronous mode and one member in asynchronous mode; `view` holds it and
        everything else that a decision reads.
        """

    def retain(self, view: View) -> set[StateRef]:
        """States to keep beyond the members' current states and those of recent rounds."""

    def describe(self) -> dict[str, Any]:
        """The identity of the algorithm as plain values, stored with the run and compared on resume."""


def births(view: View, population: int, initial: Sequence[HParams]) -> list[Born]:
    """One member per set of initial values; names that it lacks, and the other members, are sampled from the priors.

    Raises:
        SpaceError: Initial values outside the space, or refused by its constraint.
    """
    space, born = view.space, []
    for i in range(max(population, len(initial))):
        given = initial[i] if i < len(initial) else {}
        label = f"initial values of member {i}"
        hparams = space.completed(space.check_given(given, label), view.rng("birth", i))
        born.append(Born(member=i, hparams=space.check(hparams, label) if given else hparams))
    return born[:population]


def replacement(member: Member, view: View) -> Member | None:
    """A donor for a failed member: uniform among the better half; None if no member is healthy."""
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
        member: The member.
        hparams: Its complete next hyperparameters.
        source: The member whose state it starts from, as it was with that state; None: its own state.
        origin: The member whose hyperparameters these are, before exploration; None: its own.
        draws: The draw per changed name.
        why: The reason, for people.
        compared: The step at which the member was compared; None: compared by the current scores.
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


def stay(member: Member, why: str = "", compared: int | None = None) -> Decision:
    """The decision of a member that continues as it is; as `hand_over`, in a fraction of its time."""
    id_, hparams, step, _, _, state, round_, _, _, _, status, _, _ = member
    kind: DecisionKind = "replace" if status == "failed" else "continue"
    # As a plain tuple: in half the time of a call of `Decision`.
    fields: tuple[Any, ...] = id_, round_ + 1, state, step, hparams, (), (), None, id_, kind, {}, why, compared
    return tuple.__new__(Decision, fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Population Based Training as one exploit and one explore (Jaderberg et al. 2017, arXiv 1711.09846).

    Example: `Plan(exploit=truncation(0.2), explore=perturb((0.8, 1.2)))`.

    Args:
        exploit: The choice of a donor: `truncation`, `binary_tournament`, `t_test`, `never()`, or any function
            `(member, view, rng) -> Copy | Mutate | Stay`.
        explore: The change of copied values: `perturb`, `resample`, `perturb_or_resample`, `jitter`,
            `random_subset`, `follow`, `keep()`, or any function `(hparams, member, view, rng) -> (hparams, draws)`.
        interval: Training steps per round, or a function from a step to the next ready step.
        burn_in: Steps before a member may copy or explore.
        mode: `"sync"` (reproducible: equal seeds and scores give equal decisions) or `"async"`.
        inherit: The part that is copied: `"both"`, `"state"` (own values are kept and explored) or `"hparams"` (own
            state is kept).
        rank: The order of the members, best first.
        lookback: Number of earlier reports per member that exploit and explore rules can see.
        age_gap: Asynchronous mode only. 0: members are compared at equal steps and copy states of that age. A
            positive number: a member is compared at once with those whose newest report is at most that many steps
            older or younger than its own, and copies their current states.

    In asynchronous mode a member is done when its state has the steps of `rounds` rounds, whatever it copied on the
    way. With `age_gap=0` the members that report a step one after the other form cohorts, two thirds of the population
    and then the rest; the members of a complete cohort are compared with each other, and each is decided on at its next
    ready point. docs/choosing.md has the reasons and measurements.

    A rule passed without a call (`exploit=truncation`) is called with its defaults.

    Raises:
        UsageError: An invalid value.
    """

    resizable: ClassVar[bool] = True
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
        """Whether the view holds reports at earlier steps for comparison at equal age."""
        return self.mode == "async" and self.age_gap == 0

    def next_ready(self, step: int) -> int:
        """The next ready step of a member at `step`."""
        if isinstance(self.interval, int):
            return step + self.interval
        given = self.interval(step)
        ready = whole(given)
        if ready is None or ready <= step:
            raise UsageError(f"plan: expected interval({step}) to give a later step, a whole number, got {given!r}")
        return ready

    def begin(self, view: View, population: int, initial: Sequence[HParams]) -> Proposal:
        """The first members: the initial values first, then samples from the priors."""
        return Proposal(starts=births(view, population, initial))

    def decide(self, view: View, ready: Sequence[Member]) -> Proposal:
        """One decision per ready member, all read from the same view."""
        view = view.ranked_by(self.rank)
        decided = self._decided_all(ready, view)
        alone = [member for member, decision in zip(ready, decided, strict=True) if decision is None]
        return Proposal(
            decisions=[decision for decision in decided if decision is not None],
            retirements=[Retired(member=one.id, round=one.round, why="failed, no donor") for one in alone],
        )

    def retain(self, view: View) -> set[StateRef]:
        """The states in the history, which exploit rules can still copy."""
        earlier = set() if view.ages is None else view.ages.states()
        return earlier | {past.state for pasts in view.history.values() for past in pasts if past.state is not None}

    def describe(self) -> dict[str, Any]:
        """The identity of the plan as plain values."""
        return describe_record(self)

    def _decided_all(self, ready: Sequence[Member], view: View) -> Sequence[Decision | None]:
        """The decisions of these members, in order; None: the member failed and there is no donor."""
        if self.mode == "async" and self.age_gap:
            return [self._decided(member, _near(member, view, self.age_gap)) for member in ready]
        if view.ages is not None and self.by_age and not isinstance(self.exploit, (Never, AtRandom)):
            return [self._decided_at_equal_age(member, view) for member in ready]
        rule = for_all(self.exploit)
        if rule is None:
            return [self._decided(member, view) for member in ready]
        asked = [member for member in ready if member.status != "failed" and member.step >= self.burn_in]
        choices = rule.choose_all(asked, view, lambda member: _rng(view, member, "exploit"))
        decided = [
            stay(member, choice.why) if type(choice) is Stay else self._decision(_checked(choice), member, view)
            for member, choice in zip(asked, choices, strict=True)
        ]
        if len(asked) == len(ready):
            return decided
        chosen = {member.id: decision for member, decision in zip(asked, decided, strict=True)}
        return [chosen.get(member.id) or self._decided(member, view) for member in ready]

    def _decided(self, member: Member, view: View) -> Decision | None:
        """The decision by current scores; None: the member failed and there is no donor."""
        choice = self._choose(member, view)
        return None if choice is None else self._decision(choice, member, view)

    def _decided_at_equal_age(self, member: Member, view: View) -> Decision | None:
        """The decision by the first complete cohort for which the rule does not return `Stay`."""
        ages = view.ages
        if ages is None:
            return self._decided(member, view)
        if member.status == "failed":
            donor = renewal(member, view, ages, self.next_ready(member.step))
            return None if donor is None else self._decision(Copy(donor=donor.id, why="failed"), member, view, donor)
        choice: Copy | Mutate | Stay = Stay(why="no complete cohort yet")
        for cohort in ages.pending(member):
            equal = at_equal_age(member, cohort, view, ages)
            found = self._choose(equal.member(member.id), equal, cohort.step)
            choice = choice if found is None else found
            if isinstance(choice, Copy):
                # The donor's newest state that is not ahead of the member's own step.
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
        return _checked(self.exploit(member, view, _rng(view, member, "exploit").child(*key)))

    def _decision(
        self,
        choice: Copy | Mutate | Stay,
        member: Member,
        view: View,
        then: Member | None = None,
        compared: int | None = None,
    ) -> Decision:
        """The decision that follows from a choice; `then` is the donor at an earlier report, if known already."""
        if type(choice) is Stay:
            return stay(member, choice.why, compared)
        donor = then or (_donor(choice, view) if isinstance(choice, Copy) else None)
        # Neither state nor values of a failed member are worth keeping, whatever `inherit` says.
        whole = donor is not None and (member.status == "failed" or self.inherit == "both")
        source = donor if whole or self.inherit == "state" else None
        origin = donor if whole or self.inherit == "hparams" else None
        hparams: HParams = (origin or member).hparams
        draws: Mapping[str, Value] = {}
        if not isinstance(choice, Stay):  # a subclass of Stay
            hparams, draws = explored(self.explore, hparams, member, view, _rng(view, member, "explore"))
        return hand_over(member, hparams, source=source, origin=origin, draws=draws, why=choice.why, compared=compared)


def _checked(choice: Copy | Mutate | Stay) -> Copy | Mutate | Stay:
    if not isinstance(choice, (Copy, Mutate, Stay)):
        raise UsageError(f"plan: expected exploit to return Copy, Mutate or Stay, got {choice!r}")
    return choice


def _near(member: Member, view: View, gap: int) -> View:
    """The view limited to members at most `gap` steps older or younger; the full view if none of them is healthy."""
    near = tuple(m for m in view.members if m.id == member.id or abs(m.step - member.step) <= gap)
    seen = replace(view, members=near)
    return seen if member.status == "live" or seen.ranking else view


def _rng(view: View, member: Member, purpose: str) -> Rng:
    """Keyed by member and round, independent of the order of arrival."""
    return Rng(view.seed, "decide", member.id, member.round, purpose)


def _donor(copy: Copy, view: View) -> Member:
    """The donor as it was with the copied state: its step, values and scores at that time."""
    donor = view.member(copy.donor)
    if copy.state is None or copy.state == donor.state:
        return donor
    for past in view.history.get(copy.state.member, ()):
        if past.state == copy.state:
            return past
    raise UsageError(
        f"plan: expected a state among the last {view.lookback} reports, got {copy.state}; raise the plan's lookback"
    )
