"""Test that masks, class folders and tables of labels are read as people keep them, and that errors name the file."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinbatch.annotations.annotated_photos import AnnotatedPhoto, Truth
from skinbatch.annotations.checks import check
from skinbatch.annotations.label_map import mask_size, read_mask
from skinbatch.annotations.masks import BODY, CLASSES, UNSURE
from skinbatch.annotations.part_masks import PARTS
from skinbatch.annotations.problems import Kind
from skinbatch.annotations.read import read_truth
from skinbatch.errors import UsageError
from skinbatch.models.segmenters.face_parsing import CELEBAMASK_HQ
from tests.unit.annotations.support import mask, photo, says_the_same, the_only, write

IDS = np.array([[0, 1, 2, 3], [4, 5, 17, 18]], np.uint8)
# Its PNG has several chunks of pixels, and Pillow opens it by the first.
NOISE = np.random.default_rng(0).integers(0, len(CLASSES), (512, 512)).astype(np.uint8)


def part(path: Path, columns: slice, width: int = 8, height: int = 4) -> Path:
    """Return a mask as published: white where the part is, in three channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, columns] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_the_classes_are_those_that_the_models_know() -> None:
    assert CLASSES[:19] == CELEBAMASK_HQ
    assert CLASSES[BODY] == "body"
    assert list(PARTS.values()) == list(range(1, 19))


def test_palette_masks_lie_in_masks_beside_images_or_beside_the_photo(tmp_path: Path) -> None:
    for name, form in (("a", "jpg"), ("b", "jpg"), ("sub/c", "png")):
        photo(tmp_path / f"two/images/{name}.{form}")
    for name in ("a", "sub/c", "lost"):
        mask(tmp_path / f"two/masks/{name}.png", IDS)
    truth = read_truth(tmp_path / "two")
    assert (truth.format, truth.root, truth.class_names) == (
        "masks",
        tmp_path / "two/images",
        CLASSES,
    )
    found = {p.name: (p.path is not None, p.masks) for p in truth.photos}
    assert found == {
        "a.jpg": (True, (tmp_path / "two/masks/a.png",)),
        "b.jpg": (True, None),
        "lost": (False, (tmp_path / "two/masks/lost.png",)),
        "sub/c.png": (True, (tmp_path / "two/masks/sub/c.png",)),
    }
    photo(tmp_path / "one/0.jpg")
    mask(tmp_path / "one/0.png", IDS)
    beside = the_only(read_truth(tmp_path / "one"))
    assert (beside.name, beside.masks) == ("0.jpg", (tmp_path / "one/0.png",))
    np.testing.assert_array_equal(read_mask(beside), IDS)
    photo(tmp_path / "photos/0.jpg")
    Image.fromarray(IDS * 12).save(tmp_path / "photos/0.png")
    with pytest.raises(UsageError, match="no annotations"):
        read_truth(tmp_path / "photos")


def test_grey_masks_are_read_as_numbers_too(tmp_path: Path) -> None:
    photo(tmp_path / "images/a.jpg")
    (tmp_path / "masks").mkdir()
    Image.fromarray(IDS).save(tmp_path / "masks/a.png")
    np.testing.assert_array_equal(read_mask(the_only(read_truth(tmp_path))), IDS)


def parts(tmp_path: Path) -> Truth:
    """Write photo 7 with a face from the third column on, hair over part of it and a lip over the
    mouth; 12 has no parts."""
    anno = tmp_path / "CelebAMask-HQ-mask-anno"
    part(anno / "0/00007_skin.png", slice(2, 8))
    part(anno / "0/00007_hair.png", slice(1, 4))
    part(anno / "0/00007_u_lip.png", slice(6, 7))
    part(anno / "0/00007_mouth.png", slice(5, 8))
    part(anno / "1/02001_nose.png", slice(0, 1))
    write(anno / "README.txt", "parts")
    photo(tmp_path / "CelebA-HQ-img/7.jpg", 16, 8)
    photo(tmp_path / "CelebA-HQ-img/12.jpg", 16, 8)
    return read_truth(tmp_path)


