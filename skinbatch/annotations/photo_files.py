"""Find the photos of one annotation file, beside it or in a given folder."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.spellings import Spellings
from skinbatch.annotations.tree import Tree, is_foreign
from skinbatch.archive.formats import has_image_name

# Number of photos of a file that are looked for in each folder that may have photos.
_LOOKED_AT = 50


class PhotoFiles:
    """Find the photos that a file of annotations names.

    Names may be paths of the machine that wrote the file, with folders or backslashes. The photo is
    then the file with the longest path that the name ends with. Names are compared in Unicode's
    composed form.

    found: photos that `find` has returned.
    """

    def __init__(
        self,
        file: Path,
        photos: Path | None,
        names: Sequence[Sequence[str]],
        folders: Sequence[str],
    ) -> None:
        """Create the finder.

        Args:
            file: The annotations.
            photos: The folder of the photos; None looks beside the file and one folder up.
            names: The names of each photo in the file, the best first.
            folders: Folders beside the file, besides `images`, that may have photos.
        """
        self.file = file
        self.matched: set[Path] = set()
        self._photos = photos
        self._loose = photos is not None
        self._tree: Tree | None = None
        self._spellings = Spellings()
        self.root = photos or self._root(names[:_LOOKED_AT], folders)

    def find(self, names: Sequence[str]) -> Path | None:
        """Return the file of a photo; None if it does not exist. names: the best first.

        Raises:
            UsageError: Two files have the name, in different spellings of the same text.
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
        """Return a photo's name: its path relative to `root`, or else the name in the file."""
        if path is not None and path.is_relative_to(root):
            return path.relative_to(root).as_posix()
        within = self.file.parent
        if (
            path is not None
            or within == root
            or not within.is_relative_to(root)
            or is_foreign(name)
        ):
            return name
        return f"{within.relative_to(root).as_posix()}/{name}"

    def _taken(self, path: Path) -> Path:
        self.matched.add(path)
        return path

    def _root(self, names: Sequence[Sequence[str]], folders: Sequence[str]) -> Path:
        """Return the folder of the first photos, or the file's own folder if none is found."""
        beside = self.file.parent
        for above in (beside, beside.parent):
            for folder in (above, *(above / name for name in ("images", *folders))):
                if any(
                    self._within(folder, name) is not None for several in names for name in several
                ):
                    return folder
        return beside

    def _within(self, root: Path, name: str) -> Path | None:
        for end in _ends(name, self._loose):
            if (path := self._spellings.file(Path(os.path.normpath(root / end)))) is not None:
                return path
        return None


def unlisted(files: Sequence[PhotoFiles], root: Path) -> Iterator[AnnotatedPhoto]:
    """Yield the photos beside the annotated ones that no file names. They have no annotations.

    root: their names are relative to it.
    """
    matched = {path for file in files for path in file.matched}
    for folder in sorted({path.parent for path in matched}):
        for path in sorted(
            Path(folder, entry) for entry in os.listdir(folder) if has_image_name(entry)
        ):
            if path not in matched:
                yield AnnotatedPhoto(files[0].key(path.name, path, root), path, path)


def _ends(name: str, loose: bool) -> Iterator[str]:
    """Yield keys at which a photo may lie in a folder.

    They are its name, then, for a path of another machine, ever shorter ends of it.
    """
    if not os.path.isabs(name):
        yield name
    plain = posixpath.normpath(name.replace("\\", "/")).lstrip("/")
    if plain != name:
        yield plain
    if loose or is_foreign(name):
        parts = [part for part in plain.split("/") if part != ".."]
        for start in range(1, len(parts)):
            yield "/".join(parts[start:])
