"""Show photos of a destination with what was found on them: `skinbatch show`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pycocotools import mask as coco

from skinbatch.config import Config, merge
from skinbatch.errors import PackError, UsageError
from skinbatch.models.build import build_segmenter
from skinbatch.models.protocols import Segmenter
from skinbatch.report.explain import pack_of
from skinbatch.report.overlay import draw_overlay
from skinbatch.report.photo_again import Originals, find_rows
from skinbatch.report.words import lesions, plain
from skinbatch.runs import destination
from skinbatch.runs.destination import Scoring
from skinbatch.runs.results import Results
from skinbatch.tables.names import column_name, mask_columns

# Classes that count as skin of the face, as the segmenter names them.
_SKIN = ("skin", "nose")

# Colour of the placeholder for a photo that cannot be read again, 0 to 255.
_GREY = 120


@dataclass(frozen=True, slots=True)
class Shown:
    """Hold one photo with its findings.

    picture: (H, W, 3) uint8 RGB. row: of `images`. boxes: rows of `boxes`. problem: why the picture
    has the boxes only, on grey; "" if it shows the photo.
    """

    image_id: str
    picture: NDArray[np.uint8]
    row: Mapping[str, Any]
    boxes: tuple[Mapping[str, Any], ...]
    problem: str = ""


def show(
    results: Results,
    image_ids: Sequence[str],
    config: Config,
    pack: str | None = None,
    note: Callable[[str], None] = lambda text: None,
    annotated: Mapping[str, NDArray[np.float64]] | None = None,
) -> Iterator[Shown]:
    """Yield each photo with its skin mask, boxes, scores and grade drawn on it.

    The photo is read again from its source. If it has gone or changed since it was scored, its boxes
    are drawn on grey. The mask comes from the table `masks`, or is computed again by the scoring's
    pack if masks were not saved.

    Args:
        results: The results of a destination, with any grading.
        image_ids: As in the table `images`.
        config: Settings for reading the source.
        pack: Where the scoring's pack is now; None if it is where it was.
        note: Called with a sentence if no mask can be drawn.
        annotated: image_id -> (M, 4) boxes that people drew, in pixels of the photo, to draw too.

    Raises:
        UsageError: If a photo is not in the tables, or was not scored.
        StoreError: If the store of the photos does not answer.

    Example:
        >>> for shown in show(skinbatch.open("scored"), ["visit-1/a.jpg"], Config()):  # doctest: +SKIP
        ...     Image.fromarray(shown.picture).save("a.png")
    """
    rows = find_rows(results, image_ids)
    scoring = destination.read_scoring(results.store, results.fingerprint)
    assert scoring is not None, "the results are of this scoring"
    config = merge(config, scoring.settings)
    masks_of = SkinMasks(results, scoring, config, pack, note)
    originals = Originals(results, config)

    for row in rows:
        image_id = str(row["image_id"])
        _, boxes, masks = results.unit(str(row["unit_id"]))
        mine = tuple(boxes.filter(pc.equal(boxes.column("image_id"), image_id)).to_pylist())
        lines, drawn = caption(row, results), (annotated or {}).get(image_id)
        problem, skin = "", None
        try:
            photo = originals.read(row)
        except UsageError as e:
            # A placeholder of the photo's size, with the boxes on it and the reason below.
            problem = str(e)
            photo = np.full((int(row["height"]), int(row["width"]), 3), _GREY, np.uint8)
            lines.append(f"The photo is not shown: {problem}")
        else:
            skin = masks_of.of(photo, image_id, masks)
        yield Shown(image_id, draw_overlay(photo, mine, lines, skin, drawn), row, mine, problem)


class SkinMasks:
    """Find the skin of scored photos: in the stored masks, or by the scoring's segmenter.

    The segmenter is loaded when it is first needed.
    """

    def __init__(
        self,
        results: Results,
        scoring: Scoring,
        config: Config,
        pack: str | None,
        note: Callable[[str], None],
    ) -> None:
        self._results, self._scoring, self._config = results, scoring, config
        self._pack = pack or config.pack
        self._note = note
        self._columns = [mask_columns([name])[name] for name in _SKIN]
        self._segmenter: Segmenter | None = None
        self._failed = False

    def of(
        self, photo: NDArray[np.uint8], image_id: str, masks: pa.Table
    ) -> NDArray[np.bool_] | None:
        """Return (H, W) bool, where the photo shows skin; None if there is no mask and no segmenter.

        masks: the stored masks of the photo's unit, perhaps without rows.
        """
        for row in masks.to_pylist():
            if row["image_id"] == image_id and row["height"] is not None:
                size = [row["height"], row["width"]]
                parts = [
                    coco.decode({"size": size, "counts": row[name].encode()})
                    for name in self._columns
                ]
                return np.any(parts, axis=0)
        return self._segmented(photo)

    def _segmented(self, photo: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
        if self._segmenter is None and not self._failed:
            try:
                pack = pack_of(self._scoring, self._pack, self._config, self._results.store)
                weights = pack.weights_file("segmenter")
                self._segmenter = build_segmenter(
                    pack.segmenter, weights, "cpu", self._config.model
                )
            except PackError as e:
                self._failed = True
                self._note(f"no masks are drawn: {e}")
        if self._segmenter is None:
            return None

        (labels,) = self._segmenter([photo])
        skin = np.isin(labels, [self._segmenter.classes.index(name) for name in _SKIN])
        size = (photo.shape[1], photo.shape[0])
        return cv2.resize(skin.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


def picture_name(image_id: str) -> str:
    """Return a file name for a photo: its image_id with `/` and other separators replaced."""
    safe = re.sub(r"[^\w.#=+-]+", "_", image_id).strip("._") or "photo"
    # Two long or similar names must not share a file.
    digest = hashlib.sha256(image_id.encode()).hexdigest()[:6]
    return f"{safe[-120:]}-{digest}.png" if safe != image_id else f"{safe}.png"


def caption(row: Mapping[str, Any], results: Results) -> list[str]:
    """Return the lines below a picture: name, grade and counts, and the disease if one is named."""
    lines = [str(row["image_id"])]
    if row["status"] != "ok":
        return [*lines, f"{row['status']}: {row['error']}"]

    if row["count_total"] is None:
        lines.append("no face was found, so there is no count")
    else:
        halves = ""
        if row["count_left"] is not None:
            halves = f" ({row['count_left']} left, {row['count_right']} right of the nose)"
        lines.append(
            f"{lesions(row['count_total'])}{halves}: {plain(row['grade'])} by {row['grade_scheme']}, {row['view']} view"
        )
    if row["saturated"]:
        lines.append("The detector reached its limit of boxes, so there may be more lesions.")

    if row["top_class"] is not None:
        probability = row.get(f"prob_{column_name(row['top_class'])}")
        named = f", probability {probability:.2f}" if probability is not None else ""
        lines.append(f"{plain(row['top_class'])}{named}")
    return lines
