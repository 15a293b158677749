"""Write YOLO: `labels` to put beside `images`, class names in data.yaml, and the photos' sizes.

YOLO itself reads the sizes from the photos.
"""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import numpy as np
import yaml

from skinbatch.annotations.coco import EXACT
from skinbatch.annotations.yolo import SIZE_COLUMNS, SIZES
from skinbatch.errors import UsageError
from skinbatch.export.boxed import ExportedPhoto
from skinbatch.export.files import Files

# Digits after the point. The first number usually gives a corner back exactly; the others are for
# corners close to zero.
_STEPS = tuple(Decimal(1).scaleb(-digits) for digits in (12, 16, 24, 48, 72, 96))
_TWO = Decimal(2)


class YoloWriter:
    """Write YOLO, whose labels have no place for scores."""

    def __init__(self, files: Files, class_names: tuple[str, ...]) -> None:
        self._files = files
        self._classes = {name: n for n, name in enumerate(class_names)}
        self._sizes = io.StringIO(newline="")
        self._rows = csv.writer(self._sizes, lineterminator="\n")
        self._rows.writerow(SIZE_COLUMNS)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self._classes)

    def add(self, photo: ExportedPhoto) -> None:
        key = self._files.key_for(photo.name, ".txt")
        self._rows.writerow((key, photo.name, photo.width or "", photo.height or ""))
        lines = []
        for (x1, y1, x2, y2), label in zip(photo.boxes.tolist(), photo.labels, strict=True):
            if not photo.width or not photo.height:
                raise UsageError(
                    f"{photo.name}: its size is not known, and YOLO's boxes are fractions of it; name the folder of the "
                    "photos with --photos, or export voc or coco"
                )
            x, w = _centred(_share(x1, photo.width), _share(x2, photo.width))
            y, h = _centred(_share(y1, photo.height), _share(y2, photo.height))
            lines.append(f"{self._classes.setdefault(label, len(self._classes))} {x} {y} {w} {h}\n")
        self._files.put(f"labels/{key}", "".join(lines).encode())

    def close(self) -> None:
        """Write data.yaml for YOLO's trainers.

        Photos belong in `images`; for photos elsewhere, edit its paths.
        """
        settings = {
            "path": ".",
            "train": "images",
            "val": "images",
            "names": dict(enumerate(self._classes)),
        }
        self._files.put(
            "data.yaml", yaml.safe_dump(settings, allow_unicode=True, sort_keys=False).encode()
        )
        self._files.put(SIZES, self._sizes.getvalue().encode(errors="surrogateescape"))
        self._files.close()


def _share(pixels: float, size: int) -> Decimal:
    """Return a share with enough digits to give the same float32 when it is multiplied again."""
    exact = EXACT.divide(Decimal(pixels), size)
    for step in _STEPS:
        share = EXACT.quantize(exact, step)
        if np.float32(float(EXACT.multiply(share, size))) == np.float32(pixels):
            return share
    raise UsageError(
        f"a corner at {pixels!r} pixels cannot be written as a fraction of {size}; export voc"
    )


def _centred(low: Decimal, high: Decimal) -> tuple[str, str]:
    """Return centre and length; centre - length / 2 and centre + length / 2 are exact."""
    middle, length = EXACT.divide(EXACT.add(low, high), _TWO), EXACT.subtract(high, low)
    return _plain(middle), _plain(length)


def _plain(number: Decimal) -> str:
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
