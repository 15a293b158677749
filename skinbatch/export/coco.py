"""Write COCO: one `annotations.json`, in a stream.

Neither the photos nor the boxes are ever all in memory.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations.coco import EXACT, NO_PARENT
from skinbatch.export.boxed import ExportedPhoto, decimals
from skinbatch.export.files import Files

FILE = "annotations.json"


class CocoWriter:
    """Write COCO.

    Images and annotations go into one file each until all are there. Numbers of images, annotations
    and categories count from 1. Scores are in `score`, as in COCO's results. Regions marked as a
    crowd come after the photo's boxes.
    """

    def __init__(self, files: Files, class_names: tuple[str, ...]) -> None:
        self._files = files
        self._classes = {name: n for n, name in enumerate(class_names, 1)}
        self._folder = files.scratch.enter_context(tempfile.TemporaryDirectory(prefix="skinbatch-"))
        self._images = self._opened("images")
        self._annotations = self._opened("annotations")
        self._counts = [0, 0]

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self._classes)

    def add(self, photo: ExportedPhoto) -> None:
        self._counts[0] += 1
        image = {
            "id": self._counts[0],
            "file_name": photo.name,
            "width": photo.width,
            "height": photo.height,
        }
        _next(
            self._images,
            self._counts[0],
            json.dumps({k: v for k, v in image.items() if v is not None}),
        )
        self._add(photo.boxes, photo.labels, photo.scores, is_crowd=0)
        if photo.crowd_boxes is not None:
            self._add(photo.crowd_boxes, photo.crowd_labels, None, is_crowd=1)

    def _add(
        self,
        boxes: NDArray[np.float32],
        labels: tuple[str, ...],
        scores: NDArray[np.float32] | None,
        is_crowd: int,
    ) -> None:
        """Write annotations of the last photo."""
        corners = decimals(boxes.ravel())
        written_scores = None if scores is None else decimals(scores)
        for n, label in enumerate(labels):
            x1, y1, x2, y2 = corners[4 * n : 4 * n + 4]
            # Computed from the decimal numbers, so that x + width is the right edge to the last
            # digit.
            w, h = (
                EXACT.subtract(Decimal(x2), Decimal(x1)),
                EXACT.subtract(Decimal(y2), Decimal(y1)),
            )
            self._counts[1] += 1
            category = self._classes.setdefault(label, len(self._classes) + 1)
            score = "" if written_scores is None else f', "score": {written_scores[n]}'
            text = (
                f'{{"id": {self._counts[1]}, "image_id": {self._counts[0]}, "category_id": {category}, '
                f'"bbox": [{x1}, {y1}, {w}, {h}], "area": {float(w) * float(h)!r}, "iscrowd": {is_crowd}{score}}}'
            )
            _next(self._annotations, self._counts[1], text)

    def close(self) -> None:
        categories = [
            {"id": n, "name": name, "supercategory": NO_PARENT} for name, n in self._classes.items()
        ]
        whole = Path(self._folder, FILE)
        with open(whole, "w", encoding="ascii") as out:
            out.write(
                f'{{\n"info": {{"description": "made by skinbatch export"}},\n"categories": {json.dumps(categories)},\n'
            )
            for name, part in (("images", self._images), ("annotations", self._annotations)):
                out.write(f'"{name}": [\n')
                part.seek(0)
                shutil.copyfileobj(part, out, 1 << 20)
                out.write("\n],\n" if name == "images" else "\n]\n}\n")
        self._files.keys.append(FILE)
        self._files.store.put_file(FILE, whole)
        self._files.close()

    def _opened(self, name: str) -> IO[str]:
        path = Path(self._folder, name)
        return self._files.scratch.enter_context(
            open(path, "w+", encoding="ascii", buffering=1 << 20)
        )


def _next(out: IO[str], count: int, text: str) -> None:
    out.write(text if count == 1 else f",\n{text}")
