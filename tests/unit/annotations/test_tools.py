"""Test exports of Label Studio, CVAT and LabelMe, laid out as these tools write them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skinbatch.annotations.annotated_photos import (
    EMBEDDED,
    OCCLUDED,
    OUTLINES,
    ROTATED,
    AnnotatedPhoto,
)
from skinbatch.annotations.read import read_truth
from skinbatch.errors import UsageError
from skinbatch.export.export import WRITERS, ExportRequest, export
from tests.unit.annotations.support import coco, photo, the_only, voc, write

SIZE = {"original_width": 200, "original_height": 100, "image_rotation": 0}


def boxes(found: AnnotatedPhoto) -> list[list[float]]:
    assert found.boxes is not None
    return np.asarray(found.boxes).round(3).tolist()


# Label Studio


def region(kind: str, label: str = "papule", **value: Any) -> dict[str, Any]:
    """Return a result as Label Studio writes it; `rotation` only where the tool has it."""
    return {
        **SIZE,
        "value": {**value, kind: [label]},
        "id": "Dx_aB91ISN",
        "from_name": "label",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
    }


RECTANGLE = region("rectanglelabels", x=5.0, y=20.0, width=15.0, height=40.0, rotation=0)


def task(image: str, *results: dict[str, Any], number: int = 1, **changes: Any) -> dict[str, Any]:
    annotation = {
        "id": 1000 + number,
        "completed_by": 1,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-11-01T09:00:00.000000Z",
        "lead_time": 4.2,
        "task": number,
    }
    return {
        "id": number,
        "annotations": [annotation],
        "file_upload": "8c2f1a30-a.jpg",
        "drafts": [],
        "predictions": [{"model_version": "v1", "result": [RECTANGLE], "score": 0.5}],
        "data": {"image": image},
        "meta": {},
        "project": 3,
    } | changes


def studio(path: Path, *tasks: dict[str, Any]) -> Path:
    return write(path, json.dumps(list(tasks)))


@pytest.mark.parametrize(
    ("image", "file", "name"),
    [
        ("/data/upload/3/8c2f1a30-a.jpg", "a.jpg", "a.jpg"),
        ("/data/upload/3/8c2f1a30-a.jpg", "images/8c2f1a30-a.jpg", "8c2f1a30-a.jpg"),
        ("/data/upload/3/8c2f1a30-a.jpg", "upload/3/8c2f1a30-a.jpg", "upload/3/8c2f1a30-a.jpg"),
        ("/data/local-files/?d=faces/my%20set/a.jpg", "my set/a.jpg", "my set/a.jpg"),
        ("/data/local-files/?d=faces\\a.jpg", "a.jpg", "a.jpg"),
        ("s3://bucket/faces/a.jpg", "faces/a.jpg", "faces/a.jpg"),
        ("https://example.com/x/a%20b.jpg?X-Amz-Signature=1", "a b.jpg", "a b.jpg"),
        ("file:///home/ann/a.jpg", "a.jpg", "a.jpg"),
        ("a.jpg", "images/a.jpg", "a.jpg"),
    ],
)
def test_label_studio_finds_the_photos_of_every_kind_of_address(
    tmp_path: Path, image: str, file: str, name: str
) -> None:
    place = photo(tmp_path / file)
    studio(tmp_path / "project-3.json", task(image, RECTANGLE))
    truth = read_truth(tmp_path)
    assert truth.format == "label-studio"
    found = the_only(truth)
    assert (found.name, found.path, found.labels) == (name, place, ("papule",))
    assert (found.width, found.height) == (200, 100)
    assert boxes(found) == [[10, 20, 40, 60]]


def test_photos_of_label_studio_that_are_elsewhere_keep_the_names_that_rows_have(
    tmp_path: Path,
) -> None:
    studio(
        tmp_path / "t.json",
        task("s3://bucket/faces/a.jpg", RECTANGLE),
        task("/data/upload/3/8c2f1a30-b.jpg", RECTANGLE, number=2),
    )
    found = read_truth(tmp_path / "t.json").photos
    assert [(one.name, one.written, one.path) for one in found] == [
        ("b.jpg", "8c2f1a30-b.jpg", None),
        ("faces/a.jpg", "s3://bucket/faces/a.jpg", None),
    ]
    place = photo(tmp_path / "far/b.jpg")
    assert read_truth(tmp_path / "t.json", photos=tmp_path / "far").photos[0].path == place


def test_shapes_of_label_studio_are_the_boxes_around_them(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    # A square of 20 px, turned by 90 degrees about its upper left corner, lies left of it.
    turned = region(
        "rectanglelabels", "pustule", x=50.0, y=50.0, width=10.0, height=20.0, rotation=90
    )
    polygon = region("polygonlabels", points=[[5, 10], [10, 10], [7.5, 30]], closed=True)
    ellipse = region("ellipselabels", x=50.0, y=50.0, radiusX=5.0, radiusY=20.0, rotation=0)
    studio(tmp_path / "t.json", task("a.jpg", turned, polygon, ellipse))
    found = the_only(read_truth(tmp_path))
    assert boxes(found) == [[80, 50, 100, 70], [10, 10, 20, 30], [90, 30, 110, 70]]
    assert found.labels == ("pustule", "papule", "papule")
    assert found.not_kept == {ROTATED: 1, OUTLINES: 2}


def test_a_rectangle_and_its_label_may_be_two_results(tmp_path: Path) -> None:
    """Use two controls, <Rectangle> and <Labels>."""
    shape = {"x": 5.0, "y": 20.0, "width": 15.0, "height": 40.0, "rotation": 0}
    plain = {**SIZE, "id": "r1", "type": "rectangle", "value": shape, "from_name": "bbox"}
    named = {
        **SIZE,
        "id": "r1",
        "type": "labels",
        "value": {**shape, "labels": ["papule"]},
        "from_name": "label",
    }
    text = {
        **SIZE,
        "id": "r1",
        "type": "textarea",
        "value": {**shape, "text": ["red"]},
        "from_name": "note",
    }
    about = {
        **SIZE,
        "id": "r1",
        "type": "choices",
        "value": {**shape, "choices": ["sure"]},
        "from_name": "sure",
    }
    studio(tmp_path / "t.json", task("a.jpg", plain, named, text, about))
    found = the_only(read_truth(tmp_path))
    assert (boxes(found), found.labels, found.classes) == ([[10, 20, 40, 60]], ("papule",), None)


def test_choices_of_label_studio_are_classes_and_unannotated_tasks_say_nothing(
    tmp_path: Path,
) -> None:
    choice = {
        "type": "choices",
        "value": {"choices": ["rosacea", "eczema"]},
        "id": "x",
        "from_name": "c",
    }
    skipped = task("c.jpg", choice, number=3)
    skipped["annotations"][0]["was_cancelled"] = True
    studio(
        tmp_path / "t.json",
        task("a.jpg", choice),
        task("b.jpg", number=2),
        skipped,
        task("d.jpg", number=4, annotations=[]),
    )
    found = {one.name: (one.classes, one.boxes) for one in read_truth(tmp_path / "t.json").photos}
    assert found == {
        "a.jpg": (("rosacea", "eczema"), None),
        "b.jpg": ((), None),
        "c.jpg": (None, None),
        "d.jpg": (None, None),
    }


def test_a_photo_without_boxes_was_looked_at_if_it_was_submitted(tmp_path: Path) -> None:
    studio(
        tmp_path / "t.json",
        task("a.jpg", RECTANGLE),
        task("b.jpg", number=2),
        task("c.jpg", number=3, annotations=[]),
    )
    found = {
        one.name: None if one.boxes is None else len(one.boxes)
        for one in read_truth(tmp_path / "t.json").photos
    }
    assert found == {"a.jpg": 1, "b.jpg": 0, "c.jpg": None}


def test_the_ground_truth_counts_among_several_annotations(tmp_path: Path) -> None:
    one = task("a.jpg", RECTANGLE)
    other = {**one["annotations"][0], "id": 7, "result": [], "ground_truth": True}
    studio(tmp_path / "t.json", one | {"annotations": [*one["annotations"], other]})
    assert boxes(the_only(read_truth(tmp_path / "t.json"))) == []
    studio(
        tmp_path / "t.json",
        one | {"annotations": [*one["annotations"], other | {"ground_truth": False}]},
    )
    with pytest.raises(
        UsageError,
        match=r"t\.json: task 1: has 2 annotations \(1001, 7\); mark one of them as ground",
    ):
        read_truth(tmp_path / "t.json")


def test_json_min_is_read(tmp_path: Path) -> None:
    shape = {
        "x": 5.0,
        "y": 20.0,
        "width": 15.0,
        "height": 40.0,
        "rotation": 0,
        "rectanglelabels": ["papule"],
    }
    record = {
        "image": "/data/upload/3/8c2f1a30-a.jpg",
        "patient": "p1",
        "id": 1,
        "label": [{**shape, "original_width": 200, "original_height": 100}],
        "diagnosis": "rosacea",
        "annotator": 1,
        "annotation_id": 1,
        "created_at": "2026-11-01T09:00:00.000000Z",
        "updated_at": "2026-11-01T09:00:00.000000Z",
        "lead_time": 4.2,
    }
    several = {"choices": ["rosacea", "eczema"]}
    other = record | {
        "image": "/data/upload/3/8c2f1a30-b.jpg",
        "id": 2,
        "label": [],
        "diagnosis": several,
    }
    studio(tmp_path / "t.json", record, other)
    one, two = read_truth(tmp_path / "t.json").photos
    assert (one.name, boxes(one), one.labels, one.classes) == (
        "a.jpg",
        [[10, 20, 40, 60]],
        ("papule",),
        ("rosacea",),
    )
    assert (two.name, boxes(two), two.classes) == ("b.jpg", [], ("rosacea", "eczema"))


def test_annotations_of_a_storage_are_a_file_each(tmp_path: Path) -> None:
    whole = task("a.jpg", RECTANGLE)
    alone = {**whole["annotations"][0], "task": {"id": 1, "data": whole["data"]}}
    write(tmp_path / "storage/1.json", json.dumps(alone))
    write(
        tmp_path / "storage/2.json",
        json.dumps(alone | {"task": {"id": 2, "data": {"image": "b.jpg"}}}),
    )
    for n, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        photo(tmp_path / "storage" / name, seed=n)
    found = {one.name: one.labels for one in read_truth(tmp_path / "storage").photos}
    assert found == {"a.jpg": ("papule",), "b.jpg": ("papule",), "c.jpg": None}


BRUSH = {
    **SIZE,
    "type": "brushlabels",
    "id": "b",
    "value": {"format": "rle", "rle": [0, 1], "brushlabels": ["acne"]},
}
POINT = region("keypointlabels", x=5.0, y=5.0, width=0.4)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (task("a.jpg", BRUSH), "task 1: has a region of type 'brushlabels', which is not a box"),
        (task("a.jpg", POINT), "task 1: has a region of type 'keypointlabels', which is not a box"),
        (task("a.jpg", RECTANGLE | {"image_rotation": 90}), "was rotated in Label Studio"),
        (task("a.jpg", region("rectanglelabels", x=1, y=1, width="wide", height=3)), "not in per cent"),
        (task("a.jpg", RECTANGLE | {"original_width": None}), "of unknown size; name the folder"),
        (task("a.jpg", RECTANGLE, {**RECTANGLE, "original_width": 400}), "give different sizes"),
        (task("a.jpg", RECTANGLE, data={"one": "a.jpg", "two": "b.jpg"}), "several fields name a photo: one, two"),
        (task("a.jpg", RECTANGLE, data={"text": "red"}), "no field names a photo: text"),
        (task("a.jpg", {**RECTANGLE, "value": {**RECTANGLE["value"], "rectanglelabels": ["a", "b"]}}), r"several labels \(a, b"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_of_label_studio_is_named(
    tmp_path: Path, entry: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=rf"t\.json: task 1: .*{says.removeprefix('task 1: ')}"):
        read_truth(studio(tmp_path / "t.json", entry))


# CVAT

META = (
    "<meta><task><id>7</id><name>faces</name><size>2</size><mode>annotation</mode><labels>"
    "<label><name>papule</name><color>#ff0000</color><type>any</type><attributes></attributes></label>"
    "<label><name>pustule</name><type>any</type><attributes></attributes></label></labels></task>"
    "<dumped>2026-11-01 09:00:00.000000+00:00</dumped></meta>"
)
BOX = (
    '<box label="papule" source="manual" occluded="0" xtl="10.00" ytl="20.00" xbr="40.00" ybr="60.00" z_order="0">'
    '<attribute name="sure">yes</attribute></box>'
)


def cvat(path: Path, *shapes: str, name: str = "a.jpg", subset: str = "", more: str = "") -> Path:
    said = f' subset="{subset}" task_id="7"' if subset else ""
    image = f'<image id="0" name="{name}"{said} width="200" height="100">{"".join(shapes)}</image>'
    return write(
        path,
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{META}{image}{more}</annotations>',
    )


EMPTY = '<image id="1" name="b.jpg" width="200" height="100"></image>'


def test_cvat_for_images_is_read_from_its_export(tmp_path: Path) -> None:
    place = photo(tmp_path / "images/a.jpg")
    photo(tmp_path / "images/b.jpg", seed=1)
    file = cvat(tmp_path / "annotations.xml", BOX, more=EMPTY)
    for said in (tmp_path, file):
        truth = read_truth(said)
        assert (truth.format, truth.root, truth.class_names) == (
            "cvat",
            tmp_path / "images",
            ("papule", "pustule"),
        )
        one, two = truth.photos
        assert (one.name, one.path, one.width, one.height, one.labels) == (
            "a.jpg",
            place,
            200,
            100,
            ("papule",),
        )
        assert (boxes(one), boxes(two), one.classes) == ([[10, 20, 40, 60]], [], None)


def test_shapes_of_cvat_are_the_boxes_around_them(tmp_path: Path) -> None:
    common = 'label="pustule" source="manual" z_order="0"'
    cvat(
        tmp_path / "annotations.xml",
        f'<box {common} occluded="1" xtl="90" ytl="45" xbr="110" ybr="55" rotation="90.00"></box>',
        f'<polygon {common} occluded="0" points="10.00,10.00;20.00,10.00;15.00,30.00"></polygon>',
        f'<ellipse {common} occluded="0" cx="100" cy="50" rx="10" ry="20" rotation="90.00"></ellipse>',
        f'<mask {common} occluded="0" rle="0, 4" left="5" top="6" width="2" height="2"></mask>',
        f'<box {common} occluded="0" xtl="40" ytl="60" xbr="10" ybr="20"></box>',
    )
    found = the_only(read_truth(tmp_path))
    assert boxes(found) == [
        [95, 40, 105, 60],
        [10, 10, 20, 30],
        [80, 40, 120, 60],
        [5, 6, 7, 8],
        [10, 20, 40, 60],
    ]
    assert found.not_kept == {ROTATED: 1, OCCLUDED: 1, OUTLINES: 3}
    assert found.swapped == {4}


def test_tags_of_cvat_are_classes(tmp_path: Path) -> None:
    tag = '<tag label="rosacea" source="manual"></tag>'
    file = cvat(tmp_path / "annotations.xml", tag, more=EMPTY)
    assert [(one.classes, one.boxes) for one in read_truth(file).photos] == [
        (("rosacea",), None),
        ((), None),
    ]
    file = cvat(tmp_path / "annotations.xml", tag, BOX)
    assert (the_only(read_truth(file)).classes, the_only(read_truth(file)).labels) == (
        ("rosacea",),
        ("papule",),
    )


def test_a_project_of_cvat_has_a_folder_for_each_subset(tmp_path: Path) -> None:
    train, valid = (
        photo(tmp_path / "images/Train/a.jpg", seed=1),
        photo(tmp_path / "images/Validation/a.jpg", seed=2),
    )
    other = '<image id="1" name="a.jpg" subset="Validation" task_id="8" width="200" height="100"></image>'
    cvat(tmp_path / "annotations.xml", BOX, subset="Train", more=other)
    found = read_truth(tmp_path).photos
    assert [(one.name, one.path) for one in found] == [
        ("Train/a.jpg", train),
        ("Validation/a.jpg", valid),
    ]


@pytest.mark.parametrize(
    ("shapes", "more", "says"),
    [
        ((), '<track id="0" label="papule"><box frame="0" outside="0" xtl="1" ytl="1" xbr="2" ybr="2"/></track>',
         "is CVAT for video.*export it as `CVAT for images 1.1`"),
        (('<points label="papule" points="1.0,2.0"></points>',), "", r"a\.jpg: has <points>, which is not a box"),
        (('<polyline label="papule" points="1.0,2.0;3,4"></polyline>',), "", r"a\.jpg: has <polyline>"),
        (('<box label="papule" xtl="wide" ytl="1" xbr="2" ybr="2"></box>',), "", r"a\.jpg: <box>: `xtl` is 'wide'"),
        (('<polygon label="papule" points="1;2"></polygon>',), "", r"a\.jpg: <polygon>: `points` has '1'"),
        ((), '<image id="3" width="1" height="1"/>', "image 3 has no `name`"),
        ((), "<image", "not a readable CVAT annotation"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_of_cvat_is_named(
    tmp_path: Path, shapes: tuple[str, ...], more: str, says: str
) -> None:
    file = cvat(tmp_path / "annotations.xml", *shapes, more=more)
    with pytest.raises(UsageError, match=rf"annotations\.xml: .*{says}"):
        read_truth(file)


# LabelMe


def shape(kind: str, points: list[list[Any]], label: str = "papule", **more: Any) -> dict[str, Any]:
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
    } | more


def labelme(path: Path, *shapes: dict[str, Any], image: str = "a.jpg", **more: Any) -> Path:
    data: dict[str, Any] = {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": image,
        "imageData": None,
        "imageHeight": 100,
        "imageWidth": 200,
    }
    return write(path, json.dumps(data | more, indent=2))


CORNERS = shape("rectangle", [[40.0, 60.0], [10.0, 20.0]])


def test_labelme_is_read_beside_its_photos(tmp_path: Path) -> None:
    place, _ = photo(tmp_path / "s/a.jpg"), photo(tmp_path / "s/b.jpg", seed=1)
    labelme(tmp_path / "s/a.json", CORNERS)
    truth = read_truth(tmp_path)
    assert (truth.format, truth.root, truth.class_names) == ("labelme", tmp_path, ("papule",))
    one, two = truth.photos
    assert (one.name, one.path, one.width, one.labels) == ("s/a.jpg", place, 200, ("papule",))
    assert (boxes(one), two.boxes, one.classes) == ([[10, 20, 40, 60]], None, None)
    # In LabelMe, annotators may draw any corner first; it is not a mistake.
    assert one.swapped == frozenset()
    assert boxes(the_only(read_truth(tmp_path / "s/a.json"))) == [[10, 20, 40, 60]]


@pytest.mark.parametrize("image", ["../img/a.jpg", "..\\img\\a.jpg"])
def test_labelme_finds_its_photos_in_another_folder(tmp_path: Path, image: str) -> None:
    place = photo(tmp_path / "img/a.jpg")
    labelme(tmp_path / "ann/a.json", CORNERS, image=image)
    truth = read_truth(tmp_path / "ann")
    assert (truth.root, the_only(truth).name, the_only(truth).path) == (
        tmp_path / "img",
        "a.jpg",
        place,
    )
    assert the_only(read_truth(tmp_path)).name == "img/a.jpg"

    labelme(tmp_path / "far/a.json", CORNERS, image="C:\\photos\\a.jpg")
    assert the_only(read_truth(tmp_path / "far", photos=tmp_path / "img")).path == place


def test_a_photo_that_was_renamed_is_found_by_the_name_of_its_labelme_file(tmp_path: Path) -> None:
    place = photo(tmp_path / "a.png")
    labelme(tmp_path / "a.json", CORNERS, image="IMG_0748.jpg")
    assert the_only(read_truth(tmp_path)).path == place


def test_shapes_of_labelme_are_the_boxes_around_them(tmp_path: Path) -> None:
    labelme(
        tmp_path / "a.json",
        shape("polygon", [[10, 10], [20, 10], [15, 30]]),
        shape("circle", [[100, 50], [103, 54]]),
        shape("mask", [[5, 6], [6, 7]], mask="iVBORw0KGgo="),
        shape("rotation", [[10, 20], [12, 18], [14, 20], [12, 22]], direction=0.78),
        shape("polygon", [[0, 0], [1, 0], [1, 1]], group_id=3),
        shape("polygon", [[5, 5], [6, 5], [6, 9]], group_id=3),
        flags={"rosacea": True, "eczema": False},
    )
    found = the_only(read_truth(tmp_path))
    assert boxes(found) == [
        [10, 10, 20, 30],
        [95, 45, 105, 55],
        [5, 6, 7, 8],
        [10, 18, 14, 22],
        [0, 0, 6, 9],
    ]
    assert found.not_kept == {OUTLINES: 5, ROTATED: 1}
    assert found.classes == ("rosacea",)


def test_pixels_within_a_labelme_file_are_told_where_the_photo_is_gone(tmp_path: Path) -> None:
    place = photo(tmp_path / "a.jpg")
    pixels = base64.b64encode(place.read_bytes()).decode()
    labelme(tmp_path / "a.json", CORNERS, imageData=pixels, imageWidth=None)
    assert the_only(read_truth(tmp_path)).not_kept == {}
    place.unlink()
    found = the_only(read_truth(tmp_path))
    assert (found.path, found.width, found.height, found.not_kept) == (
        None,
        200,
        100,
        {EMBEDDED: 1},
    )


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ((shape("point", [[1, 2]]),), "shape 1: is a point, which is not a box"),
        ((CORNERS, shape("linestrip", [[1, 2], [3, 4]])), "shape 2: is a linestrip"),
        ((shape("rectangle", [[1, 2]]),), "shape 1: is a rectangle, which is not a box"),
        ((shape("polygon", [["a", 2]]),), "shape 1: `points` is not a list"),
        ((shape("polygon", []),), "shape 1: has no points"),
    ],
)
def test_what_cannot_be_read_of_labelme_is_named(
    tmp_path: Path, said: tuple[dict[str, Any], ...], says: str
) -> None:
    with pytest.raises(UsageError, match=rf"a\.json: {says}"):
        read_truth(labelme(tmp_path / "a.json", *said))


# Among others


def test_tools_are_told_apart_by_content(tmp_path: Path) -> None:
    written = {
        "label-studio": studio(tmp_path / "ls/x.json", task("a.jpg", RECTANGLE)),
        "labelme": labelme(tmp_path / "lm/x.json", CORNERS),
        "coco": coco(tmp_path / "coco/x.json"),
        "cvat": cvat(tmp_path / "cvat/x.xml", BOX),
        "voc": voc(tmp_path / "voc/x.xml"),
    }
    for form, file in written.items():
        assert (read_truth(file).format, read_truth(file.parent).format) == (form, form)


def test_two_tools_in_one_folder_have_to_be_told_apart(tmp_path: Path) -> None:
    studio(tmp_path / "project.json", task("a.jpg", RECTANGLE))
    cvat(tmp_path / "annotations.xml", BOX)
    with pytest.raises(
        UsageError, match=r"Label Studio .* and CVAT .*format = 'label-studio' or 'cvat'"
    ):
        read_truth(tmp_path)
    assert read_truth(tmp_path, "cvat").format == "cvat"


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("tool", ["label-studio", "cvat", "labelme"])
def test_what_these_tools_wrote_is_exported_and_reads_back(
    tmp_path: Path, tool: str, form: str
) -> None:
    photo(tmp_path / "in/a.jpg")
    if tool == "label-studio":
        studio(tmp_path / "in/x.json", task("/data/upload/1/0123abcd-a.jpg", RECTANGLE))
    elif tool == "cvat":
        cvat(tmp_path / "in/x.xml", BOX)
    else:
        labelme(tmp_path / "in/a.json", CORNERS)
    export(str(tmp_path / "in"), str(tmp_path / "out"), ExportRequest(form))
    again = the_only(read_truth(tmp_path / "out"))
    assert (again.name, again.labels, boxes(again)) == ("a.jpg", ("papule",), [[10, 20, 40, 60]])
