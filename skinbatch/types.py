"""Define the values that cross rooms. They are frozen and validated once, where they are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from html import escape
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skinbatch.unit_id import UnitId

ShardKind = Literal["tar", "zip", "parquet"]
View = Literal["frontal", "half", "closeup", "body"]
Side = Literal["left", "right"]


class Status(StrEnum):
    """Name the outcome for one photo (column `status`).

    Only `ok` rows have counts and probabilities.
    """

    OK = "ok"
    EMPTY = "empty"
    CORRUPT = "corrupt"
    TRUNCATED = "truncated"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    REFUSED = "refused"
    MODEL_ERROR = "model_error"
    CRASHED = "crashed"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Name one listed photo.

    image_id: key relative to the source; `shard.tar/member` for a member; the uri for listings.
    uri: address of the bytes: an absolute local path or `s3://bucket/key`; for members, the shard's
    uri and `/member`. size: bytes; None if a listing does not give it. version: opaque (ETag,
    mtime_ns); a member has that of its shard. meta: pass-through columns without the `meta_`
    prefix; values are text (JSON text for numbers and nested values). modified: time of the last
    modification in seconds since 1970, None if unknown. It does not take part in comparisons.
    """

    image_id: str
    uri: str
    size: int | None = None
    version: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    modified: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class MemberSelection:
    """Select members of a shard; all of them by default.

    include, exclude: globs, matched against `shard.tar/member`, and against `member` if the shard
    is the source itself (`alone`). image_column: columns of a Parquet file. The first one that the
    file has holds the photos.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    image_column: tuple[str, ...] = ()
    alone: bool = False


@dataclass(frozen=True, slots=True)
class ShardRef:
    """Name one listed shard. Its members are listed where they are scored.

    key: relative to the source (the uri for listings); the prefix of its members' image_id.
    selection: the members to score. modified: as in ImageRef.
    """

    key: str
    uri: str
    kind: ShardKind
    size: int
    version: str | None
    selection: MemberSelection = MemberSelection()
    modified: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """Describe what one worker scores in one go: loose photos, or a range of a shard's members.

    unit_id: see unit_id.UnitId; safe as a file name. images: the loose photos. shard, start, stop: ordinals of the
    shard's members; stop None means to the end. They are None, 0 and None for loose photos.
    """

    unit_id: str
    images: tuple[ImageRef, ...] = ()
    shard: ShardRef | None = None
    start: int = 0
    stop: int | None = None

    def halves(self, members: int | None = None) -> tuple[WorkUnit, WorkUnit]:
        """Return both halves.

        members: number of members of the whole shard; needed if `stop` is None.
        """
        first, second = UnitId(self.unit_id).halves
        if self.shard is None:
            images = tuple(sorted(self.images, key=lambda r: r.image_id))
            middle = len(images) // 2
            return WorkUnit(first, images[:middle]), WorkUnit(second, images[middle:])
        stop = self.stop if self.stop is not None else members
        assert stop is not None, "the halves of an open range need the number of members"
        middle = (self.start + stop) // 2
        return (
            WorkUnit(first, shard=self.shard, start=self.start, stop=middle),
            WorkUnit(second, shard=self.shard, start=middle, stop=self.stop),
        )

    @property
    def inputs_sha256(self) -> str:
        """Return a hash of what is scored.

        It covers photos with size, version and meta, or the shard's version, range and selection.
        """
        if self.shard is not None:
            s = self.shard
            inputs: object = [
                s.key,
                s.uri,
                s.kind,
                s.size,
                s.version,
                self.start,
                self.stop,
                *_chosen(s.selection),
            ]
        else:
            inputs = [
                [r.image_id, r.uri, r.size, r.version, dict(sorted(r.meta.items()))]
                for r in self.images
            ]
        text = json.dumps(inputs, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _chosen(selection: MemberSelection) -> list[object]:
    """Return what a selection adds to the inputs of a unit: nothing if it selects everything."""
    return [] if selection == MemberSelection() else [asdict(selection)]


@dataclass(frozen=True, slots=True)
class Detections:
    """Hold the boxes of one photo.

    xyxy: (N, 4) float32, pixels, x1 y1 x2 y2. scores: (N,) float32 in [0, 1], descending. labels:
    (N,) int64, indices into the detector's classes. saturated: the limit on boxes was reached.
    """

    xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    saturated: bool = False

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.xyxy.shape != (n, 4) or self.labels.shape != (n,):
            raise ValueError(
                f"xyxy {self.xyxy.shape}, scores ({n},), labels {self.labels.shape} do not belong together"
            )

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls) -> Detections:
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Fetched:
    """Hold the bytes of one listed photo; without bytes, `status` and `error` give the reason.

    ref: as read. Its size and version are those of the bytes, which may differ from the plan's.
    data: None if there are no bytes.
    """

    ref: ImageRef
    data: bytes | None
    status: Status = Status.OK
    error: str | None = None


@dataclass(frozen=True, slots=True)
class GradedBox:
    """Hold one row of `boxes`; see tables.schema.BOXES.

    Corners are in pixels of the displayed original.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    score: float
    label: str
    skin_overlap: float | None
    side: Side | None
    counted: bool