def test_parts_are_laid_over_each_other_in_the_publishers_order(tmp_path: Path) -> None:
    truth = parts(tmp_path)
    assert (truth.format, truth.root) == ("parts", tmp_path / "CelebA-HQ-img")
    assert [(p.name, p.path is not None, len(p.masks or ())) for p in truth.photos] == [
        ("12.jpg", True, 0),
        ("2001.jpg", False, 1),
        ("7.jpg", True, 4),
    ]
    found = read_mask(truth.photos[2])
    hair, mouth, lip, skin = (
        CLASSES.index(name) for name in ("hair", "mouth", "upper_lip", "skin")
    )
    np.testing.assert_array_equal(found[0], [0, hair, hair, hair, skin, mouth, lip, mouth])
    assert found.shape == (4, 8) and mask_size(truth.photos[2]) == (8, 4)
    assert truth.unread == (tmp_path / "CelebAMask-HQ-mask-anno/README.txt",)


def test_masks_that_are_none_are_named(tmp_path: Path) -> None:
    photo(tmp_path / "images/a.jpg")
    bad = mask(tmp_path / "masks/a.png", IDS + 2)
    (found,) = read_truth(tmp_path).photos
    with pytest.raises(
        UsageError, match=r"a\.png: has class 20; .*0 to 18, 19 for skin of the body, and 255"
    ):
        read_mask(found)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(bad)
    with pytest.raises(UsageError, match=r"a\.png: has colours"):
        read_mask(found)
    bad.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(UsageError, match=r"a\.png: not a readable mask"):
        read_mask(found)
    with pytest.raises(UsageError, match=r"a\.jpg: has no mask"):
        read_mask(AnnotatedPhoto("a.jpg", tmp_path / "a.jpg", tmp_path / "a.jpg"))


def test_masks_may_be_unsure_and_show_the_body(tmp_path: Path) -> None:
    photo(tmp_path / "images/a.jpg")
    ids = np.array([[0, 1, BODY, UNSURE], [4, 5, 17, 18]], np.uint8)
    mask(tmp_path / "masks/a.png", ids)
    (found,) = read_truth(tmp_path).photos
    np.testing.assert_array_equal(read_mask(found), ids)


def test_a_mask_with_any_byte_of_a_chunks_head_changed_is_read_or_named(tmp_path: Path) -> None:
    photo(tmp_path / "images/a.jpg", 512, 512)
    file = mask(tmp_path / "masks/a.png", NOISE)
    found = the_only(read_truth(tmp_path))
    good = file.read_bytes()
    second = good.index(b"IDAT", good.index(b"IDAT") + 4)
    for place in range(second - 4, second + 4):
        file.write_bytes(good[:place] + bytes([good[place] ^ 0x80]) + good[place + 1 :])
        if place >= second:
            with pytest.raises(
                UsageError,
                match=r"a\.png: not a readable mask: broken PNG.*replace it, or remove it",
            ):
                read_mask(found)
        else:
            with contextlib.suppress(UsageError):
                read_mask(found)


