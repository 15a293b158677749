"""Test the reasons why a photo cannot be explained: similar names, changed or missing photos, other packs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import skinbatch
from skinbatch.cli import main as cli
from tests.faces import face, jpeg, png, rows, tar_bytes, write_tree

Says = Callable[..., str]


def specks() -> NDArray[np.uint8]:
    """Return four spots of skin, each too small for a face."""
    photo = np.full((96, 96, 3), (60, 100, 130), np.uint8)
    for x, y in ((10, 10), (70, 10), (10, 70), (70, 70)):
        photo[y : y + 8, x : x + 8] = (210, 160, 130)
    return photo


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    """Return a folder with `photos`, `out` and the `pack` that scored them. Tests that change it use a copy."""
    folder = tmp_path_factory.mktemp("explain")
    files = {
        "x/a.png": png(face(1, 2)),
        "x/b.jpg": jpeg(face(2)),
        "plain.png": png(specks()),
        "cut.png": b"\x89PN",
    }
    write_tree(folder / "photos", files | {"t.tar": tar_bytes({"m.png": png(face(3))})})
    shutil.copytree(fake_pack, folder / "pack")
    report = skinbatch.score(
        folder / "photos", folder / "out", pack=str(folder / "pack"), engine="local"
    )
    assert report.rows == 5
    return folder


@pytest.fixture
def own(scored: Path) -> Iterator[Path]:
    """Return the scored folder, and restore photos and pack after a test has changed them."""
    for name in ("photos", "pack"):
        shutil.copytree(scored / name, scored / f"kept-{name}", symlinks=True)
    yield scored
    for name in ("photos", "pack"):
        shutil.rmtree(scored / name, ignore_errors=True)
        (scored / f"kept-{name}").rename(scored / name)


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Says:
    """Return what `skinbatch explain FOLDER/out IMAGE_ID ...` prints before it ends with 2."""

    def run(folder: Path, image_id: str, *options: str) -> str:
        arguments = [
            "explain",
            str(folder / "out"),
            image_id,
            "-o",
            str(folder / "e.png"),
            *options,
        ]
        monkeypatch.setattr(sys, "argv", ["skinbatch", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert (ended.value.code, said.out) == (2, "")
        assert not (folder / "e.png").exists()
        return str(said.err)

    return run


@pytest.mark.parametrize(
    ("image_id", "close"),
    [("a.png", "x/a.png"), ("x/A.PNG", "x/a.png"), ("t.tar/n.png", "t.tar/m.png")],
)
def test_an_unknown_photo_is_told_with_names_that_are_close(
    says: Says, scored: Path, image_id: str, close: str
) -> None:
    said = says(scored, image_id)
    assert f"no photo `{image_id}` among 5" in said and close in said


def test_a_row_that_is_not_ok_or_has_no_face_says_so(says: Says, scored: Path) -> None:
    found = rows(scored / "out")
    assert found["plain.png"]["face"] is False
    assert "its status is `truncated`" in says(scored, "cut.png")
    assert "has no face" in says(scored, "plain.png")


def test_a_classifier_without_gradients_is_refused_by_name(says: Says, scored: Path) -> None:
    for image_id in ("x/a.png", "t.tar/m.png"):
        assert "classifier `disease` (FakeClassifier)" in says(scored, image_id)


def test_a_head_and_a_class_that_are_not_there_are_told_with_those_that_are(
    says: Says, scored: Path
) -> None:
    assert "no head `acne`; there are: disease" in says(scored, "x/a.png", "--head", "acne")
    said = says(scored, "x/a.png", "--class", "measles")
    assert "no class `measles`; there are: " in said and "rosacea" in said


def test_a_photo_that_changed_or_went_is_not_explained(says: Says, own: Path) -> None:
    (own / "photos/x/a.png").write_bytes(png(face(5)))
    assert "has changed since `x/a.png` was scored" in says(own, "x/a.png")
    (own / "photos/x/a.png").unlink()
    assert "has disappeared since `x/a.png` was scored" in says(own, "x/a.png")


def test_a_member_that_changed_or_went_is_not_explained(says: Says, own: Path) -> None:
    write_tree(own / "photos", {"t.tar": tar_bytes({"m.png": png(face(4))})})
    assert "has changed since `t.tar/m.png` was scored" in says(own, "t.tar/m.png")
    write_tree(own / "photos", {"t.tar": tar_bytes({"n.png": png(face(3))})})
    assert "has disappeared since `t.tar/m.png` was scored" in says(own, "t.tar/m.png")


def test_an_archive_packed_anew_around_the_same_photo_still_has_it(says: Says, own: Path) -> None:
    write_tree(own / "photos", {"t.tar": tar_bytes({"k.png": png(face(1)), "m.png": png(face(3))})})
    assert "FakeClassifier" in says(own, "t.tar/m.png")


def test_a_pack_that_moved_can_be_named_and_another_one_is_refused(
    says: Says, own: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.move(own / "pack", tmp_path / "moved"))
    said = says(own, "x/a.png")
    assert "no such pack" in said and "--pack" in said
    assert "FakeClassifier" in says(own, "x/a.png", "--pack", str(moved))
    assert "made with another pack than starter" in says(own, "x/a.png", "--pack", "starter")
    manifest = moved / "pack.toml"
    manifest.write_text(manifest.read_text().replace("rosacea", "rosacea_2"))
    assert "its classifier-disease had another classes" in says(
        own, "x/a.png", "--pack", str(moved)
    )


def test_an_unknown_scoring_and_a_folder_that_is_no_destination_are_refused(
    says: Says, scored: Path, tmp_path: Path
) -> None:
    assert "no scoring `abc`" in says(scored, "x/a.png", "--scoring", "abc")
    (tmp_path / "out").mkdir()
    assert "is not a destination" in says(tmp_path, "x/a.png")


def test_settings_of_the_source_are_taken_from_the_config(
    says: Says, scored: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text("[decode]\nmax_image_bytes = 10\n")
    assert "raise max_image_bytes in [decode]" in says(
        scored, "x/a.png", "--config", str(tmp_path / "c.toml")
    )
    assert json.loads((scored / "out/_skinbatch/dest.json").read_text())["source"] == str(
        scored / "photos"
    )
