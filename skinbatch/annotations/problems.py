"""Describe what is wrong with annotated photos, before training starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from skinbatch.errors import UsageError

SHOWN = 5


class Kind(StrEnum):
    """Name the kinds of problems in plain words."""

    NO_PHOTO = "annotations without a photo"
    NO_ANNOTATION = "photos without an annotation"
    UNREADABLE = "photos that cannot be read"
    OTHER_SIZE = "photos of another size than annotated (boxes are scaled)"
    OTHER_SHAPE = "photos of another shape than annotated (left out)"
    NOT_A_NUMBER = "boxes that are not numbers"
    SWAPPED = "boxes with swapped corners (put right)"
    EMPTY = "empty boxes"
    OUTSIDE = "boxes outside the photo"
    OVER_EDGE = "boxes over the photo's edge"
    CROWD = "regions marked as a crowd, which are no boxes (left out)"
    UNKNOWN_CLASS = "unknown classes (the whole photo is left out)"
    BAD_MASK = "masks that cannot be read"
    MASK_SIZE = "masks of another size than the photo (scaled)"
    MASK_SHAPE = "masks of another shape than the photo (left out)"
    MISSING_CLASS = "classes missing in a split"
    SAME_FILE = "the same file in two splits"
    LOOKS_SAME = "photos that look the same in two splits"
    SAME_GROUP = "the same group in two splits"
    NO_GROUP = "photos without a group (kept alone, or with those that look the same)"


@dataclass(frozen=True, slots=True)
class Problem:
    """Hold one problem.

    file: the file to look at. what: the box, class or other file in question.
    """

    kind: Kind
    file: str
    what: str


@dataclass(frozen=True, slots=True)
class Problems:
    """Hold the problems that `check` found, in the order of Kind and then of the files."""

    entries: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def of(self, kind: Kind) -> tuple[Problem, ...]:
        return tuple(p for p in self.entries if p.kind is kind)

    def by_kind(self) -> dict[Kind, tuple[Problem, ...]]:
        """Return the problems of each kind that occurs."""
        return {kind: mine for kind in Kind if (mine := self.of(kind))}

    def as_text(self) -> str:
        """Return the first files of each kind, one on each line; empty without problems.

        `as_json` has all of them.
        """
        return "\n".join(_lines(kind, problems) for kind, problems in self.by_kind().items())

    def as_json(self) -> dict[str, list[dict[str, Any]]]:
        """Return kind -> all its problems, each with `file` and `what`."""
        return {
            kind.value: [{"file": p.file, "what": p.what} for p in problems]
            for kind, problems in self.by_kind().items()
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Sequence[Mapping[str, Any]]]) -> Problems:
        """Return the problems from the output of `as_json`, without kinds of another version."""
        kinds = {kind.value: kind for kind in Kind}
        return cls(
            tuple(
                Problem(kinds[k], p["file"], p["what"])
                for k, those in stored.items()
                if k in kinds
                for p in those
            )
        )

    def raise_if(self, strict: bool) -> None:
        """Raise UsageError with all kinds if `strict` is set and there are problems."""
        if strict and self.entries:
            raise UsageError(
                f"{len(self.entries)} problems in the annotated photos:\n{self.as_text()}\ncorrect them, or leave --strict out"
            )


def _lines(kind: Kind, problems: Sequence[Problem]) -> str:
    """Return a line with the first problem of each file, or more if there are few files."""
    firsts = {p.file: n for n, p in reversed(list(enumerate(problems)))}
    inside = (
        f" in {len(firsts)} files"
        if len(firsts) < len(problems) and kind is not Kind.MISSING_CLASS
        else ""
    )
    by_file = [
        *sorted(firsts.values()),
        *(n for n, p in enumerate(problems) if n != firsts[p.file]),
    ]
    shown = [problems[n] for n in sorted(by_file[:SHOWN])]
    lines = [f"{len(problems)} {kind.value}{inside}:", *(f"  {p.file} ({p.what})" for p in shown)]
    return "\n".join(
        [*lines, f"  and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else lines
    )
