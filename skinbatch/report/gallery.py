"""Choose photos of a scoring and make thumbnails of them, with their counted boxes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from skinbatch.config import Config
from skinbatch.errors import SkinbatchError
from skinbatch.report.overlay import COUNTED
from skinbatch.report.photo_again import Originals
from skinbatch.report.words import lesions, plain
from skinbatch.runs.results import Results

# Longer side of a thumbnail, in pixels, and its JPEG quality: about 10 KB each.
SIDE = 240
QUALITY = 72

_COLUMNS = (
    "image_id",
    "uri",
    "sha256",
    "status",
    "error",
    "unit_id",
    "grade",
    "count_total",
    "top_class",
    "width",
    "height",
)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """Hold one photo of the gallery.

    picture: a JPEG as base64 text, "" if the photo cannot be read; problem is the reason. score: highest
    score of its boxes, 0 without boxes. Unknown texts are "".
    """

    image_id: str
    status: str
    grade: str
    top_class: str
    score: float
    caption: str
    picture: str
    problem: str = ""


def thumbnails(
    results: Results, most: int, config: Config, progress: Callable[[str], None] = lambda text: None
) -> list[Thumbnail]:
    """Return up to `most` photos, as evenly from the grades and failures as there are photos.

    A photo that has gone or changed since it was scored gets a placeholder.
    """
    originals = Originals(results, config)
    rows = _chosen(results.images(_COLUMNS), most)

    made = []
    for row in rows:
        boxes = results.unit(str(row["unit_id"]))[1]
        mine = boxes.filter(pc.equal(boxes.column("image_id"), row["image_id"])).to_pylist()
        made.append(_thumbnail(originals, row, mine))
        progress(f"{len(made):,} of {len(rows):,} thumbnails")
    return made


def _chosen(images: pa.Table, most: int) -> list[Mapping[str, Any]]:
    """Return rows, taken in turn from each grade and each status, by falling count."""
    groups: dict[str, list[int]] = {}
    keys = zip(
        *(images.column(name).to_pylist() for name in ("grade", "status", "count_total")),
        strict=True,
    )
    ordered = sorted(enumerate(keys), key=lambda item: (-(item[1][2] or 0), item[0]))
    for row, (grade, status, _) in ordered:
        groups.setdefault(grade or status, []).append(row)

    chosen: list[int] = []
    queues = list(groups.values())
    for turn in range(max(map(len, queues), default=0)):
        chosen += [queue[turn] for queue in queues if turn < len(queue)]
        if len(chosen) >= most:
            break
    rows: list[Mapping[str, Any]] = images.take(pa.array(chosen[:most], pa.int64())).to_pylist()
    return rows


def _thumbnail(
    originals: Originals, row: Mapping[str, Any], boxes: list[dict[str, Any]]
) -> Thumbnail:
    picture, problem = "", ""
    if row["status"] != "ok":
        problem = f"{row['status']}: {row['error']}"
    else:
        try:
            picture = picture_of(originals.read(row), boxes, SIDE)
        except SkinbatchError as e:
            problem = str(e)

    count = row["count_total"]
    counted = "no count" if count is None else lesions(count)
    return Thumbnail(
        image_id=row["image_id"],
        status=row["status"],
        grade=row["grade"] or "",
        top_class=row["top_class"] or "",
        score=round(max((box["score"] for box in boxes), default=0.0), 3),
        caption=", ".join(text for text in (plain(row["grade"]), counted) if text)
        if row["status"] == "ok"
        else row["status"],
        picture=picture,
        problem=problem,
    )


def picture_of(
    photo: NDArray[np.uint8], boxes: Sequence[Mapping[str, Any]] = (), side: int = 420
) -> str:
    """Return a small JPEG with the counted boxes, as base64 text.

    photo: (H, W, 3) uint8 RGB. boxes: rows of `boxes`. side: longer side in pixels.
    """
    image = Image.fromarray(photo)
    scale = side / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw = ImageDraw.Draw(image)
    for box in boxes:
        if box["counted"]:
            draw.rectangle(
                [box[edge] * scale for edge in ("x1", "y1", "x2", "y2")], outline=COUNTED, width=1
            )

    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=QUALITY)
    return base64.b64encode(sink.getvalue()).decode("ascii")
