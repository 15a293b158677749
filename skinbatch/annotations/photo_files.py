"""Where the photos of one annotation file are: beside it, or in a folder that is named."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

from skinbatch.annotations.photos import AnnotatedPhoto
from skinbatch.annotations.spellings import Spellings
from skinbatch.annotations.tree import Tree, is_foreign
from skinbatch.archive.formats import has_image_name

# So many photos of a file are looked for in each folder where photos may be.
_LOOKED_AT = 50


class PhotoFiles:
    """Find the photos that a file of annotations names. found: those that `find` has returned.

    Names may be paths of the machine that wrote the file, with folders or backslashes; then the photo is the file with
    the longest path that the name ends with. Names are compared in Unicode's composed form.
    """

    def __init__(self, file: Path, photos: Path | None, names: Sequence[Sequence[str]], folders: Sequence[str]) -> None:
        """
        Args:
            file: The annotations.
            photos: The folder of the photos, None to look beside the file and one folder up.
            names: The names of each photo, as the file has them, the best first.
            folders: Folders beside the file in which photos may be, besides `images`.
        """
        self.file = file
        self.found: set[Path] = set()
        self._photos = photos
        self._loose = photos is not None
        self._tree: Tree | None = None
        self._spellings = Spellings()
        self.root = photos or self._root(names[:_LOOKED_AT], folders)

    def find(self, names: Sequence[str]) -> Path | None:
        """Return the file of a photo, None where it is not there. names: the best first.

        Raises:
            UsageError: Two files have the name, in other spellings of the same text.
        """
        for name in names:
            if os.path.isabs(name) and os.path.isfile(name) and not self._loose:
                return self._taken(Path(name))
            if (path := self._within(self.root, name)) is not None:
                return self._taken(path)
        if self._photos is None:
            return None

        # The photos may be in folders that the names do not have.
        self._tree = self._tree or Tree(self._photos, loose=True)
        for name in names:
            if (key := self._tree.find(name)) is not None:
                return self._taken(self._tree.path(key))
        return None

    def key(self, name: str, path: Path | None, root: Path) -> str:
        """Return what a photo is called: its path relative to `root`, else the name that the file has."""
        if path is not None and path.is_relative_to(root):
            return path.relative_to(root).as_posix()
        within = self.file.parent
        if path is not None or within == root or not within.is_relative_to(root) or is_foreign(name):
            return name
        return f"{within.relative_to(root).as_posix()}/{name}"

    def _taken(self, path: Path) -> Path:
        self.found.add(path)
        return path

    def _root(self, names: Sequence[Sequence[str]], folders: Sequence[str]) -> Path:
        """Return the folder in which the first photos are; the file's own where none is found."""
        beside = self.file.parent
        for above in (beside, beside.parent):
            for folder in (above, *(above / name for name in ("images", *folders))):
                if any(self._within(folder, name) is not None for several in names for name in several):
                    return folder
        return beside

    def _within(self, root: Path, name: str) -> Path | None:
        for end in _ends(name, self._loose):
            if (path := self._spellings.file(Path(os.path.normpath(root / end)))) is not None:
                return path
        return None


def unlisted(files: Sequence[PhotoFiles], root: Path) -> Iterator[AnnotatedPhoto]:
    """Yield the photos beside those that were found which none of the files names. Nothing is said about them.

    root: what their names are relative to.
    """
    found = {path for file in files for path in file.found}
    for folder in sorted({path.parent for path in found}):
        for path in sorted(Path(folder, entry) for entry in os.listdir(folder) if has_image_name(entry)):
            if path not in found:
                yield AnnotatedPhoto(files[0].key(path.name, path, root), path, path)


def _ends(name: str, loose: bool) -> Iterator[str]:
    """Yield keys by which a photo may lie in a folder: its name, then, of a path of another machine, ever shorter ends."""
    if not os.path.isabs(name):
        yield name
    plain = posixpath.normpath(name.replace("\\", "/")).lstrip("/")
    if plain != name:
        yield plain
    if loose or is_foreign(name):
        parts = [part for part in plain.split("/") if part != ".."]
        for start in range(1, len(parts)):
            yield "/".join(parts[start:])
