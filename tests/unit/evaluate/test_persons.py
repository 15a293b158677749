"""Test that photos of one person are recognised by name, column or look, and that intervals keep them together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import skinbatch
from skinbatch.errors import UsageError
from skinbatch.evaluate.evaluation import Evaluation, evaluate
from skinbatch.evaluate.request import EvaluationRequest
from skinbatch.evaluate.text import as_text
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.reading import destination_store
from tests.faces import png, tar_bytes, write_tree

PERSONS = ("anna", "anna", "anna", "ben", "ben", "eva")


def picture(seed: int) -> Image.Image:
    """Return a picture that looks different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)


def data(image: Image.Image) -> bytes:
    return png(np.asarray(image))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    """Score six photos of three persons; photos 0 and 1 show the same picture."""
    folder = tmp_path_factory.mktemp("persons")
    photos = [picture(n) for n in range(len(PERSONS))]
    photos[1] = photos[0].resize((48, 48)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    write_tree(
        folder / "photos", {f"{who}_{n}.png": data(photos[n]) for n, who in enumerate(PERSONS)}
    )
    lines = [f"{who}_{n}.png,{('rosacea', '')[n % 2]}" for n, who in enumerate(PERSONS)]
    write_tree(folder / "photos", {"labels.csv": "\n".join(["image,label", *lines]).encode()})
    skinbatch.score(folder / "photos", folder / "scored", pack=fake_pack, engine="local")
    return folder


def judge(made: Path, **how: object) -> Evaluation:
    request = EvaluationRequest(made / "photos" / "labels.csv", resampling=Resampling(20), **how)  # type: ignore[arg-type]
    return evaluate(destination_store(made / "scored"), request)


def test_groups_are_counted_by_a_named_group_of_a_pattern(made: Path) -> None:
    found = judge(made, group=r"^(\w)(?P<person>\w+)_")

    assert found.about["groups"] == {
        "by": r"^(\w)(?P<person>\w+)_",
        "estimated": False,
        "groups": 3,
        "photos_sharing": 5,
        "largest": 3,
        "unknown": 0,
    }
    assert "3 groups by" in as_text(found)
    assert (
        "5 of 6 photos share theirs with another judged photo, at most 3 in one group"
        in as_text(found)
    )


def test_groups_by_look_are_told_as_an_estimate(made: Path) -> None:
    found = judge(made, group="look")

    groups = found.about["groups"]
    assert (groups["groups"], groups["photos_sharing"], groups["estimated"]) == (5, 2, True)
    assert found.about["bootstrap"]["over"] == "groups"
    assert "found by photos that look alike" in as_text(found)


def test_photos_of_persons_that_were_trained_on_are_counted_and_judged_apart(
    made: Path, tmp_path: Path
) -> None:
    trained = tmp_path / "train.csv"
    trained.write_text("uri,name,group\n/gone/ben_9.png,ben_9.png,\n/gone/zoe_1.png,zoe_1.png,\n")

    found = judge(made, group=r"^(\w+)_", trained_on=trained)

    assert found.about["groups"]["trained_on"] == {
        "list": str(trained),
        "photos": 2,
        "groups": 2,
        "judged_photos_of_them": 2,
    }
    assert {name: part["photos"] for name, part in found.slices["person"].items()} == {
        "person is new": 4,
        "person was trained on": 2,
    }
    assert "2 of 6 photos (33 %) show a person of the 2 photos trained on" in as_text(found)
    assert "By person" in as_text(found)


def test_a_copy_of_a_trained_photo_is_found_by_look(made: Path, tmp_path: Path) -> None:
    copy = picture(0).resize((80, 80))
    write_tree(tmp_path / "trained", {"x.png": data(copy), "y.png": data(picture(77))})

    found = judge(made, group="look", trained_on=tmp_path / "trained")

    assert found.about["groups"]["trained_on"]["judged_photos_of_them"] == 2
    assert found.slices["person"]["person was trained on"]["photos"] == 2


@pytest.mark.parametrize("text", ["ben_1.png 0 3\nzoe_2.png 1 4\n", "ben_1.png\n"])
def test_a_list_of_names_is_a_list_of_trained_photos(made: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "trainval.txt").write_text(text)

    found = judge(made, group=r"^(\w+)_", trained_on=tmp_path / "trainval.txt")

    assert found.about["groups"]["trained_on"]["judged_photos_of_them"] == 2


def test_a_field_of_the_source_tells_persons(tmp_path: Path, fake_pack: str) -> None:
    members: dict[str, bytes] = {}
    for n, who in enumerate(PERSONS):
        members[f"{n}.png"] = data(picture(n))
        members[f"{n}.json"] = json.dumps({"patient": who}).encode()
    write_tree(tmp_path / "photos", {"shard.tar": tar_bytes(members)})
    skinbatch.score(tmp_path / "photos", tmp_path / "scored", pack=fake_pack, engine="local")
    truth = tmp_path / "truth.csv"
    truth.write_text("image,label\n" + "".join(f"{n}.png,rosacea\n" for n in range(len(PERSONS))))

    for column in ("patient", "meta_patient"):
        found = evaluate(
            destination_store(tmp_path / "scored"),
            EvaluationRequest(truth, resampling=Resampling(20), group=column),
        )
        assert found.about["groups"]["groups"] == 3
    with pytest.raises(
        UsageError, match=r"--group doctor: no column .* \(fields of the source: meta_patient\)"
    ):
        evaluate(destination_store(tmp_path / "scored"), EvaluationRequest(truth, group="doctor"))


def test_what_cannot_be_compared_is_told(made: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("place\na.png\n")
    with pytest.raises(UsageError, match="no column for the photo"):
        judge(made, group="look", trained_on=tmp_path / "list.csv")
    with pytest.raises(UsageError, match="no such file or folder"):
        judge(made, group="look", trained_on=tmp_path / "nowhere.csv")

    (tmp_path / "list.txt").write_text("a.png\n")
    with pytest.raises(UsageError, match="no person is known for the photos judged; give --group"):
        judge(made, trained_on=tmp_path / "list.txt")
    with pytest.raises(
        UsageError, match="none of the 1 photos trained on is a file on this machine"
    ):
        judge(made, group="look", trained_on=tmp_path / "list.txt")
