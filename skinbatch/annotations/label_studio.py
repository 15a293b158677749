"""Read Label Studio's JSON exports: tasks with annotations (JSON), or flat records (JSON-MIN)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from skinbatch.annotations.annotated_photos import OUTLINES, ROTATED, AnnotatedPhoto, Truth
from skinbatch.annotations.displayed import displayed_size
from skinbatch.annotations.json_file import json_kind, load_json
from skinbatch.annotations.label_studio_photos import OWN_NAME, PhotoName, photo_of
from skinbatch.annotations.photo_files import PhotoFiles, unlisted
from skinbatch.annotations.severity import severity_of
from skinbatch.annotations.shapes import around, around_ellipse, corners_of, turned
from skinbatch.annotations.tree import Tree
from skinbatch.errors import UsageError

LOOKED_FOR = "Label Studio .json exports (JSON or JSON-MIN)"
_WHAT = "Label Studio's JSON or JSON-MIN"
_BOXES = ("rectanglelabels", "labels", "rectangle")
_OUTLINES = ("polygonlabels", "polygon", "ellipselabels", "ellipse")
_NO_BOXES = (
    "brushlabels",
    "brush",
    "bitmask",
    "bitmasklabels",
    "keypointlabels",
    "keypoint",
    "vector",
    "vectorlabels",
)


@dataclass(slots=True)
class _Region:
    """Hold a drawn shape, in per cent of the photo."""

    value: Mapping[str, Any]
    label: str
    is_outline: bool
    size: tuple[int, int] | None


@dataclass(slots=True)
class _Task:
    """Hold a photo and its annotation.

    annotated: somebody submitted one. size: of the photo, if the task's own data has it.
    """

    where: str
    photo: PhotoName
    annotated: bool = False
    regions: list[_Region] = field(default_factory=list)
    choices: dict[str, None] = field(default_factory=dict)
    size: tuple[int, int] | None = None


def fits(path: Path) -> bool:
    """Return whether a path is a .json of Label Studio, or a folder with one."""
    return bool(_files(path))


def read(path: Path, photos: Path | None = None) -> Truth:
    """Return the photos of every Label Studio export of `path`.

    Polygons, ellipses and rotated boxes become the boxes around them. Choices about the whole photo
    become its classes. Skipped annotations and predictions are ignored.

    photos: the folder of the photos. Without it they are looked for beside the file and in `images`
    there.

    Raises:
        UsageError: Something cannot be read: brushes and points, which are no boxes, or a task with
            several annotations of which none is marked as ground truth. The message names the file
            and the task.
    """
    files = [_LabelStudioFile(file, photos) for file in _files(path)]
    roots = {file.photos.root for file in files}
    root = roots.pop() if len(roots) == 1 else path
    annotated = [photo for file in files for photo in file.annotated(root)]
    if not any(file.annotated_tasks for file in files):
        raise UsageError(
            f"{files[0].file}: no task has a submitted annotation, and predictions do not count as annotations; submit "
            "them in Label Studio, and export the project as JSON"
        )
    annotated += unlisted([file.photos for file in files], root)
    names = {
        label for photo in annotated for label in (*(photo.labels or ()), *(photo.classes or ()))
    }
    return Truth(root, "label-studio", tuple(annotated), tuple(sorted(names)))


class _LabelStudioFile:
    """Read one .json."""

    def __init__(self, file: Path, photos: Path | None) -> None:
        self.file = file
        data = load_json(file, _WHAT)
        self._tasks = [
            self._task(entry, n)
            for n, entry in enumerate(data if isinstance(data, list) else [data], 1)
        ]
        self.photos = PhotoFiles(file, photos, [task.photo.names for task in self._tasks], ())

    @property
    def annotated_tasks(self) -> int:
        """Return the number of tasks with an annotation."""
        return sum(task.annotated for task in self._tasks)

    def annotated(self, root: Path) -> Iterator[AnnotatedPhoto]:
        """Yield the photos of the file, named from `root`."""
        chosen = any(task.choices for task in self._tasks)
        boxed = any(task.regions for task in self._tasks) or not chosen
        for task in self._tasks:
            path = self.photos.find(task.photo.names)
            name = (
                task.photo.name
                if task.photo.is_key
                else self.photos.key(task.photo.name, path, root)
            )
            size = _size(task, path)
            boxes, not_kept = _boxes(task, size)
            has_boxes = boxed and task.annotated
            yield AnnotatedPhoto(
                name,
                self.file,
                path,
                size[0] if size else None,
                size[1] if size else None,
                boxes=np.array(boxes, np.float32).reshape(-1, 4) if has_boxes else None,
                labels=tuple(region.label for region in task.regions) if has_boxes else None,
                classes=tuple(task.choices) if chosen and task.annotated else None,
                severity=severity_of(name),
                not_kept=not_kept,
                written=task.photo.written,
            )

    def _task(self, entry: Any, number: int) -> _Task:
        if not isinstance(entry, dict):
            raise UsageError(f"{self.file}: not {_WHAT}: entry {number} is not a task")
        if isinstance(entry.get("task"), dict) and "result" in entry:
            # Storages for annotations get each annotation with its task inside.
            entry = entry["task"] | {"annotations": [entry]}
        where = f"{self.file}: task {entry.get('id', number)}"

        annotations = entry.get("annotations", entry.get("completions"))
        if isinstance(annotations, list) and isinstance(entry.get("data"), dict):
            task = _Task(where, photo_of(entry["data"], where), size=_own_size(entry["data"]))
            results = _the_one(annotations, where)
            if results is not None:
                task.annotated = True
                _take_results(task, results)
            return task
        if "data" in entry and annotations is None:
            return _Task(where, photo_of(entry["data"], where))

        task = _Task(where, photo_of(entry, where), annotated=True)
        _take_record(task, entry)
        return task


def _the_one(annotations: Sequence[Any], where: str) -> Sequence[Mapping[str, Any]] | None:
    """Return the results of the annotation that counts; None if nobody submitted one."""
    kept = [
        a
        for a in annotations
        if isinstance(a, dict) and not (a.get("was_cancelled") or a.get("skipped"))
    ]
    if len(kept) > 1:
        true = [a for a in kept if a.get("ground_truth")]
        if len(true) != 1:
            ids = ", ".join(str(a.get("id")) for a in kept)
            raise UsageError(
                f"{where}: has {len(kept)} annotations ({ids}); mark one of them as ground truth in Label Studio, or remove "
                "the others"
            )
        kept = true
    if not kept:
        return None
    results = kept[0].get("result")
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise UsageError(f"{where}: `result` is not a list of results")
    return results


def _take_results(task: _Task, results: Sequence[Mapping[str, Any]]) -> None:
    """Add the results of a JSON export to its task.

    A rectangle and its label may be two results of one region.
    """
    labelled = {result.get("id") for result in results if result.get("type") == "labels"}
    for result in results:
        kind, value = str(result.get("type", "")).lower(), result.get("value")
        if not isinstance(value, dict):
            continue  # a relation between two regions
        if (
            kind in ("rectangle", "polygon", "ellipse", "brush", "keypoint")
            and result.get("id") in labelled
        ):
            continue
        _take(task, kind, value, result)


def _take_record(task: _Task, record: Mapping[str, Any]) -> None:
    """Add a record of JSON-MIN to its task.

    Fields after `id` are annotations; those before it are the task's own data.
    """
    names = list(record)
    first = names.index("id") + 1 if "id" in names else 0
    last = names.index("annotator") if "annotator" in names else len(names)
    for name in names[first:last]:
        answer = record[name]
        if isinstance(answer, str) and answer:
            task.choices[answer] = None
        for value in answer if isinstance(answer, list) else [answer]:
            if isinstance(value, dict):
                kinds = [
                    kind for kind in (*_BOXES, *_OUTLINES, *_NO_BOXES, "choices") if kind in value
                ]
                _take(task, kinds[0] if kinds else _unlabelled(value), value, value)


def _unlabelled(value: Mapping[str, Any]) -> str:
    """Return the kind of a region without a label; '' if it is no region."""
    if "points" in value:
        return "polygon"
    if "radiusX" in value:
        return "ellipse"
    if "rle" in value:
        return "brush"
    return "rectangle" if "width" in value and "height" in value and "x" in value else ""


def _take(task: _Task, kind: str, value: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    if kind == "choices":
        if "x" not in value and "points" not in value:  # else it is about a region
            task.choices |= dict.fromkeys(map(str, value.get("choices") or ()))
        return
    if kind == "labels" and "width" not in value:
        kind = _unlabelled(value) or "labels"
    if kind in _NO_BOXES or (kind == "labels" and "width" not in value):
        raise UsageError(
            f"{task.where}: has a region of type {kind!r}, which is not a box; draw boxes, polygons or ellipses, or export "
            "brushes as PNG masks"
        )
    if kind not in (*_BOXES, *_OUTLINES):
        return  # text, numbers, ratings

    if result.get("image_rotation"):
        raise UsageError(
            f"{task.where}: its photo was rotated in Label Studio; rotate the photo itself, and draw again"
        )
    labels: list[Any] = next(
        (value[name] for name in (kind, "labels") if isinstance(value.get(name), list)), []
    )
    if len(labels) > 1:
        raise UsageError(
            f"{task.where}: a box has several labels ({', '.join(map(str, labels))}); keep one of them"
        )
    label = str(labels[0]).strip() if labels else ""
    width, height = result.get("original_width"), result.get("original_height")
    size = (int(width), int(height)) if width and height else None
    task.regions.append(
        _Region(value, label, kind in _OUTLINES or "points" in value or "radiusX" in value, size)
    )


def _size(task: _Task, path: Path | None) -> tuple[int, int] | None:
    """Return the size of the annotated photo, in pixels, from a region or else from the file."""
    sizes = {region.size for region in task.regions if region.size is not None}
    if len(sizes) > 1:
        raise UsageError(
            f"{task.where}: its regions give different sizes of the photo: {sorted(sizes)}"
        )
    if sizes:
        return sizes.pop()
    if task.size is not None:
        return task.size
    if path is not None:
        return displayed_size(path)
    if task.regions:
        raise UsageError(
            f"{task.where}: has boxes in per cent of a photo of unknown size; name the folder of the photos"
        )
    return None


def _own_size(data: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the photo's size from a task's data, where `skinbatch export` writes it."""
    width, height = data.get("width"), data.get("height")
    return (
        (width, height)
        if OWN_NAME in data and isinstance(width, int) and isinstance(height, int)
        else None
    )


