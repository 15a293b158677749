"""Tell which photos show the same person: by a pattern over names, by a column, or by look."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from skinbatch.tables.names import composed

# The value of `group` and `--group` that finds groups by comparing the photos themselves.
LOOK = "look"
# The limits of groups by look, for messages and cards.
ESTIMATE = "found by photos that look alike, so copies of a photo stay together but other photos of the same person are missed"


@dataclass(frozen=True, slots=True)
class Grouping:
    """Describe how the person, or whatever else must not be split, is known for each photo.

    Attributes:
        text: as given.
        pattern: a regular expression over a photo's name; None for a column and for `look`.
        column: a column of a table; None otherwise.
    """

    text: str
    pattern: re.Pattern[str] | None = None
    column: str | None = None

    @classmethod
    def parse(cls, text: str) -> Grouping:
        """Return the grouping for a setting `group` or an option `--group`.

        A text with a group in brackets is a regular expression, `look` compares the photos, and
        any other text is the name of a column.

        Raises:
            re.error: the text is no regular expression.

        Example:
            >>> Grouping.parse("^(p[0-9]+)_").of_name("p12_3.jpg")
            'p12'
        """
        if text == LOOK:
            return cls(text)
        pattern = re.compile(composed(text))
        return cls(text, pattern=pattern) if pattern.groups else cls(text, column=text)

    @property
    def by_look(self) -> bool:
        """Return whether groups are found by comparing the photos."""
        return self.pattern is None and self.column is None

    def of_name(self, name: str) -> str | None:
        """Return the person in a photo's name: the first named group, else the first group.

        Returns None if the pattern does not match or there is none.
        """
        match = self.pattern.search(composed(name)) if self.pattern is not None else None
        if match is None or self.pattern is None:
            return None
        return match[next(iter(self.pattern.groupindex), 1)] or None


@dataclass(frozen=True, slots=True)
class GroupCount:
    """Count the groups of some photos.

    groups: those that are known. sharing: photos whose group has another photo too. largest:
    photos in the largest group. unknown: photos without a group.
    """

    photos: int
    groups: int
    sharing: int
    largest: int
    unknown: int

    @classmethod
    def of(cls, names: Sequence[Hashable | None]) -> GroupCount:
        """Count groups that are given by name, one for each photo; None for an unknown one."""
        sizes = Counter(name for name in names if name is not None)
        sharing = sum(size for size in sizes.values() if size > 1)
        return cls(
            len(names), len(sizes), sharing, max(sizes.values(), default=0), list(names).count(None)
        )

    def as_text(self) -> str:
        """Return `12 groups in 30 photos; 25 photos share theirs with another, 4 photos at most`."""
        unknown = f"; {self.unknown:,} photos have no group" if self.unknown else ""
        return (
            f"{self.groups:,} groups in {self.photos:,} photos; {self.sharing:,} photos share theirs with another photo, "
            f"at most {self.largest:,} in one group{unknown}"
        )
