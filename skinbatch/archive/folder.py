"""A tree of files, local or on S3: photos, archive files and other things in any nesting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from skinbatch.archive.globs import EXCLUDED, Globs
from skinbatch.archive.sniff import Candidate, classify
from skinbatch.config import SourceSettings
from skinbatch.errors import ForbiddenError, UsageError
from skinbatch.storage.base import ObjectInfo, Store
from skinbatch.storage.local import LocalStore
from skinbatch.types import ImageRef, ShardRef

LINK = "(link)"


class FolderSource:
    """Every file below the root of `store`, ascending by key. Links out of it and links to folders are not followed."""

    kind = "folder"

    def __init__(self, store: Store, settings: SourceSettings) -> None:
        self.uri = store.uri
        self.skipped: Counter[str] = Counter()
        self._store, self._settings = store, settings

    def entries(self) -> Iterator[ImageRef | ShardRef]:
        self.skipped.clear()
        globs = Globs(self._settings)
        content_hash = self._settings.content_hash and isinstance(self._store, LocalStore)
        try:
            yield from classify(self._wanted(globs), globs, self.skipped, content_hash=content_hash)
        except ForbiddenError as e:
            raise UsageError(f"{self.uri}: cannot be listed: {e}; allow reading it, or choose a source within") from e

    def _wanted(self, globs: Globs) -> Iterator[Candidate]:
        for info in self._listed():
            if globs.wants(info.key):
                yield Candidate(info.key, self._store, info)
            else:
                self.skipped[EXCLUDED] += 1

    def _listed(self) -> Iterator[ObjectInfo]:
        if not isinstance(self._store, LocalStore):
            return self._store.list()

        def count_link(_: str) -> None:
            self.skipped[LINK] += 1

        return self._store.list(on_link=count_link)
