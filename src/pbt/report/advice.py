"""What a good colleague would say about a run: warnings, each with its evidence and a remedy."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pbt.report.data.axes import axis_of, quantile
from pbt.report.data.exploits import exploits
from pbt.report.data.founders import taken_over
from pbt.report.data.schedules import bound
from pbt.report.snapshot import RunSnapshot
from pbt.space import Choice
from pbt.text import count, listed, number, percent

SMALL = 6
"""Members below which selection has next to nothing to choose from."""
FEW = 12
"""Members below which a single donor per round is worth a word."""
CROWD = 0.25
"""Share of the members at a bound."""
NOISE = 0.2
"""Rank correlation of successive rounds below which the order of the members is mostly chance."""
PAIRS = 5
"""Members that a rank correlation needs at least."""
ROUNDS = 6
"""Rounds that it takes to judge a run by."""
SUPER = 0.5
OFTEN = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One warning."""

    figure: str
    """The picture that shows it."""
    text: str


def advice(snapshot: RunSnapshot) -> list[Advice]:
    """All warnings, those that matter most first; none before a member has finished a round."""
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
            "Nobody ever copied anybody: this is a set of separate trainings, and the best one is what a search "
            "without evolution finds."
        )
    elif len(members) == 1 and not changed:
        yield (
            f"Nothing was gained by evolution: the best state is that of member {members.pop()}, trained from its "
            "birth on with the values it was born with; a random search with as many members finds the same."
        )
    elif len(members) == 1:
        yield (
            f"The best state took nobody's weights: member {members.pop()} trained it alone, so what was gained over "
            "that initial member came from changing its hyperparameters."
        )


def _failures(snapshot: RunSnapshot) -> Iterator[str]:
    there = len(snapshot.counted) + len(snapshot.failures)
    if len(snapshot.failures) > OFTEN * there:
        failed = len(snapshot.failures)
        yield (
            f"{count(failed, 'round')} of {there:,} failed ({percent(failed / there)}): a "
            "failed member is replaced by a better one, so the search leaves where it fails; tighten the range of what "
            "makes it fail."
        )


def _one_founder(snapshot: RunSnapshot) -> Iterator[str]:
    found = taken_over(snapshot)
    if found is None:
        return
    (round_, step), last = found, snapshot.generations[-1].depth
    if last >= ROUNDS and round_ <= last / 2:
        newest = snapshot.states[snapshot.living[0]] if snapshot.living else None
        founder = newest.founder if newest else snapshot.path[0].member
        yield (
            f"One founder took over early: from round {round_} of {last} (step {step:,}) on everybody descends from "
            f"member {founder}, and what the others had found is lost; "
            "a longer interval, a smaller fraction or a larger population keeps more alive."
        )


def _bounds(snapshot: RunSnapshot) -> Iterator[str]:
    for name, domain in snapshot.space.items():
        if isinstance(domain, Choice):
            continue
        axis, best = axis_of(name, domain), snapshot.path[-1].hparams.get(name)
        sides = [bound(axis, snapshot.states[ref].hparams.get(name)) for ref in snapshot.living]
        for side, value in (("lower", domain.low), ("upper", domain.high)):
            here, won = sides.count(side), bound(axis, best) == side
            if won or here > CROWD * len(sides):
                who = f"{here:,} of {count(len(sides), 'living state')}" + (", and in the best state" if won else "")
                yield (
                    f"{name} sits at its {side} bound {number(value)} in {who}: if the bound is not a hard limit, "
                    "widen the range."
                )


def _short_interval(snapshot: RunSnapshot) -> Iterator[str]:
    found = correlations(snapshot)
    later = sorted(value for _, value in found[len(found) // 2 :])
    if snapshot.copies and len(later) >= ROUNDS // 2 and quantile(later, 0.5) < NOISE:
        yield (
            f"The interval looks too short: in the later half of the run the order of the members after one round says "
            f"little about their order after the next (median rank correlation {quantile(later, 0.5):z.2f}), so who "
            "copies whom is mostly chance; a longer interval or a larger validation set makes scores tell more."
        )


def correlations(snapshot: RunSnapshot) -> list[tuple[int, float]]:
    """Per round, the rank correlation of the scores before and after it, of members that went on with their own."""
    found = []
    for generation in snapshot.generations[1:]:
        pairs = [
            (snapshot.states[state.start].score, state.score)
            for state in generation.states
            if state.start is not None and state.start.member == state.ref.member
        ]
        known = _spearman(pairs) if len(pairs) >= PAIRS else None
        if known is not None:
            found.append((generation.depth, known))
    return found


def _spearman(pairs: list[tuple[float, float]]) -> float | None:
    """The rank correlation; None: one side's values are all equal, so there is no order."""
    a, b = _ranks([x for x, _ in pairs]), _ranks([y for _, y in pairs])
    middle = (len(pairs) + 1) / 2
    above = sum((x - middle) * (y - middle) for x, y in zip(a, b, strict=True))
    below = (sum((x - middle) ** 2 for x in a) * sum((y - middle) ** 2 for y in b)) ** 0.5
    return above / below if below else None


def _ranks(values: list[float]) -> list[float]:
    """From 1; equal values share the mean of their ranks."""
    places: dict[float, list[int]] = {}
    for rank, value in enumerate(sorted(values), 1):
        places.setdefault(value, []).append(rank)
    return [sum(places[value]) / len(places[value]) for value in values]


def _old_best(snapshot: RunSnapshot) -> Iterator[str]:
    last, best = snapshot.generations[-1], snapshot.path[-1]
    if last.depth >= ROUNDS and best.last_step <= last.step / 2:
        yield (
            f"The best score is old: it was reached at step {best.last_step:,} of {last.step:,}, and nothing after it "
            "was better."
        )


def _small(snapshot: RunSnapshot) -> Iterator[str]:
    if not snapshot.copies:
        return
    donors: dict[int, set[int | None]] = {}
    for decision in snapshot.copies:
        donors.setdefault(decision.round, set()).add(decision.donor)
    members = len(snapshot.members)
    if members < SMALL:
        yield (
            f"The population is small: with {members} members selection has little to choose from; 10 to 40 are usual."
        )
    elif members < FEW and all(len(ids) == 1 for ids in donors.values()):
        yield (
            f"One donor a round: with {members} members and this plan only the very best one is ever copied, which "
            "loses the other founders quickly; a larger population or fraction gives more of them a chance."
        )


def _super_parent(snapshot: RunSnapshot) -> Iterator[str]:
    found = exploits(snapshot)
    if found is None or len(snapshot.members) < SMALL or found.total < 10:
        return
    (donor, most), *_ = found.donors
    if most > SUPER * found.total:
        yield (
            f"One super-parent: {percent(most / found.total)} of all copies were of member {donor}; next came "
            f"{listed(f'member {other}' for other, _ in found.donors[1:4]) or 'nobody'}."
        )
