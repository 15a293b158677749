"""Boxes are read from the three common forms alike, and what is no box is left out by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinbatch.errors import UsageError
from skinbatch.train.annotated_boxes import BoxedPhoto, network_sizes, read_boxes

BOXES = [[10.0, 20.0, 40.0, 60.0], [100.0, 10.0, 180.0, 90.0]]


def photo(path: Path, width: int = 200, height: int = 100, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height)).save(path, exif=exif.tobytes())


def voc(path: Path, boxes: list[list[float]], width: int = 200, height: int = 100) -> None:
    objects = "".join(
        f"<object><bndbox><xmin>{x1}</xmin><xmax>{x2}</xmax><ymin>{y1}</ymin><ymax>{y2}</ymax></bndbox></object>"
        for x1, y1, x2, y2 in boxes
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>")


def coco(path: Path, **changes: object) -> None:
    data = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 200, "height": 100}],
        "annotations": [{"image_id": 7, "bbox": [x1, y1, x2 - x1, y2 - y1]} for x1, y1, x2, y2 in BOXES],
    }
    path.write_text(json.dumps(data | changes))


def yolo(path: Path) -> None:
    lines = [f"0 {(a + c) / 400} {(b + d) / 200} {(c - a) / 200} {(d - b) / 100}" for a, b, c, d in BOXES]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n\n")


def same(found: list[BoxedPhoto]) -> None:
    (only,) = found
    assert (only.width, only.height) == (200, 100)
    np.testing.assert_allclose(only.xyxy, BOXES)


def test_pascal_voc_coco_and_yolo_say_the_same(tmp_path: Path) -> None:
    voc(tmp_path / "voc" / "a.xml", BOXES)
    same(read_boxes(tmp_path / "voc"))
    coco(tmp_path / "truth.json")
    same(read_boxes(tmp_path / "truth.json"))
    photo(tmp_path / "yolo" / "images" / "a.jpg")
    yolo(tmp_path / "yolo" / "labels" / "a.txt")
    (tmp_path / "yolo" / "classes.txt").write_text("acne\n")
    same(read_boxes(tmp_path / "yolo"))
    photo(tmp_path / "beside" / "a.JPG")
    yolo(tmp_path / "beside" / "a.txt")
    same(read_boxes(tmp_path / "beside"))


def test_a_size_that_is_not_written_down_is_read_from_the_photo_as_displayed(tmp_path: Path) -> None:
    voc(tmp_path / "voc" / "a.xml", BOXES, width=0, height=0)
    photo(tmp_path / "voc" / "a.jpg", width=100, height=200, orientation=6)
    same(read_boxes(tmp_path / "voc"))
    coco(tmp_path / "truth.json", images=[{"id": 7, "file_name": "voc/a.jpg"}])
    same(read_boxes(tmp_path / "truth.json"))


def test_polygons_of_yolo_are_boxes_around_them(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.1 0.2 0.5 0.1 0.3 0.9\n")
    np.testing.assert_allclose(read_boxes(tmp_path)[0].xyxy, [[20, 10, 100, 90]])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.xml", "<annotation><size>", r"a\.xml"),
        ("a.xml", "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>", r"a\.xml.*<ymin>"),
        ("a.txt", "0 0.5 0.5 0.1\n", r"a\.txt: line 1"),
        ("a.txt", "0 0.5 0.5 0.1 wide\n", r"a\.txt: line 1"),
        ("b.txt", "notes", r"no annotations; looked for"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    photo(tmp_path / "a.jpg")
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=says):
        read_boxes(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"images": [], "annotations": [{"bbox": [1, 2]}]}', "not json"])
def test_another_json_is_not_coco(tmp_path: Path, content: str) -> None:
    (tmp_path / "truth.json").write_text(content)
    with pytest.raises(UsageError, match=r"truth\.json: not COCO"):
        read_boxes(tmp_path / "truth.json")


def test_a_path_that_is_not_there_and_a_file_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        read_boxes(tmp_path / "nowhere")
    photo(tmp_path / "a.jpg")
    with pytest.raises(UsageError, match="COCO"):
        read_boxes(tmp_path / "a.jpg")


def boxed(*boxes: tuple[float, float, float, float], width: float = 1280, height: float = 640) -> BoxedPhoto:
    return BoxedPhoto("a.xml", width, height, np.array(boxes, float).reshape(-1, 4))


def test_sizes_are_those_that_the_network_sees() -> None:
    large = boxed((0, 0, 100, 50))
    small = boxed((0, 0, 100, 50), width=160, height=320)
    np.testing.assert_allclose(network_sizes([large, small], 640, 1.0).wh, [[50, 25], [100, 50]])
    np.testing.assert_allclose(network_sizes([large, small], 640, 4.0).wh, [[50, 25], [200, 100]])


def test_what_is_no_box_is_counted_by_reason_and_left_out() -> None:
    found = network_sizes(
        [boxed((50, 10, 20, 40), (5, 5, 5, 9), (1280, 0, 1300, 9), (0, -9, 8, 0), (0, 0, np.nan, 4), (0, 0, 64, 64))],
        640,
        1.0,
    )
    assert {reason: len(names) for reason, names in found.left_out.items()} == {
        "reversed": 1,
        "empty": 1,
        "outside the photo": 2,
        "not a number": 1,
    }
    assert found.left_out["reversed"] == ("a.xml",)
    np.testing.assert_allclose(found.wh, [[32, 32]])


def test_a_box_over_the_edge_counts_with_what_is_in_the_photo() -> None:
    np.testing.assert_allclose(network_sizes([boxed((1200, -20, 1360, 80))], 1280, 1.0).wh, [[80, 80]])
