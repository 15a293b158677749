"""Test how truths become photos for training and validation: classes, groups, negatives, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skinbatch.annotations.problems import Kind
from skinbatch.errors import UsageError
from skinbatch.models.architectures import StageName
from skinbatch.train.photos.gather import GatheredPhotos, gather
from skinbatch.train.photos.groups import describe_groups, problems_of_groups
from skinbatch.train.recipe_data import DataSection

CLASSES = ("rosacea", "lupus")
DATA = {"train": [{"truth": "derm"}], "valid_share": 0.2}


def photo(path: Path, seed: int) -> None:
    """Return a photo that looks different for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Write ten photos of two patients for each class and for an unknown class, and eight healthy faces."""
    seed = 0
    for name in ("rosacea", "discoid", "moles"):
        for patient in ("p1", "p2", "p3", "p4", "p5"):
            for view in range(2):
                photo(tmp_path / "derm" / name / f"{name}-{patient}_{view}.png", seed := seed + 1)
    for n in range(8):
        photo(tmp_path / "healthy" / f"{n}.png", 100 + n)
    return tmp_path


def gathered(folder: Path, stage: StageName = "classifier", **data: Any) -> GatheredPhotos:
    data = {"train": [{"truth": str(folder / "derm")}], "valid_share": 0.2} | data
    section = DataSection.model_validate(data, strict=False)
    return gather(section, stage, CLASSES, 0, where=folder / "recipe.toml")


def test_classes_are_mapped_and_unknown_ones_left_out_by_number(folders: Path) -> None:
    found = gathered(folders, map={"discoid": "lupus"})
    assert {photo.classes for photo in (*found.train, *found.valid)} == {("rosacea",), ("lupus",)}
    assert found.counts[0].left_out == {"of an unknown class": 10}
    assert len(found.refused["train"]) == 10
    assert len(found.splits()["train"]) == len(found.train) + 10


def test_a_class_that_is_mapped_to_nothing_is_a_photo_of_none(folders: Path) -> None:
    found = gathered(folders, map={"discoid": "lupus", "*": ""})
    none = [photo for photo in (*found.train, *found.valid) if not photo.classes]
    assert {photo.photo.classes for photo in none} == {("moles",)}
    assert sum(count.things.get("none", 0) for count in found.counts) == 10


def test_no_patient_is_in_both_parts_and_every_class_is_in_each(folders: Path) -> None:
    found = gathered(folders, map={"discoid": "lupus", "*": ""}, group=r"-(p\d)_\d")
    patients = [
        {p.photo.name.split("_")[0][-2:] for p in photos} for photos in (found.train, found.valid)
    ]
    assert not patients[0] & patients[1]
    for photos in (found.train, found.valid):
        assert {photo.classes for photo in photos} == {("rosacea",), ("lupus",), ()}
    assert len(found.valid) == 6


@pytest.mark.parametrize(
    ("group", "said"),
    [(r"(p\d)-", "matches no photo's name"), ("patient", "column that no truth has")],
)
def test_a_group_that_fits_nothing_is_told(folders: Path, group: str, said: str) -> None:
    with pytest.raises(UsageError, match=rf"setting `group`: .* {said}"):
        gathered(folders, map={"*": ""}, group=group)


def test_groups_in_both_parts_and_photos_without_one_are_told(folders: Path) -> None:
    photo(folders / "derm" / "rosacea" / "nobody.png", 200)
    for n, name in enumerate(("rosacea-p1_7", "rosacea-p9_7")):
        photo(folders / "held" / "rosacea" / f"{name}.png", 300 + n)
    data = {"train": [{"truth": str(folders / "derm")}], "map": {"*": ""}, "group": r"(p\d)_"}
    section = DataSection.model_validate(
        data | {"valid": [{"truth": str(folders / "held")}]}, strict=False
    )
    found = gather(section, "classifier", CLASSES, 0, where="recipe.toml")
    earlier = {"p9": "body/p9_1.png"}
    told = [
        (p.kind, Path(p.file).name)
        for p in problems_of_groups(found.train, found.valid, section, earlier)
    ]
    assert told == [
        (Kind.SAME_GROUP, "rosacea-p1_7.png"),
        (Kind.SAME_GROUP, "rosacea-p9_7.png"),
        (Kind.NO_GROUP, "nobody.png"),
    ]
    assert earlier.keys() == {"p1", "p2", "p3", "p4", "p5", "p9"}


def test_a_patient_of_two_truths_is_one_patient(folders: Path) -> None:
    for n in range(20):
        photo(folders / "body" / "lupus" / f"arm-p{n % 5 + 1}_{n}.png", 400 + n)
    truths = [{"truth": str(folders / name)} for name in ("derm", "body")]
    found = gathered(folders, train=truths, map={"*": ""}, group=r"(p\d)_")
    parts = [{p.photo.group for p in part} for part in (found.train, found.valid)]
    assert parts[0] and parts[1] and not parts[0] & parts[1]


def test_without_groups_photos_that_look_the_same_stay_together(folders: Path) -> None:
    copies(folders, 4)
    for share in (0.2, 0.5, 0.8):
        found = gathered(folders, map={"*": "lupus"}, valid_share=share)
        together = [
            p.path.name.startswith("copy") or p.path.name == "rosacea-p1_0.png" for p in found.valid
        ]
        assert sum(together) in (0, 5)


def copies(folder: Path, number: int) -> None:
    """Save mirrored copies of one photo of rosacea."""
    for n in range(number):
        twin = folder / "derm" / "rosacea" / f"copy{n}.png"
        Image.open(folder / "derm" / "rosacea" / "rosacea-p1_0.png").transpose(
            Image.Transpose.FLIP_LEFT_RIGHT
        ).save(twin)


def test_groups_by_look_are_named_counted_and_kept_together(folders: Path) -> None:
    copies(folders, 3)
    for seed in (0.2, 0.5):
        found = gathered(folders, map={"*": "lupus"}, valid_share=seed, group="look")
        alike = {
            p.photo.group
            for p in (*found.train, *found.valid)
            if p.path.name.startswith(("copy", "rosacea-p1_0"))
        }
        assert len(alike) == 1
        assert not {p.photo.group for p in found.train} & {p.photo.group for p in found.valid}

    told = describe_groups(
        found.train,
        found.valid,
        DataSection.model_validate({**DATA, "group": "look"}, strict=False),
    )
    assert told is not None
    assert told.startswith(
        "30 groups in 33 photos; 4 photos share theirs with another photo, at most 4 in one group"
    )
    assert "photos that look alike" in told
    assert told.endswith(
        f"0 of {len(found.valid)} validation photos show a group of the training photos"
    )


def test_a_copy_of_a_training_photo_among_the_named_validation_photos_is_the_same_group(
    folders: Path,
) -> None:
    copies(folders, 1)
    (folders / "held" / "rosacea").mkdir(parents=True)
    (folders / "derm" / "rosacea" / "copy0.png").rename(folders / "held" / "rosacea" / "copy0.png")
    photo(folders / "held" / "rosacea" / "new.png", 300)
    data = {"train": [{"truth": str(folders / "derm")}], "map": {"*": "lupus"}, "group": "look"}
    section = DataSection.model_validate(
        data | {"valid": [{"truth": str(folders / "held")}]}, strict=False
    )

    found = gather(section, "classifier", CLASSES, 0, where="recipe.toml")

    told = [
        (p.kind, Path(p.file).name)
        for p in problems_of_groups(found.train, found.valid, section, {})
    ]
    assert told == [(Kind.SAME_GROUP, "copy0.png")]
    assert str(describe_groups(found.train, found.valid, section)).endswith(
        "1 of 2 validation photos show a group of the training photos"
    )


def test_a_named_group_of_the_pattern_is_the_person(folders: Path) -> None:
    found = gathered(folders, map={"*": "lupus"}, group=r"^(\w+)/\w+-(?P<person>p\d)_")
    assert {p.photo.group for p in (*found.train, *found.valid)} == {"p1", "p2", "p3", "p4", "p5"}


def test_negatives_are_split_with_a_share_and_are_for_training_where_validation_is_named(
    folders: Path,
) -> None:
    healthy = [{"photos": str(folders / "healthy"), "most": 6}]
    shared = gathered(folders, map={"*": "lupus"}, negatives=healthy, valid_share=0.5)
    assert sum(p.source.endswith("healthy") for p in shared.train) == sum(
        p.source.endswith("healthy") for p in shared.valid
    ) == 3  # fmt: skip
    named = gathered(
        folders,
        map={"*": "lupus"},
        negatives=healthy,
        valid_share=None,
        valid=[{"truth": str(folders / "derm")}],
    )
    assert sum(p.source.endswith("healthy") for p in named.train) == 6
    assert not any(p.source.endswith("healthy") for p in named.valid)


def test_unusable_photos_are_left_out(folders: Path) -> None:
    bad = folders / "derm" / "rosacea" / "rosacea-p1_0.png"
    section = DataSection.model_validate(
        {"train": [{"truth": str(folders / "derm")}], "valid_share": 0.2, "map": {"*": "lupus"}},
        strict=False,
    )
    found = gather(section, "classifier", CLASSES, 0, where="recipe", unusable={bad})
    assert bad not in {photo.path for photo in (*found.train, *found.valid)}
    assert found.counts[0].left_out == {"that cannot be used": 1}


def test_what_is_looked_at_is_the_sources_own_before_what_data_says(folders: Path) -> None:
    source = {"truth": str(folders / "derm"), "crop": [[0.5, 0, 1, 1]]}
    healthy = [{"photos": str(folders / "healthy"), "face": False}]
    found = gathered(
        folders,
        train=[source],
        map={"*": "lupus"},
        negatives=healthy,
        face=True,
        crop=[[0, 0, 1, 0.5]],
    )
    views = {p.source.split("/")[-1]: (p.view.crop, p.view.face) for p in found.train}
    assert views == {"derm": (((0.5, 0, 1, 1),), True), "healthy": (((0, 0, 1, 0.5),), False)}


def test_a_classifier_takes_the_classes_of_boxes_where_nothing_is_said_of_the_whole(
    tmp_path: Path,
) -> None:
    for n in range(4):
        photo(tmp_path / "derm" / f"{n}.png", n)
    lines = [
        "0.png 1,1,9,9,0 12,12,20,20,1 2,2,8,8,0",
        "1.png 1,1,9,9,1",
        "2.png",
        "3.png 3,3,9,9,0",
    ]
    (tmp_path / "derm" / "_annotations.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "derm" / "_classes.txt").write_text("rosacea\nlupus\n")
    found = gathered(tmp_path, valid_share=0.3)
    by_name = {p.photo.name: set(p.classes) for p in (*found.train, *found.valid)}
    assert by_name == {
        "0.png": {"rosacea", "lupus"},
        "1.png": {"lupus"},
        "2.png": set(),
        "3.png": {"rosacea"},
    }


def test_where_nothing_is_left_the_reasons_are_told(folders: Path) -> None:
    with pytest.raises(
        UsageError,
        match=r"recipe.toml: no photo for `train`; left out: 30 of .*/derm of an unknown class",
    ):
        gathered(
            folders,
            map={"rosacea": "lupus", "discoid": "sun", "moles": "sun", "*": "sun"}
            | {"rosacea": "sun"},
        )


def test_where_every_class_is_unknown_the_truths_and_the_models_are_named(folders: Path) -> None:
    known = [
        {
            "truth": str(folders / "derm"),
            "leave_out": [p.stem for p in (folders / "derm/rosacea").iterdir()],
        }
    ]
    with pytest.raises(UsageError) as error:
        gathered(folders, train=known)
    assert str(error.value).endswith(
        "derm of an unknown class, 10 of "
        + "/".join((folders / "derm").parts[-2:])
        + " by the recipe; the truth's classes "
        "'discoid', 'moles' are none of the model's (rosacea, lupus): give their classes in `data.map`, or \"\" for none"
    )


def test_classes_that_are_mapped_and_that_no_truth_has_are_known(folders: Path) -> None:
    found = gathered(folders, map={"*": "", "discoid": "lupus", "diskoid": "lupus", "Moles": ""})
    assert found.unused == ("diskoid", "Moles")


def test_a_source_of_which_no_photo_is_left_is_still_counted(folders: Path) -> None:
    for n in range(12):
        photo(folders / "more" / "rosacea" / f"{n}.png", 500 + n)
    photo(folders / "odd" / "warts" / "1.png", 600)
    truths = [{"truth": str(folders / name)} for name in ("derm", "more", "odd")]
    found = gathered(
        folders, train=truths, map={"discoid": "lupus", "moles": ""}, train_share=0.001
    )
    counts = {(count.source.split("/")[-1], count.part): count for count in found.counts}
    assert counts["odd", "train"].photos == 0
    assert counts["odd", "train"].left_out == {"of an unknown class": 1}
    assert sum(counts[name, "train"].photos for name in ("derm", "more")) == len(found.train) == 1
    left_out = sum(
        counts[name, "train"].left_out.get("by `train_share`", 0) for name in ("derm", "more")
    )
    assert left_out == 42 - len(found.valid) - 1
    assert not any(count.left_out for count in found.counts if count.part == "valid"), (
        "they were for training"
    )


def test_photos_are_left_out_by_name(folders: Path) -> None:
    named = [{"truth": str(folders / "derm"), "leave_out": ["rosacea-p1_0", "moles-p2_1"]}]
    found = gathered(folders, train=named, map={"*": ""})
    names = {photo.path.stem for photo in (*found.train, *found.valid)}
    assert len(names) == 28
    assert not names & {"rosacea-p1_0", "moles-p2_1"}
    assert found.counts[0].left_out == {"by the recipe": 2}


def test_a_photo_to_leave_out_that_is_not_there_is_named(folders: Path) -> None:
    named = [{"truth": str(folders / "derm"), "leave_out": ["rosacea-p1_0.png"]}]
    with pytest.raises(
        UsageError,
        match=r"setting `leave_out`: .*derm has no photo rosacea-p1_0.png; give file names",
    ):
        gathered(folders, train=named)


def test_a_smaller_share_of_the_training_photos_is_part_of_a_larger_one_and_validation_stays(
    folders: Path,
) -> None:
    found = {
        share: gathered(folders, map={"*": "lupus"}, train_share=share) for share in (0.1, 0.5, 0.9)
    }
    whole = gathered(folders, map={"*": "lupus"})
    names = {share: [photo.photo.name for photo in g.train] for share, g in found.items()}
    assert [len(names[share]) for share in (0.1, 0.5, 0.9)] == [
        round(s * len(whole.train)) for s in (0.1, 0.5, 0.9)
    ]
    assert (
        set(names[0.1])
        < set(names[0.5])
        < set(names[0.9])
        < {photo.photo.name for photo in whole.train}
    )
    assert names[0.5] == [p.photo.name for p in whole.train if p.photo.name in set(names[0.5])], (
        "in their order"
    )
    for share, part in found.items():
        assert part.valid == whole.valid
        assert sum(count.left_out.get("by `train_share`", 0) for count in part.counts) == len(
            whole.train
        ) - len(names[share])


def test_of_a_few_photos_a_small_share_is_one(folders: Path) -> None:
    assert len(gathered(folders, map={"*": "lupus"}, train_share=0.001).train) == 1


def test_a_source_may_hold_back_a_share_of_its_own(folders: Path) -> None:
    own = gathered(
        folders,
        train=[{"truth": str(folders / "derm"), "valid_share": 0.2}],
        valid_share=None,
        map={"*": "lupus"},
    )
    alone = gathered(folders, map={"*": "lupus"})
    assert [photo.path for photo in own.valid] == [photo.path for photo in alone.valid]
    assert [photo.path for photo in own.train] == [photo.path for photo in alone.train]

    for seed in range(3):
        photo(folders / "kept" / "rosacea" / f"k{seed}.png", 300 + seed)
    both = gathered(
        folders,
        train=[{"truth": str(folders / "derm"), "valid_share": 0.2}],
        valid=[{"truth": str(folders / "kept")}],
        valid_share=None,
        map={"*": "lupus"},
    )
    assert len(both.valid) == len(own.valid) + 3


def test_a_folder_of_negatives_may_hold_back_a_share_of_its_own(folders: Path) -> None:
    for seed in range(3):
        photo(folders / "kept" / "rosacea" / f"k{seed}.png", 300 + seed)
    found = gathered(
        folders,
        valid=[{"truth": str(folders / "kept")}],
        negatives=[{"photos": str(folders / "healthy"), "valid_share": 0.25}],
        valid_share=None,
        map={"*": "lupus"},
    )
    assert sum(photo.negative for photo in found.valid) == 2
    assert sum(photo.negative for photo in found.train) == 6
    assert len(found.valid) == 3 + 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train": [{"truth": "a", "valid_share": 0.2}], "valid_share": 0.2}, "leave out `valid`"),
        (
            {"train": [{"truth": "a"}], "valid": [{"truth": "b", "valid_share": 0.2}]},
            "goes with `train`",
        ),
        ({"train": [{"truth": "a"}]}, "give either `valid`"),
    ],
)
def test_shares_that_contradict_each_other_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSection.model_validate(wrong, strict=False)
