"""Test `pack anchors`: the curve, the chosen anchors, the config for an import, one clear message per mistake."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinbatch.cli import main as cli
from skinbatch.errors import UsageError
from skinbatch.models.stages import AnchorSection
from skinbatch.train.anchor_report import report_anchors
from tests.unit.annotations.support import photo


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Write boxes of two sizes, 30 x 30 and 100 x 60 at 640 px, slightly jittered, and two invalid ones."""
    rng = np.random.default_rng(0)
    sizes = np.concatenate(
        [rng.uniform(29, 31, (40, 2)), rng.uniform(0.97, 1.03, (40, 2)) * (100, 60)]
    )
    annotations = [
        {"image_id": 1, "bbox": [5, 5, round(w, 2), round(h, 2)]} for w, h in sizes.tolist()
    ]
    annotations += [
        {"image_id": 1, "bbox": [50, 50, 20, 0]},
        {"image_id": 1, "bbox": [700, 0, 10, 10]},
    ]
    path = tmp_path / "truth.json"
    images = [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["skinbatch", "pack", "anchors", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_planted_sizes_are_the_anchors_and_go_into_a_config(
    truth: Path, tmp_path: Path
) -> None:
    config = tmp_path / "detector.toml"
    report = report_anchors(truth, 2, output=config, plot=tmp_path / "curve.png")
    np.testing.assert_allclose(report.anchors, [[30, 30], [100, 60]], rtol=0.03)
    assert list(report.curve) == list(range(1, 13))
    assert report.curve[2] > 0.95 > 0.6 > report.curve[1]
    written = tomllib.loads(config.read_text())
    assert (written["size"], written["max_upscale"]) == (640, 1.0)
    assert AnchorSection.model_validate_json(json.dumps(written["anchors"])).sizes == report.anchors
    with Image.open(tmp_path / "curve.png") as plot:
        assert plot.format == "PNG" and plot.width > 500


def test_of_a_config_that_is_there_only_the_anchors_change(truth: Path, tmp_path: Path) -> None:
    config = tmp_path / "detector.toml"
    config.write_text(
        "# mine\nsize = 320 # small\nstrides = [8, 16]\n\n[anchors] # old\nscales = [\n  1.0,\n]\n\n[tiling]\nabove = 900\n"
    )
    report = report_anchors(truth, 2, output=config)
    np.testing.assert_allclose(report.anchors, [[15, 15], [50, 30]], rtol=0.05)
    text = config.read_text()
    assert text.startswith("# mine\nsize = 320 # small\n")
    assert tomllib.loads(text) == {
        "size": 320,
        "strides": [8, 16],
        "anchors": {"sizes": [list(a) for a in report.anchors]},
        "tiling": {"above": 900},
    }
    report_anchors(truth, 2, output=config)
    assert config.read_text() == text


def test_a_config_without_anchors_gets_them_at_its_end(truth: Path, tmp_path: Path) -> None:
    config = tmp_path / "detector.toml"
    config.write_text("# only a comment")
    report_anchors(truth, 1, output=config)
    assert config.read_text().startswith("# only a comment\n\n[anchors]\n")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("anchors = { scales = [8.0] }\n", "remove them"),
        ("size = [", "not readable as TOML"),
        ("size = 'large'\n", "`size` is not a number"),
        ("size = 320\n", "size is 320 there and 640 in the option"),
    ],
)
def test_a_config_that_cannot_take_the_anchors_is_left_alone(
    truth: Path, tmp_path: Path, content: str, says: str
) -> None:
    config = tmp_path / "detector.toml"
    config.write_text(content)
    with pytest.raises(UsageError, match=says):
        report_anchors(truth, 2, size=640, output=config)
    assert config.read_text() == content


def test_the_command_prints_the_table_and_names_what_it_left_out(
    truth: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, truth, "-k", 2) == 0
    said = capsys.readouterr().out
    for text in (
        "80 boxes of 1 photos",
        "1 empty",
        "1 outside the photo",
        "a.jpg",
        "  2  0.9",
        "<- chosen",
        " x ",
    ):
        assert text in said
    assert call(monkeypatch, truth, "-k", 2, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["anchors"]) == 2 and report["curve"]["2"] > report["curve"]["1"]


def test_no_boxes_and_too_few_are_exit_2(
    truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, truth, "-k", 500) == 2
    assert "80 different boxes cannot make 500 anchors" in capsys.readouterr().err
    data = json.loads(truth.read_text())
    truth.write_text(json.dumps(data | {"annotations": data["annotations"][-2:]}))
    assert call(monkeypatch, truth, "-o", tmp_path / "out.toml") == 2
    said = capsys.readouterr().err
    assert "no usable box in 1 photos (left out: 1 empty, 1 outside the photo)" in said
    assert not (tmp_path / "out.toml").exists()


def test_a_place_that_cannot_be_written_is_named(truth: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere/curve\.png: cannot be written"):
        report_anchors(truth, 2, plot=tmp_path / "nowhere" / "curve.png")


def test_on_acne04_nine_anchors_cover_the_lesions_that_the_usual_ones_miss(
    shared_data: Path,
) -> None:
    report = report_anchors(shared_data / "acne04" / "valid", 9)
    assert (report.photos, report.boxes, dict(report.left_out)) == (283, 3425, {})
    assert (np.diff(list(report.curve.values())) > 0).all()
    assert report.mean_iou > 0.8
    assert np.prod(report.anchors, axis=1).max() < 64 * 64


def test_swapped_corners_are_counted_and_photos_may_be_elsewhere(tmp_path: Path) -> None:
    place = photo(tmp_path / "photos/a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 -0.1 0.2\n0 0.5 0.5 0.2 0.2\n")
    report = report_anchors(tmp_path / "labels", 1, size=200, photos=place.parent)
    assert (report.boxes, report.swapped) == (2, 1)
    assert "corrected: 1 box with swapped corners" in report.as_text()
