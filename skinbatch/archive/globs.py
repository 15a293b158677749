"""Select keys of a source by glob, in folders and inside shards."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Sequence

from skinbatch.archive.formats import SHARD_EXTENSIONS, extension
from skinbatch.config import SourceSettings
from skinbatch.types import MemberSelection, ShardKind, ShardRef

EXCLUDED = "(excluded)"
_WILD = re.compile(r"[*?\[]")


class Globs:
    """Match include and exclude of [source] against keys relative to the source.

    `*` also matches `/`. An include pattern that names an extension (`*.img`) also selects files
    with that extension if their content is an image.
    """

    def __init__(self, settings: SourceSettings | MemberSelection) -> None:
        self._settings = settings
        self._include = _any_of(settings.include)
        self._exclude = _any_of(settings.exclude)
        self._extensions = {
            e for p in settings.include if (e := extension(p)) and not _WILD.search(e)
        }

    def wants(self, key: str) -> bool:
        if self._include is not None and not self._include.match(key):
            return False
        return self._exclude is None or not self._exclude.match(key)

    def names_extension(self, key: str) -> bool:
        return bool(self._extensions) and posixpath.splitext(key.lower())[1] in self._extensions

    def within(self, key: str, kind: ShardKind, alone: bool = False) -> MemberSelection | None:
        """Return the selection inside a shard; None if nothing in it can be selected.

        An include pattern that matches the shard itself selects all of it, and an exclude pattern
        that does selects none of it. alone: the shard is the source, so its members' own names are
        relative to the source as well.
        """
        if self._exclude is not None and self._exclude.match(key):
            return None

        exclude = tuple(p for p in self._settings.exclude if _may_match(p, key, kind, alone))
        include: tuple[str, ...] = ()
        if self._include is not None and not self._include.match(key):
            include = tuple(p for p in self._settings.include if _may_match(p, key, kind, alone))
            if not include:
                return None
        image_column = self._settings.image_column if kind == "parquet" else ()
        return MemberSelection(include, exclude, image_column, alone and bool(include or exclude))


class MemberGlobs:
    """Match the globs that apply inside one shard against `shard.tar/member`."""

    def __init__(self, shard: ShardRef) -> None:
        self.trivial = not (shard.selection.include or shard.selection.exclude)
        self._key, self._alone = shard.key, shard.selection.alone
        self._include, self._exclude = (
            _any_of(shard.selection.include),
            _any_of(shard.selection.exclude),
        )
        self._globs = Globs(shard.selection)

    def wants(self, name: str) -> bool:
        """Return whether a member is selected. name: its name, or the number of a Parquet row."""
        if self.trivial:
            return True
        keys = (f"{self._key}/{name}", name) if self._alone else (f"{self._key}/{name}",)
        if self._include is not None and not any(map(self._include.match, keys)):
            return False
        return self._exclude is None or not any(map(self._exclude.match, keys))

    def names_extension(self, name: str) -> bool:
        return self._globs.names_extension(name)


def opens(globs: Globs, key: str) -> bool:
    """Return whether a file is a shard by its name and may contain selected photos."""
    kind = SHARD_EXTENSIONS.get(extension(key))
    return kind is not None and globs.within(key, kind) is not None


def _may_match(pattern: str, key: str, kind: ShardKind, alone: bool) -> bool:
    """Return whether a glob can match any photo in a shard, so that no shard is opened in vain."""
    first = _WILD.search(pattern)
    begin = pattern if first is None else pattern[: first.start()]
    if not alone and not begin.startswith(f"{key}/") and not f"{key}/".startswith(begin):
        return False

    end = re.split(r"[*?\]/]", pattern)[-1]
    if extension(end) in SHARD_EXTENSIONS:
        return False
    return kind != "parquet" or not end or end.isdigit()


def _any_of(patterns: Sequence[str]) -> re.Pattern[str] | None:
    # `**/x` should also match `x` itself.
    plain = [*patterns, *(p.removeprefix("**/") for p in patterns if p.startswith("**/"))]
    return re.compile("|".join(fnmatch.translate(p) for p in plain)) if plain else None
