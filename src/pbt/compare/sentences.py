"""What a comparison shows, in words computed from it."""

from pbt.compare.results import Comparison, PlanResult
from pbt.compare.statistics import ALPHA, POWER, Paired, least_seeds
from pbt.text import count, listed, number, percent


def sentences(found: Comparison) -> list[str]:
    """One on each plan beside the first, then what has to be known to believe them."""
    said = [_on(found, result, pair) for result, pair in found.compared]
    return [*said, *_omnibus(found), *_lost(found), *_budget(found), *_made_of(found)]


def verdict(found: Comparison, pair: Paired) -> str:
    """In a word: `better`, `worse`, `same` or `not shown`."""
    if not any(pair.differences):
        return "same"
    if not pair.real:
        return "not shown"
    return "better" if found.better(pair.iqm) else "worse"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign."""
    return f"{'+' if value > 0 else ''}{number(value, digits)}"


def p_value(p: float) -> str:
    """`0.004`, or that it is under 0.001."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_told(p: float) -> str:
    """`p = 0.004`, or `p < 0.001`."""
    return f"p {'' if p < 0.001 else '= '}{p_value(p)}"


def _on(found: Comparison, result: PlanResult, pair: Paired) -> str:
    one, other = result.plan, found.plans[0].plan
    seeds = len(pair.seeds)
    word = verdict(found, pair)
    if word == "same":
        return f"{one} and {other} gave the same {found.metric} on each of {count(seeds, 'seed')}."
    told = (
        f"{signed(pair.iqm)} in {found.metric} (95 % interval {signed(pair.low)} to {signed(pair.high)}, "
        f"{p_told(pair.adjusted)}, {count(seeds, 'seed')})"
    )
    if word != "not shown":
        return f"{one} is really {word} than {other}: {told}."
    return f"No real difference between {one} and {other} is shown: {told}; {_how_many(pair, len(found.compared))}."


def _how_many(pair: Paired, comparisons: int) -> str:
    """With how many seeds it could be."""
    seeds, least = len(pair.seeds), least_seeds(comparisons)
    if seeds < least:
        about = f", and about {pair.needed:,} one of this size" if (pair.needed or 0) > least else ""
        return f"with {count(comparisons, 'comparison')} it takes {least} seeds to show any{about}"
    if pair.needed is None:
        return "if there is one, it is too small against the noise for any number of seeds that is worth training"
    wanted = max(pair.needed, seeds + 1)
    return f"if it is what it seems, about {wanted:,} fresh seeds would show it with a chance of {POWER:.0%}"


def _omnibus(found: Comparison) -> list[str]:
    test = found.friedman
    if test is None:
        return []
    differ = "differ" if test.p < ALPHA else "are not shown to differ"
    told = f"Taken together the {len(test.ranks)} plans {differ} (Friedman, {p_told(test.p)}); "
    return [told + f"those whose mean ranks are more than {number(test.critical, 3)} apart do."]


def _lost(found: Comparison) -> list[str]:
    told = [
        f"{r.plan} in {count(len(r.runs) - len(r.values), 'run')}" for r in found.plans if len(r.values) < len(r.runs)
    ]
    why = f"Every member failed, or {found.metric} was no number, under {listed(told)}"
    return [f"{why}; those seeds are left out, which flatters the plan."] * bool(told)


def _budget(found: Comparison) -> list[str]:
    first = found.plans[0]
    usual = first.mean("steps")
    # Failed rounds are not counted, so that a hundredth more or less says nothing of a plan.
    others = [result for result in found.plans[1:] if abs(result.mean("steps") - usual) > 0.01 * usual]
    told = [f"{result.plan} {_share(result.mean('steps') / usual)}" for result in others]
    return [f"Not the same budget: compared with {first.plan}, {listed(told, 20)} training steps."] * bool(told)


def _share(ratio: float) -> str:
    return f"took {percent(abs(ratio - 1))} {'more' if ratio > 1 else 'fewer'}"


def _made_of(found: Comparison) -> list[str]:
    told = [f"{result.plan} ({result.source})" for result in found.plans if result.source]
    if not told:
        return []
    train, own = ("trains", "its") if len(told) == 1 else ("train", "their")
    what = "what a run of the plan in brackets found on the same seed: the steps of that run come on top."
    return [f"{listed(told)} {train}, on seeds of {own} own, {what}"]
