"""Population records read by strategies: members and views, frozen at one moment."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pbt.core.rng import Key, Rng
from pbt.space import HParams, Space

if TYPE_CHECKING:
    from pbt.core.ages import Ages

SMALL_POPULATION = 10
"""Population size below which outcomes vary strongly between seeds, and selection has little to choose from."""
Role = Literal["member", "evaluator", "elite"]
Status = Literal["live", "failed", "retired"]


class StateRef(NamedTuple):
    """The name of a state: `member` after training `round`. States are immutable, so a name can be shared."""

    member: int
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Location and digest of a stored state."""

    digest: str
    """Hexadecimal SHA-256 of the content (names, types, shapes and bytes), independent of the file layout."""
    size: int
    """Encoded size in bytes."""
    blob: bytes | None = None
    """The encoded state if it has no file of its own; durable only with the transaction that commits it."""
    folders: bool = False
    """Whether a new state has checkpoint folders, whose files are listed beside it; not known of one read back."""


class Member(NamedTuple):
    """One member of the population at a ready point.

    Rounds are counted per member from 1; round 0 precedes all training. A tuple, because two are made per member and
    round, and a frozen dataclass takes more than twice as long to create.
    """

    id: int
    hparams: HParams
    """The hyperparameters of the last opened round."""
    step: int = 0
    """Training steps contained in `state`."""
    scores: tuple[float, ...] = ()
    """Validation scores, higher is better (the task's, times `View.sign` or `View.signs`); the first is *the* score.
    Empty until the first report."""
    series: tuple[float, ...] = ()
    """A curve or repeated measurements behind the score, oldest first, higher is better (for the t-test and FIRE)."""
    state: StateRef | None = None
    """The state to continue from; None: freshly built."""
    round: int = 0
    """Number of finished rounds."""
    opened: int = 1
    """The last opened round; `round + 1` while it is due or in training."""
    role: Role = "member"
    group: int = 0
    """Subpopulation, for strategies with more than one."""
    status: Status = "live"
    inherited: bool = False
    """True: the scores are the donor's, until this member's own next report."""
    copied_at: int | None = None
    """The step at which this member last copied another."""

    @property
    def score(self) -> float:
        """*The* score; minus infinity if there is none."""
        return self.scores[0] if self.scores and self.status == "live" else -math.inf

    @property
    def healthy(self) -> bool:
        """Whether it can be a donor: live, with a finite score."""
        return self.status == "live" and bool(self.scores) and math.isfinite(self.scores[0])


Rank = Callable[[Sequence[Member]], Sequence[Member]]
"""An order of the members, best first."""


def by_score(members: Sequence[Member]) -> list[Member]:
    """Best first by score, ties by id; failed members and those without a finite score last."""
    # A sort keeps the order of equal keys, and members that are sorted by id already cost one pass. A column of keys
    # takes half of the time of a call per member.
    ordered, finite = sorted(members, key=_ID), math.isfinite
    places = [-m.scores[0] if m.scores and m.status == "live" and finite(m.scores[0]) else math.inf for m in ordered]
    return [ordered[i] for i in sorted(range(len(ordered)), key=places.__getitem__)]


_ID = itemgetter(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The state with the best validation score so far."""

    score: float
    state: StateRef
    hparams: HParams
    step: int


@dataclass(frozen=True, kw_only=True)
class View:
    """All information available to a strategy: the population at one moment, read-only."""

    seed: int
    space: Space
    sign: int = 1
    """1 if the task's score is maximized, -1 if minimized: the factor between it and `Member.score`."""
    signs: tuple[int, ...] = ()
    """The factor of each score where every objective has a sign of its own, `sign` first; empty: `sign` for all."""
    lookback: int = 0
    """Number of earlier reports per member in `history`."""
    round: int = 0
    """The highest round finished by any member."""
    members: tuple[Member, ...] = ()
    """Every member ever born, by id."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """The strategy's own plain values, as last logged."""
    history: Mapping[int, tuple[Member, ...]] = field(default_factory=dict)
    """Each member at its last `lookback` reports, oldest first."""
    best: Best | None = None
    ended: str | None = None
    """The reason why the run ended; None while it has not."""
    rank: Rank = by_score
    ages: "Ages | None" = None
    """Reports at earlier steps for comparison at equal age; only for strategies that set `by_age`."""

    @cached_property
    def population(self) -> tuple[Member, ...]:
        """The current members: role `member` and not retired, including failed ones."""
        return tuple(m for m in self.members if m.role == "member" and m.status != "retired")

    @property
    def rounds_done(self) -> int:
        """Rounds finished by every member of the population."""
        return min((member.round for member in self.population), default=self.round)

    @cached_property
    def ranking(self) -> tuple[Member, ...]:
        """The healthy members of the population, best first; computed once per view."""
        finite = math.isfinite  # as `Member.healthy`, without a call per member
        return tuple(self.rank([m for m in self.population if m.status == "live" and m.scores and finite(m.scores[0])]))

    @cached_property
    def position(self) -> Mapping[int, int]:
        """Rank of each healthy member by id; 0 is the best."""
        return dict(zip(map(_ID, self.ranking), count(), strict=False))

    @cached_property
    def _by_id(self) -> Mapping[int, Member]:
        return {member.id: member for member in self.members}

    def member(self, id_: int) -> Member:
        """The member with this id; KeyError if there is none."""
        return self._by_id[id_]

    def rng(self, *key: Key) -> Rng:
        """The generator for a purpose, keyed by the run's seed and these parts only."""
        return Rng(self.seed, *key)

    def ranked_by(self, rank: Rank) -> "View":
        """The same view with another order of the members."""
        return self if rank is self.rank else replace(self, rank=rank)
