"""Test that a scored destination is exported as it was counted, one unit at a time, locally and on S3."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import skinbatch
from jobs.bench_evaluate import generate
from skinbatch.annotations.annotated_photos import Truth
from skinbatch.annotations.read import read_truth
from skinbatch.cli import main as cli
from skinbatch.errors import UsageError
from skinbatch.export.export import WRITERS, ExportRequest, export
from tests.conftest import S3Server
from tests.faces import face, jpeg, write_tree


@pytest.fixture(scope="module")
def dest(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    """Score nine photos in two folders with the fake models; one has no lesion, one is cut off, one
    is not a photo."""
    root = tmp_path_factory.mktemp("scored")
    files = {f"p{n % 2}/{n}.jpg": jpeg(face(n % 4, n % 3, shade=n)) for n in range(7)}
    cut = {"p0/cut.jpg": jpeg(face(1, 1))[:900], "p1/text.jpg": b"text"}
    write_tree(root / "photos", files | cut)
    report = skinbatch.score(
        root / "photos", root / "dest", pack=fake_pack, engine="local", max_failures=1.0
    )
    assert report.statuses["ok"] == 7
    return root / "dest"


def rows(dest: Path, least: float | None = None) -> dict[str, list[dict[str, object]]]:
    """Return image_id -> its counted boxes: as marked, or from a score on and on the skin."""
    results = skinbatch.open(dest)
    boxes = results.boxes().to_pylist()
    counted = [
        b
        for b in boxes
        if (b["counted"] if least is None else b["score"] >= least and b["skin_overlap"] >= 0.5)
    ]
    ok = [i["image_id"] for i in results.images().to_pylist() if i["status"] == "ok"]
    return {image_id: [b for b in counted if b["image_id"] == image_id] for image_id in ok}


def same(truth: Truth, expected: dict[str, list[dict[str, object]]]) -> None:
    assert {p.name for p in truth.photos} == set(expected)
    for photo in truth.photos:
        wanted = [[b[corner] for corner in ("x1", "y1", "x2", "y2")] for b in expected[photo.name]]
        np.testing.assert_array_equal(photo.boxes, np.array(wanted, np.float32).reshape(-1, 4))
        assert photo.labels == tuple(b["label"] for b in expected[photo.name])
        assert (photo.width, photo.height) == (96, 96)


# Label Studio's predictions are no annotations: see test_label_studio.py.
READ_BACK = [form for form in WRITERS if form != "label-studio"]


@pytest.mark.parametrize("form", READ_BACK)
def test_every_ok_photo_has_its_counted_boxes_and_failed_ones_are_told(
    dest: Path, tmp_path: Path, form: str
) -> None:
    expected = rows(dest)
    report = export(str(dest), str(tmp_path / "out"), ExportRequest(form))
    assert (report.photos, dict(report.left_out)) == (7, {"truncated": 1, "unsupported": 1})
    assert report.boxes == sum(len(boxes) for boxes in expected.values()) > 10
    assert min(len(boxes) for boxes in expected.values()) == 0 and report.complete
    same(read_truth(tmp_path / "out"), expected)


def test_another_threshold_counts_anew(dest: Path, tmp_path: Path) -> None:
    assert (
        export(str(dest), str(tmp_path / "none"), ExportRequest("coco", threshold=0.95)).boxes == 0
    )
    assert (
        export(str(dest), str(tmp_path / "all"), ExportRequest("coco", threshold=0.0)).photos == 7
    )
    same(read_truth(tmp_path / "all"), rows(dest, 0.0))
    with pytest.raises(UsageError, match="between 0 and 1"):
        export(str(dest), str(tmp_path / "x"), ExportRequest("coco", threshold=1.5))


def test_scores_are_kept_where_the_format_has_a_place(dest: Path, tmp_path: Path) -> None:
    export(str(dest), str(tmp_path / "coco"), ExportRequest("coco"))
    export(str(dest), str(tmp_path / "voc"), ExportRequest("voc"))
    found = json.loads((tmp_path / "coco/annotations.json").read_text())["annotations"]
    assert {np.float32(a["score"]) for a in found} == {np.float32(0.9)}
    assert "<score>0.9</score>" in (tmp_path / "voc/p1/1.xml").read_text()


def test_a_destination_that_is_none_or_has_no_such_scoring_is_refused(
    dest: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no scoring `ff"):
        export(str(dest), str(tmp_path / "out"), ExportRequest("voc", scoring="ff" * 6))
    with pytest.raises(UsageError, match="overlaps with"):
        export(str(dest), str(dest / "out"), ExportRequest("voc"))


def test_from_s3_to_s3(dest: Path, s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.bucket()
    for path in dest.rglob("*"):
        if path.is_file():
            s3.client.upload_file(str(path), bucket, f"d/{path.relative_to(dest).as_posix()}")
    for form in READ_BACK:
        report = export(
            f"s3://{bucket}/d", f"s3://{bucket}/out-{form}", ExportRequest(form), s3.settings
        )
        assert (report.photos, report.out) == (7, f"s3://{bucket}/out-{form}")
        for item in s3.client.list_objects_v2(Bucket=bucket, Prefix=f"out-{form}/")["Contents"]:
            local = tmp_path / item["Key"]
            local.parent.mkdir(parents=True, exist_ok=True)
            s3.client.download_file(bucket, item["Key"], str(local))
        same(read_truth(tmp_path / f"out-{form}"), rows(dest))
    with pytest.raises(UsageError, match="is not empty"):
        export(f"s3://{bucket}/d", f"s3://{bucket}/out-voc", ExportRequest("voc"), s3.settings)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that runs `skinbatch export` and returns its exit code."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["skinbatch", "export", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


def test_the_command_says_what_was_written(
    dest: Path, tmp_path: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(str(dest), str(tmp_path / "a"), "--format", "voc") == 0
    said = capsys.readouterr().out
    assert "7 photos with " in said and "left out  1 truncated, 1 unsupported" in said
    assert (
        call(
            str(dest),
            str(tmp_path / "b"),
            "--format",
            "yolo",
            "--score-threshold",
            "0.99",
            "--json",
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert (told["photos"], told["boxes"], told["format"]) == (7, 0, "yolo")
    assert call(str(dest), str(tmp_path / "b"), "--format", "yolo") == 2
    assert "is not empty" in capsys.readouterr().err
    assert call(str(dest), str(tmp_path / "c"), "--format", "createml") == 2
    assert call(str(tmp_path / "nowhere"), str(tmp_path / "c"), "--format", "voc") == 2


def test_chosen_photos_alone_are_exported_and_the_rest_is_counted(
    dest: Path, tmp_path: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = {name: boxes for name, boxes in rows(dest).items() if len(boxes) > 2}
    assert 1 < len(expected) < 6
    out = tmp_path / "many"
    assert call(str(dest), str(out), "--format", "coco", "--where", "count_total > 2") == 0
    assert f"left out  {7 - len(expected)} not chosen" in capsys.readouterr().out
    same(read_truth(out), expected)
    assert (
        call(
            str(dest),
            str(tmp_path / "few"),
            "--format",
            "cvat",
            "--sample",
            "3",
            "--stratify",
            "grade,ita",
        )
        == 0
    )
    assert len(read_truth(tmp_path / "few").photos) == 3

    assert (
        call(str(dest), str(tmp_path / "x"), "--format", "voc", "--where", "cuont_total > 2") == 2
    )
    assert "no column 'cuont_total'; similar: count_total" in capsys.readouterr().err
    assert call(str(out), str(tmp_path / "x"), "--format", "voc", "--uncertain", "2") == 2
    assert "--uncertain is for what `skinbatch score` has scored" in capsys.readouterr().err
    assert call(str(dest), str(tmp_path / "x"), "--format", "voc", "--suspect", "2") == 2
    assert not (tmp_path / "x").exists()


def test_suspicious_annotations_go_to_label_studio_beside_the_predictions(
    dest: Path, tmp_path: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    export(str(dest), str(tmp_path / "truth"), ExportRequest("coco"))
    file = tmp_path / "truth/annotations.json"
    data = json.loads(file.read_text())
    first = data["annotations"][0]["image_id"]
    data["annotations"] = [a for n, a in enumerate(data["annotations"]) if n]
    data["images"].append({"id": 99, "file_name": "nowhere.jpg"})
    file.write_text(json.dumps(data))

    chosen = ["--suspect", "5", "--truth", str(tmp_path / "truth")]
    assert call(str(dest), str(tmp_path / "out"), "--format", "label-studio", *chosen) == 0
    said = capsys.readouterr().out
    assert "1 annotated photo was not scored, or not found by name: nowhere.jpg" in said
    assert "these are the model's boxes" not in said
    (task,) = json.loads((tmp_path / "out/tasks-001.json").read_text())
    assert task["data"]["image_id"] == next(
        i["file_name"] for i in data["images"] if i["id"] == first
    )
    assert (task["data"]["missed"], task["data"]["misplaced"], task["data"]["suspicion"]) == (
        1,
        0,
        0.9,
    )
    drawn, found = task["annotations"][0]["result"], task["predictions"][0]["result"]
    assert len(found) == len(drawn) + 1 and "score" not in json.dumps(drawn)

    assert call(str(dest), str(tmp_path / "cvat"), "--format", "cvat", *chosen) == 0
    assert (
        "note      these are the model's boxes; only label-studio also writes those"
        in capsys.readouterr().out
    )
    (photo,) = read_truth(tmp_path / "cvat").photos
    assert photo.boxes is not None and len(photo.boxes) == len(found)


def test_the_export_of_an_unfinished_run_says_how_much_is_missing(
    tmp_path: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    generate(tmp_path / "scored", tmp_path / "truth.json", 20, 100, np.random.default_rng(1))
    store = skinbatch.open(tmp_path / "scored").store
    store.delete(
        [*store.keys("_skinbatch/snapshots/"), next(iter(store.keys("_skinbatch/receipts/")))]
    )
    done = skinbatch.open(tmp_path / "scored").images(["image_id"]).num_rows

    assert call(str(tmp_path / "scored"), str(tmp_path / "out"), "--format", "voc") == 0

    said = capsys.readouterr().out
    assert 0 < done < 20
    assert f"the run has not finished: {done} of 20 photos are done, and 1 of " in said
