"""Make synthetic pictures for tests."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """Return a smooth RGB picture, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """Return the file that Pillow makes of it."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()
