"""Warnings about a run, each with its evidence and a remedy."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pbt.core.population import SMALL_POPULATION
from pbt.domains import Choice
from pbt.report.data.axes import axis_of, quantile
from pbt.report.data.exploits import exploits
from pbt.report.data.founders import taken_over
from pbt.report.data.ranks import spearman
from pbt.report.data.schedules import bound
from pbt.report.snapshot import RunSnapshot
from pbt.text import count, listed, number, percent

FEW = 12
"""Below this many members, a single donor per round is a warning."""
CROWD = 0.25
"""Share of the living states at a bound above which the range looks too narrow."""
NOISE = 0.2
"""Rank correlation of successive rounds below which the order of the members is mostly chance."""
PAIRS = 5
"""The fewest members for which a rank correlation is computed."""
ROUNDS = 6
"""The fewest rounds by which take-over, interval and age of the best score are judged."""
SUPER = 0.5
"""Share of all copies above which a donor is a super-parent."""
OFTEN = 0.05
"""Share of failed rounds above which failures are a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One warning."""

    figure: str
    """Name of the figure that shows the evidence."""
    text: str


def advice(snapshot: RunSnapshot) -> list[Advice]:
    """All warnings, the most important first; none before a member has finished a round."""
    if not snapshot.path:
        return []
    rules: tuple[tuple[str, Callable[[RunSnapshot], Iterator[str]]], ...] = (
        ("tree", _no_evolution),
        ("health", _failures),
        ("founders", _one_founder),
        ("schedules", _bounds),
        ("fitness", _short_interval),
        ("fitness", _old_best),
        ("exploits", _small),
        ("exploits", _super_parent),
    )
    return [Advice(figure=figure, text=text) for figure, rule in rules for text in rule(snapshot)]


def _no_evolution(snapshot: RunSnapshot) -> Iterator[str]:
    if len(snapshot.members) < 2 or len(snapshot.generations) < 2:
        return
    changed = any(a.hparams != b.hparams for a, b in itertools.pairwise(snapshot.path))
    members = {link.member for link in snapshot.path}
    if not snapshot.copies:
        yield (
            "No member ever copied another: this run is a set of independent trainings, and a search without "
            "evolution gives the same result."
        )
    elif len(members) == 1 and not changed:
        yield (
            f"Evolution gained nothing: member {members.pop()} trained the best state alone, with its initial "
            "hyperparameters. A random search with as many members finds the same state."
        )
    elif len(members) == 1:
        yield (
            f"No copy contributed to the best state: member {members.pop()} trained it alone. Any gain over that "
            "initial member came from changed hyperparameters."
        )


def _failures(snapshot: RunSnapshot) -> Iterator[str]:
    failed = len(snapshot.failures)
    rounds = len(snapshot.counted) + failed
    if failed > OFTEN * rounds:
        yield (
            f"{failed:,} of {count(rounds, 'round')} failed ({percent(failed / rounds)}). A failed member is replaced "
            "by a better one, so the search avoids the values that fail: tighten the ranges that contain them."
        )


def _one_founder(snapshot: RunSnapshot) -> Iterator[str]:
    takeover = taken_over(snapshot)
    if takeover is None:
        return
    (round_, step), last = takeover, snapshot.generations[-1].depth
    if last >= ROUNDS and round_ <= last / 2:
        newest = snapshot.states[snapshot.living[0]] if snapshot.living else None
        founder = newest.founder if newest else snapshot.path[0].member
        yield (
            f"One founder took over early: from round {round_} of {last} (step {step:,}) on, all members descend from "
            f"member {founder}, and the progress of the other founders is lost. A longer interval, a smaller fraction "
            "or a larger population keeps more founders alive."
        )


def _bounds(snapshot: RunSnapshot) -> Iterator[str]:
    for name, domain in snapshot.space.items():
        if isinstance(domain, Choice):
            continue
        axis, best = axis_of(name, domain), snapshot.path[-1].hparams.get(name)
        sides = [bound(axis, snapshot.states[ref].hparams.get(name)) for ref in snapshot.living]
        for side, value in (("lower", domain.low), ("upper", domain.high)):
            at_bound, is_best_at_bound = sides.count(side), bound(axis, best) == side
            if is_best_at_bound or at_bound > CROWD * len(sides):
                states = ["the best state"] * is_best_at_bound + _living_share(at_bound, len(sides))
                yield (
                    f"{name} is at its {side} bound of {number(value)} in {listed(states)}. If this bound is not a "
                    "hard limit, widen the range."
                )


def _living_share(amount: int, total: int) -> list[str]:
    """`2 of the 6 living states` as a list of one; an empty list for 0."""
    if not amount:
        return []
    if amount == total:
        return ["the only living state" if total == 1 else f"all {total:,} living states"]
    return [f"{amount:,} of the {total:,} living states"]


def _short_interval(snapshot: RunSnapshot) -> Iterator[str]:
    by_round = correlations(snapshot)
    later = sorted(value for _, value in by_round[len(by_round) // 2 :])
    if snapshot.copies and len(later) >= ROUNDS // 2 and quantile(later, 0.5) < NOISE:
        yield (
            "The interval looks too short: in the second half of the run, the order of the members after one round "
            f"says little about their order after the next (median rank correlation {quantile(later, 0.5):z.2f}), so "
            "selection is mostly chance. A longer interval or a larger validation set makes scores more informative."
        )


def correlations(snapshot: RunSnapshot) -> list[tuple[int, float]]:
    """Per round, the rank correlation of the scores before and after it, over members that kept their own state."""
    by_round = []
    for generation in snapshot.generations[1:]:
        pairs = [
            (snapshot.states[state.start].score, state.score)
            for state in generation.states
            if state.start is not None and state.start.member == state.member
        ]
        correlation = spearman(pairs) if len(pairs) >= PAIRS else None
        if correlation is not None:
            by_round.append((generation.depth, correlation))
    return by_round


def _old_best(snapshot: RunSnapshot) -> Iterator[str]:
    last, best = snapshot.generations[-1], snapshot.path[-1]
    if last.depth >= ROUNDS and best.step <= last.step / 2:
        yield (
            f"The best score is old: it was reached at step {best.step:,} of {last.step:,}, and no later score is "
            "better."
        )


def _small(snapshot: RunSnapshot) -> Iterator[str]:
    if not snapshot.copies:
        return
    donors: dict[int, set[int | None]] = {}
    for decision in snapshot.copies:
        donors.setdefault(decision.round, set()).add(decision.donor)
    members = len(snapshot.members)
    if members < SMALL_POPULATION:
        yield (
            f"The population is small: with {members} members, selection has little to choose from. 10 to 40 members "
            "are usual."
        )
    elif members < FEW and len(donors) >= ROUNDS and all(len(ids) == 1 for ids in donors.values()):
        # Two donors may coincide in a few rounds by chance.
        yield (
            f"One donor per round: with {members} members, all copies in each of {len(donors)} rounds came from one "
            "member, which quickly eliminates the other founders. A larger population or fraction gives more of them a "
            "chance."
        )


def _super_parent(snapshot: RunSnapshot) -> Iterator[str]:
    record = exploits(snapshot)
    if record is None or len(snapshot.members) < SMALL_POPULATION or record.total < 10:
        return
    (donor, most), *others = record.donors
    if most > SUPER * record.total:
        following = listed(f"member {other}" for other, _ in others[:3])
        yield (
            f"One super-parent: member {donor} was the donor of {percent(most / record.total)} of all copies; "
            + (f"next came {following}." if following else "no other member was copied.")
        )
