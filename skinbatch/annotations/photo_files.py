"""Where the photos of one annotation file are: beside it, or in a folder that is named."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

from skinbatch.annotations.tree import is_foreign
from skinbatch.archive.formats import has_image_name
from skinbatch.errors import UsageError
from skinbatch.tables.names import composed

# So many photos of a file are looked for in each folder where photos may be.
_LOOKED_AT = 50


class PhotoFiles:
    """The photos that a file of annotations names, found on this machine.

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
        self._loose = photos is not None
        self._listed: dict[Path, dict[str, list[str]]] = {}
        self._found: set[Path] = set()
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
        return None

    def key(self, name: str, path: Path | None, root: Path) -> str:
        """Return what a photo is called: its path relative to `root`, else the name that the file has."""
        if path is not None and path.is_relative_to(root):
            return path.relative_to(root).as_posix()
        within = self.file.parent
        if path is not None or within == root or not within.is_relative_to(root) or is_foreign(name):
            return name
        return f"{within.relative_to(root).as_posix()}/{name}"

    def unlisted(self) -> Iterator[Path]:
        """Yield the photos beside those that were found which the file does not name."""
        for folder in sorted({path.parent for path in self._found}):
            for path in sorted(Path(folder, entry) for entry in os.listdir(folder) if has_image_name(entry)):
                if path not in self._found:
                    yield path

    def _taken(self, path: Path) -> Path:
        self._found.add(path)
        return path

    def _root(self, names: Sequence[Sequence[str]], folders: Sequence[str]) -> Path:
        """The folder in which the first photos are; the file's own where none is found."""
        beside = self.file.parent
        for above in (beside, beside.parent):
            for folder in (above, *(above / name for name in ("images", *folders))):
                if any(self._within(folder, name) is not None for several in names for name in several):
                    return folder
        return beside

    def _within(self, root: Path, name: str) -> Path | None:
        for end in _ends(name, self._loose):
            if (path := self._file(root, end)) is not None:
                return path
        return None

    def _file(self, root: Path, key: str) -> Path | None:
        path = Path(os.path.normpath(root / key))
        if os.path.isfile(path):
            return path
        if key.isascii():
            return None

        # A folder or the file itself may be spelled otherwise.
        at = root
        for part in key.split("/"):
            spelled = self._spelled(at, part)
            if spelled is None:
                return None
            at = at / spelled
        return at if at.is_file() else None

    def _spelled(self, folder: Path, name: str) -> str | None:
        if (folder / name).exists():
            return name
        if folder not in self._listed:
            entries: dict[str, list[str]] = {}
            for entry in os.listdir(folder) if folder.is_dir() else ():
                entries.setdefault(composed(entry), []).append(entry)
            self._listed[folder] = entries

        found = self._listed[folder].get(composed(name), [])
        if len(found) > 1:
            several = " and ".join(map(ascii, sorted(found)))
            raise UsageError(
                f"{folder}: {name} is {several}, which differ only in how Unicode spells them; rename one of them"
            )
        return found[0] if found else None


def _ends(name: str, loose: bool) -> Iterator[str]:
    """Keys by which a photo may lie in a folder: its name, then, of a path that is not relative to it, ever shorter ends."""
    if not os.path.isabs(name):
        yield name
    plain = posixpath.normpath(name.replace("\\", "/")).lstrip("/")
    if plain != name:
        yield plain
    if loose or is_foreign(name):
        parts = [part for part in plain.split("/") if part != ".."]
        for start in range(1, len(parts)):
            yield "/".join(parts[start:])
