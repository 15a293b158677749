"""Draw faces for the fake models: a skin-coloured ellipse with red lesions of known number and place."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

import skinbatch

SIZE = 96
_SKIN = (210, 160, 130)
_LESION = (235, 62, 55)


def face(
    left: int = 0, right: int = 0, shade: int = 0, corner: Sequence[int] | None = None
) -> NDArray[np.uint8]:
    """Return a (96, 96, 3) RGB face with this many lesions (at most 7) on each side of the nose.

    shade: 0-99, of the background, so that photos with the same counts differ. corner: colour of
    the upper left 8 x 8 pixels.
    """
    rgb = np.full((SIZE, SIZE, 3), (60, 100, 130 + shade), np.uint8)
    cv2.ellipse(rgb, (48, 48), (34, 42), 0, 0, 360, _SKIN, -1)
    for x, count in ((30, left), (66, right)):
        for n in range(count):
            cv2.circle(rgb, (x, 22 + 9 * n), 3, _LESION, -1)
    if corner is not None:
        rgb[:8, :8] = corner
    return rgb


def png(rgb: NDArray[np.uint8]) -> bytes:
    return encoded(rgb, "PNG")


def jpeg(rgb: NDArray[np.uint8]) -> bytes:
    return encoded(rgb, "JPEG", quality=95, subsampling=0)


def encoded(rgb: NDArray[np.uint8], form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, form, **options)
    return out.getvalue()


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def tar_bytes(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def rows(dest: str | Path, **how: Any) -> dict[str, dict[str, Any]]:
    """Return the images table of a destination by image_id."""
    table = skinbatch.open(dest, **how).images()
    found = {row["image_id"]: row for row in table.to_pylist()}
    assert len(found) == table.num_rows, "a photo has two rows"
    return found


def counts(dest: str | Path, **how: Any) -> dict[str, tuple[int, int, int]]:
    """Return image_id -> count_total, count_left, count_right of the ok rows."""
    return {
        image_id: (row["count_total"], row["count_left"], row["count_right"])
        for image_id, row in rows(dest, **how).items()
        if row["status"] == "ok"
    }


def comparable(dest: str | Path, **how: Any) -> tuple[pa.Table, pa.Table]:
    """Return both tables in an order that does not depend on units, without the column that names them."""
    results = skinbatch.open(dest, **how)
    images = results.images().sort_by("image_id").drop_columns(["unit_id"])
    boxes = results.boxes().sort_by([("image_id", "ascending"), ("box_id", "ascending")])
    assert pc.count_distinct(images.column("image_id")).as_py() == images.num_rows
    return images.combine_chunks(), boxes.combine_chunks()


def files_of(dest: Path) -> dict[str, bytes]:
    """Return every file of a destination by its key, except the records of runs."""
    paths = (p for p in sorted(dest.rglob("*")) if p.is_file())
    found = {p.relative_to(dest).as_posix(): p.read_bytes() for p in paths}
    return {key: data for key, data in found.items() if not key.startswith("_skinbatch/runs/")}
