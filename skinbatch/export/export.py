"""Export the boxes of a scored destination or a truth for other tools."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from skinbatch.annotations.read import read_truth
from skinbatch.config import StorageSettings
from skinbatch.errors import UsageError
from skinbatch.export.annotated import AnnotatedBoxes
from skinbatch.export.boxed import BoxSource, ExportedPhoto
from skinbatch.export.coco import CocoWriter
from skinbatch.export.cvat import CvatWriter
from skinbatch.export.files import Files
from skinbatch.export.label_studio import LabelStudioWriter
from skinbatch.export.scored import ScoredBoxes
from skinbatch.export.voc import VocWriter
from skinbatch.export.yolo import YoloWriter
from skinbatch.runs import layout
from skinbatch.runs.results import open_results
from skinbatch.selection.choose import Selection, choose
from skinbatch.storage.locate import is_s3, local_path, open_store

LABEL_STUDIO = "label-studio"
# A note for the other formats, which have no place for boxes of two kinds.
_MODEL_ONLY = "these are the model's boxes; only label-studio also writes those of --truth, so that the two can be compared"
CROWDS, DIFFICULT = "regions marked as a crowd", "marks of difficult boxes"
# Properties that only one format can hold.
_KEPT: Mapping[str, str] = {"coco": CROWDS, "voc": DIFFICULT}


class Writer(Protocol):
    """Write one format. class_names: in the order of the format's numbers."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def add(self, photo: ExportedPhoto) -> None: ...

    def close(self) -> None: ...


WRITERS: Mapping[str, Callable[[Files, tuple[str, ...]], Writer]] = {
    "voc": VocWriter,
    "coco": CocoWriter,
    "yolo": YoloWriter,
    LABEL_STUDIO: LabelStudioWriter,
    "cvat": CvatWriter,
}


@dataclass(frozen=True, slots=True)
class ExportReport:
    """Hold the outcome of an export.

    Attributes:
        left_out: reason -> number of photos without an entry (statuses that are not ok, `not
            annotated`).
        files: number of files written below `out`.
        complete: False if the source's run has not scored everything yet.
        not_kept: properties of the truth that were not written -> how often.
        swapped: number of boxes whose swapped corners were put right.
        notes: what a user needs to know, such as annotated photos that were not scored.
    """

    out: str
    format: str
    photos: int
    boxes: int
    left_out: Mapping[str, int]
    classes: tuple[str, ...]
    files: int
    complete: bool
    not_kept: Mapping[str, int]
    swapped: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Describe what to export, and how.

    Attributes:
        threshold: counts boxes of a scored source again; None: as graded.
        scoring: of a destination; None: that of the newest run.
        grading: of a destination, made by `skinbatch regrade`; None: that of the scoring's first run.
        selection: which photos of a destination; by default all.
        photos: the folder of a truth's photos, if they are not beside it.
        read_as: format of a truth; None: recognised by content.
    """

    format: str
    threshold: float | None = None
    scoring: str | None = None
    photos: Path | None = None
    read_as: str | None = None
    grading: str | None = None
    selection: Selection = field(default_factory=Selection)


def export(
    source: str,
    out: str,
    request: ExportRequest,
    storage: StorageSettings | None = None,
    progress: Callable[[int], None] | None = None,
) -> ExportReport:
    """Write the boxes of `source` below `out`; photos are not copied.

    `read_truth` of the result returns the same names, sizes, labels and boxes, to the last bit. Only
    boxes of a model in Label Studio's format are not read, because they are predictions.
    Regions marked as a crowd are kept only in COCO, marks of difficult boxes only in VOC. Outlines
    and VOC's other marks are never kept.

    Args:
        source: A destination of `skinbatch score`, or a truth.
        out: A new or empty folder, or s3://bucket/prefix.
        request: What to export, and how.
        storage: Settings of the store.
        progress: Called with the number of photos done.

    Returns:
        The numbers of photos, boxes and files.

    Raises:
        UsageError: If there is nothing to export, or `out` is not empty. After any error, nothing
            is left below `out`.

    Example:
        >>> export("scored", "coco", ExportRequest("coco")).boxes
        5
    """
    storage = storage or StorageSettings()
    if request.format not in WRITERS:
        raise UsageError(f"no format {request.format!r}; there are {', '.join(WRITERS)}")
    _apart(source, out)
    boxes = _opened(source, request, storage)
    notes = boxes.notes
    if request.selection.suspect is not None and request.format != LABEL_STUDIO:
        notes = (*notes, _MODEL_ONLY)
    store = open_store(out, storage)
    if (there := next(iter(store.list()), None)) is not None:
        raise UsageError(f"{store.uri}: is not empty (it has {there.key}); name a new folder")
    store.probe_writable()
    files = Files(store)
    photos = box_count = swapped = 0
    not_kept: Counter[str] = Counter()
    try:
        writer = WRITERS[request.format](files, boxes.class_names)
        for photo in boxes.photos():
            writer.add(photo)
            photos += 1
            box_count += len(photo.boxes)
            swapped += photo.swapped
            not_kept.update(
                {CROWDS: len(photo.crowd_labels), DIFFICULT: len(photo.difficult), **photo.not_kept}
            )
            if progress is not None:
                progress(photos)
        writer.close()
    except BaseException:
        files.discard()
        raise
    return ExportReport(
        out=store.uri,
        format=request.format,
        photos=photos,
        boxes=box_count,
        left_out=dict(boxes.left_out),
        classes=writer.class_names,
        files=len(files.keys),
        complete=boxes.complete,
        not_kept={
            what: count
            for what, count in not_kept.items()
            if count and what != _KEPT.get(request.format)
        },
        swapped=swapped,
        notes=notes,
    )


def _opened(source: str, request: ExportRequest, storage: StorageSettings) -> BoxSource:
    if is_s3(source) or Path(local_path(source), layout.DEST).is_file():
        store = open_store(
            source if is_s3(source) else os.path.realpath(local_path(source)), storage
        )
        if request.threshold is not None and not 0 <= request.threshold <= 1:
            raise UsageError(f"--score-threshold {request.threshold:g}: must be between 0 and 1")
        if request.threshold is not None and request.grading is not None:
            raise UsageError(
                "--score-threshold, --grading: a grading has its own threshold; give only one of the two"
            )
        for option, value in (("--photos", request.photos), ("--from", request.read_as)):
            if value is not None:
                raise UsageError(
                    f"{source}: {option} is for annotated photos, and this was scored; leave it out"
                )
        results = open_results(store, request.scoring, request.grading)
        chosen = (
            choose(results, request.selection, request.threshold) if request.selection else None
        )
        return ScoredBoxes(results, request.threshold, chosen)
    options: dict[str, object] = {
        "--score-threshold": request.threshold,
        "--scoring": request.scoring,
    }
    options |= {
        "--grading": request.grading,
        request.selection.first_option: request.selection or None,
    }
    for option, setting in options.items():
        if setting is not None:
            raise UsageError(
                f"{source}: {option} is for what `skinbatch score` has scored, and this is a truth; leave it out"
            )
    return AnnotatedBoxes(read_truth(local_path(source), request.read_as, photos=request.photos))


def _apart(source: str, out: str) -> None:
    """Raise UsageError if source or destination lies in the other.

    The next reader would take one for a part of the other.
    """
    if is_s3(source) != is_s3(out):
        return
    one, other = (
        (u.rstrip("/") if is_s3(u) else os.path.realpath(local_path(u))) for u in (source, out)
    )
    if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
        raise UsageError(f"{out}: overlaps with {source}; name another folder")
