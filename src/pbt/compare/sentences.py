"""The findings of a comparison as sentences."""

from pbt.compare.results import Comparison, PlanResult
from pbt.compare.statistics import ALPHA, POWER, Paired, detectable, least_seeds
from pbt.text import count, listed, number, percent


def sentences(found: Comparison) -> list[str]:
    """One sentence on each plan but the first, then the qualifications."""
    findings = [_on(found, result, pair) for result, pair in found.compared]
    return [*findings, *_omnibus(found), *_lost(found), *_budget(found), *_made_of(found)]


def verdict(found: Comparison, pair: Paired) -> str:
    """`better`, `worse`, `same` or `not shown`."""
    if not any(pair.differences):
        return "same"
    if not pair.significant:
        return "not shown"
    return "better" if found.better(pair.iqm) else "worse"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign."""
    return f"{'+' if value > 0 else ''}{number(value, digits)}"


def p_value(p: float) -> str:
    """`0.004`, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_equation(p: float) -> str:
    """`p = 0.004`, or `p < 0.001`."""
    return f"p {'' if p < 0.001 else '= '}{p_value(p)}"


def _on(found: Comparison, result: PlanResult, pair: Paired) -> str:
    one, other = result.plan, found.plans[0].plan
    seeds = len(pair.seeds)
    word = verdict(found, pair)
    if word == "same":
        return f"{one} and {other} gave the same {found.metric} on each of {count(seeds, 'seed')}."
    numbers = (
        f"{signed(pair.iqm)} in {found.metric} (95 % interval {signed(pair.low)} to {signed(pair.high)}, "
        f"{p_equation(pair.adjusted)}, {count(seeds, 'seed')})"
    )
    if word != "not shown":
        return f"{one} is significantly {word} than {other}: {numbers}."
    return f"{one} and {other} do not differ significantly: {numbers}. {_power(pair, len(found.compared))}."


def _power(pair: Paired, comparisons: int) -> str:
    """What these seeds can show, or how many more would be needed."""
    seeds, least = len(pair.seeds), least_seeds(comparisons)
    if seeds < least:
        size = f", and about {pair.needed:,} for one of this size" if (pair.needed or 0) > least else ""
        return f"With {count(comparisons, 'comparison')}, showing any difference takes at least {least} seeds{size}"
    if pair.needed is None:
        smallest = number(detectable(seeds, comparisons), 2)
        return f"With {seeds} seeds, a difference below {smallest} standard deviations would usually go unnoticed"
    needed = max(pair.needed, seeds + 1)
    return f"A true difference of this size would need about {needed:,} fresh seeds (at {percent(POWER)} power)"


def _omnibus(found: Comparison) -> list[str]:
    test = found.friedman
    if test is None:
        return []
    differ = "differ" if test.p < ALPHA else "do not differ significantly"
    text = f"As a group, the {len(test.ranks)} plans {differ} (Friedman's test, {p_equation(test.p)}). Plans differ "
    return [f"{text}significantly if their mean ranks are more than {number(test.critical, 3)} apart."]


def _lost(found: Comparison) -> list[str]:
    lost = [
        f"{r.plan} in {count(len(r.runs) - len(r.values), 'run')}" for r in found.plans if len(r.values) < len(r.runs)
    ]
    reason = f"All members failed, or {found.metric} was not finite, for {listed(lost)}."
    return [f"{reason} These seeds are excluded, which favors the plan."] * bool(lost)


def _budget(found: Comparison) -> list[str]:
    first = found.plans[0]
    usual = first.mean("steps")
    # Failed rounds are not counted, so a difference of one percent is not due to the plan.
    others = [result for result in found.plans[1:] if abs(result.mean("steps") - usual) > 0.01 * usual]
    ratios = [f"{result.plan} {_share(result.mean('steps') / usual)}" for result in others]
    return [f"The budgets differ: compared with {first.plan}, {listed(ratios, 20)} training steps."] * bool(ratios)


def _share(ratio: float) -> str:
    return f"took {percent(abs(ratio - 1))} {'more' if ratio > 1 else 'fewer'}"


def _made_of(found: Comparison) -> list[str]:
    followers = [f"{result.plan} ({result.source})" for result in found.plans if result.source]
    if not followers:
        return []
    follow, are = ("follows", "is") if len(followers) == 1 else ("follow", "are")
    text = f"{listed(followers)} {follow} the run of the plan in parentheses on the same seed and {are} trained on "
    return [f"{text}another seed; the steps of that run are not included."]
