"""Test the whole command, from scored photos and annotations to numbers, against libraries called directly."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score

import skinbatch
from skinbatch.cli import main as cli
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.boxes import Boxes
from skinbatch.metrics.classification import classification
from skinbatch.models.fake import FakeSegmenter
from tests.faces import face, png, rows, write_tree
from tests.unit.metrics.support import coco_eval

Evaluate = Callable[..., dict[str, Any]]
# Name -> lesions left and right of the nose.
PHOTOS = {
    "a/levle0_1.png": (1, 0),
    "a/levle1_2.png": (2, 1),
    "b/levle2_3.png": (3, 3),
    "b/other.png": (1, 1),
}


def lesions(left: int, right: int) -> list[list[int]]:
    """Return the boxes of tests.faces' lesions: discs of radius 3."""
    return [
        [x - 3, 19 + 9 * n, x + 4, 26 + 9 * n]
        for x, count in ((30, left), (66, right))
        for n in range(count)
    ]


TRUE = {
    "a/levle0_1.png": lesions(1, 0),
    "a/levle1_2.png": [*lesions(2, 1), [40, 70, 50, 80]],  # one that is not found
    "b/levle2_3.png": lesions(3, 3)[1:],  # one found too many
    "b/levle0_8.png": lesions(2, 2),  # no such photo
    "b/levle1_9.png": lesions(1, 1),  # a photo that fails
}


