"""Draw what a scoring found on a photo: skin, boxes, scores and grade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Small photos are enlarged to this longer side, in pixels, so that boxes and scores can be read.
LONG_SIDE = 1000

# Light outside the skin is reduced to this share, so that the mask shows without hiding the skin.
OUTSIDE = 0.55

# Counted boxes, boxes that are stored but not counted, and boxes that people drew. They differ in
# colour and in line width.
COUNTED: Colour = (255, 214, 10)
NOT_COUNTED: Colour = (150, 190, 255)
ANNOTATED: Colour = (255, 79, 176)
CONTOUR: Colour = (80, 220, 120)
_INK: Colour = (17, 17, 17)
_PAPER: Colour = (255, 255, 255)

_TEXT_SIZE = 20
_SCORE_SIZE = 15
_PAD = 12


def draw_overlay(
    photo: Pixels,
    boxes: Sequence[Mapping[str, Any]],
    lines: Sequence[str],
    skin: NDArray[np.bool_] | None = None,
    annotated: NDArray[np.float64] | None = None,
) -> Pixels:
    """Return the photo with boxes and skin drawn on it, and a caption below.

    Args:
        photo: (H, W, 3) uint8 RGB as displayed.
        boxes: rows of the table `boxes`: x1, y1, x2, y2, score, counted.
        lines: text for the caption, one entry for each line.
        skin: (H, W) bool, the skin that the segmenter found. None draws no mask.
        annotated: (M, 4) x1, y1, x2, y2 of boxes that people drew. None if they are not known.

    Returns:
        (H', W', 3) uint8 RGB. Photos smaller than LONG_SIDE are enlarged.
    """
    height, width = photo.shape[:2]
    scale = max(1.0, LONG_SIDE / max(height, width))
    size = (round(width * scale), round(height * scale))
    canvas = photo.copy()
    if scale > 1:
        canvas = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    if skin is not None:
        canvas = _with_skin(canvas, skin)

    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for corners in () if annotated is None else annotated.tolist():
        draw.rectangle([edge * scale for edge in corners], outline=ANNOTATED, width=3)
    # Counted boxes come last, so that they lie on top.
    for box in sorted(boxes, key=lambda row: (bool(row["counted"]), row["score"])):
        _draw_box(draw, box, scale)

    return np.asarray(_with_caption(image, lines, _legend(boxes, annotated)), np.uint8)


def _with_skin(canvas: Pixels, skin: NDArray[np.bool_]) -> Pixels:
    """Darken what is not skin and draw the outline of the skin."""
    size = (canvas.shape[1], canvas.shape[0])
    inside = cv2.resize(skin.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    light = np.where(inside[..., None] > 0, 1.0, OUTSIDE)
    shaded = np.ascontiguousarray((canvas * light).astype(np.uint8))

    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(shaded, contours, -1, CONTOUR, 2)
    return shaded


def _draw_box(draw: ImageDraw.ImageDraw, box: Mapping[str, Any], scale: float) -> None:
    corners = [box[edge] * scale for edge in ("x1", "y1", "x2", "y2")]
    if not box["counted"]:
        draw.rectangle(corners, outline=NOT_COUNTED, width=1)
        return

    draw.rectangle(
        [corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1], outline=_INK, width=1
    )
    draw.rectangle(corners, outline=COUNTED, width=2)
    text = f"{box['score']:.2f}".removeprefix("0")
    font = ImageFont.load_default(_SCORE_SIZE)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    x, y = corners[0], max(0.0, corners[1] - (bottom - top) - 5)
    draw.rectangle([x, y, x + right - left + 4, y + bottom - top + 4], fill=COUNTED)
    draw.text((x + 2 - left, y + 2 - top), text, fill=_INK, font=font)


def _legend(
    boxes: Sequence[Mapping[str, Any]], annotated: NDArray[np.float64] | None
) -> list[tuple[Colour, str]]:
    """Return the colours of the boxes with their numbers; [] if there are no boxes."""
    counted = sum(bool(box["counted"]) for box in boxes)
    legend = [(COUNTED, f"{counted} counted")] if boxes else []
    if len(boxes) > counted:
        legend.append((NOT_COUNTED, f"{len(boxes) - counted} stored, not counted"))
    if annotated is not None:
        legend.append((ANNOTATED, f"{len(annotated)} annotated by people"))
    return legend


def _with_caption(
    image: Image.Image, lines: Sequence[str], legend: Sequence[tuple[Colour, str]]
) -> Image.Image:
    """Add the caption and the legend of the boxes below the picture."""
    font = ImageFont.load_default(_TEXT_SIZE)
    wrapped = [part for line in lines for part in _wrapped(line, font, image.width - 2 * _PAD)]
    step = _TEXT_SIZE + 8
    page = Image.new(
        "RGB", (image.width, image.height + 2 * _PAD + step * (len(wrapped) + bool(legend))), _PAPER
    )
    page.paste(image, (0, 0))
    draw = ImageDraw.Draw(page)
    y = image.height + _PAD
    for line in wrapped:
        draw.text((_PAD, y), line, fill=_INK, font=font)
        y += step

    x = float(_PAD)
    for colour, text in legend:
        draw.rectangle(
            [x, y + 3, x + _TEXT_SIZE, y + 3 + _TEXT_SIZE - 4], fill=colour, outline=_INK
        )
        draw.text((x + _TEXT_SIZE + 6, y), text, fill=_INK, font=font)
        x += _TEXT_SIZE + 30 + draw.textlength(text, font=font)
    return page


def _wrapped(
    line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    """Break a line at blanks, or within words that are too long, so that each part fits."""
    parts = [""]
    for word in line.split(" "):
        longer = f"{parts[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            parts[-1] = longer
            continue
        parts.append("")
        for letter in word:
            if font.getlength(parts[-1] + letter) > width:
                parts.append("")
            parts[-1] += letter
    return [part for part in parts if part]
