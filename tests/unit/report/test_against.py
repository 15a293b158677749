"""Test reports with a truth: the evaluation's numbers, the photos left out by name, and photos side by side."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import skinbatch
from jobs.bench_evaluate import generate
from skinbatch.cli import main as cli
from tests.faces import face, png, write_tree

Report = Callable[..., str]


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """Return a function that gives the page of `skinbatch report DEST ...`."""

    def run(dest: Path, *options: str) -> str:
        arguments = ["report", str(dest), "-o", str(tmp_path / "report.html"), *options]
        monkeypatch.setattr(sys, "argv", ["skinbatch", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return run


@pytest.fixture
def faces(tmp_path: Path, fake_pack: str) -> Path:
    """Score three photos, and write a truth for two of them and for one that was never scored."""
    write_tree(tmp_path / "photos", {f"{n}.png": png(face(n, 1, n)) for n in range(1, 4)})
    skinbatch.score(tmp_path / "photos", tmp_path / "scored", pack=fake_pack, engine="local")
    boxes = skinbatch.open(tmp_path / "scored").boxes().to_pylist()

    # The first photo's truth is what was found; of the second, one box was found and one missed.
    first = [b for b in boxes if b["image_id"] == "1.png" and b["counted"]]
    second = [b for b in boxes if b["image_id"] == "2.png" and b["counted"]][:1]
    drawn = [(1, b) for b in first] + [(2, b) for b in second]
    annotations = [
        {"image_id": n, "bbox": [b["x1"], b["y1"], b["x2"] - b["x1"], b["y2"] - b["y1"]]}
        for n, b in drawn
    ]
    annotations += [{"image_id": 2, "bbox": [0, 0, 6, 6]}, {"image_id": 9, "bbox": [0, 0, 6, 6]}]
    truth = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "width": 96, "height": 96} for n in (1, 2, 9)
        ],
        "annotations": [{"id": n, "category_id": 1, **a} for n, a in enumerate(annotations)],
        "categories": [{"id": 1, "name": "acne"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    return tmp_path


def test_boxes_of_people_and_model_are_side_by_side(faces: Path, report: Report) -> None:
    page = report(faces / "scored", "--truth", str(faces / "truth.json"), "--thumbnails", "5")

    pairs = re.findall(r'<figure data-image="([^"]+)">(.*?)</figure>', page, re.DOTALL)
    assert [name for name, _ in pairs] == ["2.png", "1.png"]
    worst = pairs[0][1]
    assert worst.count('class="missed"') == 1
    assert worst.count('class="right"') == 2, "on both sides"
    assert "people: 2, of which 1 missed" in worst
    assert worst.count("data:image/jpeg") == 1, "the photo is stored once and shown twice"
    assert 'class="missed"' not in pairs[1][1]
    assert 'class="false"' not in pairs[1][1]


def test_photos_without_a_row_are_counted_and_named(faces: Path, report: Report) -> None:
    page = report(faces / "scored", "--truth", str(faces / "truth.json"))

    assert "2 of 3 annotated photos" in page
    assert re.search(r"Annotated, but not scored: 1</summary>\s*<p><code>9\.png</code>", page)
    assert re.search(r"Scored, but not annotated: 1</summary>\s*<p><code>3\.png</code>", page)
    assert "data:image" not in page


def test_headlines_are_the_numbers_of_the_evaluation(tmp_path: Path, report: Report) -> None:
    generate(tmp_path / "scored", tmp_path / "truth.json", 40, 600, np.random.default_rng(4))
    page = report(tmp_path / "scored", "--truth", str(tmp_path / "truth.json"))

    cards = dict(re.findall(r'<span class="soft">([^<]+)</span><b>([^<]+)</b>', page))
    assert len(re.findall(r"<span>\(-?[\d.]+ to -?[\d.]+\)</span>", page)) == len(cards) == 7
    truth = json.loads((tmp_path / "truth.json").read_text())
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    true = Counter(names[annotation["image_id"]] for annotation in truth["annotations"])
    found = Counter(
        b["image_id"]
        for b in skinbatch.open(tmp_path / "scored").boxes().to_pylist()
        if b["counted"]
    )
    error = np.array([found[name] - true[name] for name in names.values()])
    assert cards["Count off by"] == f"{np.abs(error).mean():.1f}"
    assert cards["Count too high by"] == f"{error.mean():.1f}"
    assert f"of {true.total():,} true lesions" in page
    assert "The annotators of ACNE04 counted 38 pairs" in page


def test_persons_that_were_trained_on_are_apart(tmp_path: Path, report: Report) -> None:
    generate(tmp_path / "scored", tmp_path / "truth.json", 40, 600, np.random.default_rng(4))
    names = [
        image["file_name"] for image in json.loads((tmp_path / "truth.json").read_text())["images"]
    ]
    trained = [name for name in names if name.startswith("levle0")]
    (tmp_path / "trained.txt").write_text("\n".join(trained))

    page = report(
        tmp_path / "scored",
        *("--truth", str(tmp_path / "truth.json")),
        *("--group", "(levle[0-9])_", "--trained-on", str(tmp_path / "trained.txt")),
    )

    assert f"<th>person was trained on ({len(trained)} photos)</th>" in page
    assert f"<th>person is new ({len(names) - len(trained)} photos)</th>" in page


def test_an_option_of_the_truth_needs_one(
    faces: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["skinbatch", "report", str(faces / "scored"), "--map", "*=acne"]
    )

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 2
    assert "--map needs --truth" in capsys.readouterr().err
