"""Which keys of a source are wanted."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Sequence

from skinbatch.archive.formats import extension
from skinbatch.config import SourceSettings

EXCLUDED = "(excluded)"


class Globs:
    """include and exclude of [source], matched against keys relative to the source; `*` also matches `/`.

    An include pattern that names an extension (`*.img`) also wants files of that extension whose content is an image.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._include = _any_of(settings.include)
        self._exclude = _any_of(settings.exclude)
        self._extensions = {e for p in settings.include if (e := extension(p)) and not re.search(r"[*?\[]", e)}

    def wants(self, key: str) -> bool:
        if self._include is not None and not self._include.match(key):
            return False
        return self._exclude is None or not self._exclude.match(key)

    def names_extension(self, key: str) -> bool:
        return bool(self._extensions) and posixpath.splitext(key.lower())[1] in self._extensions


def _any_of(patterns: Sequence[str]) -> re.Pattern[str] | None:
    # `**/x` is also meant to match `x` itself.
    plain = [*patterns, *(p.removeprefix("**/") for p in patterns if p.startswith("**/"))]
    return re.compile("|".join(fnmatch.translate(p) for p in plain)) if plain else None
