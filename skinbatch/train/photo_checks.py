"""Gather and check the photos of a recipe before anything is trained."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.checks import LEFT_OUT, check
from skinbatch.annotations.problems import Kind, Problem, Problems
from skinbatch.errors import UsageError
from skinbatch.train.fitting.progress import TrainingProgress
from skinbatch.train.fitting.recipe_parts import gather_part, parts_of
from skinbatch.train.photos.groups import TakenPhoto, describe_groups, problems_of_groups
from skinbatch.train.recipe import Recipe

_IN_BOTH = (Kind.SAME_FILE, Kind.LOOKS_SAME)


class CheckedPhotos(NamedTuple):
    """Hold what a look at the photos of all trainings of a recipe found.

    Attributes:
        problems: mistakes in the photos.
        train, valid: photos of the last training.
        seen: hashes that show whether the photos are still the same.
        notes: other facts to report before training.
        groups: how many groups the photos of each training have, in words.
    """

    problems: Problems
    train: tuple[TakenPhoto, ...]
    valid: tuple[TakenPhoto, ...]
    seen: dict[str, Any]
    notes: list[str]
    groups: list[str]


def check_photos(recipe: Recipe, progress: TrainingProgress) -> tuple[Recipe, CheckedPhotos]:
    """Return the recipe without the photos that cannot be used, and what is known about the others.

    Raises UsageError if photos of the evaluation are trained on.
    """
    hashes: dict[Path, str] = {}
    checked = _look(recipe, progress, hashes)
    problems = checked.problems
    while (
        unusable := {Path(p.file) for p in problems.entries if p.kind in LEFT_OUT} - recipe.unusable
    ):
        # The training photos are split anew without these, and the new split is the one to check.
        recipe, before = recipe.without(unusable), problems.entries
        checked = _look(recipe, progress, hashes)
        reported = {(p.kind, p.file) for p in checked.problems.entries}
        # Folders of negatives no longer contain what the first look left out, so the second does
        # not report it.
        gone = (p for p in before if p.kind in LEFT_OUT and (p.kind, p.file) not in reported)
        problems = Problems((*gone, *checked.problems.entries))

    _refuse_seen(problems, recipe)
    return recipe, checked._replace(problems=problems)


def _look(recipe: Recipe, progress: TrainingProgress, hashes: dict[Path, str]) -> CheckedPhotos:
    """Gather and check the photos. hashes: of files already read; new ones are added."""
    problems: dict[Problem, None] = {}
    seen: dict[str, Any] = {}
    earlier: dict[str, list[AnnotatedPhoto]] = {}
    groups: dict[str, str] = {}
    notes: list[str] = []
    by_person: list[str] = []
    for part in parts_of(recipe):
        progress.phase("reading annotations")
        gathered = gather_part(recipe, part)
        progress.phase("checking photos")
        mapping, splits = part.data.mapping(part.stage.classes), gathered.splits()
        mistakes = check(splits, recipe.stage, part.stage.classes, mapping, hashes=hashes)
        problems |= dict.fromkeys(mistakes.entries)
        for name, photos in earlier.items():
            # A photo that an earlier training has seen must not be evaluated on.
            twice = check(
                {name: photos, "valid": splits["valid"]}, recipe.stage, part.stage.classes, mapping
            )
            problems |= dict.fromkeys(p for p in twice.entries if p.kind in _IN_BOTH)
        problems |= dict.fromkeys(
            problems_of_groups(gathered.train, gathered.valid, part.data, groups)
        )
        where = f"transfer `{part.name}`: " if part.name else ""
        description = describe_groups(gathered.train, gathered.valid, part.data)
        if description is not None:
            by_person.append(f"{where}{description}")
        notes += [
            f"{where}`data.map` {name!r}: the truth has no class with this name"
            for name in gathered.unused
        ]
        earlier[f"{part.name} train"] = splits["train"]
        for name, taken in (("train", gathered.train), ("valid", gathered.valid)):
            seen[f"{part.name} {name}".strip()] = {
                "photos": len(taken),
                "sha256": known_by(taken, hashes),
            }
    if (start := recipe.start_from()) is not None:
        seen["weights"] = {"sha256": _content(start)}
    if (faces := recipe.face_finder()) is not None:
        seen["segmenter of the base"] = {"sha256": faces}
    return CheckedPhotos(
        Problems(tuple(problems)), gathered.train, gathered.valid, seen, notes, by_person
    )


def known_by(taken: Sequence[TakenPhoto], hashes: dict[Path, str]) -> str:
    """Return a hash of names, classes, and the bytes of photos, masks and annotations.

    hashes: see _look.
    """
    of_files = [
        list(dict.fromkeys((t.photo.annotation, t.path, *(t.photo.masks or ())))) for t in taken
    ]
    unread = [
        file
        for file in dict.fromkeys(file for files in of_files for file in files)
        if file not in hashes
    ]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        hashes.update(zip(unread, pool.map(_content, unread), strict=True))
    digest = hashlib.sha256()
    for photo, files in sorted(zip(taken, of_files, strict=True), key=lambda pair: _place(pair[0])):
        facts = [photo.source, photo.photo.name, photo.classes, [hashes[file] for file in files]]
        digest.update(json.dumps(facts).encode())
    return digest.hexdigest()


def _place(taken: TakenPhoto) -> tuple[str, str, str]:
    return taken.source, taken.photo.name, str(taken.path)


def _content(path: Path) -> str:
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_seen(problems: Problems, recipe: Recipe) -> None:
    """Raise UsageError if photos of the evaluation are trained on: no number would be valid."""
    seen = problems.of(Kind.SAME_FILE)
    if not seen:
        return
    shown = "; ".join(f"{problem.file} is {problem.what}" for problem in seen[:3])
    more = f"; and {len(seen) - 3} more" if len(seen) > 3 else ""
    raise UsageError(
        f"{recipe.file}: {len(seen)} photos of the evaluation are also trained on: {shown}{more}; name them in `leave_out` "
        "of the training photos, or evaluate on other photos"
    )
