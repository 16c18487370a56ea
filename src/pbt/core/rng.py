"""Randomness by key: the same key gives the same draws, whoever asks, wherever and in whatever order.

Nothing is ever saved of a generator, because none outlives what it was made for. Only `random.Random.random` is
used underneath: the standard library promises its values, and no other method's, from one version to the next.
"""

import hashlib
import random
from collections.abc import Sequence
from statistics import NormalDist
from typing import TypeVar

T = TypeVar("T")
Key = int | str
_NORMAL = NormalDist()


def seed_of(*key: Key) -> int:
    """A seed in 0 .. 2**63-1 that depends on every part of the key: `seed_of(7, "dropout", 3)`."""
    # The type is written with the part, so that 1 and "1" differ.
    text = "\x1f".join([f"{type(part).__name__}:{part}" for part in key])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Rng:
    """A generator named by a key; the generator is made only when something is drawn from it."""

    __slots__ = ("_key", "_source")

    def __init__(self, *key: Key) -> None:
        self._key = key
        self._source: random.Random | None = None

    def child(self, *key: Key) -> "Rng":
        """The generator whose key is this one's with more parts behind it."""
        return Rng(*self._key, *key)

    def random(self) -> float:
        """A float in [0, 1)."""
        if self._source is None:
            self._source = random.Random(seed_of(*self._key))
        return self._source.random()

    def below(self, n: int) -> int:
        """An integer in 0 .. n-1, each equally likely (to within n / 2**53)."""
        return int(self.random() * n)

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, each equally likely."""
        return options[self.below(len(options))]

    def sample(self, options: Sequence[T], k: int) -> list[T]:
        """K different options in random order: the first k of a Fisher-Yates shuffle."""
        pool = list(options)
        for i in range(k):
            j = i + self.below(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:k]

    def normal(self) -> float:
        """A draw from the standard normal distribution, by inversion."""
        # random() can be 0, where the inverse is not defined.
        return _NORMAL.inv_cdf(max(self.random(), 2.0**-54))

    def __repr__(self) -> str:
        return f"Rng{self._key!r}"