def _boxes(
    task: _Task, size: tuple[int, int] | None
) -> tuple[list[list[float]], Mapping[str, int]]:
    """Return the boxes in pixels, and the properties of shapes that are not kept."""
    boxes: list[list[float]] = []
    not_kept: Counter[str] = Counter()
    for region in task.regions:
        assert size is not None
        try:
            boxes.append(_box(region.value, size))
        except (KeyError, TypeError, ValueError) as e:
            raise UsageError(
                f"{task.where}: a region is not in per cent of the photo: {e!r}"
            ) from None
        if region.is_outline:
            not_kept[OUTLINES] += 1
        elif region.value.get("rotation"):
            not_kept[ROTATED] += 1
    return boxes, dict(not_kept)


def _box(value: Mapping[str, Any], size: tuple[int, int]) -> list[float]:
    across, down = size[0] / 100, size[1] / 100
    if "points" in value:
        return around([(float(x) * across, float(y) * down) for x, y in value["points"]])

    x, y, degrees = (
        float(value["x"]) * across,
        float(value["y"]) * down,
        float(value.get("rotation") or 0),
    )
    if "radiusX" in value:
        return around_ellipse(
            (x, y), (float(value["radiusX"]) * across, float(value["radiusY"]) * down), degrees
        )
    width, height = float(value["width"]) * across, float(value["height"]) * down
    if not degrees:
        return [x, y, x + width, y + height]
    # Label Studio turns a box about its upper left corner.
    return around(turned(corners_of(x, y, x + width, y + height), (x, y), degrees))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return (
            [path] if path.suffix.lower() == ".json" and json_kind(path) == "label-studio" else []
        )
    tree = Tree(path)
    files = [tree.path(key) for key in tree.ending(".json")]
    return [file for file in files if json_kind(file) == "label-studio"]
