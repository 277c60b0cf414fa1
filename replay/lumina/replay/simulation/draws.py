"""Chance that is asked by name: a value depends on the seed and on the name of the place, and on nothing else.

So leaving out one fault does not shift what happens at any other place, and a script can be shrunk.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")

Key = str | int


class Draws:
    """All that is drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = f"{seed}"

    def bits(self, *key: Key) -> int:
        """Return 64 bits."""
        text = "/".join((self._seed, *map(str, key)))
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")

    def chance(self, *key: Key, percent: float) -> bool:
        """Return whether something happens that happens in so many of a hundred cases."""
        return self.bits(*key) % 10_000 < percent * 100

    def between(self, *key: Key, low: int, high: int) -> int:
        """Return a whole number, both ends included."""
        return low + self.bits(*key) % (high - low + 1)

    def pick(self, *key: Key, of: Sequence[T]) -> T:
        """Return one of several."""
        return of[self.bits(*key) % len(of)]

    def long_tail(self, *key: Key, low: int, high: int, power: int = 4) -> int:
        """Return a number that is mostly near `low` and the more rarely near `high` the higher `power` is."""
        share = (self.bits(*key) % 1_000_003) / 1_000_003
        return low + int((high - low) * share**power)
