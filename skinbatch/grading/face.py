"""Find the face in a label map: its skin, its place in the photo, its nose and its view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from skinbatch.types import View

AFFECTABLE = ("skin", "nose")
BODY = "body"
# The smallest piece of skin that can be a face, as a share of the photo.
MIN_SKIN = 0.01
# The smallest piece of skin that counts as another face, as a share of the largest face's area.
# Ears, hands and slivers behind hair are smaller. Of two people in one photo, the farther one is
# larger even at three times the distance.
MIN_FACE = 0.1
# Gaps up to this share of the label map's longer side do not divide a face. Measured on 800 true
# masks of CelebAMask-HQ: glasses and fringes cut off more than 5 % of the skin in 6.5 % of the
# faces without bridging, and in 1.9 % with it.
BRIDGE = 0.035
# Smaller noses, as a share of the face, are noise: true noses are 4 to 13 % of the skin of 400
# CelebAMask-HQ faces.
MIN_NOSE = 0.02
# The crop's margin on each side, as a share of the face's own size. It is needed because lesions
# lie right at the edge of masks.
MARGIN = 0.08
# Number of pixels of a crop that are interpolated at once.
STRIP = 1 << 18
MIN_REACH = 0.3
# In a frontal face, the nose lies between 0.3 and 0.7 of the skin's width, and at least a quarter
# of the skin lies on either side of it. By this rule, 90 % of the 800 true masks of CelebAMask-HQ
# are frontal (turned heads are among them). Of their halves, 1 in 1,432 is frontal if the cut goes
# through the nose, and 16 % of 716 if the half keeps the whole nose. With MIN_REACH 0.25 that would
# be 62 % of the latter; with 0.33, another 5 % of the portraits would be lost.
MIN_BALANCE = 0.25


# A close-up shows nothing but skin: at least this share of the photo, and of the photo's edge, is
# skin. Of 356 photos of whole and half faces (ACNE04, acne_phone, CelebAMask-HQ), two exceed both
# limits; 95 % have less than 0.61 to 0.71 of skin, and less than 0.21 to 0.41 at the edge.
CLOSEUP_SKIN = 0.6
CLOSEUP_EDGE = 0.6


@dataclass(frozen=True, slots=True)
class Face:
    """Describe the scored face of one photo; `found` is False and `faces` is 0 if there is none.

    Without a face, crop, nose and view are None, unless the photo shows skin of another part of the
    body (view `body`). Crop and mask are then those of that skin, for the classifiers.

    width, height: pixels of the displayed original. mask: (h, w) bool, the face's affectable skin
    at the label map's resolution, covering exactly the photo. skin_fraction: affectable skin of the
    whole photo, 0-1. crop: x1 y1 x2 y2 in pixels of the displayed original, exclusive at the end.
    nose: x y of its centroid in the same pixels, or None; a close-up has none, because its skin is
    not divided into halves. view: by nose and skin.
    """

    width: int
    height: int
    mask: NDArray[np.bool_]
    found: bool
    faces: int
    skin_fraction: float
    crop: tuple[int, int, int, int] | None = None
    nose: tuple[float, float] | None = None
    view: View | None = None


def find_face(
    label_map: NDArray[np.uint8],
    classes: Sequence[str],
    width: int,
    height: int,
    *,
    closeups: bool = False,
) -> Face:
    """Return the largest connected piece of affectable skin.

    Args:
        label_map: (h, w) uint8, indices into `classes`, covering exactly the photo.
        classes: of the segmenter; `skin` and `nose` must be among them.
        width: of the displayed original, in pixels.
        height: of the displayed original, in pixels.
        closeups: whether the segmenter recognises close-ups (SegmenterStage.closeups). A photo that
            is all skin is then a close-up. One with more skin of the body than of a face, and
            without a nose, shows another part of the body.
    """
    skin = _of(label_map, classes, AFFECTABLE)
    face = _largest(label_map, skin, classes, width, height)
    if not closeups:
        return face

    body = _of(label_map, classes, (BODY,))
    if face.nose is None and body.sum() > skin.sum():
        piece = _largest(label_map, body, classes, width, height)
        if piece.found:
            return replace(
                piece,
                found=False,
                faces=0,
                skin_fraction=face.skin_fraction,
                nose=None,
                view="body",
            )
    if face.found and _fills(skin | body):
        whole = _largest(label_map, skin | body, classes, width, height)
        return replace(whole, nose=None, view="closeup")
    return face


def _of(
    label_map: NDArray[np.uint8], classes: Sequence[str], names: Sequence[str]
) -> NDArray[np.bool_]:
    """Return where the labels are of the named classes; unknown names are ignored."""
    is_named = np.zeros(256, np.uint8)
    is_named[[classes.index(name) for name in names if name in classes]] = 1
    return cv2.LUT(label_map, is_named).view(np.bool_)


def _fills(skin: NDArray[np.bool_]) -> bool:
    """Return whether skin fills the photo up to its edges, so that no outline of a face is visible."""
    edge = np.concatenate([skin[0], skin[-1], skin[:, 0], skin[:, -1]])
    return bool(skin.mean() >= CLOSEUP_SKIN and edge.mean() >= CLOSEUP_EDGE)


def _largest(
    label_map: NDArray[np.uint8],
    skin: NDArray[np.bool_],
    classes: Sequence[str],
    width: int,
    height: int,
) -> Face:
    """Return the face that is the largest connected piece of `skin`."""
    pieces, areas = _pieces(skin)
    fraction = float(skin.mean()) if skin.size else 0.0
    if not len(areas) or areas.max() < MIN_SKIN * skin.size:
        return Face(width, height, np.zeros_like(skin), False, 0, fraction)
    mask = pieces == areas.argmax() + 1
    faces = int(np.sum((areas >= MIN_FACE * areas.max()) & (areas >= MIN_SKIN * skin.size)))
    nose = _nose(mask & (label_map == classes.index("nose")), int(areas.max()))
    view: View = "half" if nose is None else _view(mask, nose[0])
    scale_x, scale_y = width / mask.shape[1], height / mask.shape[0]
    in_photo = None if nose is None else (nose[0] * scale_x, nose[1] * scale_y)
    return Face(
        width, height, mask, True, faces, fraction, _crop(mask, width, height), in_photo, view
    )


def skin_in_crop(face: Face, size: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Return which pixels of the crop are skin of the face, for `masked_crop` inputs.

    The label map's staircase is smoothed: a pixel is skin if the interpolated mask is at least one
    half.

    Args:
        size: width and height to which the crop is scaled; None for its own, (x2 - x1, y2 - y1).

    Returns:
        (height, width) bool.
    """
    if face.crop is None:
        raise ValueError("a photo without a face has no crop")
    x1, y1, x2, y2 = face.crop
    columns, rows = size or (x2 - x1, y2 - y1)
    h, w = face.mask.shape
    # Centres of the crop's pixels in the label map's coordinates, in which pixel n has its centre
    # at n.
    xs = (x1 + (np.arange(columns) + 0.5) * (x2 - x1) / columns) * (w / face.width) - 0.5
    ys = (y1 + (np.arange(rows) + 0.5) * (y2 - y1) / rows) * (h / face.height) - 0.5
    left, across = _neighbours(xs, w)
    above, down = _neighbours(ys, h)
    mask = face.mask.astype(np.float32)
    wide = mask[:, left] * (1 - across) + mask[:, np.minimum(left + 1, w - 1)] * across
    below, share = np.minimum(above + 1, h - 1), down[:, None]
    skin = np.empty((rows, columns), np.bool_)
    # Work in strips: a crop may have 100 megapixels, and floats for all of them would need many
    # times the photo's memory.
    strip = max(1, STRIP // columns)
    for top in range(0, rows, strip):
        part = slice(top, top + strip)
        skin[part] = wide[above[part]] * (1 - share[part]) + wide[below[part]] * share[part] >= 0.5
    return skin


def _neighbours(
    at: NDArray[np.float64], length: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the pixel before each position in a row of pixels, and the distance from it, 0-1."""
    at = np.clip(at, 0, length - 1)
    before = np.floor(at).astype(np.intp)
    return before, (at - before).astype(np.float32)


def _pieces(skin: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the numbers of the pieces, (h, w) from 1 (0: no skin), and the skin pixels of each."""
    side = max(3, round(BRIDGE * max(skin.shape)) | 1)
    closed = cv2.morphologyEx(skin.view(np.uint8), cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    count, numbers = cv2.connectedComponents(closed, connectivity=8)
    pieces = np.asarray(numbers, np.int32)
    pieces *= skin  # without the gaps that were bridged
    return pieces, np.bincount(pieces[skin], minlength=count)[1:]


def _nose(nose: NDArray[np.bool_], face_area: int) -> tuple[float, float] | None:
    """Return the centroid of the largest piece of nose; None if it is too small.

    Label map coordinates: 0 is the left edge of the first pixel.
    """
    count, _, stats, centroids = cv2.connectedComponentsWithStats(
        nose.astype(np.uint8), connectivity=8
    )
    if count < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    if stats[largest, cv2.CC_STAT_AREA] < MIN_NOSE * face_area:
        return None
    return float(centroids[largest, 0]) + 0.5, float(centroids[largest, 1]) + 0.5


def _view(mask: NDArray[np.bool_], nose_x: float) -> View:
    share = np.cumsum(mask.sum(axis=0)) / mask.sum()
    # Ignore the outermost hundredth on either side: single pixels must not widen the face.
    left_edge, right_edge = int(np.searchsorted(share, 0.01)), int(np.searchsorted(share, 0.99)) + 1
    reach = (nose_x - left_edge) / (right_edge - left_edge)
    balance = float(share[min(max(round(nose_x) - 1, 0), len(share) - 1)])
    frontal = min(reach, 1 - reach) >= MIN_REACH and min(balance, 1 - balance) >= MIN_BALANCE
    return "frontal" if frontal else "half"


def _crop(mask: NDArray[np.bool_], width: int, height: int) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    scale_x, scale_y = width / mask.shape[1], height / mask.shape[0]
    x1, x2 = columns[0] * scale_x, (columns[-1] + 1) * scale_x
    y1, y2 = rows[0] * scale_y, (rows[-1] + 1) * scale_y
    dx, dy = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
    return (
        max(0, int(np.floor(x1 - dx))),
        max(0, int(np.floor(y1 - dy))),
        min(width, int(np.ceil(x2 + dx))),
        min(height, int(np.ceil(y2 + dy))),
    )
