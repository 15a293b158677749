"""Which row of a destination shows which annotated photo."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skinbatch.tables.names import safe_text

Ints = NDArray[np.int64]


def _same(name: str) -> str:
    return name


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]


WAYS: dict[str, Callable[[str], str]] = {
    "name": _same,
    "base name": posixpath.basename,
    "base name without its ending": _stem,
}
"""From strict to loose. The first by which any photo is found is taken for all: photos of the same base name in two folders
must not stand in for one another where most are found by their whole name."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """way: of WAYS, None where nothing fits. truth, rows: (P,) places in the two lists, one pair a photo, by rising row.

    unseen: names of truth without a row. unsaid: image_ids of rows without truth. ambiguous: names that fit several rows or
    that several annotations have; they are in no pair, and in neither of the other lists.
    """

    way: str | None
    truth: Ints
    rows: Ints
    unseen: tuple[str, ...]
    unsaid: tuple[str, ...]
    ambiguous: tuple[str, ...]


def pair(names: Sequence[str], image_ids: Sequence[str]) -> Pairs:
    """Pair annotated photos, by name, with rows, by image_id."""
    names = [safe_text(name) for name in names]
    for way, key in WAYS.items():
        keys, keys_of_rows = [key(name) for name in names], [key(image_id) for image_id in image_ids]
        if not set(keys).isdisjoint(keys_of_rows):
            return _paired(way, names, image_ids, keys, keys_of_rows)
    return Pairs(None, np.zeros(0, np.int64), np.zeros(0, np.int64), tuple(names), tuple(image_ids), ())


def _paired(way: str, names: list[str], image_ids: Sequence[str], keys: list[str], keys_of_rows: list[str]) -> Pairs:
    often, often_rows = Counter(keys), Counter(keys_of_rows)
    place = {key: n for n, key in enumerate(keys)}
    found = [
        (place[key], row) for row, key in enumerate(keys_of_rows) if often_rows[key] == 1 and often.get(key, 0) == 1
    ]
    pairs = np.array(found, np.int64).reshape(-1, 2)
    return Pairs(
        way,
        pairs[:, 0],
        pairs[:, 1],
        tuple(name for name, key in zip(names, keys, strict=True) if key not in often_rows),
        tuple(image_id for image_id, key in zip(image_ids, keys_of_rows, strict=True) if key not in often),
        tuple(
            name
            for name, key in zip(names, keys, strict=True)
            if key in often_rows and (often_rows[key] > 1 or often[key] > 1)
        ),
    )
