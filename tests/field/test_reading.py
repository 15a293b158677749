"""Test that a reader sees what was asked for, or the reason why not."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import skinbatch
from skinbatch.errors import UnfinishedWarning, UsageError
from tests.faces import face, png, tar_bytes, write_tree
from tests.field.in_process import command, score


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = {f"{n:02}.png": png(face(n % 4, 1, n)) for n in range(40)}
    members = {"1.png": png(face(1, 2, 60)), "1.json": b'{"subject": "p1"}'}
    return write_tree(
        tmp_path_factory.mktemp("read") / "photos", {"a.tar": tar_bytes(members), **photos}
    )


@pytest.fixture(scope="module")
def dest(tree: Path, fake_pack: str) -> Path:
    score(tree, tree.parent / "out", fake_pack)
    return tree.parent / "out"


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("grde", "grade"),
        ("Grade", "grade"),
        ("image", "image_id"),
        ("lesions_total", "count_total"),
        ("prob_lupus", "prob_lupus_erythematosus"),
        ("meta_subjct", "meta_subject"),
        ("width_px", "width"),
    ],
)
def test_a_column_of_images_that_is_not_there_is_refused_with_similar_names(
    dest: Path, name: str, similar: str
) -> None:
    with pytest.raises(
        UsageError, match=rf"`images` has no column '{name}'; similar: .*\b{similar}\b"
    ):
        skinbatch.open(dest).images(columns=["image_id", name])


@pytest.mark.parametrize(
    ("name", "similar"), [("scores", "score"), ("class_label", "label"), ("x3", "x1")]
)
def test_a_column_of_boxes_that_is_not_there_is_refused_with_similar_names(
    dest: Path, name: str, similar: str
) -> None:
    with pytest.raises(UsageError, match=rf"`boxes` has no column '{name}'; similar: .*{similar}"):
        skinbatch.open(dest).boxes(columns=[name])


def test_where_no_name_is_similar_all_are_named(dest: Path) -> None:
    with pytest.raises(UsageError, match="its columns: image_id, box_id, x1"):
        skinbatch.open(dest).boxes(["zzzzz"])
    with pytest.raises(UsageError, match="no column 'zzzzz'"):
        list(skinbatch.open(dest).units(boxes=["zzzzz"]))


def test_one_name_instead_of_a_list_is_told(dest: Path) -> None:
    with pytest.raises(UsageError, match=r"columns=\['grade'\]"):
        skinbatch.open(dest).images("grade")


def test_open_shows_the_newest_scoring_that_is_finished(
    tree: Path, tmp_path: Path, fake_pack: str
) -> None:
    dest = tmp_path / "out"
    stopped = score(tree, dest, fake_pack, model={"score_floor": 0.2}, run={"limit": 5})
    assert stopped.exit_code == 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        only = skinbatch.open(dest)  # not finished yet, so only what is done so far
    assert (only.fingerprint, only.snapshot, only.newer_unfinished) == (
        stopped.fingerprint,
        None,
        None,
    )
    assert 5 <= only.images().num_rows < 41

    finished = score(tree, dest, fake_pack)
    again = score(tree, dest, fake_pack, model={"score_floor": 0.2}, run={"limit": 5})
    assert (finished.exit_code, again.exit_code) == (0, 6)

    with pytest.warns(
        UnfinishedWarning,
        match=f"{finished.fingerprint}.*{stopped.fingerprint} is newer and not fini",
    ):
        shown = skinbatch.open(dest)
    assert (shown.fingerprint, shown.newer_unfinished) == (
        finished.fingerprint,
        stopped.fingerprint,
    )
    assert shown.images().num_rows == 41
    assert skinbatch.open(dest, scoring=stopped.fingerprint).fingerprint == stopped.fingerprint

    code, _, warned = command("export", str(dest), str(tmp_path / "coco"), "--format", "coco")
    assert code == 0
    assert (
        warned.startswith("skinbatch: ")
        and f"{stopped.fingerprint} is newer and not finished" in warned
    )

    score(tree, dest, fake_pack, model={"score_floor": 0.2})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert skinbatch.open(dest).fingerprint == stopped.fingerprint
