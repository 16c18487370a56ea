"""Keyed randomness: equal keys give equal draws, independent of caller, place and order.

Generators are never saved, because none outlives its purpose. Only `random.Random.random` is used underneath: it is
the only method whose values the standard library guarantees across versions.
"""

import hashlib
import random
from collections.abc import Sequence
from statistics import NormalDist
from typing import TypeVar, cast

T = TypeVar("T")
Key = int | str
_NORMAL = NormalDist()
_sha256 = hashlib.sha256
# The part of the class that is written in C. Its Python constructor only passes the seed on.
_Generator = cast("type[random.Random]", random.Random.__base__)


def seed_of(*key: Key) -> int:
    """A seed in 0 .. 2**63-1 that depends on every part of the key: `seed_of(7, "dropout", 3)`."""
    # The type is part of the hash, so that 1 and "1" differ.
    text = "\x1f".join([f"int:{part}" if type(part) is int else f"{type(part).__name__}:{part}" for part in key])
    return int.from_bytes(_sha256(text.encode()).digest()[:8], "big") >> 1


class Rng:
    """A generator identified by a key and created on its first draw."""

    __slots__ = ("_key", "_source")

    def __init__(self, *key: Key) -> None:
        self._key = key
        self._source: random.Random | None = None

    def child(self, *key: Key) -> "Rng":
        """The generator whose key is this key extended by more parts."""
        return Rng(*self._key, *key)

    def random(self) -> float:
        """A float in [0, 1)."""
        source = self._source
        if source is None:
            source = self._source = _Generator(seed_of(*self._key))
        return source.random()

    def below(self, n: int) -> int:
        """An integer in 0 .. n-1, uniform to within n / 2**53."""
        return int(self.random() * n)

    def choice(self, options: Sequence[T]) -> T:
        """One option, drawn uniformly."""
        return options[int(self.random() * len(options))]

    def sample(self, options: Sequence[T], k: int) -> list[T]:
        """K distinct options in random order: the first k of a Fisher-Yates shuffle."""
        pool = list(options)
        for i in range(k):
            j = i + self.below(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:k]

    def normal(self) -> float:
        """A sample of the standard normal distribution, by inversion."""
        # random() can return 0, where the inverse is undefined.
        return _NORMAL.inv_cdf(max(self.random(), 2.0**-54))

    def __repr__(self) -> str:
        return f"Rng{self._key!r}"
