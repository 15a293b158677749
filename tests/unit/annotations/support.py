"""Write annotated photos as files, in the formats that people have them in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skinbatch.annotations.annotated_photos import AnnotatedPhoto, Truth
from tests.pictures import picture

BOXES = [[10.0, 20.0, 40.0, 60.0], [100.0, 10.0, 180.0, 90.0]]
LABELS = ("papules", "pustules")
SIZE = (200, 100)


def photo(
    path: Path, width: int = 200, height: int = 100, orientation: int = 1, seed: int = 0
) -> Path:
    """Write a different picture for each seed.

    orientation: as in EXIF; width and height are the stored ones.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(seed, width, height).save(path, exif=exif.tobytes())
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def voc(
    path: Path, boxes: list[list[float]] = BOXES, size: tuple[int, int] = SIZE, filename: str = ""
) -> Path:
    """Write a VOC file with xmin, xmax, ymin, ymax in this order, as Roboflow does."""
    objects = "".join(
        f"<object><name>{LABELS[n % 2]}</name><bndbox><xmin>{x1}</xmin><xmax>{x2}</xmax><ymin>{y1}</ymin>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for n, (x1, y1, x2, y2) in enumerate(boxes)
    )
    sized = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return write(path, f"<annotation><filename>{filename}</filename>{sized}{objects}</annotation>")


def coco(path: Path, **changes: object) -> Path:
    data = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 200, "height": 100}],
        "annotations": [
            {"id": n, "image_id": 7, "category_id": n + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for n, (x1, y1, x2, y2) in enumerate(BOXES)
        ],
        "categories": [{"id": 1, "name": "papules"}, {"id": 2, "name": "pustules"}],
    }
    return write(path, json.dumps(data | changes))


def yolo(path: Path) -> Path:
    lines = [
        f"{n} {(a + c) / 400} {(b + d) / 200} {(c - a) / 200} {(d - b) / 100}"
        for n, (a, b, c, d) in enumerate(BOXES)
    ]
    return write(path, "\n".join(lines) + "\n\n")


def mask(path: Path, ids: NDArray[np.uint8]) -> Path:
    """Write a palette PNG of class numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids, "P")
    image.putpalette([value for n in range(256) for value in (n, 255 - n, 37 * n % 256)])
    image.save(path)
    return path


def the_only(truth: Truth) -> AnnotatedPhoto:
    (found,) = truth.photos
    return found


def says_the_same(found: AnnotatedPhoto, name: str = "a.jpg") -> None:
    """Check that the photo has BOXES and LABELS."""
    assert (found.name, found.width, found.height, found.labels) == (name, *SIZE, LABELS)
    assert found.boxes is not None and found.boxes.dtype == np.float32
    np.testing.assert_allclose(found.boxes, BOXES, atol=1e-5)
