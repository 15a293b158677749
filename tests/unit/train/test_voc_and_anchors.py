"""Annotations are read by tag, and the anchors of a pyramid fit the boxes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from skinbatch.errors import UsageError
from skinbatch.models.detectors.anchors import size_iou
from skinbatch.train.anchors import fit_pyramid
from skinbatch.train.voc import read_folder

DATA = Path(__file__).parents[4] / "shared" / "data" / "acne04"


def write(folder: Path, name: str, boxes: str) -> None:
    cv2.imwrite(str(folder / f"{name}.jpg"), np.zeros((48, 64, 3), np.uint8))
    (folder / f"{name}.xml").write_text(
        f"<annotation><size><width>64</width><height>48</height></size>{boxes}</annotation>"
    )


def box(**values: int) -> str:
    inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in values.items())
    return f"<object><name>papules</name><bndbox>{inner}</bndbox></object>"


def test_boxes_are_read_by_tag_whatever_their_order(tmp_path: Path) -> None:
    write(tmp_path, "a", box(xmin=1, xmax=31, ymin=2, ymax=22) + box(ymax=60, ymin=40, xmax=50, xmin=30))
    write(tmp_path, "b", "")
    a, b = read_folder(tmp_path)
    np.testing.assert_array_equal(a.boxes, [[1, 2, 31, 22], [30, 40, 50, 60]])
    assert b.boxes.shape == (0, 4) and b.pixels().shape == (48, 64, 3) and b.long_side == 64


def test_slips_of_the_hand_are_dropped(tmp_path: Path) -> None:
    write(tmp_path, "a", box(xmin=1, xmax=3, ymin=2, ymax=22) + box(xmin=1, xmax=9, ymin=2, ymax=22))
    np.testing.assert_array_equal(read_folder(tmp_path)[0].boxes, [[1, 2, 9, 22]])


def test_a_missing_tag_or_annotation_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a", box(xmin=1, xmax=31, ymin=2))
    with pytest.raises(UsageError, match=r"a\.xml.*<ymax>"):
        read_folder(tmp_path)
    (tmp_path / "a.xml").unlink()
    with pytest.raises(UsageError, match=r"a\.xml"):
        read_folder(tmp_path)
    with pytest.raises(UsageError, match=r"no \.jpg"):
        read_folder(tmp_path / "none")


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data/acne04 is not here")
def test_acne04_has_the_photos_and_boxes_that_its_readme_says() -> None:
    valid = read_folder(DATA / "valid")
    counts = {level: [len(p.boxes) for p in valid if p.path.name.startswith(f"levle{level}")] for level in range(4)}
    assert [len(counts[level]) for level in range(4)] == [106, 118, 37, 22]
    assert all(max(counts[level]) <= most for level, most in enumerate((5, 20, 42, 63)))


def test_fitted_anchors_cover_small_lesions_that_the_usual_ones_miss() -> None:
    rng = np.random.default_rng(0)
    sides = rng.uniform(12, 60, 500)
    sizes = np.stack((sides * rng.uniform(0.9, 1.3, 500), sides), axis=1).astype(np.float32)
    strides = (8, 16, 32)
    fitted = fit_pyramid(sizes, strides)

    def covered(scales: tuple[float, ...], ratios: tuple[float, ...]) -> float:
        anchors = [(t * s / np.sqrt(r), t * s * np.sqrt(r)) for t in strides for s in scales for r in ratios]
        return float(size_iou(sizes.astype(float), np.array(anchors)).max(1).mean())

    assert covered((8.0,), (0.5, 1.0, 2.0)) < 0.45
    assert covered(fitted.scales, fitted.ratios) > 0.75


def test_strides_that_end_before_the_boxes_are_refused() -> None:
    sizes = np.repeat(np.linspace(10, 200, 50, dtype=np.float32)[:, None], 2, axis=1)
    with pytest.raises(UsageError, match="add a stride"):
        fit_pyramid(sizes, (8, 16))
