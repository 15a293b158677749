"""What photos look like, so that one photo is found again in another size, another file, turned or mirrored.

A pHash: signs of the lowest frequencies of a small grey picture. Unlike imagehash's it leaves out those that are little more
than noise: of smooth pictures JPEG flips up to 96 of its 256 bits, which are more than different faces differ in. And turning
or mirroring a picture only swaps and negates its frequencies, so that one transform gives all eight versions.

Measured on the 2,775 photos of ACNE04, CelebAMask-HQ and DermNet. In other sizes, stretched, darker, mirrored, turned by 90
degrees or as JPEG of quality 30 a photo differs from itself in at most 2 % of the signs, with 2 % cut off each edge in
7 % (median). Of 1.8 million pairs of photos of different sets or of CelebAMask-HQ none is taken for one; within ACNE04
(0.8 million pairs) and DermNet about 30 are, and all of them show, to the eye, one lesion or one sitter.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from scipy.fft import dctn

from skinbatch.annotations.displayed import plain, turned_size
from skinbatch.annotations.photos import AnnotatedPhoto

Progress = Callable[[int, int], None]
"""Told how many photos are done, of how many."""
MOST_DIFFERENT = 0.13
"""Share of the signs that may differ in what is taken for one photo."""
_SIDE = 16
"""Frequencies each way: 256."""
_SMALL = 64
"""Side of the picture that they are of, pixels."""
_NOISE = 8.0
"""Amplitude under which a frequency says nothing, grey levels of the orthonormal transform."""
_SURE = 5.0
"""How many standard deviations the signs of two photos have to agree more than by chance: pictures with few frequencies
agree easily."""
_ROWS = 512


@dataclass(frozen=True, slots=True)
class Look:
    """One photo. sha256: of its bytes. width, height: pixels as displayed. signs: (8, 256) int8, of its frequencies and of those
    of its turned and mirrored versions, 0 where there is only noise; the first is the photo as it is."""

    sha256: str
    width: int
    height: int
    signs: NDArray[np.int8]


def look_at(path: Path) -> Look | str:
    """What a photo looks like, or why it cannot be read."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            width, height = turned_size(image)
            image.draft("L", (_SMALL, _SMALL))  # JPEG: decoded at down to an eighth of its size
            small = image.convert("L").resize((_SMALL, _SMALL), Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as e:
        return plain(e)
    return Look(hashlib.sha256(data).hexdigest(), width, height, _signs(np.asarray(small, np.float32)))


def _signs(grey: NDArray[np.float32]) -> NDArray[np.int8]:
    found = dctn(grey, norm="ortho")[:_SIDE, :_SIDE]
    signs = np.where(np.abs(found) > _NOISE, np.sign(found), 0).astype(np.int8)
    signs[0, 0] = 0  # the mean, which is never negative
    odd = np.where(np.arange(_SIDE) % 2, -1, 1).astype(np.int8)
    both = (signs, signs.T)
    return np.stack(
        [(one * up[:, None] * across).ravel() for one in both for up in (odd**2, odd) for across in (odd**2, odd)]
    )


def look_at_all(paths: Sequence[Path], progress: Progress | None = None) -> list[Look | str]:
    """look_at of every photo, on all cores."""
    found = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for look in pool.map(look_at, paths):
            found.append(look)
            if progress is not None:
                progress(len(found), len(paths))
    return found


def alike(
    some: Sequence[Look], others: Sequence[Look], most: float = MOST_DIFFERENT
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]]:
    """Pairs of photos that look the same, in blocks: places in `some`, places in `others`, share of the signs that differ."""
    if not some or not others:
        return
    plain = np.stack([look.signs[0] for look in some]).astype(np.float32)
    for start in range(0, len(others), _ROWS):
        turned = np.concatenate([look.signs for look in others[start : start + _ROWS]]).astype(np.float32)
        for first in range(0, len(some), _ROWS):
            # Matrix products count equal signs less different ones, and signs to compare, of two million pairs at a time.
            block = plain[first : first + _ROWS]
            agree, both = block @ turned.T, np.abs(block) @ np.abs(turned).T
            differ = np.where(agree >= _SURE * np.sqrt(both), (both - agree) / np.maximum(2 * both, 1), np.inf)
            nearest = differ.reshape(len(block), -1, 8).min(2).astype(np.float32)
            i, j = np.nonzero(nearest <= most)
            yield i + first, j + start, nearest[i, j]


def perceptual_groups(photos: Sequence[AnnotatedPhoto], progress: Progress | None = None) -> list[int]:
    """A group for every photo: photos that look the same, directly or by way of others, share one. Numbered from 0 in the
    order of the photos. Photos that are not there or cannot be read are alone."""
    there = [n for n, photo in enumerate(photos) if photo.path is not None]
    looks = look_at_all([path for n in there if (path := photos[n].path) is not None], progress)
    seen = [(n, look) for n, look in zip(there, looks, strict=True) if isinstance(look, Look)]
    parent = list(range(len(photos)))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    for some, others, _ in alike([look for _, look in seen], [look for _, look in seen]):
        for i, j in zip(some.tolist(), others.tolist(), strict=True):
            a, b = root(seen[i][0]), root(seen[j][0])
            parent[max(a, b)] = min(a, b)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(n), len(numbers)) for n in range(len(photos))]