def test_a_damaged_mask_beside_its_photo_is_named(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg", 512, 512)
    file = mask(tmp_path / "a.png", NOISE)
    first, second, *rest = file.read_bytes().split(b"IDAT")
    file.write_bytes(b"IDAT".join((first, second + b"\xc9DAT" + rest[0], *rest[1:])))
    with pytest.raises(
        UsageError, match=r"a\.png: not a readable PNG: broken PNG.*replace it, or remove it"
    ):
        read_truth(tmp_path)


def test_parts_of_different_sizes_and_parts_said_twice_are_named(tmp_path: Path) -> None:
    truth = parts(tmp_path)
    anno = tmp_path / "CelebAMask-HQ-mask-anno"
    part(anno / "0/00007_mouth.png", slice(0, 1), width=9)
    with pytest.raises(
        UsageError, match=r"00007_mouth\.png: is 9 x 4 pixels, but the parts before it are 8 x 4"
    ):
        read_mask(truth.photos[2])
    with pytest.raises(UsageError, match=r"00007_mouth\.png is 9 x 4"):
        mask_size(truth.photos[2])
    part(anno / "1/00007_skin.png", slice(0, 1))
    with pytest.raises(UsageError, match=r"00007_skin\.png: the same part as"):
        read_truth(tmp_path)


def test_a_folder_is_a_class(tmp_path: Path) -> None:
    for name in ("rosacea/a.jpg", "rosacea/deep/b.png", "acne/c.jpg", "d.jpg"):
        photo(tmp_path / name)
    truth = read_truth(tmp_path)
    assert (truth.format, truth.class_names) == ("folders", ("acne", "rosacea"))
    assert {p.name: p.classes for p in truth.photos} == {
        "acne/c.jpg": ("acne",),
        "d.jpg": None,
        "rosacea/a.jpg": ("rosacea",),
        "rosacea/deep/b.png": ("rosacea",),
    }


def test_folders_that_are_splits_are_no_classes(tmp_path: Path) -> None:
    photo(tmp_path / "train/acne/a.jpg")
    photo(tmp_path / "valid/acne/b.jpg")
    with pytest.raises(
        UsageError, match=r"splits, not classes \(train, valid\); name one: .*/train"
    ):
        read_truth(tmp_path)
    assert read_truth(tmp_path / "train").class_names == ("acne",)


def test_photos_named_by_their_severity_need_no_other_annotation(tmp_path: Path) -> None:
    photo(tmp_path / "levle0_1.jpg")
    photo(tmp_path / "levle3_2.jpg")
    assert [p.severity for p in read_truth(tmp_path).photos] == [0, 3]


def test_a_table_names_image_and_label_in_several_ways(tmp_path: Path) -> None:
    for name in ("images/a.jpg", "images/b.png", "images/c.jpg", "images/d.jpg", "e.jpg"):
        photo(tmp_path / name)
    write(
        tmp_path / "labels.csv",
        "\ufeffPatient,Image,Label\np1,a.jpg,papule\np1,a.jpg,pustule\np2,b,nodule; papule\n,images/c.jpg,\np3,gone.jpg,papule\n",
    )
    truth = read_truth(tmp_path)
    assert (truth.format, truth.class_names) == ("csv", ("nodule", "papule", "pustule"))
    assert {p.name: (p.classes, p.group, p.path is not None) for p in truth.photos} == {
        "images/a.jpg": (("papule", "pustule"), "p1", True),
        "images/b.png": (("nodule", "papule"), "p2", True),
        "images/c.jpg": ((), None, True),
        "images/d.jpg": (None, None, True),
        "gone.jpg": (("papule",), "p3", False),
    }


def test_a_row_is_not_given_to_a_photo_of_another_folder(tmp_path: Path) -> None:
    for name in ("test/9.png", "data/valid/8.png", "deep/7.png"):
        photo(tmp_path / name)
    rows = "image,label\ntrain/9.png,a\nvalid/8.png,b\n./7.png,c\nvalid/7.png,d\nalid/8.png,e\n"
    truth = read_truth(write(tmp_path / "train.csv", rows))
    assert {p.name: (p.classes, p.path is not None) for p in truth.photos} == {
        "train/9.png": (("a",), False),
        "data/valid/8.png": (("b",), True),
        "deep/7.png": (("c",), True),
        "valid/7.png": (("d",), False),
        "alid/8.png": (("e",), False),
    }
    lost = check({"train": truth.photos}, "classifier", list("abcde")).of(Kind.NO_PHOTO)
    assert [p.what for p in lost] == ["of alid/8.png", "of train/9.png", "of valid/7.png"]


def test_of_photos_of_one_name_the_one_in_the_rows_folder_is_meant(tmp_path: Path) -> None:
    for name in ("data/train/9.png", "data/test/9.png"):
        photo(tmp_path / name)
    truth = read_truth(write(tmp_path / "t.csv", "image,label\ntrain/9,a\ntest/9.png,b\n9.png,c\n"))
    assert {p.name: p.classes for p in truth.photos} == {
        "data/train/9.png": ("a",),
        "data/test/9.png": ("b",),
        "9.png": ("c",),
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_of_0_and_1_has_a_column_a_class(tmp_path: Path, delimiter: str) -> None:
    rows = ["filename, papule, pustule", "a.jpg, 1, 1", "b.jpg, 0, 0", "c.jpg, 0, 1"]
    for name in "abc":
        photo(tmp_path / f"{name}.jpg")
    write(tmp_path / "_classes.csv", "\n".join(rows).replace(",", delimiter))
    found = {p.name: p.classes for p in read_truth(tmp_path).photos}
    assert found == {"a.jpg": ("papule", "pustule"), "b.jpg": (), "c.jpg": ("pustule",)}


def test_the_column_of_the_group_may_be_named(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "image,label,clinic\na.jpg,x,north\nb.jpg,x,south\n")
    assert [p.group for p in read_truth(file).photos] == [None, None]
    assert [p.group for p in read_truth(file, group="clinic").photos] == ["north", "south"]
    with pytest.raises(
        UsageError,
        match=r"t\.csv: no column `nurse` for the group; its columns are image, label, clinic",
    ):
        read_truth(file, group="nurse")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("photo_nr,label\n1,x\n", r"no column for the photo .*; its columns are photo_nr, label"),
        ("image,kind\na.jpg,x\n", r"no column for the label .*; its columns are image, kind"),
        ("image,label\na.jpg\n", r"line 2: 1 cells under 2 columns"),
        ("image,label\n,x\n", r"line 2: `image` is empty"),
        ('image,label\na.jpg,"x\n', r"line \d: not readable as CSV"),
        (
            "image,label,group\na.jpg,x,p1\na.jpg,y,p2\n",
            r"line 3: a\.jpg has group 'p2', but 'p1' in line 2",
        ),
    ],
)
def test_what_is_wrong_in_a_table_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = write(tmp_path / "t.csv", text)
    with pytest.raises(UsageError, match=rf"t\.csv: {says}"):
        read_truth(file)


