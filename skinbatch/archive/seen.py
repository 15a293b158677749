"""Remember millions of names in about ten bytes each."""

from __future__ import annotations

import hashlib
from collections import defaultdict

_FIRST, _REST = 2, 8


class SeenNames:
    """Remember names by 80 bits of their hashes.

    The first bits choose a bucket, and the others are searched for in it. That any two of a billion
    names are taken for one has a chance of less than one in a hundred thousand.
    """

    def __init__(self) -> None:
        self._buckets: defaultdict[bytes, bytearray] = defaultdict(bytearray)

    def add(self, name: str) -> bool:
        """Remember a name. Returns whether it is new."""
        text = name.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(text, digest_size=_FIRST + _REST).digest()
        bucket, rest = self._buckets[digest[:_FIRST]], digest[_FIRST:]
        if rest in bucket:
            return False
        bucket += rest
        return True
