"""Keep the photos with the largest values."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence


class Foremost:
    """Keep the `most` photos with the largest values; of equal values, the first by name.

    >>> kept = Foremost(1)
    >>> kept.add("a", 0.5), kept.add("b", 0.7)
    (None, None)
    >>> kept.names()
    ['b']
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.seen = 0
        self._heap: list[tuple[float, _Last]] = []

    def add(self, name: str, value: float) -> None:
        """Consider a photo."""
        self.seen += 1
        entry = (value, _Last(name))
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def names(self, most: int | None = None) -> list[str]:
        """Return the photos, the foremost first. most: no more than these."""
        return [str(name) for _, name in sorted(self._heap, reverse=True)[:most]]


class _Last(str):
    """Sort texts from z to a."""

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)

    def __gt__(self, other: str) -> bool:
        return str.__lt__(self, other)


def equal_shares(available: Mapping[Sequence[str], int], size: int) -> dict[Sequence[str], int]:
    """Return how many photos to take from each group.

    Every group gives the same number. Small groups give all they have, and the others share the
    rest.

    >>> equal_shares({("mild",): 900, ("severe",): 3}, 10)
    {('severe',): 3, ('mild',): 7}
    """
    shares: dict[Sequence[str], int] = {}
    groups = sorted(available, key=lambda group: (available[group], tuple(group)))
    remaining = size

    for n, group in enumerate(groups):
        shares[group] = min(available[group], remaining // (len(groups) - n))
        remaining -= shares[group]
    return shares
