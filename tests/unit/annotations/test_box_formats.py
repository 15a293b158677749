"""Test that boxes of VOC, COCO, YOLO and lines are read alike, wherever their photos are, and that
errors name the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from skinbatch.annotations.annotated_photos import MARKS, OUTLINES
from skinbatch.annotations.checks import check
from skinbatch.annotations.problems import Kind
from skinbatch.annotations.read import read_truth
from skinbatch.errors import UsageError
from tests.unit.annotations.support import (
    BOXES,
    coco,
    photo,
    says_the_same,
    the_only,
    voc,
    write,
    yolo,
)

LINE = "a.jpg 10,20,40,60,0 100,10,180,90,1\n"


def test_voc_coco_yolo_and_lines_say_the_same(tmp_path: Path) -> None:
    for folder in ("voc", "coco", "yolo/images", "beside", "lines"):
        photo(tmp_path / folder / "a.jpg")
    voc(tmp_path / "voc/a.xml")
    coco(tmp_path / "coco/_annotations.coco.json")
    for folder in ("yolo", "beside"):
        write(tmp_path / folder / "classes.txt", "papules\npustules\n")
    yolo(tmp_path / "yolo/labels/a.txt")
    yolo(tmp_path / "beside/a.txt")
    write(tmp_path / "lines/_annotations.txt", LINE)
    write(tmp_path / "lines/_classes.txt", "papules\npustules\n")
    for folder, form in {
        "voc": "voc",
        "coco": "coco",
        "yolo": "yolo",
        "beside": "yolo",
        "lines": "lines",
    }.items():
        truth = read_truth(tmp_path / folder)
        assert (truth.format, truth.class_names) == (form, ("papules", "pustules"))
        says_the_same(the_only(truth))
        assert the_only(truth).path == truth.root / "a.jpg"


@pytest.mark.parametrize(
    "order", ["xmin xmax ymin ymax", "ymax xmin ymin xmax", "xmin ymin xmax ymax"]
)
def test_corners_of_voc_are_told_by_tag(tmp_path: Path, order: str) -> None:
    said = dict(zip(("xmin", "ymin", "xmax", "ymax"), (10.5, 20, 40, 60.25), strict=True))
    box = "".join(f"<{tag}>{said[tag]}</{tag}>" for tag in order.split())
    write(
        tmp_path / "a.xml",
        f"<annotation><object><name>x</name><bndbox>{box}</bndbox></object></annotation>",
    )
    np.testing.assert_array_equal(the_only(read_truth(tmp_path)).boxes, [[10.5, 20, 40, 60.25]])


def test_voc_finds_its_photo_by_file_name_by_its_own_name_and_in_jpegimages(tmp_path: Path) -> None:
    photo(tmp_path / "one/a.png")
    photo(tmp_path / "one/a.jpg")
    voc(tmp_path / "one/a.xml", filename="a.png")
    photo(tmp_path / "renamed/a.JPG")
    voc(tmp_path / "renamed/a.xml", filename="a_jpg.rf.0123.jpg")
    photo(tmp_path / "devkit/JPEGImages/2007/a.jpg")
    voc(tmp_path / "devkit/Annotations/2007/a.xml")
    assert [(p.name, p.boxes is None) for p in read_truth(tmp_path / "one").photos] == [
        ("a.jpg", True),
        ("a.png", False),
    ]
    assert the_only(read_truth(tmp_path / "renamed")).name == "a.JPG"
    truth = read_truth(tmp_path / "devkit")
    assert (truth.root, the_only(truth).name) == (tmp_path / "devkit/JPEGImages", "2007/a.jpg")
    assert the_only(truth).path is not None


def test_splits_below_one_folder_keep_their_folders_in_the_names(tmp_path: Path) -> None:
    for split, seed in (("train", 1), ("valid", 2)):
        photo(tmp_path / f"r/{split}/images/a.jpg", seed=seed)
        yolo(tmp_path / f"r/{split}/labels/a.txt")
        photo(tmp_path / f"u/images/{split}/a.jpg", seed=seed)
        yolo(tmp_path / f"u/labels/{split}/a.txt")
        photo(tmp_path / f"c/{split}/a.jpg", seed=seed)
        coco(tmp_path / f"c/{split}/_annotations.coco.json")
    write(tmp_path / "r/data.yaml", "names: [papules, pustules]\nnc: 2\n")
    write(tmp_path / "u/data.yaml", "names:\n  0: papules\n  1: pustules\n")
    for root, name in (("r", "{}/images/a.jpg"), ("u", "{}/a.jpg"), ("c", "{}/a.jpg")):
        train, valid = read_truth(tmp_path / root).photos
        says_the_same(train, name.format("train"))
        says_the_same(valid, name.format("valid"))
    for one in (
        "r/train",
        "r/train/labels",
        "r/train/images",
        "u/images/train",
        "u/labels/train",
        "c/train",
    ):
        truth = read_truth(tmp_path / one)
        says_the_same(the_only(truth))
    assert read_truth(tmp_path / "u/data.yaml").photos[0].name == "train/a.jpg"


def test_coco_finds_its_photos_in_the_folders_that_people_use(tmp_path: Path) -> None:
    for place, file in {
        "a/images/a.jpg": "a/labels.json",
        "b/images/a.jpg": "b/annotations/labels.json",
        "c/train2017/a.jpg": "c/annotations/instances_train2017.json",
    }.items():
        photo(tmp_path / place)
        coco(tmp_path / file)
        truth = read_truth(tmp_path / file)
        assert (truth.root, the_only(truth).path) == ((tmp_path / place).parent, tmp_path / place)
        says_the_same(the_only(truth))


def test_categories_that_only_name_the_whole_and_crowds_are_left_out(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "acne", "supercategory": "none"},
        {"id": 2, "name": "pustules", "supercategory": "acne"},
        {"id": 1, "name": "papules", "supercategory": "acne"},
    ]
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {
            "id": 2,
            "image_id": 7,
            "category_id": 2,
            "bbox": [0, 0, 9, 9],
            "iscrowd": 1,
            "segmentation": {"counts": [1]},
        },
        {"id": 3, "image_id": 7, "category_id": 9, "bbox": [5, 5, 1, 1]},
    ]
    coco(tmp_path / "t.json", categories=categories, annotations=annotations)
    truth = read_truth(tmp_path)
    assert truth.class_names == ("papules", "pustules")
    assert the_only(truth).labels == ("pustules", "9"), (
        "a category that is not listed keeps its number"
    )
    np.testing.assert_array_equal(the_only(truth).boxes, [[1, 2, 4, 6], [5, 5, 6, 6]])
    np.testing.assert_array_equal(the_only(truth).crowd_boxes, [[0, 0, 9, 9]])
    assert (the_only(truth).crowd_labels, the_only(truth).not_kept) == (
        ("pustules",),
        {OUTLINES: 1},
    )
    found = check({"train": truth.photos}, "detector", ("papules", "pustules", "9")).of(Kind.CROWD)
    assert [(problem.file, problem.what) for problem in found] == [
        (str(tmp_path / "t.json"), "a.jpg")
    ]
    annotations[1]["image_id"] = 8
    coco(tmp_path / "t.json", categories=categories, annotations=annotations)
    with pytest.raises(UsageError, match="image_id 8, which none of its images has"):
        read_truth(tmp_path)


def test_outlines_and_marks_that_are_not_kept_are_counted(tmp_path: Path) -> None:
    polygon = {
        "id": 1,
        "image_id": 7,
        "category_id": 1,
        "bbox": [0, 0, 9, 9],
        "segmentation": [[0, 0, 9, 0, 9, 9]],
    }
    coco(tmp_path / "coco/t.json", annotations=[polygon, polygon, polygon | {"segmentation": []}])
    assert the_only(read_truth(tmp_path / "coco")).not_kept == {OUTLINES: 2}
    marked = voc(tmp_path / "voc/a.xml", boxes=[*BOXES, BOXES[0]])
    said = "<pose>{}</pose><truncated>{}</truncated><occluded>{}</occluded><difficult>1</difficult></object>"
    first, second, third, end = marked.read_text().split("</object>")
    objects = (
        first,
        said.format("Frontal", 1, 0),
        second,
        said.format("Unspecified", 0, 0),
        third,
        said.format("", "", 1),
    )
    write(marked, "".join((*objects, end)))
    assert the_only(read_truth(tmp_path / "voc")).not_kept == {MARKS: 3}
    outline = (
        "<polygon><x1>1</x1><y1>1</y1><x2>5</x2><y2>1</y2><x3>3</x3><y3>4</y3></polygon></object>"
    )
    write(marked, outline.join((first, second, third + "</object>" + end)))
    assert the_only(read_truth(tmp_path / "voc")).not_kept == {OUTLINES: 2}
    voc(marked)
    assert the_only(read_truth(tmp_path / "voc")).not_kept == {}
    photo(tmp_path / "yolo/a.jpg")
    write(tmp_path / "yolo/a.txt", "0 0.1 0.1 0.5 0.1 0.3 0.4\n0 0.5 0.5 0.1 0.1\n")
    assert the_only(read_truth(tmp_path / "yolo")).not_kept == {OUTLINES: 1}


def test_boxes_of_coco_belong_to_their_images_in_any_order(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 9, "height": 9} for n in (3, 1, 2)]
    annotations = [
        {"image_id": n, "category_id": 1, "bbox": [n, n, 1, k]}
        for k, n in enumerate((2, 3, 2, 3), 1)
    ]
    coco(tmp_path / "t.json", images=images, annotations=annotations)
    found = {p.name: np.asarray(p.boxes).tolist() for p in read_truth(tmp_path).photos}
    assert found == {
        "1.jpg": [],
        "2.jpg": [[2, 2, 3, 3], [2, 2, 3, 5]],
        "3.jpg": [[3, 3, 4, 5], [3, 3, 4, 7]],
    }


def test_a_size_that_is_not_written_down_is_the_displayed_photos(tmp_path: Path) -> None:
    voc(tmp_path / "voc/a.xml", size=(0, 0))
    coco(tmp_path / "coco/t.json", images=[{"id": 7, "file_name": "a.jpg"}])
    yolo(tmp_path / "yolo/a.txt")
    write(tmp_path / "yolo/classes.txt", "papules\npustules")
    write(tmp_path / "lines/list.txt", LINE)
    write(tmp_path / "lines/classes.txt", "papules\npustules")
    for folder in ("voc", "coco", "yolo", "lines"):
        photo(tmp_path / folder / "a.jpg", width=100, height=200, orientation=6)
        says_the_same(the_only(read_truth(tmp_path / folder)))


def test_a_photo_nobody_annotated_and_an_annotation_without_a_photo_are_both_there(
    tmp_path: Path,
) -> None:
    for form in ("voc", "coco", "yolo/images", "lines"):
        photo(tmp_path / form / "b.jpg")
    voc(tmp_path / "voc/a.xml")
    coco(tmp_path / "coco/t.json", images=[
        {"id": 7, "file_name": "a.jpg", "width": 200, "height": 100},
        {"id": 8, "file_name": "b.jpg", "width": 200, "height": 100},
    ])  # fmt: skip
    photo(tmp_path / "coco/c.jpg")
    yolo(tmp_path / "yolo/labels/a.txt")
    write(tmp_path / "lines/_annotations.txt", LINE)
    lost, alone = read_truth(tmp_path / "voc").photos
    assert (lost.path, lost.name, alone.boxes) == (None, "a", None) and alone.path is not None
    lost, empty, alone = read_truth(tmp_path / "coco").photos
    assert (lost.path, alone.name, alone.boxes) == (None, "c.jpg", None)
    assert empty.boxes is not None and empty.boxes.shape == (0, 4), (
        "listed without boxes: somebody looked"
    )
    lost, alone = read_truth(tmp_path / "yolo").photos
    assert (lost.path, lost.boxes, alone.boxes) == (None, None, None), (
        "shares of a photo that is not there"
    )
    lost, alone = read_truth(tmp_path / "lines").photos
    assert (lost.path, alone.boxes) == (None, None)
    assert len(lost.boxes if lost.boxes is not None else ()) == 2


def test_an_empty_yolo_file_says_that_there_is_nothing(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "\n")
    found = the_only(read_truth(tmp_path, "yolo"))
    assert found.boxes is not None and found.boxes.shape == (0, 4) and found.labels == ()


def test_polygons_of_yolo_are_boxes_around_them(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    write(tmp_path / "a.txt", "0 0.1 0.2 0.5 0.1 0.3 0.9\n")
    np.testing.assert_allclose(
        np.asarray(the_only(read_truth(tmp_path)).boxes), [[20, 10, 100, 90]]
    )


def test_classes_without_a_name_keep_their_number(tmp_path: Path) -> None:
    photo(tmp_path / "yolo/a.jpg")
    write(tmp_path / "yolo/a.txt", "1 .5 .5 .1 .1\n12 .5 .5 .1 .1\n3 .5 .5 .1 .1\n")
    write(tmp_path / "lines/l.txt", LINE)
    assert the_only(read_truth(tmp_path / "yolo")).labels == ("1", "12", "3")
    assert read_truth(tmp_path / "yolo").class_names == ("1", "3", "12")
    write(tmp_path / "yolo/classes.txt", "whitehead\npapule\n")
    assert the_only(read_truth(tmp_path / "yolo")).labels == ("papule", "12", "3")
    assert read_truth(tmp_path / "yolo").class_names == ("whitehead", "papule")
    assert the_only(read_truth(tmp_path / "lines")).labels == ("0", "1")


def test_lines_may_name_photos_with_blanks_and_photos_without_boxes(tmp_path: Path) -> None:
    write(tmp_path / "l.txt", "my first photo.JPG 1,2,3,4.5,0\nb.png\n\nsub/c.jpg 5,6,7,8,papule\n")
    found = {p.name: (np.asarray(p.boxes).tolist(), p.labels) for p in read_truth(tmp_path).photos}
    assert found == {
        "my first photo.JPG": ([[1, 2, 3, 4.5]], ("0",)),
        "b.png": ([], ()),
        "sub/c.jpg": ([[5, 6, 7, 8]], ("papule",)),
    }


def test_severity_is_read_from_the_names_of_acne04(tmp_path: Path) -> None:
    for name in ("levle0_1", "levle3_12", "level2_5", "levle7_5"):
        voc(tmp_path / f"{name}.xml")
    assert [p.severity for p in read_truth(tmp_path).photos] == [None, 0, 3, None]


def test_readmes_are_no_annotations_and_are_told(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    yolo(tmp_path / "a.txt")
    readme = write(tmp_path / "README.roboflow.txt", "12 images\n")
    truth = read_truth(tmp_path)
    assert (len(truth.photos), truth.unread) == (1, (readme,))
    voc(tmp_path / "voc/a.xml")
    other = write(tmp_path / "voc/project.xml", "<project/>")
    assert read_truth(tmp_path / "voc").unread == (other,)


BOX = "<annotation><object><name>x</name><bndbox>{}</bndbox></object></annotation>"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.xml", "<annotation><size>", r"a\.xml: not a readable Pascal VOC.*line 1"),
        ("a.xml", BOX.format("<xmin>1</xmin>"), r"a\.xml: object 1: <bndbox> without <ymin>"),
        (
            "a.xml",
            BOX.format("<xmin>one</xmin>"),
            r"a\.xml: object 1: <xmin> is 'one', not a number",
        ),
        (
            "a.xml",
            "<annotation><object><name>x</name></object></annotation>",
            r"a\.xml: object 1 has no <bndbox>",
        ),
        (
            "a.xml",
            "<annotation><size><width>w</width></size></annotation>",
            r"a\.xml: <size>: <width> is 'w'",
        ),
        (
            "a.txt",
            "0 .5 .5 .1 .1\n0 0.5 0.5 0.1\n",
            r"a\.txt: line 2: not `class x y width height`",
        ),
        ("a.txt", "0 .5 .5 .1 .1\n0 0.5 0.5 0.1 wide\n", r"a\.txt: line 2"),
        ("a.txt", "1.5 0.5 0.5 0.1 0.1\n", r"a\.txt: line 1"),
        (
            "l.txt",
            "a.jpg 1,2,3,4,0 1,2,3,0\n",
            r"l\.txt: line 1: '1,2,3,0' is not x1,y1,x2,y2,class",
        ),
        ("l.txt", "a.jpg 1,2,3,4,0\nb.jpg 1,2,x,4,0\n", r"l\.txt: line 2: '1,2,x,4,0'"),
        (
            "b.txt",
            "notes",
            r"no annotations; looked for Pascal VOC .*COCO.*YOLO.*x1,y1,x2,y2,class.*mask.*csv.*folder",
        ),
        ("data.yaml", "names: 7", r"data\.yaml: `names` is not a list"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    photo(tmp_path / "a.jpg")
    if name == "data.yaml":
        yolo(tmp_path / "a.txt")
    write(tmp_path / name, content)
    with pytest.raises(UsageError, match=says):
        read_truth(tmp_path)


IMAGE = {"id": 7, "file_name": "a.jpg"}
MIXED = [{"id": n, "name": f"c{n}"} for n in ("b", 1.5, 2)]
BOXED = {"id": 4, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "not COCO"),
        ("{}", "not COCO.*`images` is missing"),
        ("not json", "not COCO"),
        ({"images": [], "annotations": [{"id": 4, "bbox": [1, 2, 3, 4]}]}, "not COCO.*annotation 4 has no `image_id`"),
        ({"images": [IMAGE], "annotations": [{"id": 4, "image_id": 7}]}, "annotation 4 has no `bbox`"),
        ({"images": [IMAGE], "annotations": [{"id": 4, "image_id": 7, "bbox": [1, 2]}]}, r"annotation 4: `bbox` is \[1, 2\]"),
        ({"images": [IMAGE], "annotations": [{"id": 4, "image_id": 7, "bbox": [1, 2, 3, "x"]}]}, "annotation 4: `bbox`"),
        ({"images": [IMAGE], "annotations": [{"image_id": 9, "bbox": [1, 2, 3, 4]}]}, "image_id 9, which none"),
        ({"images": [IMAGE, IMAGE], "annotations": []}, "the same `id`"),
        ({"images": [IMAGE | {"width": "wide"}], "annotations": []}, "image 7: `width`"),
        *(
            ({"images": [IMAGE], "annotations": [BOXED | {field: value}]}, rf"annotation 4: `{field}` is .*; correct it, or")
            for field in ("image_id", "category_id")
            for value in (None, [1], {"n": 1}, 1.5, True)
        ),
        ({"images": [IMAGE | {"id": None}], "annotations": []}, r"image a\.jpg: `id` is null, not a whole number or a text"),
        ({"images": [IMAGE | {"id": [7]}], "annotations": []}, r"image a\.jpg: `id` is \[7\]"),
        ({"images": [IMAGE], "annotations": [BOXED], "categories": [{"id": None, "name": "x"}]}, "category x: `id` is null"),
        ({"images": [IMAGE], "annotations": [], "categories": MIXED}, r"category c1\.5: `id` is 1\.5, not"),
        ({"images": [IMAGE], "annotations": [BOXED | {"image_id": "7"}]}, 'image_id "7", which none'),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_coco_file_is_named(tmp_path: Path, content: object, says: str) -> None:
    write(tmp_path / "truth.json", content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UsageError, match=rf"truth\.json: .*{says}"):
        read_truth(tmp_path / "truth.json")


def test_ids_of_coco_may_be_numbers_and_texts_side_by_side(tmp_path: Path) -> None:
    images = [IMAGE | {"id": n, "file_name": f"{n}.jpg"} for n in ("x", 7)]
    annotations = [
        BOXED | {"image_id": image, "category_id": n}
        for image in ("x", 7)
        for n in ("b", 3, "a", 2)
    ]
    categories = [{"id": n, "name": f"class {n}"} for n in ("b", 3, "a", 2)]
    coco(tmp_path / "t.json", images=images, annotations=annotations, categories=categories)
    truth = read_truth(tmp_path / "t.json")
    assert truth.class_names == ("class 2", "class 3", "class a", "class b")
    assert [photo.labels for photo in truth.photos] == [
        ("class b", "class 3", "class a", "class 2")
    ] * 2


def test_a_line_is_not_given_to_a_photo_of_another_folder(tmp_path: Path) -> None:
    photo(tmp_path / "test/9.png")
    photo(tmp_path / "data/valid/8.png")
    write(tmp_path / "l.txt", "train/9.png 1,2,3,4,0\nvalid/8.png 5,6,7,8,0\n")
    found = {p.name: (p.path, len(p.labels or ())) for p in read_truth(tmp_path / "l.txt").photos}
    assert found == {
        "train/9.png": (None, 1),
        "data/valid/8.png": (tmp_path / "data/valid/8.png", 1),
    }


def test_captions_and_other_json_beside_the_boxes_are_passed_over(tmp_path: Path) -> None:
    coco(tmp_path / "instances.json")
    write(
        tmp_path / "captions.json",
        json.dumps({"images": [IMAGE], "annotations": [{"image_id": 7, "caption": "a"}]}),
    )
    write(tmp_path / "package.json", '{"name": "x"}')
    says_the_same(the_only(read_truth(tmp_path)))


def test_a_photo_that_is_annotated_twice_is_named_with_both_files(tmp_path: Path) -> None:
    coco(tmp_path / "one.json")
    coco(tmp_path / "two.json")
    with pytest.raises(UsageError, match=r"a\.jpg is annotated in .*one\.json and .*two\.json"):
        read_truth(tmp_path)
    write(tmp_path / "l.txt", "b.jpg 1,2,3,4,0\nb.jpg 1,2,3,4,0\n")
    with pytest.raises(UsageError, match=r"b\.jpg is annotated in .*l\.txt, twice"):
        read_truth(tmp_path / "l.txt")


def test_two_formats_at_one_place_have_to_be_told_apart(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    voc(tmp_path / "a.xml", boxes=[BOXES[0]])
    yolo(tmp_path / "a.txt")
    with pytest.raises(UsageError, match=r"Pascal VOC .* and YOLO .*format = 'voc' or 'yolo'"):
        read_truth(tmp_path)
    assert len(np.asarray(the_only(read_truth(tmp_path, "voc")).boxes)) == 1
    assert len(np.asarray(the_only(read_truth(tmp_path, "yolo")).boxes)) == 2


def test_paths_and_formats_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        read_truth(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="copy it here"):
        read_truth("s3://bucket/truth")
    with pytest.raises(
        UsageError, match="there are voc, coco, label-studio, cvat, labelme, yolo, lines"
    ):
        read_truth(tmp_path, "vgg")
    with pytest.raises(UsageError, match=r"looked for.*COCO"):
        read_truth(photo(tmp_path / "a.jpg"))
    for form in ("voc", "coco", "yolo", "lines", "masks"):
        with pytest.raises(UsageError, match=r"no annotations; looked for"):
            read_truth(tmp_path, form)
