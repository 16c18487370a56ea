"""Rank correlations between members of the same round."""

import math
from collections.abc import Hashable, Sequence


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The rank correlation; None if all values of one side are equal, so that it is undefined."""
    a, b = ranks([x for x, _ in pairs]), ranks([y for _, y in pairs])
    middle = (len(pairs) + 1) / 2
    above = sum((x - middle) * (y - middle) for x, y in zip(a, b, strict=True))
    below = (sum((x - middle) ** 2 for x in a) * sum((y - middle) ** 2 for y in b)) ** 0.5
    return above / below if below else None


def correlation_ratio(pairs: Sequence[tuple[Hashable, float]]) -> float | None:
    """The share of the ranks' deviation that lies between options, from 0 to 1; None if it is undefined."""
    b = ranks([y for _, y in pairs])
    middle = (len(pairs) + 1) / 2
    groups: dict[Hashable, list[float]] = {}
    for (option, _), rank in zip(pairs, b, strict=True):
        groups.setdefault(option, []).append(rank)
    total: float = sum((rank - middle) ** 2 for rank in b)
    if len(groups) < 2 or not total:
        return None
    between = sum(len(group) * (sum(group) / len(group) - middle) ** 2 for group in groups.values())
    return math.sqrt(between / total)


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of their ranks."""
    places: dict[float, list[int]] = {}
    for rank, value in enumerate(sorted(values), 1):
        places.setdefault(value, []).append(rank)
    # Equal values have adjacent ranks, whose mean is that of the first and the last.
    means = {value: (found[0] + found[-1]) / 2 for value, found in places.items()}
    return [means[value] for value in values]
