"""Make the demo's photos: one public-domain portrait in many ways, with planted lesions."""

from __future__ import annotations

import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from skimage import data

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]

# Places in scikit-image's `astronaut` (512 x 512), picked by hand: the middle of the face, the
# nose, and skin without eyes, brows, nostrils, lips and shadows of the hair.
_FACE = (225.0, 122.0)
_NOSE = (225.5, 120.0)
_SKIN = (
    (
        (186, 116),
        (206, 114),
        (209, 123),
        (200, 131),
        (196, 141),
        (202, 154),
        (199, 158),
        (190, 151),
        (185, 136),
    ),
    (
        (244, 117),
        (265, 113),
        (266, 128),
        (263, 143),
        (257, 156),
        (248, 161),
        (245, 153),
        (253, 141),
        (249, 131),
        (243, 125),
    ),
    ((208, 86), (240, 88), (236, 91), (219, 90)),
    ((207, 161), (242, 161), (234, 172), (217, 172)),
    ((221, 104), (229, 104), (230, 116), (221, 116)),
)
# The IoU at which a counted box has found a planted lesion. It is low because the edge of a soft
# spot is a matter of taste.
FOUND_IOU = 0.2


@dataclass(frozen=True, slots=True)
class Planted:
    """Locate one planted lesion.

    image_id: as in the tables. x1 y1 x2 y2: pixels of the displayed photo.
    """

    image_id: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class _View:
    """Describe how one photo shows the portrait.

    matrix: (2, 3), portrait to photo, pixels. scale: photo width / 640.
    """

    width: int
    height: int
    matrix: Points
    scale: float
    light: float


