"""Find the row of a destination that shows an annotated photo."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.storage.local import path_of
from skinbatch.storage.locate import is_s3
from skinbatch.tables.names import composed, original_text, safe_text

Ints = NDArray[np.int64]


def _same(name: str) -> str:
    return name


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]


FILE = "file"
_NAMES: dict[str, Callable[[str], str]] = {
    "name": _same,
    "base name": posixpath.basename,
    "base name without its ending": _stem,
}
# Marks keys in Unicode's composed form, so that they equal no key that is left as it is spelled.
_COMPOSED = "composed"
# From strict to loose. The first way that finds any photo is used for all. Photos of the same base
# name in two folders must not be mistaken for one another if most photos are found by their whole
# name, or are known to be another file.
WAYS = (FILE, *_NAMES)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Hold which annotated photo belongs to which row.

    Attributes:
        way: one of WAYS; None if nothing fits.
        truth, rows: (P,) places in the two lists, one pair a photo, by rising row.
        unseen: names of annotated photos without a row.
        unsaid: image_ids of rows without truth.
        ambiguous: names that fit several rows, or that several annotations have. They are in no
            pair, and in neither of the other lists.
    """

    way: str | None
    truth: Ints
    rows: Ints
    unseen: tuple[str, ...]
    unsaid: tuple[str, ...]
    ambiguous: tuple[str, ...]


def pair_photos(
    photos: Sequence[AnnotatedPhoto], image_ids: Sequence[str], uris: Sequence[str]
) -> Pairs:
    """Pair annotated photos with rows, by their files or by the names that they have in their lists.

    uris: of the rows, as tables spell them.
    """
    ids = {composed(image_id) for image_id in image_ids}
    names = [
        photo.written if photo.written and composed(photo.written) in ids else photo.name
        for photo in photos
    ]
    return pair(names, image_ids, [photo.path for photo in photos], uris)


def pair(
    names: Sequence[str],
    image_ids: Sequence[str],
    files: Sequence[str | os.PathLike[str] | None] = (),
    uris: Sequence[str] = (),
) -> Pairs:
    """Pair annotated photos with rows.

    If both are given, photos are paired by their files and the rows' uris as tables spell them,
    otherwise by names and image_ids.

    files: None for photos that do not exist.
    """
    names = [safe_text(name) for name in names]
    paths, row_paths = (
        _resolved(files),
        _resolved(None if is_s3(uri) else path_of(original_text(uri)) for uri in uris),
    )
    if not {path for path in paths if path is not None}.isdisjoint(row_paths):
        # A path that is no file on this machine equals nothing.
        keys: list[Hashable] = [path or ("truth", n) for n, path in enumerate(paths)]
        return _paired(
            FILE, names, image_ids, keys, [path or ("row", n) for n, path in enumerate(row_paths)]
        )
    for way, key in _NAMES.items():
        keys, keys_of_rows = _matchable(
            [key(name) for name in names], [key(image_id) for image_id in image_ids]
        )
        if not set(keys).isdisjoint(keys_of_rows):
            return _paired(way, names, image_ids, keys, keys_of_rows)
    return Pairs(
        None, np.zeros(0, np.int64), np.zeros(0, np.int64), tuple(names), tuple(image_ids), ()
    )


def _resolved(files: Iterable[str | os.PathLike[str] | None]) -> list[str | None]:
    """Return absolute paths without links. Each folder is resolved only once."""
    folders: dict[str, str] = {}
    resolved: list[str | None] = []
    for file in files:
        if file is None:
            resolved.append(None)
            continue
        folder, name = os.path.split(os.fspath(file))
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        path = os.path.join(folders[folder], name)
        resolved.append(os.path.realpath(path) if os.path.islink(path) else path)
    return resolved


def _matchable(
    keys: Sequence[Hashable], others: Sequence[Hashable]
) -> tuple[list[Hashable], list[Hashable]]:
    """Return keys that are equal where names are the same text, however Unicode spells it.

    A name that is spelled alike on both sides fits no other spelling.
    """
    exact = set(keys) & set(others)

    def plain(key: Hashable) -> Hashable:
        return key if key in exact or not isinstance(key, str) else (_COMPOSED, composed(key))

    return [plain(key) for key in keys], [plain(key) for key in others]


def _paired(
    way: str,
    names: list[str],
    image_ids: Sequence[str],
    keys: Sequence[Hashable],
    keys_of_rows: Sequence[Hashable],
) -> Pairs:
    often, often_rows = Counter(keys), Counter(keys_of_rows)
    place = {key: n for n, key in enumerate(keys)}
    places = [
        (place[key], row)
        for row, key in enumerate(keys_of_rows)
        if often_rows[key] == 1 and often.get(key, 0) == 1
    ]
    pairs = np.array(places, np.int64).reshape(-1, 2)
    return Pairs(
        way,
        pairs[:, 0],
        pairs[:, 1],
        tuple(name for name, key in zip(names, keys, strict=True) if key not in often_rows),
        tuple(
            image_id
            for image_id, key in zip(image_ids, keys_of_rows, strict=True)
            if key not in often
        ),
        tuple(
            name
            for name, key in zip(names, keys, strict=True)
            if key in often_rows and (often_rows[key] > 1 or often[key] > 1)
        ),
    )
