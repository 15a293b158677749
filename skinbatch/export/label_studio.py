"""Write Label Studio tasks, and the labelling configuration that they are for."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations.label_studio_photos import LOCAL_FILES, OWN_NAME
from skinbatch.errors import UsageError
from skinbatch.export.boxed import ExportedPhoto, decimals
from skinbatch.export.files import Files
from skinbatch.tables.names import safe_text

CONFIG = "labeling-config.xml"
FROM_NAME, TO_NAME = "label", "image"
# Label Studio refuses files over 250 MB.
_FILE_BYTES = 32 << 20
# Digits after the point of a percentage, if they give the pixels back exactly.
_DIGITS = 9

Floats = NDArray[np.float64]


class LabelStudioWriter:
    """Write Label Studio's JSON: a task for each photo, in files of some 32 MB.

    Boxes of a model become a prediction with `score` (1 - uncertainty) and `model_version`, boxes
    that people drew become an annotation. `data` repeats the photo's other results,
    because tasks can only be sorted by what is there.
    """

    def __init__(self, files: Files, class_names: tuple[str, ...]) -> None:
        self._files = files
        self._classes = dict.fromkeys(class_names)
        self._tasks: list[str] = []
        self._bytes = self._written = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self._classes)

    def add(self, photo: ExportedPhoto) -> None:
        self._classes |= dict.fromkeys(photo.labels)
        task: dict[str, Any] = {"data": _data(photo)}
        regions = _regions(photo, photo.boxes, photo.labels, photo.scores)
        if photo.prediction is None:
            task["annotations"] = [{"result": regions}]
        else:
            confidence = round(1 - photo.prediction.uncertainty, 6)
            version = photo.prediction.model_version
            task["predictions"] = [
                {"model_version": version, "score": confidence, "result": regions}
            ]
        if photo.drawn is not None:
            boxes, labels = photo.drawn
            self._classes |= dict.fromkeys(labels)
            task["annotations"] = [{"result": _regions(photo, boxes, labels, None)}]

        text = json.dumps(task)
        self._tasks.append(text)
        self._bytes += len(text)
        if self._bytes >= _FILE_BYTES:
            self._put_tasks()

    def close(self) -> None:
        if self._tasks or not self._written:
            self._put_tasks()
        self._files.put(CONFIG, labeling_config(self.class_names).encode())
        self._files.close()

    def _put_tasks(self) -> None:
        self._written += 1
        text = "[\n" + ",\n".join(self._tasks) + "\n]\n"
        self._files.put(f"tasks-{self._written:03}.json", text.encode("ascii"))
        self._tasks, self._bytes = [], 0


def labeling_config(class_names: tuple[str, ...]) -> str:
    """Return the labelling configuration of a project for these classes."""
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in class_names if name)
    return (
        f'<View>\n  <Image name="{TO_NAME}" value="$image" zoom="true" zoomControl="true"/>\n'
        f'  <RectangleLabels name="{FROM_NAME}" toName="{TO_NAME}">\n{labels}  </RectangleLabels>\n</View>\n'
    )


def _data(photo: ExportedPhoto) -> dict[str, Any]:
    address = photo.address or photo.name
    if not address.startswith(("s3://", "http://", "https://")):
        address = LOCAL_FILES + urllib.parse.quote(safe_text(address).lstrip("/"))
    data: dict[str, Any] = {"image": address, OWN_NAME: photo.name}
    if photo.width and photo.height:
        data |= {"width": photo.width, "height": photo.height}
    if photo.prediction is not None:
        data |= {"uncertainty": round(photo.prediction.uncertainty, 6), **photo.prediction.values}
    return data


def _regions(
    photo: ExportedPhoto,
    boxes: NDArray[np.float32],
    labels: tuple[str, ...],
    scores: NDArray[np.float32] | None,
) -> list[dict[str, Any]]:
    """Return the regions of some boxes, whose numbers are per cent of the photo."""
    if not len(boxes):
        return []
    if not photo.width or not photo.height:
        raise UsageError(
            f"{photo.name}: its size is not known, and Label Studio's boxes are per cent of it; name the folder of "
            "the photos with --photos, or export voc or coco"
        )
    size = np.array([photo.width, photo.height], np.float64)
    values = percentages(boxes, size).tolist()
    written_scores = None if scores is None else decimals(scores)

    regions = []
    for n, ((x, y, width, height), label) in enumerate(zip(values, labels, strict=True)):
        value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
        region = {
            "id": f"box-{n}",
            "type": "rectanglelabels",
            "from_name": FROM_NAME,
            "to_name": TO_NAME,
            "original_width": photo.width,
            "original_height": photo.height,
            "image_rotation": 0,
            "value": value | {"rectanglelabels": [label] if label else []},
        }
        regions.append(
            region if written_scores is None else region | {"score": float(written_scores[n])}
        )
    return regions


def percentages(boxes: NDArray[np.float32], size: Floats) -> Floats:
    """Return (N, 4) x, y, width, height in per cent that give the same float32 corners again.

    Boxes that reach far beyond the upper or left edge may differ by a billionth of a pixel.

    size: (2,) width and height in pixels.
    """
    corners = boxes.astype(np.float64)
    low, length = corners[:, :2], corners[:, 2:] - corners[:, :2]
    exact = np.concatenate([low, length], axis=1) * 100 / np.tile(size, 2)
    short = exact.round(_DIGITS)

    pixels = short * np.tile(size / 100, 2)
    again = np.concatenate([pixels[:, :2], pixels[:, :2] + pixels[:, 2:]], axis=1).astype(
        np.float32
    )
    return np.where((again == boxes).all(axis=1, keepdims=True), short, exact)