def test_a_table_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"image,label\n\xff\xfe,x\n")
    with pytest.raises(UsageError, match=r"t\.csv: byte 12 is not UTF-8"):
        read_truth(tmp_path / "t.csv")


def test_of_two_tables_one_has_to_be_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / f"{name}.csv", "image,label\na.jpg,x\n")
    with pytest.raises(UsageError, match=r"found one\.csv, two\.csv; name one of them"):
        read_truth(tmp_path, "csv")
    assert len(read_truth(tmp_path / "two.csv").photos) == 1


def test_a_csv_with_corners_has_a_box_a_row(tmp_path: Path) -> None:
    """Write boxes as TensorFlow's CSV does, which Roboflow calls `_annotations.csv`."""
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg", seed=1)
    rows = [
        "a.jpg,200,100,papules,10,20,40,60",
        "a.jpg,200,100,pustules,100,10,180,90",
        "b.jpg,200,100,,,,,",
    ]
    text = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    write(tmp_path / "_annotations.csv", text + "\n".join(rows))
    one, two = read_truth(tmp_path).photos
    says_the_same(one)
    assert (one.classes, two.labels, None if two.boxes is None else len(two.boxes)) == (None, (), 0)

    # Without sizes, the photos give them.
    write(
        tmp_path / "_annotations.csv",
        "image,label,x1,y1,x2,y2\na.jpg,papules,10,20,40,60\na.jpg,pustules,100,10,180,90\n",
    )
    says_the_same(next(found for found in read_truth(tmp_path).photos if found.name == "a.jpg"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "image,label,x1,y1,x2,y2\na.jpg,acne,0.1,0.2,0.3,0.4\n",
            "all corners are between 0 and 1",
        ),
        (
            "image,label,x1,y1,x2,y2\na.jpg,acne,1,2,3,four\n",
            "line 2: 1, 2, 3, four are not corners in pixels",
        ),
        ("image,label,x1,y1,x2,y2\na.jpg,acne,1,2,3,\n", "line 2: 1, 2, 3,  are not corners"),
    ],
)
def test_corners_of_a_csv_that_are_none_are_named(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path / "t.csv", text)
    with pytest.raises(UsageError, match=rf"t\.csv: {says}"):
        read_truth(tmp_path / "t.csv")
