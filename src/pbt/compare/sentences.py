"""The findings of a comparison as sentences."""

from pbt.compare.results import Comparison, PlanResult
from pbt.compare.statistics import ALPHA, POWER, Paired, least_seeds
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
    interval = f"95 % interval {signed(pair.low)} to {signed(pair.high)}" if seeds > 1 else "one seed has no interval"
    numbers = f"{signed(pair.iqm)} in {found.metric} ({interval}, {p_equation(pair.adjusted)}, {count(seeds, 'seed')})"
    if word != "not shown":
        uncertain = " The size is uncertain: the interval includes 0." * (pair.low <= 0 <= pair.high)
        return f"{one} is significantly {word} than {other}: {numbers}.{uncertain}"
    return f"{one} and {other} do not differ significantly: {numbers}. {_power(pair, len(found.compared))}."


def _power(pair: Paired, comparisons: int) -> str:
    """The difference that these seeds would have shown, and the number of seeds for a smaller one."""
    seeds, least = len(pair.seeds), least_seeds(comparisons)
    if pair.detectable is None:
        size = f", and about {pair.needed:,} for one of this size" if (pair.needed or 0) > least else ""
        return f"With {count(comparisons, 'comparison')}, showing any difference takes at least {least} seeds{size}"
    could = (
        f"With {seeds} seeds and this scatter, a true difference of {number(pair.detectable, 2)} would have been found "
        f"with {percent(POWER)} probability; a smaller one may exist"
    )
    if pair.needed is not None:
        return f"{could}. Finding one of the measured size takes about {max(pair.needed, seeds + 1):,} fresh seeds"
    if pair.needed_for_half is not None:
        return f"{could}. Finding one of half that size takes about {pair.needed_for_half:,} fresh seeds"
    return could


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
    """Plans that trained more, and plans whose states were trained longer; an asynchronous plan may do one alone."""
    computed, held = _ratios(found, "steps"), _ratios(found, "state_steps")
    first = found.plans[0].plan
    texts = []
    if computed:
        ratios = [f"{plan} took {_share(ratio)}" for plan, ratio in computed]
        equal = "" if held else "; the states at the end have the same number of steps"
        texts.append(
            f"The budgets differ: compared with {first}, {listed(ratios, 20)} training steps of all members{equal}."
        )
    if held:
        ratios = [f"a state of {plan} has {_share(ratio)}" for plan, ratio in held]
        texts.append(
            f"The states differ in age: compared with {first}, {listed(ratios, 20)} training steps at the end. "
            "Part of a difference may be due to that."
        )
    return texts


def _ratios(found: Comparison, name: str) -> list[tuple[str, float]]:
    """The plans whose number of steps differs from that of the first plan, and the ratio."""
    usual = found.plans[0].mean(name)
    # Failed rounds are not counted, so a difference of one percent is not due to the plan.
    others = [result for result in found.plans[1:] if abs(result.mean(name) - usual) > 0.01 * usual]
    return [(result.plan, result.mean(name) / usual) for result in others if usual]


def _share(ratio: float) -> str:
    return f"{percent(abs(ratio - 1))} {'more' if ratio > 1 else 'fewer'}"


def _made_of(found: Comparison) -> list[str]:
    followers = [f"{result.plan} ({result.source})" for result in found.plans if result.source]
    if not followers:
        return []
    follow, are = ("follows", "is") if len(followers) == 1 else ("follow", "are")
    text = f"{listed(followers)} {follow} the run of the plan in parentheses on the same seed and {are} trained on "
    return [f"{text}another seed; the steps of that run are not included."]
