"""List a tree of files, local or on S3, with photos, shards and other files at any depth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from skinbatch.archive.globs import EXCLUDED, Globs, opens
from skinbatch.archive.sniff import Candidate, classify
from skinbatch.config import SourceSettings
from skinbatch.errors import ForbiddenError, UsageError
from skinbatch.storage.links import Links
from skinbatch.storage.local import LocalStore, path_of
from skinbatch.storage.store import ObjectInfo, Store
from skinbatch.types import ImageRef, ShardRef


class FolderSource:
    """List every file below the root of `store`, in ascending order of keys.

    Links within the tree are followed under their own names. Links that leave it are followed only
    if the settings allow it.
    """

    kind = "folder"

    def __init__(self, store: Store, settings: SourceSettings) -> None:
        self.uri = store.uri
        self.skipped: Counter[str] = Counter()
        self._store, self._settings = store, settings

    def entries(self) -> Iterator[ImageRef | ShardRef]:
        self.skipped.clear()
        globs = Globs(self._settings)
        try:
            yield from classify(self._candidates(globs), globs, self.skipped, self._settings)
        except ForbiddenError as e:
            raise UsageError(
                f"{self.uri}: cannot be listed: {e}; allow reading it, or choose a source within"
            ) from e

    def _candidates(self, globs: Globs) -> Iterator[Candidate]:
        for info in self._listed():
            if globs.wants(info.key) or opens(globs, info.key):
                yield Candidate(info.key, self._store, info)
            else:
                self.skipped[EXCLUDED] += 1

    def _listed(self) -> Iterator[ObjectInfo]:
        if not isinstance(self._store, LocalStore):
            return self._store.list()

        def count_link(_: str, reason: str) -> None:
            self.skipped[reason] += 1

        root = path_of(self._store.uri)
        return self._store.list(
            links=Links(root, outside=self._settings.follow_links, on_skipped=count_link)
        )