def write_demo_archive(folder: Path, photos: int = 12, seed: int = 0) -> list[Planted]:
    """Write the photos into `folder`, and the planted lesions into `truth.json` beside it.

    The folders are nested and hold JPEG (one with an EXIF orientation), PNG and WebP. Every fourth
    photo is a member of a tar shard, with a `.json` beside it. One more file is cut off. The same
    seed gives the same bytes. Files that already have these bytes are left alone, so that a second
    run finds nothing new to score.

    Returns:
        The planted lesions.
    """
    planted: list[Planted] = []
    members: list[tuple[str, bytes]] = []
    first = b""
    for n in range(photos):
        pixels, boxes = _photo(np.random.default_rng((seed, n)), n)
        name, content = _encode(pixels, n)
        first = first or content
        if n % 4 == 3:
            image_id = f"shards/portraits-000.tar/{name}"
            sidecar = {"subject": "astronaut", "planted": len(boxes)}
            members += [(name, content), (f"{Path(name).stem}.json", json.dumps(sidecar).encode())]
        else:
            image_id = f"visit-{n % 3 + 1}/{n // 6:05d}/{name}"
            _write(folder / image_id, content)
        planted += [Planted(image_id, *(round(float(v), 1) for v in box)) for box in boxes]
    if members:
        _write(folder / "shards/portraits-000.tar", _tar(members))
    _write(folder / "visit-1/cut-off.jpg", first[: len(first) // 3])
    truth = json.dumps([asdict(lesion) for lesion in planted], indent=1)
    _write(folder.parent / "truth.json", truth.encode())
    return planted


def count_found(boxes: pa.Table, planted: Sequence[Planted]) -> tuple[int, int]:
    """Return how many planted lesions were found, and how many there are.

    A lesion is found if a counted box covers it with IoU >= FOUND_IOU. boxes: table `boxes`. A box
    finds at most one lesion; boxes with higher scores choose first.
    """
    planted_boxes: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for lesion in planted:
        planted_boxes[lesion.image_id].append((lesion.x1, lesion.y1, lesion.x2, lesion.y2))
    matched = 0
    for row in boxes.sort_by([("score", "descending")]).to_pylist():
        left = planted_boxes.get(row["image_id"])
        if not row["counted"] or not left:
            continue
        overlaps = [_iou((row["x1"], row["y1"], row["x2"], row["y2"]), lesion) for lesion in left]
        best = int(np.argmax(overlaps))
        if overlaps[best] >= FOUND_IOU:
            matched += 1
            left.pop(best)
    return matched, len(planted)


def _photo(rng: Generator, n: int) -> tuple[Pixels, Points]:
    """Return photo number n and the (N, 4) boxes of its lesions."""
    portrait: Pixels = data.astronaut()
    view = _view(rng, n)
    pixels = cv2.warpAffine(
        portrait,
        view.matrix,
        (view.width, view.height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT,
    ).astype(np.float32)
    # The portrait is small and scaled up several times. Grain of the photo's own size makes it look
    # less like wax.
    grain = cv2.GaussianBlur(
        rng.normal(0, 1, pixels.shape[:2]).astype(np.float32), (0, 0), 0.8 * view.scale
    )
    pixels += grain[:, :, None] * (3 / grain.std())
    lab = cv2.cvtColor(np.clip(pixels / 255, 0, 1), cv2.COLOR_RGB2LAB).astype(np.float32)
    boxes = [
        _paint(lab, centre, diameter, rng)
        for centre, diameter in _places(rng, view, count=(0, 4, 9, 14, 7)[n % 5])
    ]
    lab[:, :, 0] *= view.light
    rgb = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8), np.array(boxes, np.float64).reshape(
        -1, 4
    )


def _view(rng: Generator, n: int) -> _View:
    """Return the view of photo number n: every third is a half face that ends at the nose."""
    width, height = ((640, 640), (768, 960), (1024, 1024), (960, 768))[n % 4]
    half = n % 3 == 2
    flip = -1.0 if n % 2 else 1.0
    seen = rng.uniform(80, 95) if half else rng.uniform(110, 130)
    zoom = min(width, height) / seen
    angle = np.radians(rng.uniform(-4, 4) if half else rng.uniform(-12, 12))
    turn = (
        np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        @ np.diag([flip, 1.0])
        * zoom
    )
    # In a half face, the ridge of the nose lies just inside one edge of the photo.
    anchor, place = (
        (_NOSE, (0.04 if n % 4 == 2 else 0.96, 0.5))
        if half
        else (_FACE, tuple(rng.uniform(0.46, 0.54, 2)))
    )
    shift = np.array(place) * (width, height) - turn @ np.array(anchor)
    return _View(
        width,
        height,
        np.hstack([turn, shift[:, None]]),
        min(width, height) / 640,
        rng.uniform(0.82, 1.08),
    )


def _places(rng: Generator, view: _View, count: int) -> Iterator[tuple[Points, float]]:
    """Yield centres (photo pixels) and diameters of up to `count` lesions on the visible skin.

    No lesion touches another.
    """
    skin = np.zeros((view.height, view.width), np.uint8)
    for corners in _SKIN:
        moved = np.array(corners, np.float64) @ view.matrix[:, :2].T + view.matrix[:, 2]
        cv2.fillPoly(skin, [np.round(moved).astype(np.int32)], 1)
    rim = round(16 * view.scale)
    skin[:rim], skin[-rim:], skin[:, :rim], skin[:, -rim:] = 0, 0, 0, 0
    for _ in range(count):
        rows, columns = np.nonzero(skin)
        if not len(rows):
            return
        pick = rng.integers(len(rows))
        diameter = rng.uniform(15, 28) * view.scale
        centre = np.array([columns[pick], rows[pick]], np.float64)
        cv2.circle(skin, (int(centre[0]), int(centre[1])), round(32 * view.scale), 0, -1)
        yield centre, diameter


def _paint(
    lab: NDArray[np.float32], centre: Points, diameter: float, rng: Generator
) -> tuple[float, ...]:
    """Paint a red, slightly raised spot with an uneven rim and return its box.

    Every fifth spot has a pale head.
    """
    reach = int(np.ceil(diameter))
    x, y = int(centre[0]), int(centre[1])
    h, w = lab.shape[:2]
    top, bottom, left, right = (
        max(0, y - reach),
        min(h, y + reach + 1),
        max(0, x - reach),
        min(w, x + reach + 1),
    )
    rows, columns = np.mgrid[top:bottom, left:right]
    away = np.hypot((columns - x) * rng.uniform(0.9, 1.1), (rows - y) * rng.uniform(0.9, 1.1)) / (
        diameter / 2
    )
    around = np.arctan2(rows - y, columns - x)
    away *= 1 + sum(
        rng.uniform(0, 0.09) * np.cos(k * around + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5)
    )
    spot = 1 / (1 + np.exp((away - 0.85) * 7))
    core = np.exp(-((away / 0.5) ** 2))
    rough = cv2.GaussianBlur(rng.normal(0, 1, spot.shape).astype(np.float32), (0, 0), diameter / 14)
    lit = np.exp(
        -(
            (
                np.hypot(columns - x + 0.16 * diameter, rows - y + 0.18 * diameter)
                / (0.14 * diameter)
            )
            ** 2
        )
    )
    patch = lab[top:bottom, left:right]
    strength = rng.uniform(0.8, 1.2)
    patch[:, :, 0] += strength * (-9 * spot - 9 * core + 9 * lit) + spot * rough * (
        1.5 / rough.std()
    )
    patch[:, :, 1] += strength * (13 * spot + 7 * core - 5 * lit)
    patch[:, :, 2] += strength * (3 * spot + 2 * core)
    if rng.random() < 1 / 5:
        head = np.exp(-((away / 0.32) ** 4))
        patch[:, :, 0] += head * 16
        patch[:, :, 1] -= head * 11
        patch[:, :, 2] += head * 5
    return (x - diameter / 2, y - diameter / 2, x + diameter / 2, y + diameter / 2)


def _encode(pixels: Pixels, n: int) -> tuple[str, bytes]:
    """Return file name and bytes: JPEG, PNG and WebP in turn.

    The second JPEG is stored rotated, with an EXIF orientation.
    """
    kind, suffix = (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"))[n % 3]
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    if n == 6:
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = 6
    sink = io.BytesIO()
    image.save(sink, kind, quality=92, compress_level=3, exif=exif.tobytes())
    return f"portrait-{n:03d}.{suffix}", sink.getvalue()


def _tar(members: Sequence[tuple[str, bytes]]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def _write(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
