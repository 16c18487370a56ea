"""Initial values for `pbt.run(initial=...)`: evenly spread points, or the values of earlier runs and studies.

::

    run = pbt.run(task, space, population=16, initial=sobol(space, 16))
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pbt.core.rng import Rng, seed_of
from pbt.domains import DomainBase
from pbt.errors import RunError, UsageError
from pbt.space import SAMPLES, Space
from pbt.values import Value, plain, typed

if TYPE_CHECKING:
    from pbt.runs.results import Run

__all__ = ["from_optuna", "from_run", "latin_hypercube", "sobol"]

_BELOW_1 = 1 - 2.0**-53
BITS = 30
"""The digits after the binary point of the points of PyTorch's Sobol sequence."""


def latin_hypercube(space: Mapping[str, DomainBase], count: int, seed: int = 0) -> list[dict[str, Value]]:
    """Points of a Latin hypercube: each hyperparameter has one value in each of `count` equal parts of its prior.

    Parts are equal in the scale of a domain, and options are equal parts. Where a predicate of the space refuses
    points, further hypercubes are drawn until `count` points are accepted. A conditional hyperparameter is left out
    where it is inactive.

    Args:
        space: Domains by name, or a `Space`.
        count: Number of points.
        seed: Seed of the draws; equal seeds give equal points.

    Raises:
        UsageError: `count` is not a whole number of at least 1.
        SpaceError: The constraint of the space refuses nearly all points.
    """
    return _points(Space(space), _count(count), seed, _hypercubes(len(space), count, seed))


def sobol(space: Mapping[str, DomainBase], count: int, seed: int = 0) -> list[dict[str, Value]]:
    """The first points of a Sobol sequence, shifted at random: they fill the space evenly, also in pairs of values.

    They are most even if `count` is a power of 2. Scales, options, conditions and constraints are as for
    `latin_hypercube`; refused points are left out of the sequence. The sequence is
    `torch.quasirandom.SobolEngine`'s, the shift a random digital one.

    Args:
        space: Domains by name, or a `Space`.
        count: Number of points.
        seed: Seed of the shift; equal seeds give equal points.

    Raises:
        UsageError: `count` is not a whole number of at least 1.
        SpaceError: The constraint of the space refuses nearly all points.
    """
    shifts = [seed_of("sobol", seed, name) % 2**BITS for name in space]
    return _points(Space(space), _count(count), seed, _shifted(shifts))


def from_run(run: "Run | str | Path", count: int | None = None, *, of: Literal["last", "best"] = "last") -> list[Any]:
    """Hyperparameters of an earlier run, best first; their states stay behind.

    Args:
        run: A run, or its directory.
        count: The most that are returned. Default: all of `"last"`, and as many of `"best"` as the run has members.
        of: `"last"`: the values with which each living member trained its last round. `"best"`: the distinct values
            that led to the best scores of any round.

    Raises:
        RunError: No member has finished a round.
        UsageError: An invalid argument.
    """
    if of not in ("last", "best"):
        raise UsageError(f"from_run: expected of='last' or of='best', got {of!r}")
    if isinstance(run, (str, Path)):
        from pbt.runs.results import Run

        run = Run.open(run)
    tree, view = run.tree, run.view
    living = {member.id for member in view.population}
    newest = [state for member, state in tree.newest.items() if member in living]
    states = newest if of == "last" else [state for state in tree.states.values() if math.isfinite(state.score)]
    if not states:
        raise RunError("from_run: no member of this run has finished a round")
    ranked = sorted(states, key=lambda state: -view.sign * state.score if math.isfinite(state.score) else math.inf)
    found = [dict(state.hparams) for state in ranked]
    if of == "best":
        found = _distinct(found)
        count = len(living) if count is None else count
    return found if count is None else found[: _count(count)]


def from_optuna(study: Any, count: int | None = None, names: Mapping[str, str] | None = None) -> list[Any]:
    """The parameters of the best completed trials of an Optuna study, best first, each set once.

    Of a study with several objectives these are the trials of `study.best_trials`, the Pareto front.

    Args:
        study: An `optuna.Study`.
        count: The most that are returned. Default: all.
        names: The name in the search space of `pbt` by the name in Optuna; parameters with the same name in both can be
            left out.

    Raises:
        UsageError: Not a study, or none of its trials is complete.
    """
    if not all(hasattr(study, name) for name in ("trials", "directions", "best_trials")):
        raise UsageError(f"from_optuna: expected an optuna.Study, got {study!r:.80}")
    if len(study.directions) > 1:
        trials = list(study.best_trials)
    else:
        sign = -1 if study.directions[0].name == "MAXIMIZE" else 1
        complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
        trials = sorted(complete, key=lambda trial: sign * trial.value)
    if not trials:
        raise UsageError("from_optuna: expected a study with completed trials, found none")
    renamed = names or {}
    found = _distinct(
        {renamed.get(name, name): plain(value) for name, value in trial.params.items()} for trial in trials
    )
    return found if count is None else found[: _count(count)]


def _count(count: Any) -> int:
    found: Any = plain(count)
    if type(found) is not int or found < 1:
        raise UsageError(f"initial: expected a whole number of points, at least 1, got {count!r}")
    return found


def _distinct(points: Iterable[dict[str, Value]]) -> list[dict[str, Value]]:
    """The points without repetitions, in order."""
    found: dict[tuple[Any, ...], dict[str, Value]] = {}
    for point in points:
        found.setdefault(tuple((name, typed(point[name])) for name in sorted(point)), point)
    return list(found.values())


class _At:
    """Draws that are all at one place in [0, 1): a domain samples the value at that place of its prior."""

    def __init__(self, place: float) -> None:
        self._place = place

    def random(self) -> float:
        """The place."""
        return self._place

    def below(self, n: int) -> int:
        """The integer at the place."""
        return int(self._place * n)


def _points(space: Space, count: int, seed: int, places: Iterator[Sequence[float]]) -> list[dict[str, Value]]:
    """The first accepted points of a sequence in the unit cube."""
    found: list[dict[str, Value]] = []
    for tried in range(SAMPLES + count):
        values = {name: domain.sample(_At(at)) for (name, domain), at in zip(space.items(), next(places), strict=True)}
        settled = space.settle(values, Rng("initial", seed, tried))
        if space.allows(settled):
            found.append(settled)
            if len(found) == count:
                return found
    # The space reports how many samples its constraint refused, or finds one.
    return [*found, *(space.sample(Rng("initial", seed, i)) for i in range(count - len(found)))]


def _hypercubes(dimensions: int, count: int, seed: int) -> Iterator[Sequence[float]]:
    """Points of one Latin hypercube after the other."""
    cube = 0
    while True:
        columns = []
        for dimension in range(dimensions):
            rng = Rng("latin hypercube", seed, cube, dimension)
            # A sum such as 3 + (1 - 2**-53) is rounded to 4.
            columns.append([min((part + rng.random()) / count, _BELOW_1) for part in rng.sample(range(count), count)])
        yield from zip(*columns, strict=True) if columns else iter([()] * count)
        cube += 1


def _shifted(shifts: Sequence[int]) -> Iterator[Sequence[float]]:
    """Points of a Sobol sequence, each coordinate combined with a shift by exclusive or."""
    import torch
    from torch.quasirandom import SobolEngine

    if not shifts:
        yield from itertools.repeat(())
    engine = SobolEngine(len(shifts))  # type: ignore[no-untyped-call]
    while True:
        (point,) = engine.draw(1, dtype=torch.float64).tolist()
        yield [(int(at * 2**BITS) ^ shift) / 2**BITS for at, shift in zip(point, shifts, strict=True)]
