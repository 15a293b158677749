"""Group loose photos by the leading bits of the hash of their key.

Groups keep their photos when a source grows, so units stay the same from run to run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LARGE_GROUP = 512
SMALL_GROUP = 8
FEW_GROUPS = 32
MAX_BITS = 48


class Group(NamedTuple):
    """Name a group by the leading bits of its photos' hashes, and its photos by their places.

    bits: text of 0 and 1. start, stop: in the order of the hashes.
    """

    bits: str
    start: int
    stop: int


def key_hash(image_id: str) -> int:
    """Return the first 64 bits of the SHA-256 of the key."""
    return int.from_bytes(
        hashlib.sha256(image_id.encode("utf-8", "surrogateescape")).digest()[:8], "big"
    )


def target_size(photos: int) -> int:
    """Return the number of photos that a group aims at: 512, or a 32nd of a small source, at least
    8.
    """
    return max(SMALL_GROUP, min(LARGE_GROUP, photos // FEW_GROUPS))


def first_bits(photos: int) -> int:
    """Return the number of leading bits that make groups of about the target size."""
    return max(0, round(math.log2(max(1, photos) / target_size(photos))))


def split(hashes: NDArray[np.uint64], bits: int, known: Collection[str]) -> list[Group]:
    """Return every group that has photos.

    Groups of earlier plans stay. A group over twice the target is split by one more bit, repeatedly
    if needed. No groups are merged.

    Args:
        hashes: (N,) uint64, ascending.
        bits: leading bits of the first plan.
        known: groups of the newest plan, as text of 0 and 1.
    """
    target = target_size(len(hashes))
    known = frozenset(known)
    inner = {group[:depth] for group in known for depth in range(len(group))}
    groups: list[Group] = []

    def descend(prefix: str, start: int, stop: int) -> None:
        if start == stop:
            return
        settled = prefix in known or (len(prefix) >= bits and prefix not in inner)
        if settled and (stop - start <= 2 * target or len(prefix) >= MAX_BITS):
            groups.append(Group(prefix, start, stop))
            return
        boundary = int(prefix + "1", 2) << (63 - len(prefix))
        middle = start + int(np.searchsorted(hashes[start:stop], np.uint64(boundary)))
        descend(prefix + "0", start, middle)
        descend(prefix + "1", middle, stop)

    descend("", 0, len(hashes))
    return groups
