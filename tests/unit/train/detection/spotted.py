"""Write photos with dark spots at known places, annotated as in ACNE04, and a recipe with which a
small network learns them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

RECIPE = """
stage = "detector"
name = "spots"
seed = 3
[model]
arch = "yolox-tiny"
classes = ["acne"]
size = 128
strides = [8, 16]
width = 0.25
head_channels = 32
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
bgr = false
[data]
train = [{ truth = "train" }]
valid = [{ truth = "valid" }]
negatives = ["clear"]
map = { "*" = "acne" }
[augment]
crop = 0.5
on_lesion = 0.7
flip = 0.5
scale = 1.2
colour = 0.3
[schedule]
epochs = 6
evaluate_every = 2
batch = 4
lr = 0.006
warmup = 5
clip = 20.0
ema = 0.8
[run]
device = "cpu"
threads = 1
loader_threads = 0
"""


def write_spotted(folder: Path, photos: int = 40, clear: int = 6, side: int = 128) -> Path:
    """Write `train`, `valid` and `clear` photos and the recipe into `folder`; return the recipe's path."""
    rng = np.random.default_rng(0)
    for part, number in (("train", photos), ("valid", photos // 4), ("clear", clear)):
        (folder / part).mkdir(parents=True)
        for n in range(number):
            pixels = rng.integers(150, 190, (side, side, 3), dtype=np.uint8)
            boxes = [] if part == "clear" else _spots(pixels, rng, 1 + n % 6)
            name = f"levle{n % 4}_{n:03d}"
            cv2.imwrite(str(folder / part / f"{name}.jpg"), pixels)
            if part != "clear":
                (folder / part / f"{name}.xml").write_text(
                    _voc(name, side, boxes), encoding="utf-8"
                )
    recipe = folder / "spots.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    return recipe


def _spots(
    pixels: NDArray[np.uint8], rng: np.random.Generator, number: int
) -> list[tuple[int, int, int, int]]:
    boxes = []
    for x, y in rng.integers(4, pixels.shape[0] - 24, (number, 2)).tolist():
        width, height = rng.integers(10, 20, 2).tolist()
        centre = (x + width // 2, y + height // 2)
        cv2.ellipse(pixels, centre, (width // 2, height // 2), 0, 0, 360, (40, 30, 120), -1)
        boxes.append((x, y, x + width, y + height))
    return boxes


def _voc(name: str, side: int, boxes: list[tuple[int, int, int, int]]) -> str:
    objects = "".join(
        f"<object><name>papules</name><bndbox><xmin>{x1}</xmin><xmax>{x2}</xmax><ymin>{y1}</ymin><ymax>{y2}</ymax></bndbox>"
        "</object>"
        for x1, y1, x2, y2 in boxes
    )
    size = f"<size><width>{side}</width><height>{side}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"