def coco_file(path: Path, boxes: dict[str, list[list[int]]], label: str = "acne") -> Path:
    images = [
        {"id": n, "file_name": name, "width": 96, "height": 96} for n, name in enumerate(boxes)
    ]
    annotations = [
        {
            "id": len(boxes) * 100 + n,
            "image_id": image,
            "category_id": 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
        for n, (image, (x1, y1, x2, y2)) in enumerate(
            (k, box) for k, of in enumerate(boxes.values()) for box in of
        )
    ]
    path.write_text(
        json.dumps(
            {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": label}]}
        )
    )
    return path


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    """Return a folder with `photos` and, scored with masks, `out`."""
    folder = tmp_path_factory.mktemp("evaluate")
    files = {name: png(face(*counts, 9 * n)) for n, (name, counts) in enumerate(PHOTOS.items())}
    write_tree(folder / "photos", files | {"b/levle1_9.png": b"\x89PN"})
    report = skinbatch.score(
        folder / "photos", folder / "out", pack=fake_pack, engine="local", save_masks=True
    )
    assert report.statuses == {"ok": 4, "truncated": 1}
    return folder


@pytest.fixture
def evaluate(scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Run `skinbatch evaluate OUT TRUTH ...` and return evaluation.json."""

    def run(truth: Path, *options: str, dest: Path = scored / "out") -> dict[str, Any]:
        arguments = ["evaluate", str(dest), str(truth), "--out", str(tmp_path / "report"), *options]
        monkeypatch.setattr(sys, "argv", ["skinbatch", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        found: dict[str, Any] = json.loads((tmp_path / "report/evaluation.json").read_text())
        return found

    return run


def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> str:
    monkeypatch.setattr(sys, "argv", ["skinbatch", "evaluate", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    return capsys.readouterr().err


def value(number: dict[str, float | None]) -> float | None:
    return number["value"]


def test_boxes_counts_and_grades(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate(
        coco_file(tmp_path / "truth.json", TRUE), "--thresholds", "0.25,0.95", "--bootstrap", "100"
    )
    about, numbers = found["about"], found["all"]["lesions"]
    assert about["matched_by"] == "name"
    assert about["photos"] == {"with_truth": 5, "rows": 5, "judged": 3}
    assert about["truth_without_photo"] == ["b/levle0_8.png"]
    assert about["photos_without_truth"] == ["b/other.png"]
    assert [(row["image_id"], row["status"]) for row in about["failed"]] == [
        ("b/levle1_9.png", "truncated")
    ]
    assert (numbers["true_boxes"], numbers["boxes"]) == (10, 10)

    names = [name for name in PHOTOS if name in TRUE]
    boxes = [np.array(lesions(*PHOTOS[name]), float) for name in names]
    expected = coco_eval(
        Boxes.stack([np.array(TRUE[name]) for name in names]),
        Boxes.stack(boxes, [np.full(len(b), 0.9) for b in boxes]),
        by_class=False,
        most=[500],
    )
    for region in ("all boxes", "on the skin"):
        ours = numbers["detection"][region]["500"]
        assert value(ours["ap50"]) == pytest.approx(expected.eval["precision"][0].mean())
        assert value(ours["ap"]) == pytest.approx(expected.eval["precision"].mean())
        assert value(ours["ar"]) == pytest.approx(0.9)  # 9 of 10, at every overlap
        assert ours == numbers["detection"][region]["100"]
    assert ours["ap50"]["low"] < ours["ap50"]["value"] <= ours["ap50"]["high"]

    low, high, own = numbers["count_error"]
    assert (low["threshold"], high["threshold"], own["threshold"], own["own"]) == (
        0.25,
        0.95,
        0.5,
        True,
    )
    assert [value(low["mae"]), value(low["mean"])] == pytest.approx([2 / 3, 0])
    assert [value(high["mae"]), value(high["mean"])] == pytest.approx([10 / 3, -10 / 3])
    assert {k: own[k] for k in ("mae", "rmse", "mean", "sd")} == {
        k: low[k] for k in ("mae", "rmse", "mean", "sd")
    }

    grades = found["all"]["grades"]
    assert grades["confusion"] == [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5]
    assert value(grades["accuracy"]) == pytest.approx(1 / 3)

    severe = found["slices"]["severity"]["severe"]
    assert severe["photos"] == 1
    assert value(severe["lesions"]["count_error"][0]["mean"]) == 1
    assert value(severe["lesions"]["detection"]["all boxes"]["500"]["ar"]) == 1
    assert sum(group["photos"] for group in found["slices"]["skin_tone"].values()) == 3

    said = capsys.readouterr().out
    assert "1 annotated, but without a row: b/levle0_8.png" in said
    assert "1 annotated, but failed: b/levle1_9.png (truncated)" in said
    # Nobody is very severe here.
    assert "paper 003" in said and "0.536" in said and "31.53" not in said
    for plot in ("precision_recall", "counts", "thresholds", "grades"):
        with Image.open(tmp_path / f"report/{plot}.png") as image:
            assert (
                len(np.unique(np.asarray(image).reshape(-1, image.getbands().__len__()), axis=0))
                > 10
            )
    assert not list((tmp_path / "report").glob("roc*"))


def test_classes_that_the_pack_has_are_told_apart_and_others_are_mapped(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    truth = coco_file(tmp_path / "truth.json", TRUE, label="papule")
    unknown = evaluate(truth, "--bootstrap", "0")
    assert unknown["about"]["unknown_classes"] == {"lesions": {"papule": 10}}
    assert unknown["all"]["lesions"]["detection_by_class"] == {}
    mapped = evaluate(truth, "--bootstrap", "0", "--map", "papule=acne", "--map", "comedo=acne")
    assert mapped["about"]["unknown_classes"] == {"lesions": {}}
    assert mapped["all"]["lesions"] == unknown["all"]["lesions"]
    assert mapped["about"]["notes"] == ["--map comedo: the truth has no class with this name"]
    left_out = evaluate(truth, "--bootstrap", "0", "--map", "papule=")
    assert left_out["all"]["lesions"]["true_boxes"] == 0
    assert left_out["all"]["lesions"]["detection"]["all boxes"]["500"]["ap50"]["value"] is None


def test_masks(
    evaluate: Evaluate, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter = FakeSegmenter(("background", "skin", "nose"))
    truths, models = [], []
    for n, (name, counts) in enumerate(PHOTOS.items()):
        model = segmenter([face(*counts, 9 * n)])[0]
        truth = model.copy()
        # Hair, which the segmenter takes for skin.
        truth[:40] = np.where(truth[:40] == 1, 13, truth[:40])
        path = tmp_path / "truth/masks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = Image.fromarray(truth)
        # A mask of twice the size is accepted; one of another shape is not.
        (
            drawn.resize((192, 192), Image.Resampling.NEAREST)
            if n == 1
            else drawn.resize((96, 50))
            if n == 3
            else drawn
        ).save(path)
        if n < 3:
            truths.append(np.where(truth == 13, 0, truth).ravel())
            models.append(model.ravel())
        (tmp_path / "truth/images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "truth/images" / name).write_bytes((scored / "photos" / name).read_bytes())
    found = evaluate(tmp_path / "truth", "--bootstrap", "50")
    numbers = found["all"]["masks"]
    assert numbers["photos"] == 3
    assert found["about"]["unusable"]["masks"] == ["b/other.png"]
    assert "hair" in found["about"]["merged_into_background"]
    expected = f1_score(np.concatenate(truths), np.concatenate(models), average=None)
    for k, name in enumerate(("background", "skin", "nose")):
        assert value(numbers["classes"][name]["dice"]) == pytest.approx(expected[k])
    assert value(numbers["classes"]["mean"]["dice"]) == pytest.approx(expected.mean())
    said = capsys.readouterr().out
    assert "paper 001" in said and "0.924" in said
    assert Image.open(tmp_path / "report/masks.png").width > 600


def test_masks_are_not_judged_where_people_were_unsure_and_their_parts_can_be_mapped(
    evaluate: Evaluate, scored: Path, tmp_path: Path
) -> None:
    segmenter = FakeSegmenter(("background", "skin", "nose"))
    for n, (name, counts) in enumerate(PHOTOS.items()):
        truth = segmenter([face(*counts, 9 * n)])[0].copy()
        truth[:40] = np.where(truth[:40] == 1, 13, truth[:40])
        truth[60:] = 255
        for kind, data in (("images", (scored / "photos" / name).read_bytes()), ("masks", b"")):
            path = tmp_path / "truth" / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        Image.fromarray(truth).save(tmp_path / "truth/masks" / name)
    apart = evaluate(tmp_path / "truth", "--bootstrap", "0")["all"]["masks"]["classes"]
    mapped = evaluate(tmp_path / "truth", "--bootstrap", "0", "--map", "hair=skin")["all"]["masks"][
        "classes"
    ]
    assert value(mapped["skin"]["dice"]) == 1
    assert (value(apart["skin"]["dice"]) or 0) < 0.99
    assert value(apart["nose"]["dice"]) == 1


def test_classes_of_photos(
    evaluate: Evaluate, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {
        "levle0_1.png": "rosacea",
        "levle1_2.png": "discoid lupus",
        "levle2_3.png": "warts",
        "other.png": "Rosacea",
    }
    truth = tmp_path / "labels.csv"
    truth.write_text(
        "image,label\n" + "".join(f"{name},{label}\n" for name, label in labels.items())
    )
    found = evaluate(
        truth,
        "--bootstrap",
        "50",
        "--map",
        "discoid lupus=lupus_erythematosus",
        "--apart",
        "rosacea",
    )
    assert found["about"]["matched_by"] == "base name"
    numbers = found["all"]["classes.disease"]
    assert numbers["of_class"] == {"lupus_erythematosus": 1, "rosacea": 2}  # in paper 000's order
    assert (numbers["of_none"], numbers["apart"], numbers["chosen_by"]) == (
        1,
        ["rosacea"],
        "top_class",
    )
    assert found["about"]["unknown_classes"] == {"classes.disease": {"warts": 1}}
    table = rows(scored / "out")
    ids = ["a/levle0_1.png", "a/levle1_2.png", "b/levle2_3.png", "b/other.png"]
    probability = [table[name]["prob_rosacea"] for name in ids]
    of_rosacea = numbers["classes"]["rosacea"]
    assert value(of_rosacea["auc"]) == pytest.approx(roc_auc_score([1, 0, 0, 1], probability))
    tops = [table[name]["top_class"] for name in ids]
    assert tops.count("rosacea") > 0
    assert value(of_rosacea["recall"]) == pytest.approx(
        np.mean([top == "rosacea" for top in (tops[0], tops[3])])
    )
    assert (
        numbers["classes"]["mean"]["recall"] == numbers["classes"]["lupus_erythematosus"]["recall"]
    )
    said = capsys.readouterr().out
    assert "rosacea (apart)" in said and "0.929" in said
    for plot in ("roc_disease", "confusion_disease"):
        assert (tmp_path / f"report/{plot}.png").stat().st_size > 5000


def test_a_list_beside_the_folder_of_the_photos_means_the_rows_that_it_names(
    evaluate: Evaluate, scored: Path, tmp_path: Path
) -> None:
    """Name photos `a/...` in the list and in the rows, while the reader finds them as `photos/a/...`."""
    shutil.copytree(scored / "photos", tmp_path / "photos")
    # A base name twice.
    shutil.copyfile(tmp_path / "photos/a/levle0_1.png", tmp_path / "photos/levle0_1.png")
    truth = tmp_path / "labels.csv"
    truth.write_text("image,label\n" + "".join(f"{name},rosacea\n" for name in PHOTOS))
    found = evaluate(truth, "--bootstrap", "0")
    assert found["about"]["matched_by"] == "name"
    assert found["about"]["photos"]["judged"] == 4


@pytest.fixture(scope="module")
def clinics(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    """Write two clinics that number their photos alike, in one tree, with some photos scored by a
    listing of whole paths.

    Of the first clinic these are 1 and 2, of the second 2 and 3.
    """
    folder = tmp_path_factory.mktemp("clinics")
    counts = {
        "a/1": (1, 0),
        "a/2": (2, 0),
        "a/3": (3, 0),
        "b/1": (0, 1),
        "b/2": (0, 2),
        "b/3": (0, 3),
    }
    write_tree(
        folder / "photos", {f"{name}.png": png(face(*count, 5)) for name, count in counts.items()}
    )
    for clinic in "ab":
        boxes = {f"{n}.png": lesions(*counts[f"{clinic}/{n}"]) for n in (1, 2, 3)}
        coco_file(folder / "photos" / clinic / "truth.json", boxes)
    scored = [f"{folder}/photos/{name}.png" for name in ("a/1", "a/2", "b/2", "b/3")]
    (folder / "valid.csv").write_text("\n".join(["uri", *scored, ""]))
    skinbatch.score(folder / "valid.csv", folder / "out", pack=fake_pack, engine="local")
    return folder


@pytest.mark.parametrize(("clinic", "boxes"), [("a", 3), ("b", 5)])
def test_of_two_truths_whose_photos_are_called_alike_each_judges_its_own(
    evaluate: Evaluate, clinics: Path, clinic: str, boxes: int
) -> None:
    found = evaluate(clinics / "photos" / clinic, "--bootstrap", "0", dest=clinics / "out")
    about, numbers = found["about"], found["all"]["lesions"]
    assert about["matched_by"] == "file"
    assert about["photos"] == {"with_truth": 3, "rows": 4, "judged": 2}
    assert about["ambiguous"] == []
    assert about["truth_without_photo"] == [{"a": "3.png", "b": "1.png"}[clinic]]
    assert (numbers["true_boxes"], numbers["boxes"]) == (boxes, boxes)
    assert value(numbers["detection"]["all boxes"]["500"]["ap50"]) == pytest.approx(1)


def test_photos_of_one_base_name_in_two_folders_of_a_truth_are_told_apart(
    evaluate: Evaluate, clinics: Path, tmp_path: Path
) -> None:
    boxes = {
        f"{c}/{n}.png": lesions(n * (c == "a"), n * (c == "b")) for c in "ab" for n in (1, 2, 3)
    }
    truth = coco_file(clinics / "photos" / "both.json", boxes)
    found = evaluate(truth, "--bootstrap", "0", dest=clinics / "out")
    assert found["about"]["matched_by"] == "file"
    assert found["about"]["photos"]["judged"] == 4
    assert value(found["all"]["lesions"]["detection"]["all boxes"]["500"]["ap50"]) == pytest.approx(
        1
    )


def test_photos_of_one_patient_are_resampled_together(
    evaluate: Evaluate, scored: Path, tmp_path: Path
) -> None:
    labels = dict(zip(PHOTOS, ("", "rosacea", "", "rosacea"), strict=True))
    truth = tmp_path / "labels.csv"
    truth.write_text(
        "image,label,patient\n" + "".join(f"{n},{label},p{n[0]}\n" for n, label in labels.items())
    )
    found = evaluate(truth, "--bootstrap", "50")
    assert found["about"]["bootstrap"]["over"] == "groups"
    table = rows(scored / "out")
    true = np.array([[label == "rosacea"] for label in labels.values()])
    probability = np.array([[table[name]["prob_rosacea"]] for name in labels])
    chosen = np.array([[table[name]["top_class"] == "rosacea"] for name in labels])
    how = Resampling(50)
    together, single = (
        classification(true, probability, chosen, ("rosacea",), how, groups=groups)["rosacea"][
            "average_precision"
        ]
        for groups in (np.array([0, 0, 1, 1]), None)
    )
    ours = found["all"]["classes.disease"]["classes"]["rosacea"]["average_precision"]
    assert ours == {"value": together.value, "low": together.low, "high": together.high}
    assert (together.low, together.high) != (single.low, single.high)

    plain = coco_file(tmp_path / "truth.json", TRUE)
    by_name = evaluate(plain, "--bootstrap", "50", "--group", "^(a|b)/levle[01]")
    assert by_name["about"]["bootstrap"]["over"] == "groups"
    assert by_name["about"]["notes"] == [
        "--group ^(a|b)/levle[01]: does not match 1 of 3 photos",
        "1 of 3 photos have no group: each of them is resampled as a group of its own",
    ]
    each = lesion_numbers(evaluate(plain, "--bootstrap", "50"))["count_error"][0]["mae"]
    two = lesion_numbers(by_name)["count_error"][0]["mae"]
    assert two["value"] == each["value"] and two != each


def test_json_is_printed_as_it_is_written(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = coco_file(tmp_path / "truth.json", TRUE)
    written = evaluate(truth, "--bootstrap", "20", "--json")
    assert json.loads(capsys.readouterr().out) == written
    assert evaluate(truth, "--bootstrap", "20") == written


def test_wrong_use_is_told(
    scored: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    dest = str(scored / "out")
    truth = str(coco_file(tmp_path / "truth.json", TRUE))
    other = str(coco_file(tmp_path / "other.json", {"x/y.png": [[1, 1, 5, 5]]}))
    failed = str(coco_file(tmp_path / "failed.json", {"b/levle1_9.png": [[1, 1, 5, 5]]}))
    assert "rows have names like 'a/levle0_1.png', annotated photos like 'x/y.png'" in refused(
        capsys, monkeypatch, dest, other
    )
    assert "none of the 1 annotated photos was scored" in refused(capsys, monkeypatch, dest, failed)
    assert "nowhere" in refused(capsys, monkeypatch, dest, "nowhere")
    assert "--thresholds" in refused(capsys, monkeypatch, dest, truth, "--thresholds", "half")
    assert "1.5 is not a score" in refused(capsys, monkeypatch, dest, truth, "--thresholds", "1.5")
    assert "--map" in refused(capsys, monkeypatch, dest, truth, "--map", "acne")
    assert "--group (q): matches none of the 3 photos" in refused(
        capsys, monkeypatch, dest, truth, "--group", "(q)"
    )
    assert (
        "--apart rosacae: no such class; the classes of the pack are rosacea, lupus_erythematosus"
        in refused(capsys, monkeypatch, dest, truth, "--apart", "rosacae")
    )
    assert "no scoring" in refused(capsys, monkeypatch, dest, truth, "--scoring", "ffff")
    assert not (tmp_path / "evaluation").exists()
    (tmp_path / "file").write_text("")
    assert "name another folder with --out" in refused(
        capsys, monkeypatch, dest, truth, "--out", "file"
    )


def test_masks_need_a_scoring_that_saved_them(
    evaluate: Evaluate, scored: Path, tmp_path: Path, fake_pack: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    plain = tmp_path / "plain"
    skinbatch.score(scored / "photos", plain, pack=fake_pack, engine="local", max_failures=1.0)
    for name in PHOTOS:
        for folder, data in (("images", (scored / "photos" / name).read_bytes()), ("masks", b"")):
            path = tmp_path / "truth" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        Image.fromarray(np.zeros((96, 96), np.uint8)).save(tmp_path / "truth/masks" / name)
    # Severities in the names can still be judged; masks alone cannot.
    found = evaluate(tmp_path / "truth", "--bootstrap", "0", dest=plain)
    assert "masks" not in found["all"] and "grades" in found["all"]
    assert "--save-masks" in found["about"]["notes"][0]
    for kind in ("images", "masks"):
        (tmp_path / "only" / kind).mkdir(parents=True)
        (tmp_path / "truth" / kind / "b/other.png").rename(tmp_path / "only" / kind / "other.png")
    assert "--save-masks" in refused(capsys, monkeypatch, str(plain), str(tmp_path / "only"))


def test_a_dozen_real_photos_with_the_starter_pack(
    evaluate: Evaluate, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(path.stem for path in (shared_data / "acne04/valid").glob("*.jpg"))[::24]
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in names:
        for ending in (".jpg", ".xml"):
            shutil.copy(shared_data / "acne04/valid" / f"{name}{ending}", photos)
    assert len(names) == 12
    skinbatch.score(photos, tmp_path / "out", engine="local")
    found = evaluate(photos, "--map", "*=acne", "--bootstrap", "100", dest=tmp_path / "out")
    assert found["about"]["photos"]["judged"] == 12

    table = rows(tmp_path / "out")
    boxes: dict[str, list[list[float]]] = {f"{name}.jpg": [] for name in names}
    for row in skinbatch.open(tmp_path / "out").boxes().to_pylist():
        boxes[row["image_id"]].append([row[k] for k in ("x1", "y1", "x2", "y2", "score")])
    of = [np.array(boxes[f"{name}.jpg"], float).reshape(-1, 5) for name in names]
    true = [_voc(photos / f"{name}.xml") for name in names]
    run = coco_eval(
        Boxes.stack(true),
        Boxes.stack([b[:, :4] for b in of], [b[:, 4] for b in of]),
        by_class=False,
        most=[100, 500],
    )
    lesions = found["all"]["lesions"]
    for k, most in enumerate(("100", "500")):
        ours = lesions["detection"]["all boxes"][most]
        assert value(ours["ap50"]) == pytest.approx(
            run.eval["precision"][0, :, 0, 0, k].mean(), abs=1e-12
        )
        assert value(ours["ap"]) == pytest.approx(
            run.eval["precision"][:, :, 0, 0, k].mean(), abs=1e-12
        )
        assert value(ours["ar"]) == pytest.approx(run.eval["recall"][:, 0, 0, k].mean(), abs=1e-12)
    off = [
        (table[f"{name}.jpg"]["count_total"] or 0) - len(t)
        for name, t in zip(names, true, strict=True)
    ]
    own = next(error for error in lesions["count_error"] if error["own"])
    assert value(own["mae"]) == pytest.approx(np.mean(np.abs(off)))
    severities = {name: group["photos"] for name, group in found["slices"]["severity"].items()}
    assert sum(severities.values()) == 12 and len(severities) >= 3
    assert "MAE of the count by severity" in capsys.readouterr().out


def _voc(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    boxes = [
        [float(box.findtext(tag, "")) for tag in ("xmin", "ymin", "xmax", "ymax")]
        for box in ElementTree.parse(path).iter("bndbox")
    ]
    return np.array(boxes, np.float64).reshape(-1, 4)


def lesion_numbers(found: dict[str, Any]) -> dict[str, Any]:
    numbers: dict[str, Any] = found["all"]["lesions"]
    return numbers


def test_boxes_that_were_drawn_at_another_size_of_the_photo_are_brought_to_it(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    plain = lesion_numbers(evaluate(coco_file(tmp_path / "truth.json", TRUE), "--bootstrap", "0"))
    doubled = {name: [[2 * v for v in box] for box in boxes] for name, boxes in TRUE.items()}
    large = coco_file(tmp_path / "large.json", doubled)
    data = json.loads(large.read_text())
    for image in data["images"]:
        image |= {"width": 192, "height": 192}
    data["images"][0]["height"] = 100  # another shape: not this photo
    large.write_text(json.dumps(data))
    found = evaluate(large, "--bootstrap", "0")
    assert found["about"]["unusable"]["lesions"] == ["a/levle0_1.png"]
    assert lesion_numbers(found)["true_boxes"] == plain["true_boxes"] - 1
    left = {name: boxes for name, boxes in TRUE.items() if name != "a/levle0_1.png"}
    same = lesion_numbers(evaluate(coco_file(tmp_path / "left.json", left), "--bootstrap", "0"))
    assert lesion_numbers(found)["detection"] == same["detection"]
    assert lesion_numbers(found)["count_error"] == same["count_error"]


def test_yolo_labels_without_their_photos_are_no_truth(
    scored: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "labels/a").mkdir(parents=True)
    (tmp_path / "labels/a/levle0_1.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "labels/a/levle1_2.txt").write_text("")
    said = refused(capsys, monkeypatch, str(scored / "out"), str(tmp_path))
    assert "1 label files give boxes as fractions of photos that are missing" in said
    assert "name the folder of the photos with --photos" in said
