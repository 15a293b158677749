"""Which photos are kept for validation: whole groups, and of every kind its share."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from skinbatch.annotations.photos import AnnotatedPhoto
from skinbatch.errors import UsageError
from skinbatch.tables.names import composed

_FEW_TO_MANY = (0, 5, 20, 50)
"""Boxes a photo: Hayashi's steps."""
_PASSES = 4
"""The first fills the validation part, the others put right what later groups made superfluous."""


def how_grouped(said: str | None) -> tuple[re.Pattern[str] | None, str | None]:
    """What says which photos belong together: the regular expression over a photo's name whose first group is the patient, or
    what else must not be split; or, where `said` has no group in it, the column of a .csv. Raises re.error where it is no
    regular expression."""
    if said is None:
        return None, None
    pattern = re.compile(composed(said))
    return (pattern, None) if pattern.groups else (None, said)


def group_in(name: str, pattern: re.Pattern[str] | None) -> str | None:
    """The group that a photo's name says; None where it says none, or there is no pattern."""
    found = pattern.search(composed(name)) if pattern is not None else None
    return (found[1] or None) if found is not None else None


def split(
    photos: Sequence[AnnotatedPhoto], valid_share: float, groups: Sequence[Hashable], seed: int
) -> tuple[list[AnnotatedPhoto], list[AnnotatedPhoto]]:
    """Photos to train on and photos to validate on, each in its old order.

    groups: one a photo; photos of a group stay together. Of every class, severity and number of boxes the validation part
    gets about `valid_share`, as far as the groups allow. The same seed gives the same parts. Raises UsageError where
    there are fewer than two groups, or a share that is not between 0 and 1.
    """
    if not 0 < valid_share < 1:
        raise UsageError(f"valid_share = {valid_share}: has to be between 0 and 1")
    members: dict[Hashable, list[int]] = defaultdict(list)
    for n, group in enumerate(groups):
        members[group].append(n)
    if len(members) < 2:
        raise UsageError(
            f"{len(photos)} photos are of {len(members)} group and cannot be split; name the photos for `valid`"
        )
    kinds = [_kinds(photo) for photo in photos]
    wanted = {kind: count * valid_share for kind, count in Counter(k for mine in kinds for k in mine).items()}
    parts = list(members.values())
    shuffled = [parts[n] for n in np.random.default_rng(seed).permutation(len(parts))]
    # Rare kinds first, because common ones can be made up for later; then large groups, for the same reason.
    rarity = {id(part): min(wanted[k] for n in part for k in kinds[n]) for part in shuffled}
    brings = {id(part): Counter(k for n in part for k in kinds[n]) for part in shuffled}
    got: Counter[str] = Counter()
    valid: set[int] = set()
    for _ in range(_PASSES):
        for part in sorted(shuffled, key=lambda p: (rarity[id(p)], -len(p))):
            inside = part[0] in valid
            if _gain(brings[id(part)], -1 if inside else 1, got, wanted) > 0:
                (got.subtract if inside else got.update)(brings[id(part)])
                valid ^= set(part)
    valid = _not_nothing(valid, shuffled, len(photos))
    return [p for n, p in enumerate(photos) if n not in valid], [p for n, p in enumerate(photos) if n in valid]


def _kinds(photo: AnnotatedPhoto) -> tuple[str, ...]:
    """What a photo is an example of."""
    kinds = {
        "photo",
        *(f"class {name}" for name in photo.classes or ()),
        *(f"box {name}" for name in photo.labels or ()),
    }
    if photo.classes == ():
        kinds.add("no class")
    if photo.severity is not None:
        kinds.add(f"severity {photo.severity}")
    if photo.boxes is not None:
        kinds.add(f"boxes up to {next((most for most in _FEW_TO_MANY if len(photo.boxes) <= most), math.inf)}")
    return tuple(sorted(kinds))


def _gain(brings: Counter[str], sign: int, got: Counter[str], wanted: dict[str, float]) -> float:
    """How much nearer to what is wanted a group brings the validation part by joining (1) or leaving it (-1); each kind is
    measured by its own number."""
    return sum(
        (abs(got[kind] - wanted[kind]) - abs(got[kind] + sign * count - wanted[kind])) / wanted[kind]
        for kind, count in brings.items()
    )


def _not_nothing(valid: set[int], groups: Sequence[list[int]], photos: int) -> set[int]:
    """Both parts get something: the smallest group moves where one has nothing."""
    smallest = set(sorted(groups, key=len)[0])
    if not valid:
        return smallest
    return valid - smallest if len(valid) == photos else valid
