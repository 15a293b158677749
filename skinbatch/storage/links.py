"""Decide which links in a folder of photos are followed.

Links that stay within the folder are followed, and others if the user allows it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import lru_cache

# Reasons for leaving out a link, as shown to the user.
OUT_OF_SOURCE = "(link out of the source: see --follow-links)"
LOOP = "(link in a loop)"
NO_FILE = "(link to no file)"
NESTED = "(link within links)"

# Most links to folders on one path from the root. Folders that link to each other have a name for
# every order of their links.
_MOST_NESTED = 2
# Most names that are examined to decide whether snapshots are links into blobs.
_PROBED = 50


class Links:
    """Decide about the links below `root`.

    A link to a file or folder within `root` is followed under its own name, unless it leads back to
    a folder through which it was reached. Links from a snapshot in the cache of the Hugging Face
    hub to the blobs beside it are followed, too.

    Args:
        outside: also follow links that leave `root`.
        on_skipped: called with the key of every link that is not followed, and the reason.
    """

    def __init__(
        self,
        root: str,
        *,
        outside: bool = False,
        on_skipped: Callable[[str, str], None] = lambda key, reason: None,
    ) -> None:
        self.on_skipped = on_skipped
        self._outside = outside
        self._root = os.path.abspath(root)
        self._real_root = os.path.realpath(root)
        self._allowed = [self._real_root, *_blobs_of(self._real_root)]
        self._real = lru_cache(maxsize=1024)(os.path.realpath)

    def follows_folder(self, path: str) -> bool:
        """Return whether `path` is a link to a folder that should be entered."""
        return os.path.isdir(path) and self._reason_of_folder(path) is None

    def reason(self, path: str) -> str | None:
        """Return why the link `path` is not read as a file; None if it is."""
        try:
            target = os.stat(path)
        except OSError:
            return NO_FILE
        if stat.S_ISDIR(target.st_mode):
            return self._reason_of_folder(path) or NO_FILE
        if not self._is_allowed(os.path.realpath(path)):
            return OUT_OF_SOURCE
        return None if stat.S_ISREG(target.st_mode) else NO_FILE

    def is_storage(self, folder: str, name: str) -> bool:
        """Return whether `name` in `folder` holds the files to which snapshots of the hub link."""
        return name == "blobs/" and _links_to_blobs(folder)

    def _reason_of_folder(self, path: str) -> str | None:
        target = os.path.realpath(path)
        if not self._is_allowed(target):
            return OUT_OF_SOURCE

        above = list(self._folders_above(path))
        if any(is_within(self._real(folder), target) for folder in above):
            return LOOP
        return NESTED if sum(map(os.path.islink, above)) >= _MOST_NESTED else None

    def _folders_above(self, path: str) -> Iterator[str]:
        """Yield the folders on the way to `path` by name, from its own up to the root."""
        folder = os.path.dirname(path)
        while len(folder) > len(self._root):
            yield folder
            folder = os.path.dirname(folder)
        yield self._real_root

    def _is_allowed(self, target: str) -> bool:
        return self._outside or any(is_within(target, folder) for folder in self._allowed)


def is_within(real_path: str, real_folder: str) -> bool:
    """Return whether a path is a folder or below it; both with links resolved."""
    return real_path == real_folder or real_path.startswith(os.path.join(real_folder, ""))


def _blobs_of(real_root: str) -> list[str]:
    """Return the folder with the files of a hub snapshot, if the root is a snapshot or in one."""
    repository, marker, _ = f"{real_root}/".rpartition("/snapshots/")
    blobs = os.path.join(repository, "blobs")
    return [os.path.realpath(blobs)] if marker and _links_to_blobs(repository) else []


def _links_to_blobs(repository: str) -> bool:
    """Return whether the first links below `snapshots` lead into `blobs` beside it."""
    blobs = os.path.realpath(os.path.join(repository, "blobs"))
    if not os.path.isdir(blobs):
        return False

    probed = 0
    for folder, folders, names in os.walk(os.path.join(repository, "snapshots")):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                return is_within(os.path.realpath(path), blobs)
            probed += 1
            if probed >= _PROBED:
                return False
    return False
