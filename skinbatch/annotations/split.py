"""Choose photos for validation: whole groups, with a share of every kind."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.errors import UsageError

# Boxes a photo: Hayashi's steps.
_FEW_TO_MANY = (0, 5, 20, 50)
# The first pass fills the validation part; the others undo what later groups made superfluous.
_PASSES = 4


def split(
    photos: Sequence[AnnotatedPhoto], valid_share: float, groups: Sequence[Hashable], seed: int
) -> tuple[list[AnnotatedPhoto], list[AnnotatedPhoto]]:
    """Return photos to train on and photos to validate on, each in their old order.

    The validation part gets about `valid_share` of every class, severity and number of boxes, as
    far as the groups allow. The same seed gives the same parts.

    groups: one for each photo; photos of a group stay together. Raises UsageError if there are
    fewer than two groups, or if the share is not between 0 and 1.
    """
    if not 0 < valid_share < 1:
        raise UsageError(f"valid_share = {valid_share}: must be between 0 and 1")
    members: dict[Hashable, list[int]] = defaultdict(list)
    for n, group in enumerate(groups):
        members[group].append(n)
    if len(members) < 2:
        raise UsageError(
            f"{len(photos)} photos form {len(members)} group and cannot be split; name the photos for `valid`"
        )
    kinds = [_kinds(photo) for photo in photos]
    goal = {
        kind: count * valid_share
        for kind, count in Counter(k for mine in kinds for k in mine).items()
    }
    parts = list(members.values())
    shuffled = [parts[n] for n in np.random.default_rng(seed).permutation(len(parts))]
    # Rare kinds come first, because common ones can be made up for later; then large groups, for
    # the same reason.
    rarity = {id(part): min(goal[k] for n in part for k in kinds[n]) for part in shuffled}
    brings = {id(part): Counter(k for n in part for k in kinds[n]) for part in shuffled}
    got: Counter[str] = Counter()
    valid: set[int] = set()
    for _ in range(_PASSES):
        for part in sorted(shuffled, key=lambda p: (rarity[id(p)], -len(p))):
            inside = part[0] in valid
            if _gain(brings[id(part)], -1 if inside else 1, got, goal) > 0:
                (got.subtract if inside else got.update)(brings[id(part)])
                valid ^= set(part)
    valid = _not_nothing(valid, shuffled, len(photos))
    return [p for n, p in enumerate(photos) if n not in valid], [
        p for n, p in enumerate(photos) if n in valid
    ]


def _kinds(photo: AnnotatedPhoto) -> tuple[str, ...]:
    """Return the kinds that a photo is an example of."""
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
        kinds.add(
            f"boxes up to {next((most for most in _FEW_TO_MANY if len(photo.boxes) <= most), math.inf)}"
        )
    return tuple(sorted(kinds))


def _gain(brings: Counter[str], sign: int, got: Counter[str], goal: dict[str, float]) -> float:
    """Return how much closer to its aim a group brings the validation part.

    sign: 1 for joining, -1 for leaving. Each kind is measured by its own number.
    """
    return sum(
        (abs(got[kind] - goal[kind]) - abs(got[kind] + sign * count - goal[kind])) / goal[kind]
        for kind, count in brings.items()
    )


def _not_nothing(valid: set[int], groups: Sequence[list[int]], photos: int) -> set[int]:
    """Return the parts with something in both: the smallest group moves to an empty one."""
    smallest = set(sorted(groups, key=len)[0])
    if not valid:
        return smallest
    return valid - smallest if len(valid) == photos else valid
