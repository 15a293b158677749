"""Test that the real data sets are read whole, with the problems that their readme names.

Skipped where they are missing.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from skinbatch.annotations.checks import check
from skinbatch.annotations.label_map import read_mask
from skinbatch.annotations.likeness import alike, look_at_all, perceptual_groups
from skinbatch.annotations.problems import Kind
from skinbatch.annotations.read import read_truth

LESIONS = ("nodules and cysts", "papules", "pustules", "whitehead and blackhead")


def test_acne04_has_the_photos_boxes_and_severities_of_its_readme(shared_data: Path) -> None:
    truth = read_truth(shared_data / "acne04/valid")
    assert (truth.format, truth.class_names) == ("voc", LESIONS)
    counts = {
        s: [len(p.boxes) for p in truth.photos if p.severity == s and p.boxes is not None]
        for s in range(4)
    }
    assert [len(counts[s]) for s in range(4)] == [106, 118, 37, 22]
    assert [max(counts[s]) for s in range(4)] == [5, 20, 42, 63]
    said = {(p.severity, label) for p in truth.photos for label in p.labels or ()}
    assert said == {(0, LESIONS[3]), (1, LESIONS[2]), (2, LESIONS[1]), (3, LESIONS[0])}
    assert all((p.width, p.height) == (640, 640) and p.path is not None for p in truth.photos)


def test_what_is_wrong_in_acne04_is_found(shared_data: Path) -> None:
    splits = {part: read_truth(shared_data / "acne04" / part).photos for part in ("train", "valid")}
    found = check(splits, "detector", ["acne"], {"*": "acne"})
    assert set(found.by_kind()) == {Kind.OUTSIDE, Kind.LOOKS_SAME}
    assert [Path(p.file).name for p in found.of(Kind.OUTSIDE)] == ["levle0_470.xml"]
    twice = {Path(p.file).name for p in found.of(Kind.LOOKS_SAME)}
    assert len(twice) <= 6 and {"levle3_20.jpg", "levle0_139.jpg"} <= twice, (
        "the same picture, here with a text over it"
    )


def test_celebamask_has_a_mask_of_skin_and_nose_for_every_photo(shared_data: Path) -> None:
    truth = read_truth(shared_data / "celebamask")
    assert (truth.format, len(truth.photos)) == ("masks", 800)
    assert all(p.masks is not None and p.path is not None for p in truth.photos)
    for photo in truth.photos[::100]:
        mask = read_mask(photo)
        assert mask.shape == (512, 512) and {0, 1, 2} <= set(np.unique(mask).tolist())
    large = read_truth(shared_data / "celebamask_1024").photos
    assert [(p.name, read_mask(p).shape) for p in large] == [
        (f"{n}.jpg", (512, 512)) for n in range(4)
    ]


def test_dermnet_is_of_eight_classes_and_its_copies_are_found(shared_data: Path) -> None:
    truth = read_truth(shared_data / "derm")
    assert (
        Counter(p.classes for p in truth.photos)[("rosacea",)] == 30 and len(truth.class_names) == 8
    )
    keratoses = [p for p in truth.photos if p.classes == ("seborrheic_keratosis_like",)]
    groups = dict(
        zip((Path(p.name).stem for p in keratoses), perceptual_groups(keratoses), strict=True)
    )
    for one, other in ((15, 174), (178, 182), (19, 23), (1, 160), (13, 172)):
        assert groups[f"Keratosis_{one}"] == groups[f"Keratosis_{other}"]
    assert 135 <= len(set(groups.values())) <= 140


def test_photos_are_found_again_and_other_faces_are_not_taken_for_them(
    shared_data: Path, tmp_path: Path
) -> None:
    faces = sorted((shared_data / "celebamask/images").glob("*.jpg"))[:200]
    others = sorted((shared_data / "acne04/valid").glob("*.jpg"))[:100]
    changed = []
    for n, path in enumerate(faces[:40]):
        photo = Image.open(path)
        small = photo.resize((photo.width // (2 + n % 3), photo.height // 2))
        turned = small.transpose(list(Image.Transpose)[n % 7])
        turned.save(tmp_path / f"{n:02}.jpg", quality=40 + n)
        changed.append(tmp_path / f"{n:02}.jpg")
    known, strange, again = (
        [look for look in look_at_all(paths) if not isinstance(look, str)]
        for paths in (faces, others, changed)
    )
    pairs = [
        pair for i, j, _ in alike(known, again) for pair in zip(i.tolist(), j.tolist(), strict=True)
    ]
    assert sorted(pairs) == [(n, n) for n in range(40)]
    assert sum(len(i) for i, _, _ in alike(known, strange)) == 0
    assert sum(len(i) for i, _, _ in alike(known, known)) == 200
