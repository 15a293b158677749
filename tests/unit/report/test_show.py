"""Test photos with their results drawn on them: pictures, names, and what a notebook shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import skinbatch
from skinbatch.cli import main as cli
from skinbatch.config import Config
from skinbatch.errors import UsageError
from skinbatch.report.overlay import (
    ANNOTATED,
    CONTOUR,
    COUNTED,
    LONG_SIDE,
    NOT_COUNTED,
    draw_overlay,
)
from skinbatch.report.show import picture_name, show
from tests.faces import face, jpeg, png, tar_bytes, write_tree

BOX = {"x1": 20.0, "y1": 30.0, "x2": 40.0, "y2": 50.0, "score": 0.87, "counted": True}


def has_colour(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    return bool((picture == np.array(colour, np.uint8)).all(axis=-1).any())


def colour_at(picture: NDArray[np.uint8], x: float, y: float) -> tuple[int, ...]:
    return tuple(int(value) for value in picture[round(y), round(x)])


@pytest.fixture(scope="module", params=[False, True], ids=["masks computed", "masks saved"])
def scored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fake_pack: str
) -> Path:
    """Return a folder with `photos`, and `out` with their scores."""
    folder = tmp_path_factory.mktemp("show")
    files = {"x/a.png": png(face(1, 2)), "b.jpg": jpeg(face(2)), "cut.png": b"\x89PN"}
    write_tree(folder / "photos", files | {"t.tar": tar_bytes({"m.png": png(face(3))})})
    report = skinbatch.score(
        folder / "photos", folder / "out", pack=fake_pack, engine="local", save_masks=request.param
    )
    assert report.rows == 4
    return folder


def test_boxes_are_drawn_where_they_are_and_counted_ones_stand_out() -> None:
    photo = np.full((100, 80, 3), 90, np.uint8)
    other = BOX | {"x1": 50.0, "x2": 60.0, "counted": False}

    picture = draw_overlay(photo, [BOX, other], ["a.jpg"])

    scale = LONG_SIDE / 100
    assert colour_at(picture, 20 * scale, 40 * scale) == COUNTED
    assert colour_at(picture, 40 * scale, 40 * scale) == COUNTED
    assert colour_at(picture, 50 * scale, 40 * scale) == NOT_COUNTED
    assert picture.shape[1] == 800
    assert picture.shape[0] > 1000, "the caption is below the photo"


def test_boxes_that_people_drew_are_drawn_and_counted() -> None:
    photo = np.full((100, 80, 3), 90, np.uint8)
    people = np.array([[50.0, 60, 70, 80]])

    picture = draw_overlay(photo, [BOX], ["a.jpg"], annotated=people)
    without = draw_overlay(photo, [BOX], ["a.jpg"])

    scale = LONG_SIDE / 100
    assert colour_at(picture, 50 * scale, 70 * scale) == ANNOTATED
    assert colour_at(picture, 20 * scale, 40 * scale) == COUNTED
    legend = picture[LONG_SIDE:]
    assert has_colour(legend, ANNOTATED) and not has_colour(without, ANNOTATED)


def test_large_photos_keep_their_size() -> None:
    photo = np.full((1500, 1200, 3), 90, np.uint8)

    picture = draw_overlay(photo, [BOX], ["a.jpg"])

    assert picture.shape[1] == 1200
    assert colour_at(picture, 20, 40) == COUNTED


def test_skin_is_outlined_and_the_rest_is_darker() -> None:
    photo = np.full((1000, 1000, 3), 200, np.uint8)
    skin = np.zeros((1000, 1000), np.bool_)
    skin[200:800, 300:700] = True

    picture = draw_overlay(photo, [], ["a.jpg"], skin)

    assert colour_at(picture, 500, 500) == (200, 200, 200)
    assert colour_at(picture, 100, 100) == (110, 110, 110)
    assert has_colour(picture[195:205], CONTOUR)


def test_long_names_stay_within_the_picture() -> None:
    picture = draw_overlay(np.zeros((500, 500, 3), np.uint8), [], ["x" * 400])

    assert picture.shape[1] == LONG_SIDE
    assert (picture[:, -8:][LONG_SIDE:] == 255).all(), "nothing is written over the edge"


@pytest.mark.parametrize("image_id", ["x/a.png", "b.jpg", "t.tar/m.png"])
def test_a_scored_photo_is_shown_with_its_boxes(scored: Path, image_id: str) -> None:
    results = skinbatch.open(scored / "out")
    (shown,) = show(results, [image_id], Config())

    assert len(shown.boxes) > 0
    assert has_colour(shown.picture, COUNTED)
    assert has_colour(shown.picture, CONTOUR)
    assert shown.row["count_total"] == sum(box["counted"] for box in shown.boxes)


def test_the_command_writes_one_picture_for_each_photo(
    scored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [
        "show",
        str(scored / "out"),
        "b.jpg",
        "x/a.png",
        "-o",
        str(tmp_path / "shown"),
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["skinbatch", *arguments])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 0
    written = json.loads(capsys.readouterr().out)
    assert [entry["image_id"] for entry in written] == ["b.jpg", "x/a.png"]
    assert all(Image.open(entry["written"]).width == LONG_SIDE for entry in written)


def test_the_command_draws_the_photos_that_a_condition_chooses(
    scored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for chosen, code in (
        (["--where", "count_total = 2"], 0),
        ([], 2),
        (["b.jpg", "--sample", "1"], 2),
    ):
        arguments = ["show", str(scored / "out"), *chosen, "-o", str(tmp_path / "shown"), "--json"]
        monkeypatch.setattr(sys, "argv", ["skinbatch", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == code
        written = capsys.readouterr()
        if code == 0:
            assert [entry["image_id"] for entry in json.loads(written.out)] == ["b.jpg"]
        else:
            assert "name the photos to draw, or choose them" in written.err


def test_the_command_draws_what_people_annotated_beside_what_contradicts_it(
    scored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "truth.csv").write_text(
        "image,label,x1,y1,x2,y2\nb.jpg,acne,60,60,70,70\nnew.jpg,acne,1,1,9,9\n"
    )
    chosen = ["--suspect", "1", "--truth", str(tmp_path / "truth.csv")]
    monkeypatch.setattr(
        sys,
        "argv",
        ["skinbatch", "show", str(scored / "out"), *chosen, "-o", str(tmp_path / "shown")],
    )

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 0
    assert (
        "1 annotated photo was not scored, or not found by name: new.jpg" in capsys.readouterr().err
    )
    assert has_colour(np.asarray(Image.open(tmp_path / "shown/b.jpg.png")), ANNOTATED)


def test_a_photo_that_failed_says_why(scored: Path) -> None:
    with pytest.raises(UsageError, match=r"`cut\.png` was not scored: its status is"):
        list(show(skinbatch.open(scored / "out"), ["cut.png"], Config()))


def test_a_photo_that_has_gone_is_a_placeholder_with_its_boxes(
    tmp_path: Path,
    fake_pack: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_tree(tmp_path / "photos", {"a.png": png(face(2)), "b.png": png(face(3))})
    skinbatch.score(tmp_path / "photos", tmp_path / "out", pack=fake_pack, engine="local")
    (tmp_path / "photos/a.png").unlink()
    arguments = ["show", str(tmp_path / "out"), "a.png", "b.png", "-o", str(tmp_path / "shown")]
    monkeypatch.setattr(sys, "argv", ["skinbatch", *arguments])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 0
    assert "a.png.png shows boxes without the photo: " in capsys.readouterr().err
    placeholder = np.asarray(Image.open(tmp_path / "shown/a.png.png"))
    assert has_colour(placeholder, COUNTED)
    assert colour_at(placeholder, 3, 3) == (120, 120, 120)
    assert has_colour(np.asarray(Image.open(tmp_path / "shown/b.png.png")), CONTOUR)


def test_names_of_pictures_are_safe_and_different() -> None:
    assert picture_name("b.jpg") == "b.jpg.png"
    names = {picture_name(name) for name in ("x/a.png", "x_a.png", "../x/a.png", "x//a.png")}
    assert len(names) == 4
    assert all("/" not in name and not name.startswith(".") for name in names)


def test_a_notebook_shows_pictures_and_a_summary(scored: Path) -> None:
    results = skinbatch.open(scored / "out")

    assert results.show("b.jpg").width == LONG_SIDE
    summary = results._repr_html_()
    assert "<td>3 ok, 1 truncated</td>" in summary
    assert results.fingerprint in summary


def test_a_single_result_is_a_table_in_a_notebook(scored: Path, fake_pack: str) -> None:
    result = skinbatch.Scorer(fake_pack)(face(2))

    text = result._repr_html_()

    assert "<tr><th>status</th><td>ok</td></tr>" in text
    assert f"<td>{len(result.boxes)}, of which {result.count_total} are counted</td>" in text


def test_tables_come_as_pandas_polars_and_supervision(scored: Path) -> None:
    pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    supervision = pytest.importorskip("supervision")
    results = skinbatch.open(scored / "out")

    assert results.to_pandas().shape[0] == 4
    assert results.to_polars("boxes").filter(polars.col("counted")).height > 0
    detections = results.to_supervision("b.jpg")
    assert isinstance(detections, supervision.Detections)
    assert detections.xyxy.shape == (len(detections.confidence), 4)
    assert set(detections.data["class_name"]) <= set(results.class_names)
