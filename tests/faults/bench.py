"""Provide a small archive, an undisturbed run of it, and the comparison that every fault test makes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import skinbatch
from skinbatch.config import StorageSettings
from tests.faces import comparable, face, png, tar_bytes, write_tree

LOOSE, MEMBERS = 40, 6


def write_archive(root: Path) -> Path:
    """Write 40 loose photos (units of about eight, one photo broken) and a tar of six."""
    photos = {f"{n % 3}/{n:02}.png": png(face(n % 6, n % 5, n)) for n in range(LOOSE)}
    photos["0/00.png"] = photos["0/00.png"][:200]
    members = {f"{n}.png": png(face(n % 4, 1, 20 + n)) for n in range(MEMBERS)}
    return write_tree(root, {**photos, "s.tar": tar_bytes(members)})


def same_rows(
    ours: str | Path, theirs: str | Path, besides: Iterable[str] = (), **how: Any
) -> bool:
    """Return whether two destinations agree in everything but `unit_id` and the columns `besides`."""
    first, second = comparable(ours, **how), comparable(theirs)
    drop = [*besides]
    return bool(
        first[0].drop_columns(drop).equals(second[0].drop_columns(drop))
        and first[1].equals(second[1])
    )


def differences(dest: str | Path, storage: StorageSettings | None = None) -> list[str]:
    """Return the differences that `skinbatch verify` finds."""
    return skinbatch.verify(dest, storage=storage).differences
