"""What a strategy looks at: the members of a population, frozen at one moment."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pbt.core.rng import Key, Rng
from pbt.space import HParams, Space

if TYPE_CHECKING:
    from pbt.core.ages import Ages

Role = Literal["member", "evaluator", "elite"]
Status = Literal["live", "failed", "retired"]


class StateRef(NamedTuple):
    """The name of a state: what `member` held after it had trained `round`. Never changed, so safe to share."""

    member: int
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What became of a state that was handed to a store."""

    digest: str
    """SHA-256 of the content, hexadecimal: names, types, shapes and bytes, whatever the layout of the file."""
    size: int
    """Encoded bytes."""
    blob: bytes | None = None
    """The encoded state where it has no file of its own: durable only with the transaction that takes it."""


class Member(NamedTuple):
    """One member of the population at a ready point.

    A round is counted per member from 1; round 0 is before any training. A tuple, because two are made per member and
    round, and a frozen dataclass takes more than twice as long to make.
    """

    id: int
    hparams: HParams
    """The hyperparameters of the round that was last opened."""
    step: int = 0
    """Training steps that are in `state`."""
    scores: tuple[float, ...] = ()
    """Validation scores, higher is better (`View.sign` times the task's); the first one is *the* score. Empty until
    the first report."""
    series: tuple[float, ...] = ()
    """A curve or repeated measurements behind the score, oldest first, higher is better (for the t-test, FIRE)."""
    state: StateRef | None = None
    """The state to go on from; None: freshly built."""
    round: int = 0
    """Rounds finished."""
    opened: int = 1
    """The round that was last opened; `round + 1` while it is due or in training."""
    role: Role = "member"
    group: int = 0
    """Sub-population, for strategies that have more than one."""
    status: Status = "live"
    inherited: bool = False
    """True: the scores are a donor's, until this member's own next report."""
    copied_at: int | None = None
    """The step at which this member last copied another."""

    @property
    def score(self) -> float:
        """*The* score; minus infinity where there is none."""
        return self.scores[0] if self.scores and self.status == "live" else -math.inf

    @property
    def healthy(self) -> bool:
        """Whether it may be a donor: live, with a score that is a number."""
        return self.status == "live" and bool(self.scores) and math.isfinite(self.scores[0])


Rank = Callable[[Sequence[Member]], Sequence[Member]]
"""An order of the members, best first."""


def by_score(members: Sequence[Member]) -> list[Member]:
    """Best first: by score, ties by id; what failed or has no finite score last."""
    return sorted(members, key=lambda member: (-member.score if member.healthy else math.inf, member.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best state that validation ever saw."""

    score: float
    state: StateRef
    hparams: HParams
    step: int


@dataclass(frozen=True, kw_only=True)
class View:
    """Everything a strategy may see: one moment of the population, read-only."""

    seed: int
    space: Space
    sign: int = 1
    """1 where the task's score is maximized, -1 where it is minimized: the factor between it and `Member.score`."""
    lookback: int = 0
    """How many earlier reports of each member `history` holds."""
    round: int = 0
    """The highest round that any member has finished."""
    members: tuple[Member, ...] = ()
    """Every member that was ever born, by id."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """The strategy's own plain values, as last noted."""
    history: Mapping[int, tuple[Member, ...]] = field(default_factory=dict)
    """Each member as it was at its last `lookback` reports, oldest first."""
    best: Best | None = None
    ended: str | None = None
    """Why the run ended, if it did."""
    rank: Rank = by_score
    ages: "Ages | None" = None
    """The reports at earlier steps that members are compared by, for strategies that ask for them with `by_age`."""

    @cached_property
    def population(self) -> tuple[Member, ...]:
        """The members that count: of role `member` and not retired, failed ones included."""
        return tuple(m for m in self.members if m.role == "member" and m.status != "retired")

    @cached_property
    def ranking(self) -> tuple[Member, ...]:
        """The healthy members of the population, best first; computed once per view."""
        return tuple(self.rank([m for m in self.population if m.healthy]))

    @cached_property
    def position(self) -> Mapping[int, int]:
        """Member id to its place in the ranking, 0 the best."""
        return {member.id: place for place, member in enumerate(self.ranking)}

    @cached_property
    def _by_id(self) -> Mapping[int, Member]:
        return {member.id: member for member in self.members}

    def member(self, id_: int) -> Member:
        """The member with this id (KeyError if there is none)."""
        return self._by_id[id_]

    def rng(self, *key: Key) -> Rng:
        """The generator for a purpose: keyed by the seed of the run and the parts given, and nothing else."""
        return Rng(self.seed, *key)

    def ranked_by(self, rank: Rank) -> "View":
        """The same view with another order of the members."""
        return self if rank is self.rank else replace(self, rank=rank)
