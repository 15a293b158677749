"""List all files below a folder once, and find an annotation's photo among them.

Names are compared in Unicode's composed form; a file whose name is spelled exactly alike wins.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from skinbatch.archive.formats import extension, has_image_name
from skinbatch.errors import UsageError
from skinbatch.tables.names import composed

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class Tree:
    """Hold the keys of all files below `root`, with `/` between folders, ascending.

    Links are followed, each folder once.

    Attributes:
        files: every key.
        photos, photo_keys: those with a photo's name, in order and to look up.
        loose: the folder was given for a list's photos, so folders that the list has before a
            photo's name may be missing here.
    """

    def __init__(self, root: Path, loose: bool = False) -> None:
        self.root = root
        self.files = sorted(_walk(root))
        self.photos = [key for key in self.files if has_image_name(key)]
        self.photo_keys = frozenset(self.photos)
        self._loose = loose
        self._by_key: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        self._by_name: dict[str, list[str]] = {}
        for key in self.photos:
            plain = composed(key)
            self._by_key.setdefault(plain, []).append(key)
            self._by_stem.setdefault(stem(plain), []).append(key)
            self._by_name.setdefault(posixpath.basename(plain), []).append(key)
            self._by_name.setdefault(posixpath.basename(stem(plain)), []).append(key)

    def path(self, key: str) -> Path:
        return self.root / key

    def ending(self, *extensions: str) -> list[str]:
        """Return keys with one of these extensions (lower case, with the dot)."""
        return [key for key in self.files if extension(key) in extensions]

    def beside(
        self, annotation: str, swaps: Iterable[tuple[str, Sequence[str]]] = ()
    ) -> str | None:
        """Return the photo with the annotation's name, or None.

        It is in the annotation's folder or, if that has `labels` in its path, in `images`.

        swaps: folder of annotations (lower case) -> folders of photos. The last such folder in the
        path counts.
        """
        return next(iter(self.all_beside(annotation, swaps)), None)

    def all_beside(
        self, annotation: str, swaps: Iterable[tuple[str, Sequence[str]]] = ()
    ) -> list[str]:
        """Return every photo with the annotation's name, formats in alphabetical order."""
        return [
            photo
            for place in (annotation, *_swapped(annotation, swaps))
            for photo in self._with_stem(stem(place))
        ]

    def photo(self, key: str) -> str | None:
        """Return the photo of this key; None if there is none.

        Raises:
            UsageError: Two photos have the key, in different spellings of the same text.
        """
        if key in self.photo_keys:
            return key
        keys = self._by_key.get(composed(key), [])
        self._check_one(key, keys)
        return keys[0] if keys else None

    def find(self, name: str, near: str = "") -> str | None:
        """Return the photo that a list calls `name`; None if there is none.

        The name is relative to the list's folder `near`, to the root or to `images`, with or
        without its extension, or it is the end of only one photo's path. Its own folders must
        agree: `train/9.png` is never `test/9.png`. For a path of another machine, return the photo
        with the longest path that it ends with.
        """
        plain = posixpath.normpath(name.replace("\\", "/"))
        for folder in (near, "", posixpath.join(near, "images"), "images"):
            key = posixpath.normpath(posixpath.join(folder, plain))
            if (match := self.photo(key)) is not None:
                return match
            if not has_image_name(plain) and (same_stem := self._with_stem(key)):
                return same_stem[0]

        ends = composed("/" + plain.lstrip("/"))
        candidates = self._by_name.get(posixpath.basename(ends), [])
        whole = self.root.absolute().as_posix()
        for above in ("", whole):
            same = [key for key in candidates if _ends_with(f"{above}/{key}", ends)]
            if same:
                return same[0] if len(same) == 1 else None

        if not (self._loose or is_foreign(name)):
            return None
        covered = [
            key
            for key in candidates
            if ends.endswith((composed(f"/{key}"), "/" + stem(composed(key))))
        ]
        longest = max((key.count("/") for key in covered), default=0)
        covered = [key for key in covered if key.count("/") == longest]
        return covered[0] if len(covered) == 1 else None

    def _with_stem(self, place: str) -> list[str]:
        """Return the photos of this key without its extension."""
        keys = self._by_stem.get(composed(place), [])
        exact = [key for key in keys if stem(key) == place]
        if not exact:
            self._check_one(place, list({stem(key): key for key in keys}.values()))
        return exact or keys

    def _check_one(self, name: str, keys: Sequence[str]) -> None:
        if len(keys) > 1:
            several = " and ".join(ascii(key) for key in keys)
            raise UsageError(
                f"{self.root}: {name} is {several}, which differ only in their Unicode form; rename one of them"
            )


def is_foreign(name: str) -> bool:
    r"""Return whether a photo's name is absolute or leads upwards, and so may come from another machine.

    Example:
        >>> is_foreign(r"C:\photos\a.jpg"), is_foreign("train/a.jpg")
        (True, False)
    """
    return name.startswith(("/", "\\", "..")) or _DRIVE.match(name) is not None


def stem(key: str) -> str:
    """Return the key without its last extension."""
    return posixpath.splitext(key)[0]


def photo_folder(
    path: Path, annotations: Sequence[str], photos: Sequence[str]
) -> tuple[Path, Path]:
    """Return the folders of the photos and of the annotations of `path`.

    They are the same, unless the layout has two folders beside each other.

    annotations, photos: names of the two folders (`labels`, `images`), the usual spelling first.
    `path` may be the folder above them, either of them, or a folder in either.
    """
    for name in annotations:
        if (path / name).is_dir():
            return next(
                (path / p for p in photos if (path / p).is_dir()), path / photos[0]
            ), path / name
    parts = path.parts
    for names, others, at_photos in ((annotations, photos, False), (photos, annotations, True)):
        for at in range(len(parts) - 1, 0, -1):
            if parts[at] in names:
                for other in others:
                    twin = Path(*parts[:at], other, *parts[at + 1 :])
                    if twin.is_dir():
                        return (path, twin) if at_photos else (twin, path)
    return path, path


def read_text(path: Path) -> str:
    """Read a text file, UTF-8 with or without a mark. Raises UsageError naming it."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise UsageError(f"{path}: byte {e.start} is not UTF-8; save it as UTF-8") from None
    except OSError as e:
        raise UsageError(f"{path}: cannot be read: {e.strerror}") from None


def _ends_with(path: str, end: str) -> bool:
    """Return whether a path ends with another, with or without its extension."""
    plain = composed(path)
    return plain.endswith(end) or stem(plain).endswith(end)


def _swapped(key: str, swaps: Iterable[tuple[str, Sequence[str]]]) -> Iterable[str]:
    parts = key.split("/")
    for name, others in swaps:
        at = next((n for n in range(len(parts) - 2, -1, -1) if parts[n].lower() == name), None)
        if at is not None:
            yield from ("/".join((*parts[:at], other, *parts[at + 1 :])) for other in others)


def _walk(root: Path) -> Iterable[str]:
    seen = set()
    folders = [(str(root), "")]
    while folders:
        folder, key = folders.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders.append((entry.path, f"{key}{entry.name}/"))
                    elif entry.is_file():
                        yield key + entry.name
        except OSError as e:
            raise UsageError(f"{folder}: cannot be listed: {e.strerror}") from None
