"""Test that exported boxes are read back the same, to the last bit, through any format."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skinbatch.annotations.annotated_photos import AnnotatedPhoto, Truth
from skinbatch.annotations.read import read_truth
from skinbatch.errors import UsageError
from skinbatch.export import export as exporting
from skinbatch.export.annotated import AnnotatedBoxes
from skinbatch.export.boxed import ExportedPhoto
from skinbatch.export.export import WRITERS, ExportRequest, export
from skinbatch.export.files import Files
from skinbatch.storage.local import LocalStore
from skinbatch.tables.names import composed
from tests.unit.annotations.support import coco, photo, voc, yolo

FORMATS = tuple(WRITERS)
# Label Studio has the width of a box instead of its right edge. Of boxes that reach far to the left of the photo, digits
# are lost, as numbers in JSON are doubles.
OFF = {"label-studio": 1e-9}
WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=12)
LABEL = WORDS.map(composed).map(str.strip).filter(lambda text: bool(text) and text.isprintable())
NAME = st.lists(
    WORDS.filter(lambda text: "/" not in text and text not in (".", "..")), min_size=1, max_size=3
).map("/".join)
EDGE = st.floats(-20, 9000, width=32) | st.sampled_from([0.0, 1e-7, 3e-30, 640.0, 0.1])
# Empty boxes are among them.
BOX = st.tuples(EDGE, EDGE, EDGE, EDGE).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)


@st.composite
def photos(draw: st.DrawFn, crowds: bool = False) -> tuple[ExportedPhoto, ...]:
    names = draw(
        st.lists(
            st.builds("{}{}".format, NAME, st.sampled_from([".jpg", ".PNG", ""])),
            min_size=1,
            max_size=5,
            unique=True,
        )
    )
    labels = draw(st.lists(LABEL, min_size=1, max_size=4, unique=True))
    made = []
    for name in names:
        boxes = draw(st.lists(BOX, max_size=4))
        chosen = draw(st.lists(st.sampled_from(labels), min_size=len(boxes), max_size=len(boxes)))
        size = draw(st.integers(1, 8000)), draw(st.integers(1, 8000))
        regions = draw(st.lists(BOX, max_size=3)) if crowds else []
        made.append(
            ExportedPhoto(
                name,
                *size,
                np.array(boxes, np.float32).reshape(-1, 4),
                tuple(chosen),
                crowd_boxes=np.array(regions, np.float32) if regions else None,
                crowd_labels=tuple(draw(st.sampled_from(labels)) for _ in regions),
            )
        )
    return tuple(made)


def written(
    folder: Path, form: str, made: tuple[ExportedPhoto, ...], class_names: tuple[str, ...] = ()
) -> Truth:
    files = Files(LocalStore(folder))
    writer = WRITERS[form](files, class_names)
    for one in made:
        writer.add(one)
    writer.close()
    return read_truth(folder)


def same(truth: Truth, made: tuple[ExportedPhoto, ...], off: float = 0.0) -> None:
    """Check that the boxes read back are those that were exported. off: pixels by which they may differ."""
    found = {p.name: p for p in truth.photos}
    assert sorted(found) == sorted(one.name for one in made)
    for one in made:
        back = found[one.name]
        assert (back.width, back.height, back.labels) == (one.width, one.height, one.labels)
        assert back.boxes is not None
        np.testing.assert_allclose(back.boxes, one.boxes, rtol=0, atol=off)


@pytest.mark.parametrize("form", FORMATS)
@given(made=photos())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_names_sizes_labels_and_boxes_come_back_as_they_were(
    form: str, made: tuple[ExportedPhoto, ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        truth = written(Path(folder, "out"), form, made)
        assert truth.format == form
        same(truth, made, OFF.get(form, 0.0))


@given(made=photos(), way=st.permutations(FORMATS))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_way_through_all_formats_loses_nothing(
    made: tuple[ExportedPhoto, ...], way: tuple[str, ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "first")
        written(source, way[0], made)
        for form in (*way[1:], way[0]):
            out = Path(folder, f"{source.name}-{form}")
            export(str(source), str(out), ExportRequest(form))
            source = out
        same(read_truth(source), made, max(OFF.values()))


@pytest.mark.parametrize("form", FORMATS)
def test_edges_of_a_detector_come_back_to_the_last_bit(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(0)
    made = []
    for n, size in enumerate(((640, 480), (1024, 1024), (4032, 3024))):
        boxes = rng.uniform(0, 1, (500, 4)).astype(np.float32) * np.float32(size[0])
        boxes[:100, 0], boxes[100:200, 2], boxes[200:210, 1] = 0, size[0], np.float32(1e-7)
        boxes = np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        made.append(ExportedPhoto(f"{n}.jpg", *size, boxes, ("acne",) * 500))
    same(written(tmp_path / "out", form, tuple(made)), tuple(made))


@pytest.mark.parametrize("form", FORMATS)
def test_names_that_no_file_can_have_come_back(tmp_path: Path, form: str) -> None:
    names = [
        "s3://bucket/a b.jpg",
        "sub/a.png",
        "sub/A.jpg",
        "sub/a.jpg",
        "../up.jpg",
        "tab\there.jpg",
        "x.tar/m.png#2",
    ]
    names += [
        "/abs/é<&>.jpg",
        "f.parquet/12",
        "n" * 300 + ".jpg",
        "%41.jpg",
        "caf\udce9.jpg",
        "a,b;c\"d'.jpg",
        ".tmp-1.jpg",
    ]
    made = tuple(
        ExportedPhoto(name, 9, 8, np.array([[1, 2, 3, n]], np.float32), ("x",))
        for n, name in enumerate(names, 2)
    )
    same(written(tmp_path / "out", form, made), made)


@pytest.mark.parametrize("form", FORMATS)
def test_the_order_of_classes_is_kept_and_every_photo_has_an_entry(
    tmp_path: Path, form: str
) -> None:
    made = (
        ExportedPhoto("a.jpg", 10, 10, np.zeros((0, 4), np.float32), ()),
        ExportedPhoto("b.jpg", 10, 10, np.array([[1, 2, 3, 4]], np.float32), ("pustule",)),
    )
    truth = written(tmp_path / "out", form, made, ("pustule", "none", "no", "1"))
    same(truth, made)
    assert truth.class_names == (
        ("pustule",) if form in ("voc", "label-studio") else ("pustule", "none", "no", "1")
    )


def test_sizes_that_nobody_knows_stay_unknown_and_formats_that_need_them_say_so(
    tmp_path: Path,
) -> None:
    made = (ExportedPhoto("a.jpg", None, None, np.array([[1, 2, 3, 4]], np.float32), ("x",)),)
    same(written(tmp_path / "voc", "voc", made), made)
    same(written(tmp_path / "coco", "coco", made), made)
    for form in ("yolo", "label-studio", "cvat"):
        with pytest.raises(UsageError, match=r"a\.jpg: its size is not known.*voc or coco"):
            written(tmp_path / form, form, made)


def test_photos_that_lie_beside_the_export_are_found(tmp_path: Path) -> None:
    made = (ExportedPhoto("sub/a.jpg", 200, 100, np.array([[1, 2, 3, 4]], np.float32), ("x",)),)
    for form in FORMATS:
        place = "sub/a.jpg" if form == "voc" else "images/sub/a.jpg"
        truth = written(tmp_path / form, form, made)
        assert truth.photos[0].path is None
        photo(tmp_path / form / place)
        truth = read_truth(tmp_path / form)
        same(truth, made)
        assert truth.photos[0].path == tmp_path / form / place


@pytest.mark.parametrize(
    ("boxes", "label", "says"),
    [
        ([[1, 2, math.nan, 4]], "x", r"a\.jpg: box 1 has values that are not numbers"),
        ([[1, 2, 3, 4]], " x", r"a\.jpg: class ' x' has blanks"),
        ([[1, 2, 3, 4]], "x\ny", r"a\.jpg: class 'x\\ny' has"),
    ],
)
def test_what_no_format_holds_is_refused_with_the_photos_name(
    boxes: list[list[float]], label: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        ExportedPhoto("a.jpg", 9, 9, np.array(boxes, np.float32), (label,))
    with pytest.raises(UsageError, match=says.replace("box 1", "crowd 1")):
        none = np.zeros((0, 4), np.float32)
        ExportedPhoto(
            "a.jpg", 9, 9, none, (), crowd_boxes=np.array(boxes, np.float32), crowd_labels=(label,)
        )


def truth_of_each_format(root: Path) -> Iterator[Path]:
    for form in ("voc", "coco", "yolo"):
        photo(root / form / "a.jpg")
        photo(root / form / "b.jpg", seed=2)
    voc(root / "voc/a.xml")
    coco(root / "coco/t.json")
    yolo(root / "yolo/a.txt")
    (root / "yolo/classes.txt").write_text("papules\npustules\n")
    yield from (root / "voc", root / "coco", root / "yolo")


@pytest.mark.parametrize("form", FORMATS)
def test_a_truth_is_exported_without_the_photos_nobody_annotated(tmp_path: Path, form: str) -> None:
    for source in truth_of_each_format(tmp_path):
        out = tmp_path / "out" / f"from-{source.name}"
        told: list[int] = []
        report = export(str(source), str(out), ExportRequest(form), progress=told.append)
        assert (report.photos, report.boxes, dict(report.left_out)) == (1, 2, {"not annotated": 1})
        assert (report.classes, report.complete, told) == (("papules", "pustules"), True, [1])
        assert report.files == len([p for p in out.rglob("*") if p.is_file()])
        same(read_truth(out), tuple(AnnotatedBoxes(read_truth(source)).photos()))


def test_an_out_that_is_not_empty_or_lies_in_the_source_is_refused(tmp_path: Path) -> None:
    source, *_ = truth_of_each_format(tmp_path / "in")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("x")
    with pytest.raises(UsageError, match=r"full: is not empty \(it has x\); name a new folder"):
        export(str(source), str(tmp_path / "full"), ExportRequest("coco"))
    for out in (source / "out", source.parent, source):
        with pytest.raises(UsageError, match="overlaps with"):
            export(str(source), str(out), ExportRequest("coco"))
    assert (tmp_path / "full/x").read_text() == "x"


def test_a_truth_has_no_scores_and_some_have_no_boxes(tmp_path: Path) -> None:
    source, *_ = truth_of_each_format(tmp_path / "in")
    for wanted in (ExportRequest("voc", threshold=0.5), ExportRequest("voc", scoring="ab")):
        with pytest.raises(UsageError, match="this is a truth; leave it out"):
            export(str(source), str(tmp_path / "out"), wanted)
    photo(tmp_path / "classes/acne/a.jpg")
    with pytest.raises(UsageError, match=r"has no boxes \(folders\)"):
        export(str(tmp_path / "classes"), str(tmp_path / "out"), ExportRequest("voc"))
    with pytest.raises(UsageError, match="there are voc, coco, yolo, label-studio, cvat"):
        export(str(source), str(tmp_path / "out"), ExportRequest("createml"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_that_fails_on_the_way_leaves_nothing(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = AnnotatedPhoto(
        "z.jpg", tmp_path, None, 9, 9, np.array([[np.nan] * 4], np.float32), ("x",)
    )
    good = [
        AnnotatedPhoto(f"{n}.jpg", tmp_path, None, 9, 9, np.ones((1, 4), np.float32), ("x",))
        for n in range(30)
    ]
    monkeypatch.setattr(
        exporting, "read_truth", lambda path, *_, **options: Truth(Path(path), "voc", (*good, bad))
    )
    with pytest.raises(UsageError, match=r"z\.jpg: box 1"):
        export(str(tmp_path / "in"), str(tmp_path / "out"), ExportRequest(form))
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def test_coco_is_what_other_tools_read(tmp_path: Path) -> None:
    made = ExportedPhoto(
        "a.jpg",
        20,
        10,
        np.array([[1.5, 2, 4, 8]], np.float32),
        ("acne",),
        np.array([0.75], np.float32),
    )
    written(tmp_path / "out", "coco", (made,))
    data = json.loads((tmp_path / "out/annotations.json").read_text())
    assert data["images"] == [{"id": 1, "file_name": "a.jpg", "width": 20, "height": 10}]
    assert data["categories"] == [{"id": 1, "name": "acne", "supercategory": "none"}]
    assert data["annotations"] == [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [1.5, 2.0, 2.5, 6.0],
            "area": 15.0,
            "iscrowd": 0,
            "score": 0.75,
        }
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_format_cannot_say_is_counted(tmp_path: Path, form: str) -> None:
    marked = voc(tmp_path / "voc/a.xml")
    marked.write_text(marked.read_text().replace("</name>", "</name><difficult>1</difficult>", 1))
    lost = export(str(tmp_path / "voc"), str(tmp_path / "from-voc"), ExportRequest(form)).not_kept
    assert lost == ({} if form == "voc" else {"marks of difficult boxes": 1})
    (found,) = read_truth(tmp_path / "from-voc").photos
    assert found.difficult == ({0} if form == "voc" else set())
    crowd = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    coco(tmp_path / "coco/t.json", annotations=[crowd])
    report = export(str(tmp_path / "coco"), str(tmp_path / "from-coco"), ExportRequest(form))
    assert (report.boxes, report.not_kept) == (
        0,
        {} if form == "coco" else {"regions marked as a crowd": 1},
    )


@pytest.mark.parametrize("form", FORMATS)
def test_outlines_and_other_marks_are_counted_for_no_format_has_them(
    tmp_path: Path, form: str
) -> None:
    marked = voc(tmp_path / "voc/a.xml")
    marked.write_text(
        marked.read_text().replace("</name>", "</name><pose>Left</pose><truncated>1</truncated>", 1)
    )
    lost = export(str(tmp_path / "voc"), str(tmp_path / "from-voc"), ExportRequest(form)).not_kept
    assert lost == {"VOC marks (pose, truncated, occluded)": 2}
    polygon = {
        "id": 1,
        "image_id": 7,
        "category_id": 1,
        "bbox": [0, 0, 9, 9],
        "segmentation": [[0, 0, 9, 0, 9, 9]],
    }
    coco(tmp_path / "coco/t.json", annotations=[polygon])
    lost = export(str(tmp_path / "coco"), str(tmp_path / "from-coco"), ExportRequest(form)).not_kept
    assert lost == {"outlines (segmentation)": 1}


@given(made=photos(crowds=True))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_crowds_come_back_from_coco_as_they_were(made: tuple[ExportedPhoto, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder, "out"), "coco", made)
        report = export(str(Path(folder, "out")), str(Path(folder, "again")), ExportRequest("coco"))
        assert (report.boxes, report.not_kept) == (sum(len(one.boxes) for one in made), {})
        truth = read_truth(Path(folder, "again"))
        same(truth, made)
        found = {p.name: p for p in truth.photos}
        for one in made:
            back = found[one.name]
            assert back.crowd_labels == one.crowd_labels
            if one.crowd_boxes is None:
                assert back.crowd_boxes is None
            else:
                assert back.crowd_boxes is not None and back.crowd_boxes.dtype == np.float32
                np.testing.assert_array_equal(back.crowd_boxes, one.crowd_boxes)


def test_crowds_are_marked_as_other_tools_mark_them(tmp_path: Path) -> None:
    boxes, region = np.array([[1, 2, 4, 8]], np.float32), np.array([[0, 0, 9.5, 9]], np.float32)
    made = ExportedPhoto(
        "a.jpg", 20, 10, boxes, ("acne",), crowd_boxes=region, crowd_labels=("scar",)
    )
    written(tmp_path / "out", "coco", (made,))
    data = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [
        (a["category_id"], a["bbox"], a["area"], a["iscrowd"]) for a in data["annotations"]
    ] == [
        (1, [1, 2, 3, 6], 18, 0),
        (2, [0, 0, 9.5, 9], 85.5, 1),
    ]
