"""Find files whose names are the same text as a path, however Unicode spells it."""

from __future__ import annotations

import os
from pathlib import Path

from skinbatch.errors import UsageError
from skinbatch.tables.names import composed


class Spellings:
    """Find files and folders by their paths.

    A folder is listed once, and only if a path does not exist as it is spelled.
    """

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def find(self, path: Path) -> Path | None:
        """Return the file or folder that a path means; None if there is none.

        Raises:
            UsageError: Two have the path's name, in different spellings of the same text.
        """
        if os.path.exists(path):  # unlike Path.exists, it is False for a name that is too long
            return path
        if str(path).isascii() or path.parent == path:
            return None
        folder = self.find(path.parent)
        if folder is None or not folder.is_dir():
            return None

        if folder not in self._listed:
            entries: dict[str, list[str]] = {}
            for entry in os.listdir(folder):
                entries.setdefault(composed(entry), []).append(entry)
            self._listed[folder] = entries
        names = self._listed[folder].get(composed(path.name), [])
        if len(names) > 1:
            several = " and ".join(map(ascii, sorted(names)))
            raise UsageError(
                f"{folder}: {path.name} is {several}, which differ only in their Unicode form; rename one of them"
            )
        return folder / names[0] if names else None

    def file(self, path: Path) -> Path | None:
        """Return the file that a path means; None if it does not exist or is a folder."""
        match = self.find(path)
        return match if match is not None and match.is_file() else None
