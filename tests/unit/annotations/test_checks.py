"""Test that problems that would spoil a training are found before it starts, with the name of the file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.checks import check
from skinbatch.annotations.problems import Kind, Problem, Problems
from skinbatch.annotations.read import read_truth
from skinbatch.errors import UsageError
from tests.pictures import picture
from tests.unit.annotations.support import mask, photo, voc


def boxed(
    folder: Path,
    *boxes: tuple[float, float, float, float],
    name: str = "a.jpg",
    label: str = "acne",
) -> AnnotatedPhoto:
    path = photo(folder / name, seed=sum(map(ord, f"{folder.name}/{name}")))
    said = np.array(boxes, np.float32).reshape(-1, 4)
    return AnnotatedPhoto(
        name, path.with_suffix(".xml"), path, 200, 100, said, (label,) * len(boxes)
    )


def kinds(problems: Problems) -> list[tuple[Kind, str]]:
    return [(p.kind, Path(p.file).name) for p in problems.entries]


GOOD = (0, 0, 200, 100)


def test_good_photos_have_no_problems(tmp_path: Path) -> None:
    splits = {
        split: [boxed(tmp_path / split, GOOD, (10, 10, 20, 20))] for split in ("train", "valid")
    }
    found = check(splits, "detector", ["acne"])
    assert (found.entries, found.as_text(), found.as_json()) == ((), "", {})
    found.raise_if(strict=True)


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((5, 5, 5, 9), Kind.EMPTY),
        ((5, 9, 8, 9), Kind.EMPTY),
        ((200, 0, 220, 9), Kind.OUTSIDE),
        ((-9, 5, 0, 9), Kind.OUTSIDE),
        ((0, 100, 8, 120), Kind.OUTSIDE),
        ((0, 0, math.nan, 4), Kind.NOT_A_NUMBER),
        ((0, 0, math.inf, 4), Kind.NOT_A_NUMBER),
        ((-5, 5, 10, 9), Kind.OVER_EDGE),
        ((190, 90, 210, 99), Kind.OVER_EDGE),
        ((0, 0, 200.5, 101), None),
    ],
)
def test_what_is_no_box_of_the_photo_is_told_with_its_number(
    tmp_path: Path, box: tuple[float, float, float, float], kind: Kind | None
) -> None:
    found = check({"train": [boxed(tmp_path, GOOD, box)]}, "detector", ["acne"])
    assert kinds(found) == ([(kind, "a.xml")] if kind else [])
    assert kind is None or "a.jpg: box 2: " in found.entries[0].what


def test_unknown_classes_are_told_after_the_mapping(tmp_path: Path) -> None:
    photos = {
        "train": [boxed(tmp_path, GOOD, label="papules"), boxed(tmp_path, GOOD, name="b.jpg")]
    }
    assert kinds(check(photos, "detector", ["acne"])) == [(Kind.UNKNOWN_CLASS, "a.xml")]
    for mapping in ({"papules": "acne"}, {"*": "acne"}, {"papules": ""}):
        assert kinds(check(photos, "detector", ["acne"], mapping)) == []
    assert kinds(check(photos, "detector", ["acne"], {"papules": "pimple"})) == [
        (Kind.UNKNOWN_CLASS, "a.xml")
    ]
    assert (
        "without a name"
        in check({"train": [boxed(tmp_path, GOOD, label="")]}, "detector", []).entries[0].what
    )


def test_a_class_missing_in_one_split_is_told(tmp_path: Path) -> None:
    train, valid = tmp_path / "t", tmp_path / "v"
    splits = {
        "train": [boxed(train, GOOD), boxed(train, GOOD, name="b.jpg", label="scar")],
        "valid": [boxed(valid, GOOD)],
    }
    (found,) = check(splits, "detector", ["acne", "scar"]).entries
    assert (found.kind, found.file, found.what) == (
        Kind.MISSING_CLASS,
        "valid",
        "no scar in 1 photos",
    )
    classified = {
        name: [replace(p, classes=p.labels, boxes=None, labels=None) for p in photos]
        for name, photos in splits.items()
    }
    assert check(classified, "classifier", ["acne", "scar"]).entries == (found,)


def test_photos_without_annotation_and_annotations_without_photo_are_told(tmp_path: Path) -> None:
    voc(tmp_path / "lost.xml")
    voc(tmp_path / "good.xml", boxes=[[1, 1, 5, 5]])
    photo(tmp_path / "good.jpg")
    photo(tmp_path / "alone.jpg")
    found = check({"train": read_truth(tmp_path).photos}, "detector", ["papules"], {"*": "papules"})
    assert kinds(found) == [(Kind.NO_PHOTO, "lost.xml"), (Kind.NO_ANNOTATION, "alone.jpg")]


def test_a_photo_that_cannot_be_read_or_has_another_size_is_told(tmp_path: Path) -> None:
    one, two, three = (boxed(tmp_path, GOOD, name=f"{n}.jpg") for n in "abc")
    assert one.path is not None and two.path is not None
    one.path.write_bytes(b"no photo")
    photo(two.path, width=100, height=200)
    for splits in (
        {"train": [one, two, three]},
        {"train": [one, two, three], "valid": [boxed(tmp_path / "v", GOOD)]},
    ):
        found = check(splits, "detector", ["acne"])
        assert kinds(found) == [(Kind.UNREADABLE, "a.jpg"), (Kind.OTHER_SHAPE, "b.jpg")]
        assert found.entries[1].what == "b.jpg is 100 x 200, its annotation gives 200 x 100"
    photo(two.path, width=400, height=200)
    assert kinds(check({"train": [two]}, "detector", ["acne"])) == [(Kind.OTHER_SIZE, "b.xml")]
    photo(two.path, width=100, height=200)
    said = replace(two, classes=("acne",))
    assert kinds(check({"train": [said]}, "classifier", ["acne"])) == [
        (Kind.OTHER_SIZE, "b.xml")
    ], "whole photos"


def test_a_class_of_photos_that_are_left_out_is_missing(tmp_path: Path) -> None:
    good, other, bad = (boxed(tmp_path, GOOD, name=f"{n}.jpg") for n in "abc")
    other = replace(other, boxes=np.array([GOOD, GOOD], np.float32), labels=("nodule", "mole"))
    bad = replace(bad, labels=("nodule",))
    assert bad.path is not None
    bad.path.write_bytes(b"no photo")
    found = check({"train": [good, other, bad]}, "detector", ["acne", "nodule"])
    assert kinds(found) == [
        (Kind.UNREADABLE, "c.jpg"),
        (Kind.UNKNOWN_CLASS, "b.xml"),
        (Kind.MISSING_CLASS, "train"),
    ]
    assert found.entries[2].what.startswith("no nodule")


def test_masks_of_another_size_and_masks_that_are_none_are_told(tmp_path: Path) -> None:
    ids = np.zeros((100, 200), np.uint8)
    ids[:50], ids[50:60] = 1, 2
    for name in "abcd":
        photo(tmp_path / f"images/{name}.jpg")
        mask(tmp_path / f"masks/{name}.png", ids)
    mask(tmp_path / "masks/b.png", ids[::2, ::2].copy())
    (tmp_path / "masks/c.png").write_bytes(b"no mask")
    (tmp_path / "masks/d.png").unlink()
    found = check(
        {"train": read_truth(tmp_path).photos},
        "segmenter",
        ["background", "skin", "nose"],
        {"skin": "skin", "nose": "nose", "*": "background"},
    )
    assert kinds(found) == [
        (Kind.NO_ANNOTATION, "d.jpg"),
        (Kind.BAD_MASK, "c.png"),
        (Kind.MASK_SIZE, "b.png"),
    ]
    assert found.entries[2].what == "100 x 50, the photo is 200 x 100"
    mask(tmp_path / "masks/b.png", ids[:, :100].copy())
    found = check(
        {"train": read_truth(tmp_path / "images").photos[1:2]},
        "segmenter",
        ["background"],
        {"*": "background"},
    )
    assert kinds(found)[0] == (Kind.MASK_SHAPE, "b.png")


def test_the_same_file_and_the_same_photo_in_two_splits_are_told(tmp_path: Path) -> None:
    big = picture(5, 640, 480)
    for split in ("train", "valid", "test"):
        (tmp_path / split).mkdir()
        picture(sum(map(ord, split)), 640, 480).save(tmp_path / split / "own.png")
    big.save(tmp_path / "train/a.png")
    (tmp_path / "valid/b.png").write_bytes((tmp_path / "train/a.png").read_bytes())
    big.resize((320, 240)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        tmp_path / "test/c.jpg", quality=70
    )
    done: list[tuple[int, int]] = []
    splits = {
        s: [AnnotatedPhoto(p.name, p, p, classes=("x",)) for p in sorted((tmp_path / s).iterdir())]
        for s in ("train", "valid", "test")
    }
    found = check(splits, "classifier", ["x"], progress=lambda n, of: done.append((n, of)))
    assert kinds(found) == [
        (Kind.SAME_FILE, "b.png"),
        (Kind.LOOKS_SAME, "c.jpg"),
        (Kind.LOOKS_SAME, "c.jpg"),
    ]
    assert (
        "train/a.png" in found.entries[0].what
        and "in test, and in valid as" in found.entries[2].what
    )
    assert done[-1] == (6, 6)


def test_problems_print_the_first_names_and_keep_all_for_json() -> None:
    many = Problems(tuple(Problem(Kind.EMPTY, f"{n // 2}.xml", f"box {n}") for n in range(14)))
    assert many.as_text().splitlines() == [
        "14 empty boxes in 7 files:",
        *(f"  {n}.xml (box {2 * n})" for n in range(5)),
        "  and 9 more",
    ]
    of_few = Problems(tuple(Problem(Kind.EMPTY, f"{n % 2}.json", f"box {n}") for n in range(7)))
    assert of_few.as_text().splitlines() == [
        "7 empty boxes in 2 files:",
        *(f"  {n % 2}.json (box {n})" for n in range(5)),
        "  and 2 more",
    ]
    assert len(json.loads(json.dumps(many.as_json()))["empty boxes"]) == 14
    many.raise_if(strict=False)
    with pytest.raises(
        UsageError, match=r"(?s)14 problems.*\n14 empty boxes in 7 files.*\n.*--strict"
    ):
        many.raise_if(strict=True)


def test_two_lists_over_one_folder_of_photos_are_compared_by_what_they_list(tmp_path: Path) -> None:
    for n, name in enumerate("abcd"):
        photo(tmp_path / f"images/{name}.jpg", seed=n + 20)
    lists = {"train": "abc", "valid": "cd"}
    for split, names in lists.items():
        (tmp_path / f"{split}.csv").write_text(
            "image,label\n" + "".join(f"{name}.jpg,acne\n" for name in names)
        )
    splits = {split: read_truth(tmp_path / f"{split}.csv").photos for split in lists}
    found = check(splits, "classifier", ["acne"])
    assert kinds(found) == [(Kind.SAME_FILE, "c.jpg")]


def test_the_name_of_a_photo_that_a_list_leaves_out_says_nothing(tmp_path: Path) -> None:
    for name in ("levle2_1", "levle2_2"):
        photo(tmp_path / f"images/{name}.jpg")
    (tmp_path / "list.csv").write_text("image,label\nlevle2_1.jpg,acne\n")
    severities = {p.name: p.severity for p in read_truth(tmp_path / "list.csv").photos}
    assert severities == {"images/levle2_1.jpg": 2, "images/levle2_2.jpg": None}


@pytest.mark.parametrize("wrong", ["colours", "a class that nobody knows"])
def test_a_mask_that_cannot_be_used_is_told_before_training(tmp_path: Path, wrong: str) -> None:
    path = photo(tmp_path / "images/a.jpg")
    (tmp_path / "masks").mkdir()
    values = np.full((100, 200), 77 if wrong.startswith("a class") else 1, np.uint8)
    image = (
        Image.fromarray(values).convert("RGB") if wrong == "colours" else Image.fromarray(values)
    )
    image.save(tmp_path / "masks/a.png")
    said = AnnotatedPhoto(
        "a.jpg", tmp_path / "masks/a.png", path, 200, 100, masks=(tmp_path / "masks/a.png",)
    )
    assert (Kind.BAD_MASK, "a.png") in kinds(
        check({"train": [said]}, "segmenter", ["background", "skin"])
    )


def test_a_damaged_png_is_named_whatever_its_reader_raises(tmp_path: Path) -> None:
    file = photo(tmp_path / "a.png")
    data = bytearray(file.read_bytes())
    data[data.index(b"IDAT")] ^= 0x40
    file.write_bytes(data)
    found = check(
        {"train": [AnnotatedPhoto("a.png", file, file, classes=("x",))]}, "classifier", ["x"]
    )
    assert (Kind.UNREADABLE, "a.png") in kinds(found)
