"""Growing and shrinking a population between rounds, as events of the log."""

from collections.abc import Callable

from pbt.core.events import Born, Retired
from pbt.core.explore import explored
from pbt.core.population import Member, View, by_score
from pbt.core.strategy import Strategy
from pbt.errors import UsageError


def check_resizable(strategy: Strategy, before: int) -> None:
    """Check that a strategy decides on any number of members.

    Args:
        strategy: The algorithm; its attribute `resizable` says so.
        before: The number of members until now.

    Raises:
        UsageError: It has a fixed number of members.
    """
    if not getattr(strategy, "resizable", False):
        raise UsageError(
            f"population: {type(strategy).__name__} cannot change its number of members during a run; resume with "
            f"{before} members, or start another run"
        )


def resized(
    view: View, strategy: Strategy, population: int, has_left: Callable[[Member], bool]
) -> list[Born] | list[Retired]:
    """The births or retirements after which the population has this many members; none if it has them already.

    A new member starts from the current state of a member of the better half, drawn uniformly, with that member's
    hyperparameters, changed by the strategy's explore rule if it has one. While no member has a score, it is a founder
    instead, with values drawn from the priors. The members that leave are the worst by current score: those without
    one first, of equal ones those with the higher numbers.

    Args:
        view: The population, with all its next rounds open.
        strategy: The algorithm.
        population: The requested number of members.
        has_left: Whether a member has rounds left to train.
    """
    view = view.ranked_by(getattr(strategy, "rank", by_score))
    now = len(view.population)
    if population < now:
        kept = {member.id for member in _best_first(view)[:population]}
        why = f"the population was reduced from {now} to {population}"
        leaving = [member for member in view.population if member.id not in kept]
        return [Retired(member=member.id, round=member.round, why=why) for member in leaving]
    first = max((member.id for member in view.members), default=-1) + 1
    return [_born(id_, view, strategy, has_left) for id_ in range(first, first + population - now)]


def _best_first(view: View) -> list[Member]:
    rest = [member for member in view.population if member.id not in view.position]
    return [*view.ranking, *sorted(rest, key=lambda member: (member.status == "failed", member.id))]


def _born(id_: int, view: View, strategy: Strategy, has_left: Callable[[Member], bool]) -> Born:
    donors = [member for member in view.ranking if member.state is not None and has_left(member)]
    if not donors:
        round_ = max((member.opened for member in view.population), default=1)
        return Born(member=id_, round=round_, hparams=view.space.sample(view.rng("birth", id_)))
    rng = view.rng("resize", id_)
    donor = donors[rng.below((len(donors) + 1) // 2)]
    hparams, explore = donor.hparams, getattr(strategy, "explore", None)
    if explore is not None:
        hparams, _ = explored(explore, hparams, donor._replace(id=id_), view, rng.child("explore"))
    return Born(member=id_, round=donor.opened, hparams=hparams, start=donor.state, step=donor.step)
