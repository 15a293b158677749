"""Test annotations as people have them: other spellings, other places, swapped corners."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skinbatch
from skinbatch.annotations.annotated_photos import Truth
from skinbatch.annotations.checks import check
from skinbatch.annotations.pairing import pair
from skinbatch.annotations.problems import Kind
from skinbatch.annotations.read import read_truth, refuse_wrong_units
from skinbatch.cli import main as cli
from skinbatch.errors import UsageError
from skinbatch.train.photos.gather import gather
from skinbatch.train.recipe_file import read_recipe
from tests.faces import face, png, write_tree
from tests.unit.annotations.support import coco, mask, photo, write

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Björn_0.jpg") for form in ("NFC", "NFD"))
SWAPPED_VOC = (
    "<annotation><filename>a.jpg</filename><size><width>200</width><height>100</height></size><object><name>acne</name>"
    "<bndbox><xmin>30</xmin><ymin>10</ymin><xmax>10</xmax><ymax>40</ymax></bndbox></object></annotation>"
)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["skinbatch", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def one_image(file: Path, name: str, **changes: Any) -> Path:
    return coco(file, images=[{"id": 7, "file_name": name, "width": 200, "height": 100}], **changes)


def boxes_of(truth: Truth) -> dict[str, list[list[float]]]:
    return {
        one.name: np.asarray(one.boxes).tolist() for one in truth.photos if one.boxes is not None
    }


# Unicode


@pytest.mark.parametrize(("on_disk", "said"), [(DECOMPOSED, COMPOSED), (COMPOSED, DECOMPOSED)])
@pytest.mark.parametrize("form", ["coco", "voc", "yolo", "lines", "csv", "masks"])
def test_a_name_is_the_same_however_unicode_spells_it(
    tmp_path: Path, on_disk: str, said: str, form: str
) -> None:
    place = photo(tmp_path / "images" / on_disk)
    stem = said.removesuffix(".jpg")
    if form == "coco":
        one_image(tmp_path / "truth.json", said)
    elif form == "voc":
        write(tmp_path / f"Annotations/{stem}.xml", SWAPPED_VOC)
    elif form == "yolo":
        write(tmp_path / f"labels/{stem}.txt", "0 0.5 0.5 0.1 0.1\n")
    elif form == "lines":
        write(tmp_path / "list.txt", f"{said} 10,20,40,60,0\n")
    elif form == "csv":
        write(tmp_path / "list.csv", f"image,label\n{said},acne\n")
    else:
        photo(tmp_path / f"masks/{stem}.png")

    truth = read_truth(tmp_path, form)
    assert [one.path for one in truth.photos] == [place]


def test_two_files_that_only_unicode_tells_apart_are_named(tmp_path: Path) -> None:
    accented = "ệ.jpg"  # three spellings: composed, half composed, decomposed
    for name in (unicodedata.normalize("NFD", accented), "ê\u0323.jpg"):
        photo(tmp_path / "images" / name)
    one_image(tmp_path / "truth.json", unicodedata.normalize("NFC", accented))
    with pytest.raises(UsageError, match="differ only in their Unicode form; rename one"):
        read_truth(tmp_path)

    # If one of them is spelled as in the truth, it is the photo.
    exact = photo(tmp_path / "images" / unicodedata.normalize("NFC", accented))
    assert exact in [one.path for one in read_truth(tmp_path).photos if one.boxes is not None]


def test_a_photo_that_is_named_twice_in_two_spellings_is_annotated_twice(tmp_path: Path) -> None:
    file = write(tmp_path / "list.txt", f"{COMPOSED} 1,2,3,4,0\n{DECOMPOSED} 5,6,7,8,0\n")
    with pytest.raises(UsageError, match=r"rn_0\.jpg is annotated in .*list\.txt, twice"):
        read_truth(file)


def test_rows_are_paired_however_unicode_spells_their_names() -> None:
    pairs = pair([COMPOSED, "b.jpg"], ["b.jpg", DECOMPOSED])
    assert (pairs.way, pairs.truth.tolist(), pairs.rows.tolist()) == ("name", [1, 0], [0, 1])
    nested = pair([COMPOSED], [f"x.tar/{DECOMPOSED}"])
    assert (nested.way, nested.rows.tolist()) == ("base name", [0])

    # A name that is equal on both sides wins; a name that may be two rows is in no pair.
    exact = pair([COMPOSED], [DECOMPOSED, COMPOSED])
    assert (exact.rows.tolist(), exact.unsaid, exact.ambiguous) == ([1], (DECOMPOSED,), ())
    half = "ê\u0323"
    several = pair([unicodedata.normalize("NFC", half)], [unicodedata.normalize("NFD", half), half])
    assert (several.rows.tolist(), len(several.ambiguous)) == ([], 1)


RECIPE = """
stage = "detector"
name = "mine"
[model]
arch = "yolox-tiny"
classes = ["papules", "pustules", "acné"]
[data]
train = [{{ {train} }}]
valid_share = 0.5
[schedule]
epochs = 1
"""


def test_leave_out_classes_and_groups_are_compared_alike(tmp_path: Path) -> None:
    images = []
    annotations = []
    for n in range(3):
        name = unicodedata.normalize("NFD", f"Björn_{n}.jpg")
        photo(tmp_path / "photos" / name, seed=n)
        images.append({"id": n, "file_name": name, "width": 200, "height": 100})
        annotations.append({"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 9, 9]})
    categories = [{"id": 1, "name": unicodedata.normalize("NFD", "acné")}]
    coco(tmp_path / "photos/t.json", images=images, annotations=annotations, categories=categories)
    write(
        tmp_path / "recipe.toml", RECIPE.format(train='truth = "photos", leave_out = ["Björn_2"]')
    )

    recipe = read_recipe(tmp_path / "recipe.toml")
    gathered = gather(recipe.data, "detector", recipe.classes, 0, where="recipe.toml")
    taken = [*gathered.train, *gathered.valid]
    assert sorted(unicodedata.normalize("NFC", one.photo.name) for one in taken) == [
        "Björn_0.jpg",
        "Björn_1.jpg",
    ]
    assert {one.classes for one in taken} == {("acné",)}


def test_scored_photos_of_a_mac_are_evaluated_and_explained_by_composed_names(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fake_pack: str,
) -> None:
    write_tree(tmp_path / "photos", {unicodedata.normalize("NFD", "Björn_0.png"): png(face(1, 0))})
    skinbatch.score(tmp_path / "photos", tmp_path / "out", pack=fake_pack, engine="local")
    image = {"id": 7, "file_name": "Björn_0.png", "width": 96, "height": 96}
    truth = coco(tmp_path / "truth/t.json", images=[image], annotations=[
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [34, 26, -7, -7]}
    ])  # fmt: skip
    assert (
        run(
            monkeypatch,
            "evaluate",
            tmp_path / "out",
            truth,
            "--map",
            "*=acne",
            "--out",
            tmp_path / "report",
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "1 photos judged" in said
    assert (
        "the corners of 1 of the truth's boxes were swapped and have been corrected, in Björn_0.png"
        in said
    )
    found = json.loads((tmp_path / "report/evaluation.json").read_text())
    assert found["all"]["lesions"]["true_boxes"] == 1

    from skinbatch.report.photo_again import find_row

    row = find_row(skinbatch.open(tmp_path / "out"), "Björn_0.png")
    assert row["image_id"] == unicodedata.normalize("NFD", "Björn_0.png")


# Pixels and shares


@pytest.mark.parametrize("line", ["0 100 50 20 20", "0 1.5 50 20 20", "0 90 40 110 40 110 60"])
def test_yolo_in_pixels_is_refused(tmp_path: Path, line: str) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", f"0 0.5 0.5 1.1 1.1\n{line}\n")
    with pytest.raises(UsageError, match=r"a\.txt: has boxes in pixels"):
        refuse_wrong_units(read_truth(tmp_path))


def test_shares_where_pixels_are_due_are_refused(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    box = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [0.25, 0.25, 0.5, 0.5]}
    file = one_image(tmp_path / "t.json", "a.jpg", annotations=[box])
    with pytest.raises(UsageError, match=r"boxes lie within 0 to 1, .* multiply them"):
        refuse_wrong_units(read_truth(file))

    pixels = box | {"id": 2, "bbox": [10, 10, 20, 20]}
    one_image(file, "a.jpg", annotations=[box, pixels])
    refuse_wrong_units(read_truth(file))
    assert boxes_of(read_truth(file))["a.jpg"][1] == [10, 10, 30, 30]


# Swapped corners

SWAPPED = {
    "voc": ("a.xml", SWAPPED_VOC),
    "yolo": ("a.txt", "0 0.1 0.25 -0.1 -0.3\n"),
    "lines": ("list.txt", "a.jpg 30,40,10,10,acne\n"),
    "csv": ("_annotations.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,200,100,acne,30,40,10,10\n"),
    "coco": (
        "t.json",
        json.dumps({
            "images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 100}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [30, 40, -20, -30]}],
            "categories": [{"id": 1, "name": "acne"}],
        }),
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", SWAPPED)
@pytest.mark.parametrize("into", ["voc", "coco", "yolo"])
def test_swapped_corners_are_put_right_counted_and_never_written_on(
    tmp_path: Path,
    form: str,
    into: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photo(tmp_path / "in/a.jpg")
    name, text = SWAPPED[form]
    write(tmp_path / "in" / name, text)

    truth = read_truth(tmp_path / "in")
    (one,) = truth.photos
    np.testing.assert_allclose(np.asarray(one.boxes), [[10, 10, 30, 40]], atol=1e-5)
    (problem,) = check({"train": truth.photos}, "detector", one.labels or ()).of(Kind.SWAPPED)
    assert problem.what == "a.jpg: box 1"

    assert run(monkeypatch, "export", tmp_path / "in", tmp_path / "out", "--format", into) == 0
    assert "corrected 1 box with swapped corners" in capsys.readouterr().out
    photo(tmp_path / ("out/images/a.jpg" if into == "yolo" else "out/a.jpg"))
    (again,) = read_truth(tmp_path / "out").photos
    assert again.swapped == frozenset()
    np.testing.assert_array_equal(np.asarray(again.boxes), np.asarray(one.boxes))


def test_swapped_crowds_are_put_right_too(tmp_path: Path) -> None:
    crowd = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [30, 40, -20, -30], "iscrowd": 1}
    coco(tmp_path / "t.json", annotations=[crowd])
    (one,) = read_truth(tmp_path).photos
    assert (np.asarray(one.crowd_boxes).tolist(), one.swapped) == (
        [[10, 10, 30, 40]],
        frozenset({0}),
    )


# Photos elsewhere


@pytest.mark.parametrize(
    "said",
    [
        "a.jpg",
        "images/a.jpg",
        "/home/ann/set/images/a.jpg",
        "C:\\Users\\ann\\set\\a.jpg",
        "..\\..\\media\\upload\\a.jpg",
        "\\\\server\\share\\a.jpg",
    ],
)
def test_photos_are_found_in_the_folder_that_is_named(tmp_path: Path, said: str) -> None:
    place = photo(tmp_path / "elsewhere/a.jpg")
    file = one_image(tmp_path / "annotations/t.json", said)
    truth = read_truth(file, photos=tmp_path / "elsewhere")
    assert [(one.name, one.path) for one in truth.photos] == [("a.jpg", place)]

    lines = write(tmp_path / "annotations/list.txt", f"{said} 10,20,40,60,0\n")
    assert [one.path for one in read_truth(lines, photos=tmp_path / "elsewhere").photos] == [place]
    table = write(tmp_path / "annotations/list.csv", f"image,label\n{said},acne\n")
    assert [one.path for one in read_truth(table, photos=tmp_path / "elsewhere").photos] == [place]


def test_a_foreign_path_is_the_photo_with_the_longest_path_that_it_ends_with(
    tmp_path: Path,
) -> None:
    deep, _ = photo(tmp_path / "p/train/a.jpg", seed=1), photo(tmp_path / "p/a.jpg", seed=2)
    for said in ("D:/set/train/a.jpg", "/srv/set/train/a.jpg"):
        file = one_image(tmp_path / "t.json", said)
        truth = read_truth(file, photos=tmp_path / "p")
        assert [one.path for one in truth.photos if one.boxes is not None] == [deep]

    # A photo in another folder is another photo.
    file = one_image(tmp_path / "t.json", "/srv/set/valid/b.jpg")
    photo(tmp_path / "p/train/b.jpg")
    assert [
        one.path for one in read_truth(file, photos=tmp_path / "p").photos if one.boxes is not None
    ] == [None]


def test_labels_and_masks_alone_are_told_by_the_names_of_their_photos(tmp_path: Path) -> None:
    place = photo(tmp_path / "p/a.jpg")
    write(tmp_path / "labels/a.txt", "0 0.5 0.5 0.1 0.2\n")
    mask(tmp_path / "numbers/a.png", np.ones((10, 20), np.uint8))
    for folder, form in (("labels", "yolo"), ("numbers", "masks")):
        truth = read_truth(tmp_path / folder, photos=tmp_path / "p")
        assert (truth.format, [one.path for one in truth.photos]) == (form, [place])


def test_photos_are_found_in_folders_that_the_names_do_not_have(tmp_path: Path) -> None:
    place = photo(tmp_path / "p/patient-1/a.jpg")
    file = one_image(tmp_path / "t.json", "a.jpg")
    assert [one.path for one in read_truth(file, photos=tmp_path / "p").photos] == [place]
    photo(tmp_path / "p/patient-2/a.jpg", seed=1)
    assert [one.path for one in read_truth(file, photos=tmp_path / "p").photos] == [None], (
        "which of the two nobody says"
    )


def test_several_coco_files_may_share_a_folder_of_photos(tmp_path: Path) -> None:
    for n, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        photo(tmp_path / "images" / name, seed=n)
    one_image(tmp_path / "annotations/train.json", "a.jpg")
    one_image(tmp_path / "annotations/valid.json", "b.jpg")
    found = {one.name: one.boxes is not None for one in read_truth(tmp_path).photos}
    assert found == {"a.jpg": True, "b.jpg": True, "c.jpg": False}


def test_labels_of_yolo_and_voc_find_photos_elsewhere(tmp_path: Path) -> None:
    place = photo(tmp_path / "elsewhere/a.jpg")
    write(tmp_path / "yolo/labels/train/a.txt", "0 0.5 0.5 0.1 0.2\n")
    write(tmp_path / "voc/a.xml", SWAPPED_VOC)
    for form in ("yolo", "voc"):
        truth = read_truth(tmp_path / form, photos=tmp_path / "elsewhere")
        assert [one.path for one in truth.photos] == [place]
    assert boxes_of(read_truth(tmp_path / "yolo", photos=tmp_path / "elsewhere")) == {
        "a.jpg": [[90, 40, 110, 60]]
    }


def test_a_folder_of_photos_is_refused_where_it_means_nothing_or_is_not_there(
    tmp_path: Path,
) -> None:
    photo(tmp_path / "acne/a.jpg")
    with pytest.raises(UsageError, match="'folders' contains its photos"):
        read_truth(tmp_path, "folders", photos=tmp_path)
    with pytest.raises(UsageError, match="no such folder of photos"):
        read_truth(one_image(tmp_path / "t.json", "a.jpg"), photos=tmp_path / "nowhere")


def test_a_recipe_names_the_photos_of_a_coco_file(tmp_path: Path) -> None:
    for n in range(2):
        photo(tmp_path / f"photos/{n}.jpg", seed=n)
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 200, "height": 100} for n in range(2)]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 9, 9]} for n in range(2)
    ]
    coco(tmp_path / "labels/t.json", images=images, annotations=annotations)
    write(
        tmp_path / "recipe.toml", RECIPE.format(train='truth = "labels/t.json", photos = "photos"')
    )

    recipe = read_recipe(tmp_path / "recipe.toml")
    recipe.check_files()
    gathered = gather(recipe.data, "detector", recipe.classes, 0, where="recipe.toml")
    assert {one.path for one in (*gathered.train, *gathered.valid)} == {
        tmp_path / f"photos/{n}.jpg" for n in range(2)
    }
    assert 'photos = "photos"' in recipe.as_toml()

    write(tmp_path / "recipe.toml", RECIPE.format(train='truth = "labels/t.json", photos = "gone"'))
    with pytest.raises(UsageError, match=r"setting `photos`: .*gone: no such folder"):
        read_recipe(tmp_path / "recipe.toml").check_files()


def test_photos_that_are_not_found_come_with_the_setting(tmp_path: Path) -> None:
    coco(tmp_path / "labels/t.json")
    write(tmp_path / "recipe.toml", RECIPE.format(train='truth = "labels/t.json"'))
    recipe = read_recipe(tmp_path / "recipe.toml")
    with pytest.raises(
        UsageError,
        match=r"1 of labels/t\.json without a photo; name the folder of the photos with `photos`",
    ):
        gather(recipe.data, "detector", recipe.classes, 0, where="recipe.toml")


def test_export_and_evaluate_take_the_folder_of_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "photos/a.jpg")
    write(tmp_path / "labels/a.txt", "0 0.5 0.5 0.1 0.2\n")
    export = ("export", tmp_path / "labels", tmp_path / "out", "--format", "voc")
    assert run(monkeypatch, *export, "--photos", tmp_path / "photos") == 0
    assert boxes_of(read_truth(tmp_path / "out")) == {"a.jpg": [[90, 40, 110, 60]]}
    capsys.readouterr()


# Ultralytics' data.yaml


def ultralytics(root: Path, yaml: str, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """Write a data set as Ultralytics lays it out, and a data.yaml in another folder."""
    for n, split in enumerate(splits):
        photo(root / f"datasets/acne/images/{split}/{split}.jpg", seed=n)
        write(root / f"datasets/acne/labels/{split}/{split}.txt", "0 0.5 0.5 0.2 0.2\n")
    return write(root / "cfg/acne.yaml", yaml)


SPLITS = "train: images/train\nval: images/val\nnames:\n  0: acne\n"


@pytest.mark.parametrize(
    "path", ["../datasets/acne", "datasets/acne", "acne", "{root}/datasets/acne"]
)
def test_the_path_of_a_data_yaml_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = ultralytics(tmp_path, f"path: {path.format(root=tmp_path)}\n{SPLITS}")
    for said in (file, file.parent):
        truth = read_truth(said)
        assert truth.root == tmp_path / "datasets/acne/images"
        assert [(one.name, one.labels) for one in truth.photos] == [
            ("train/train.jpg", ("acne",)),
            ("val/val.jpg", ("acne",)),
        ]
    assert [one.name for one in read_truth(file, split="val").photos] == ["val.jpg"]


def test_train_takes_the_train_of_a_data_yaml_and_valid_its_val(tmp_path: Path) -> None:
    ultralytics(tmp_path, f"path: ../datasets/acne\n{SPLITS}")
    text = RECIPE.format(train='truth = "cfg/acne.yaml"').replace(
        "valid_share = 0.5", 'valid = [{ truth = "cfg/acne.yaml" }]\nmap = { "*" = "papules" }'
    )
    recipe = read_recipe(write(tmp_path / "recipe.toml", text))
    gathered = gather(recipe.data, "detector", recipe.classes, 0, where="recipe.toml")
    assert [one.path.name for one in gathered.train] == ["train.jpg"]
    assert [one.path.name for one in gathered.valid] == ["val.jpg"]

    write(
        tmp_path / "cfg/acne.yaml", "path: ../datasets/acne\ntrain: images/train\nnames: [acne]\n"
    )
    with pytest.raises(UsageError, match=r"acne\.yaml: has no `val` \(it has train\)"):
        gather(recipe.data, "detector", recipe.classes, 0, where="recipe.toml")


def test_lists_of_folders_and_lists_of_photos_are_read(tmp_path: Path) -> None:
    text = "path: ../datasets/acne\ntrain: [images/train, images/more]\nval: val.txt\ntest: images/none\nnc: 1\nnames: [acne]\n"
    file = ultralytics(tmp_path, text, ("train", "more", "val"))
    listed = write(tmp_path / "datasets/acne/val.txt", "./images/val/val.jpg\n")
    expected = ["more/more.jpg", "train/train.jpg", "val/val.jpg"]
    assert [one.name for one in read_truth(file).photos] == expected
    for line in (
        f"{tmp_path}/datasets/acne/images/val/val.jpg",
        "images/val/val.jpg",
        "images\\val\\val.jpg",
    ):
        write(listed, f"{line}\n\n")
        (val,) = read_truth(file, split="val").photos
        assert (val.name, val.labels) == ("val.jpg", ("acne",))
    with pytest.raises(UsageError, match=r"`test`: .*images/none: no such folder or list"):
        read_truth(file, split="test")


def test_roboflows_paths_lead_beside_the_file(tmp_path: Path) -> None:
    for n, split in enumerate(("train", "valid")):
        photo(tmp_path / f"{split}/images/{split}.jpg", seed=n)
        write(tmp_path / f"{split}/labels/{split}.txt", "0 0.5 0.5 0.2 0.2\n")
    file = write(
        tmp_path / "data.yaml",
        "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['acne']\n",
    )
    expected = ["train/images/train.jpg", "valid/images/valid.jpg"]
    assert [one.name for one in read_truth(file).photos] == expected
    assert [one.name for one in read_truth(tmp_path).photos] == expected


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        (
            "path: nowhere\ntrain: images/train\nval: images/val\n",
            r"acne\.yaml: `train`: .*nowhere/images/train: no such",
        ),
        (
            "path: ../datasets/acne\ntrain: images/train\nval: images/gone\n",
            r"`val`: .*images/gone: no such folder",
        ),
        (
            "path: ../datasets/acne\ntrain: 7\nnames: [acne]\n",
            r"`train` is not a folder, a list of photos",
        ),
        ("path: [a]\ntrain: images/train\n", "`path` is not a folder"),
        (f"path: ../datasets/acne\nnc: 3\n{SPLITS}", "`nc` is 3, and `names` has 1 classes"),
        ("train: [\n", "not readable as YAML"),
        ("test: images/none\nnames: [acne]\n", "names no photos that exist"),
    ],
)
def test_what_is_wrong_in_a_data_yaml_is_named(tmp_path: Path, yaml: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_truth(ultralytics(tmp_path, yaml))


def test_validation_is_another_word_for_val_and_photos_are_named_once(tmp_path: Path) -> None:
    file = ultralytics(tmp_path, "path: ../datasets/acne\nvalidation: images/val\nnames: [acne]\n")
    assert [one.name for one in read_truth(file, split="val").photos] == ["val.jpg"]
    with pytest.raises(UsageError, match=r"acne\.yaml: names its photos itself"):
        read_truth(file, photos=tmp_path)


def test_folders_and_lists_of_a_data_yaml_are_found_however_they_are_spelled(
    tmp_path: Path,
) -> None:
    root = tmp_path / unicodedata.normalize("NFD", "données")
    photo(root / "images/é" / DECOMPOSED)
    write(root / "labels/é" / DECOMPOSED.replace(".jpg", ".txt"), "0 0.5 0.5 0.2 0.2\n")
    write(root / "val.txt", f"images/é/{COMPOSED}\n")
    text = "path: données\nval: {}\nnames: [acne]\n"
    for place in ("images/é", "val.txt"):
        (one,) = read_truth(write(tmp_path / "acne.yaml", text.format(place))).photos
        assert (one.name, one.labels) == (DECOMPOSED, ("acne",))


def test_several_data_sets_in_a_folder_have_to_be_told_apart(tmp_path: Path) -> None:
    file = ultralytics(tmp_path, f"path: ../datasets/acne\n{SPLITS}")
    write(file.with_name("other.yaml"), file.read_text())
    with pytest.raises(
        UsageError, match=r"several data sets: acne\.yaml, other\.yaml; name one of them"
    ):
        read_truth(file.parent)


def test_a_data_yaml_without_labels_is_no_reason_to_ask_which_format_is_meant(
    tmp_path: Path,
) -> None:
    photo(tmp_path / "images/a.jpg")
    write(tmp_path / "annotations/a.xml", SWAPPED_VOC)
    write(
        tmp_path / "annotations/data.yaml", "path: ..\ntrain: images\nval: images\nnames: [acne]\n"
    )
    assert read_truth(tmp_path / "annotations").format == "voc"


def test_an_exported_data_yaml_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "in/a.jpg")
    write(tmp_path / "in/a.xml", SWAPPED_VOC)
    assert run(monkeypatch, "export", tmp_path / "in", tmp_path / "out", "--format", "yolo") == 0
    monkeypatch.chdir(tmp_path)
    assert boxes_of(read_truth(tmp_path / "out/data.yaml")) == {"a.jpg": [[10, 10, 30, 40]]}