@dataclass(frozen=True, slots=True)
class ImageResult:
    """Hold the result for one photo: one row of `images` and its rows of `boxes`.

    The fields have the names of the columns. counts: detector class -> counted lesions. probs: column name (`prob_rosacea`,
    `<head>_prob_<class>`) -> probability. mask_rle: segmenter class -> COCO run lengths (compressed
    counts) at displayed size; None unless masks are saved. taken: stages whose results were taken from
    an earlier scoring; not a column.
    """

    status: Status
    error: str | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    face: bool | None = None
    faces: int | None = None
    view: View | None = None
    skin_fraction: float | None = None
    crop: tuple[int, int, int, int] | None = None
    sharpness: float | None = None
    brightness: float | None = None
    ita_degrees: float | None = None
    count_total: int | None = None
    count_left: int | None = None
    count_right: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    saturated: bool | None = None
    grade: str | None = None
    grade_level: int | None = None
    grade_scheme: str | None = None
    probs: Mapping[str, float] = field(default_factory=dict)
    top_class: str | None = None
    boxes: tuple[GradedBox, ...] = ()
    mask_rle: Mapping[str, bytes] | None = None
    taken: frozenset[str] = frozenset()

    def _repr_html_(self) -> str:
        """Return an HTML table of the result, for notebooks."""
        hidden = ("counts", "probs", "boxes", "mask_rle", "taken")
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in hidden}
        values |= {f"count_{name}": count for name, count in self.counts.items()}
        values |= {name: f"{value:.3f}" for name, value in self.probs.items()}
        values["boxes"] = (
            f"{len(self.boxes)}, of which {sum(box.counted for box in self.boxes)} are counted"
        )
        cells = (
            f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
            for name, value in values.items()
            if value is not None
        )
        return f"<table>{''.join(cells)}</table>"


@dataclass(frozen=True, slots=True)
class DataFile:
    """Describe one committed Parquet file.

    path: relative to the destination. kind: images, boxes or masks.
    """

    kind: str
    path: str
    sha256: str
    bytes: int
    rows: int

    @property
    def original(self) -> DataFile:
        """Return the file as its receipt names it, wherever its table is now."""
        return DataFile(self.kind, self.path, self.sha256, self.bytes, self.rows)


@dataclass(frozen=True, slots=True)
class MergedPart(DataFile):
    """Locate a committed file that `compact` has merged into another.

    within: path of the merged file. row_group: its row group there; None if it has no rows.
    """

    within: str
    row_group: int | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Record that a unit is done.

    inputs_sha256: hash of what was scored. whole_sha256: hash of the planned unit that this one is,
    or is a half of. inputs_count: photos to score; for shards, the members that were found. copied:
    rows taken from older results. shard_size: bytes of the shard, by which it is recognised under
    another name. taken: stage -> photos for which its results were taken from an earlier scoring.
    taken_from: the files of that scoring that held them. request: digest of the request for which
    chosen rows were scored again.
    """

    unit_id: str
    generation: int
    attempt: str
    inputs_sha256: str
    whole_sha256: str
    inputs_count: int
    start: int
    stop: int | None
    files: tuple[DataFile, ...]
    statuses: Mapping[str, int]
    copied: int
    timings: Mapping[str, float]
    host: str
    written_at: str
    shard_size: int | None = None
    taken: Mapping[str, int] = field(default_factory=dict)
    taken_from: tuple[DataFile, ...] = ()
    request: str | None = None
