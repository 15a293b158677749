"""Keep the photos of a training, decoded as the scorer decodes them, as far as memory reaches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from skinbatch.archive.decode import PhotoError, decode
from skinbatch.config import DecodeSettings
from skinbatch.errors import UsageError
from skinbatch.models.preprocess import resize

Pixels = NDArray[np.uint8]

# Photos whose short side is this many times the network's input, or more, are kept smaller ...
SPARE = 2.0
# ... at this many times it: enough to come nearer, and a fraction of the bytes.
KEPT = 1.5
MEMORY_SHARE = 0.3
_AHEAD = 64


@dataclass(frozen=True, slots=True)
class FaceCut:
    """Hold where the scorer would cut a photo.

    crop: x1 y1 x2 y2, pixels of the displayed photo, exclusive at the end. skin: the crop's skin as
    a PNG if the model's input is `masked_crop`; else None.
    """

    crop: tuple[int, int, int, int]
    skin: bytes | None = None


@dataclass(frozen=True, slots=True)
class StoredPhoto:
    """Name a photo. name: as its truth names it. cut: None for the whole photo."""

    name: str
    path: Path
    cut: FaceCut | None = None

    def pixels(self) -> Pixels:
        """Return (H, W, 3) uint8 RGB, as displayed and cut.

        Raises UsageError naming a file that does not decode.
        """
        rgb = read_photo(self.path)
        if self.cut is None:
            return rgb
        x1, y1, x2, y2 = self.cut.crop
        face = np.ascontiguousarray(rgb[y1:y2, x1:x2])
        if self.cut.skin is None:
            return face
        skin = cv2.imdecode(np.frombuffer(self.cut.skin, np.uint8), cv2.IMREAD_GRAYSCALE)
        return np.asarray(face * (np.asarray(skin) > 0)[..., None], np.uint8)


class Kept(Protocol):
    """Hold what is kept of a photo, such as an array."""

    @property
    def nbytes(self) -> int: ...


Seen = TypeVar("Seen")
Look = TypeVar("Look", bound=Kept)


class PhotoStore(Generic[Look]):
    """Keep what `look` makes of photos, by index.

    As much as fits into memory is decoded once, before the processes that make views are forked, so
    that all of them share it. The rest is decoded each time.
    """

    def __init__(
        self, photos: Sequence[StoredPhoto], look: Callable[[int, Pixels], Look], memory: int
    ) -> None:
        """Create the store. look: called with a photo's index and pixels. memory: bytes.

        Raises UsageError naming a file that does not decode.
        """
        self.photos, self._look = tuple(photos), look
        self._kept: list[Look] = []
        for seen in decoded(self.photos, look):
            memory -= seen.nbytes
            if memory < 0:
                break
            self._kept.append(seen)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Look:
        return (
            self._kept[index]
            if index < len(self._kept)
            else self._look(index, self.photos[index].pixels())
        )

    def __iter__(self) -> Iterator[Look]:
        """Yield all of them; those that are not kept are decoded ahead in threads."""
        yield from self._kept
        first = len(self._kept)
        yield from decoded(self.photos[first:], lambda n, pixels: self._look(first + n, pixels))


def working_size(pixels: Pixels, size: int) -> Pixels:
    """Return the photo in the size that views for an input of `size` need; see SPARE and KEPT."""
    height, width = pixels.shape[:2]
    if min(height, width) < SPARE * size:
        return pixels
    scale = KEPT * size / min(height, width)
    return resize(pixels, round(width * scale), round(height * scale))


def read_photo(path: Path) -> Pixels:
    """Return (H, W, 3) uint8 RGB as displayed. Raises UsageError naming the file."""
    try:
        return decode(path.read_bytes(), DecodeSettings(), str(path)).rgb
    except (OSError, PhotoError) as e:
        raise UsageError(f"{path}: cannot be used: {e}; remove it from the data") from None


def decoded(photos: Sequence[StoredPhoto], look: Callable[[int, Pixels], Seen]) -> Iterator[Seen]:
    """Yield `look` of one photo after the other, decoded ahead in threads.

    look: receives a photo's index and pixels.
    """
    with ThreadPoolExecutor(decoders()) as pool:
        for start in range(0, len(photos), _AHEAD):
            places = range(start, min(start + _AHEAD, len(photos)))
            yield from pool.map(lambda place: look(place, photos[place].pixels()), places)


def memory_budget() -> int:
    """Return the bytes that the photos of a training may take: a share of the free memory."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(MEMORY_SHARE * pages)


def decoders() -> int:
    """Return the number of threads that decode. Decoders release the interpreter's lock."""
    return max(2, len(os.sched_getaffinity(0)))
