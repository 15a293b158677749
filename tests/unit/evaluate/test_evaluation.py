"""Test evaluations of made-up destinations against pycocotools and against our metrics over the tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.typing import NDArray

import skinbatch
from jobs.bench_evaluate import CLASSES, generate
from skinbatch.errors import UsageError
from skinbatch.evaluate.diseases import Diseases
from skinbatch.evaluate.evaluation import Evaluation, evaluate
from skinbatch.evaluate.plots import draw
from skinbatch.evaluate.request import EvaluationRequest
from skinbatch.evaluate.text import as_text
from skinbatch.metrics.bootstrap import Estimate, Resampling
from skinbatch.metrics.boxes import Boxes
from skinbatch.metrics.classification import classification
from skinbatch.reading import destination_store
from skinbatch.reading import open as open_destination
from tests.faces import face, png, rows, write_tree
from tests.unit.metrics.support import coco_eval

PHOTOS = 40
DISEASES = ("lupus_erythematosus", "rosacea")
# The true class of each photo of `classed`.
TRUE = ("rosacea", "lupus_erythematosus", "rosacea", "", "lupus_erythematosus") * 4
PATIENTS = [f"p{n // 4}" for n in range(len(TRUE))]
FACELESS = [n % 7 == 6 for n in range(len(TRUE))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    generate(folder / "scored", folder / "truth.json", PHOTOS, 900, np.random.default_rng(2))
    return folder


@pytest.fixture(scope="module")
def found(made: Path) -> Evaluation:
    request = EvaluationRequest(made / "truth.json", resampling=Resampling(50))
    return evaluate(destination_store(made / "scored"), request)


@pytest.fixture(scope="module")
def both(made: Path) -> tuple[list[str], Boxes, Boxes]:
    """Return the photos' names, the true boxes and the found ones, read without our readers."""
    truth: dict[str, Any] = json.loads((made / "truth.json").read_text())
    names = [image["file_name"] for image in truth["images"]]
    true: list[list[Any]] = [[] for _ in names]
    for annotation in truth["annotations"]:
        x, y, w, h = np.array(annotation["bbox"])
        corners = np.array([x, y, x + w, y + h], np.float32).tolist()
        true[annotation["image_id"]].append((corners, annotation["category_id"], 1.0))
    of: list[list[Any]] = [[] for _ in names]
    for row in open_destination(made / "scored").boxes().to_pylist():
        corners = [row[edge] for edge in ("x1", "y1", "x2", "y2")]
        of[names.index(row["image_id"])].append(
            (corners, CLASSES.index(row["label"]), row["score"])
        )
    return names, _stacked(true), _stacked(of)


def _stacked(rows: list[list[Any]]) -> Boxes:
    """Stack rows of (corners, class, score) for each photo."""
    corners, labels, scores = ([[row[k] for row in each] for each in rows] for k in range(3))
    return Boxes.stack(corners, scores, labels)


def test_merged_and_by_class(found: Evaluation, both: tuple[list[str], Boxes, Boxes]) -> None:
    _, truth, boxes = both
    numbers = found.numbers["lesions"]
    merged = coco_eval(truth, boxes, by_class=False, most=[100]).eval["precision"]
    assert numbers["detection"]["all boxes"]["100"]["ap50"].value == pytest.approx(
        merged[0].mean(), abs=1e-12
    )
    by_class = coco_eval(truth, boxes, by_class=True, most=[100]).eval
    ours = numbers["detection_by_class"]["all boxes"]["100"]
    assert list(ours) == [*CLASSES, "mean"]
    for k, name in enumerate(CLASSES):
        precision, recall = by_class["precision"][:, :, k, 0, 0], by_class["recall"][:, k, 0, 0]
        expected = [precision[0].mean(), precision.mean(), recall.mean()]
        assert [ours[name][n].value for n in ("ap50", "ap", "ar")] == pytest.approx(
            expected, abs=1e-12
        )
    assert ours["mean"]["ap"].value == pytest.approx(by_class["precision"].mean(), abs=1e-12)
    assert ours["mean"]["ap"].low < ours["mean"]["ap"].value < ours["mean"]["ap"].high


def test_a_group_has_the_numbers_of_its_photos_alone(
    found: Evaluation, both: tuple[list[str], Boxes, Boxes]
) -> None:
    names, truth, boxes = both
    mild = np.array([name.startswith("levle0") for name in names])
    alone = [
        Boxes.stack(
            [b.xyxy[b.photo == n] for n in np.flatnonzero(mild)],
            [b.score[b.photo == n] for n in np.flatnonzero(mild)],
        )
        for b in (truth, boxes)
    ]
    expected = coco_eval(alone[0], alone[1], by_class=False, most=[500]).eval["precision"][0].mean()
    group = found.slices["severity"]["mild"]
    assert group["photos"] == mild.sum()
    assert group["lesions"]["detection"]["all boxes"]["500"]["ap50"].value == pytest.approx(
        expected, abs=1e-12
    )


def test_the_scorings_own_count_is_that_of_its_boxes(found: Evaluation, made: Path) -> None:
    """Compute one number in two ways: from `count_total`, and from boxes at the same threshold."""
    again = evaluate(
        destination_store(made / "scored"),
        EvaluationRequest(made / "truth.json", thresholds=(0.3,), resampling=Resampling(0)),
    )
    at, own = again.numbers["lesions"]["count_error"]
    assert at["threshold"] == own["threshold"] == 0.3
    assert {n: at[n].value for n in ("mae", "rmse", "mean", "sd")} == {
        n: own[n].value for n in ("mae", "rmse", "mean", "sd")
    }


def test_the_text_names_every_class_group_and_the_papers_figures(found: Evaluation) -> None:
    said = as_text(found)
    for word in (
        *CLASSES,
        "mild",
        "very severe",
        "31.53",
        "0.536",
        "By ITA group",
        "50 bootstrap samples of photos",
    ):
        assert word in said
    assert max(map(len, said.splitlines())) < 260


def test_numbers_that_are_not_defined_are_null_in_json(found: Evaluation) -> None:
    text = json.dumps(found.as_json(), allow_nan=False)
    assert json.loads(text)["all"]["lesions"]["photos"] == PHOTOS


def test_an_unknown_format_is_told(made: Path) -> None:
    with pytest.raises(UsageError, match="format"):
        evaluate(
            destination_store(made / "scored"),
            EvaluationRequest(made / "truth.json", format="nonsense"),
        )


@pytest.fixture(scope="module")
def classed(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    """Return a folder with `photos`, named by patient and number, some without a face, and with
    `out`, their scores."""
    folder = tmp_path_factory.mktemp("classed")
    # Specks of skin, each too small for a face.
    specks = np.full((96, 96, 3), (60, 100, 130), np.uint8)
    for y, x in np.ndindex(6, 6):
        specks[16 * y : 16 * y + 3, 16 * x : 16 * x + 3] = (210, 160, 130)
    pictures = []
    for n, faceless in enumerate(FACELESS):
        picture = specks.copy() if faceless else face(n % 3, 7 * n % 5)
        picture[92:, 92:] = n
        if not faceless and n % 2:
            picture[40:60, 40:60] = (150, 110 + 6 * n, 90)
        pictures.append(png(picture))
    write_tree(
        folder / "photos",
        {
            f"{name}_{n:02}.png": data
            for n, (name, data) in enumerate(zip(PATIENTS, pictures, strict=True))
        },
    )
    report = skinbatch.score(folder / "photos", folder / "out", pack=fake_pack, engine="local")
    assert report.statuses == {"ok": len(TRUE)}
    return folder


def labels(path: Path, patients: Sequence[str] = ()) -> Path:
    """Write a .csv of the classes, with a column of patients if they are given."""
    lines = [",".join(("image", "label", *(["patient"] if patients else [])))]
    lines += [
        ",".join((f"{PATIENTS[n]}_{n:02}.png", TRUE[n], *patients[n : n + 1]))
        for n in range(len(TRUE))
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def judge(classed: Path, truth: Path, **how: Any) -> Evaluation:
    return evaluate(
        destination_store(classed / "out"),
        EvaluationRequest(truth, resampling=Resampling(200), **how),
    )


def expected(
    classed: Path, groups: Sequence[str] | None, keep: NDArray[np.bool_] | None = None
) -> dict[str, dict[str, str]]:
    """Return our metrics over the tables, read without the evaluation, as `plain` has them. keep:
    some of the photos."""
    table = [row for _, row in sorted(rows(classed / "out").items())]
    kept = np.flatnonzero(np.ones(len(table), np.bool_) if keep is None else keep)
    truth = np.array([[TRUE[n] == name for name in DISEASES] for n in kept])
    probability = np.array(
        [[table[n][f"prob_{name}"] or 0 for name in DISEASES] for n in kept], float
    )
    chosen = np.array([[table[n]["top_class"] == name for name in DISEASES] for n in kept])
    numbers = (
        None
        if groups is None
        else np.unique(np.array(groups)[kept], return_inverse=True)[1].astype(np.int64)
    )
    return plain(
        classification(truth, probability, chosen, DISEASES, Resampling(200), groups=numbers)
    )


def plain(classes: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, str]]:
    """Return class -> number -> value and ends of its interval in full, written out so that NaN equals NaN."""
    return {
        name: {number: repr(found) for number, found in of.items()} for name, of in classes.items()
    }


def classes(found: Evaluation) -> dict[str, dict[str, str]]:
    return plain(found.numbers["classes.disease"]["classes"])


def test_a_photo_of_an_unknown_patient_is_a_group_of_its_own_and_the_others_stay_together(
    classed: Path, tmp_path: Path
) -> None:
    patients = [*PATIENTS[:-1], ""]
    found = judge(classed, labels(tmp_path / "labels.csv", patients))
    assert classes(found) == expected(classed, [*PATIENTS[:-1], "alone"])
    assert classes(found)["mean"]["auc"] != expected(classed, None)["mean"]["auc"]
    assert found.about["bootstrap"]["over"] == "groups"
    assert found.about["notes"] == [
        "1 of 20 photos have no group: each of them is resampled as a group of its own",
    ]
    assert "200 bootstrap samples of groups, seed 0." in as_text(found)
    nobody = judge(classed, labels(tmp_path / "nobody.csv", [""] * len(TRUE)))
    assert (nobody.about["bootstrap"]["over"], nobody.about["notes"]) == ("photos", [])
    assert classes(nobody) == expected(classed, None)


def test_groups_are_told_by_the_names_of_photos_in_folders(classed: Path, tmp_path: Path) -> None:
    for n, name in enumerate(TRUE):
        photo = f"{PATIENTS[n]}_{n:02}.png"
        write_tree(
            tmp_path / "truth" / (name or "other"),
            {photo: (classed / "photos" / photo).read_bytes()},
        )
    truth, names = tmp_path / "truth", {"other": ""}
    found = judge(classed, truth, names=names, group="/(p[0-9]+)_")
    assert found.about["format"] == "folders"
    assert (found.about["bootstrap"]["over"], found.about["notes"]) == ("groups", [])
    assert classes(found) == expected(classed, PATIENTS)
    some = judge(classed, truth, names=names, group="(p[0-2])_")
    alone = [
        p if p < "p3" else f"/{TRUE[n] or 'other'}/{p}_{n:02}.png" for n, p in enumerate(PATIENTS)
    ]
    assert classes(some) == expected(classed, alone)
    assert some.about["notes"] == [
        "--group (p[0-2])_: does not match 8 of 20 photos",
        "8 of 20 photos have no group: each of them is resampled as a group of its own",
    ]
    with pytest.raises(
        UsageError,
        match=r"--group \(q\): matches none of the 20 photos to be judged, such as .*p0_",
    ):
        judge(classed, truth, names=names, group="(q)")
    with pytest.raises(
        UsageError, match=r"--group patient: no column of .* \(fields of the source: none\); give a"
    ):
        judge(classed, truth, names=names, group="patient")
    with pytest.raises(UsageError, match=r"--group \(p: not a regular expression"):
        judge(classed, truth, names=names, group="(p")


def test_groups_are_told_by_a_column_or_where_it_is_blank_by_nothing(
    classed: Path, tmp_path: Path
) -> None:
    truth = labels(tmp_path / "labels.csv", PATIENTS)
    truth.write_text(truth.read_text().replace("patient", "visit"))
    assert judge(classed, truth).about["bootstrap"]["over"] == "photos"
    assert classes(judge(classed, truth, group="visit")) == expected(classed, PATIENTS)
    with pytest.raises(UsageError, match="--group doctor: no column of"):
        judge(classed, truth, group="doctor")
    with pytest.raises(
        UsageError, match="--group patient: is an empty column for all the 20 photos"
    ):
        judge(classed, labels(tmp_path / "blank.csv", [""] * len(TRUE)), group="patient")


def test_boxes_are_resampled_by_groups_too(found: Evaluation, made: Path) -> None:
    request = EvaluationRequest(
        made / "truth.json", resampling=Resampling(50), group="0([0-9])[0-9].jpg"
    )
    grouped = evaluate(destination_store(made / "scored"), request)
    ours, single = (
        e.numbers["lesions"]["detection"]["all boxes"]["100"]["ap50"] for e in (grouped, found)
    )
    assert grouped.about["bootstrap"]["over"] == "groups"
    assert ours.value == pytest.approx(single.value)
    assert (ours.low, ours.high) != (single.low, single.high)


def test_a_classifier_is_also_judged_by_the_photos_that_it_looked_at(
    classed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judge(classed, labels(tmp_path / "labels.csv", PATIENTS))
    numbers, seen = found.numbers["classes.disease"], ~np.array(FACELESS)
    assert classes(found) == expected(classed, PATIENTS)
    assert plain(numbers["with_face"]["classes"]) == expected(classed, PATIENTS, seen)
    assert numbers["with_face"]["classes"]["rosacea"]["auc"] != numbers["classes"]["rosacea"]["auc"]
    assert (
        numbers["with_face"]["photos"]
        == numbers["photos"] - numbers["without_face"]
        == seen.sum()
        == 18
    )
    for name in DISEASES:
        of = np.array([said == name for said in TRUE])
        assert numbers["with_face"]["of_class"][name] == (of & seen).sum()
        assert numbers["without_face_of_class"][name] == (of & ~seen).sum()
    assert (
        numbers["with_face"]["of_none"] + numbers["without_face_of_none"] == numbers["of_none"] == 4
    )
    text = as_text(found)
    assert (
        "Classes (disease), the whole pipeline: 20 photos, 4 of none of them, 2 without a face"
        in text
    )
    assert "photos without a face rank last, so this also measures whether faces are found" in text
    assert "Classes (disease), the classifier alone: the 18 photos with a face" in text
    (tones,) = (line for line in text.splitlines() if "disease AUC, with a face" in line)
    assert "disease AUC " in tones
    unknown = next(line for line in text.splitlines() if line.startswith("  unknown"))
    assert unknown.split()[-2:] == ["–", "–"]
    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda self, title, **how: titles.append(title))
    drawn = draw(found, tmp_path)
    assert [path.name for path in drawn[:2]] == ["roc_disease.png", "roc_disease_with_face.png"]
    of_none = numbers["with_face"]["of_none"]
    assert titles[:2] == [
        "20 photos, 2 without a face (probability 0)\n4 of none of the classes",
        f"18 photos, all with a face\n{of_none} of none of the classes",
    ]
    part = found.parts["classes.disease"]
    assert isinstance(part, Diseases)
    seen_only = part.curves(with_face=True)["rosacea"]
    area = numbers["with_face"]["classes"]["rosacea"]["auc"].value
    assert np.trapezoid(seen_only[1], seen_only[0]) == pytest.approx(area)


def test_probabilities_are_held_against_what_is_true_where_the_classifier_looked(
    classed: Path, tmp_path: Path
) -> None:
    found = judge(classed, labels(tmp_path / "labels.csv", PATIENTS))
    numbers, part = found.numbers["classes.disease"], found.parts["classes.disease"]
    assert isinstance(part, Diseases)
    seen = ~np.array(FACELESS)
    for k, name in enumerate(part.classes):
        probability, true = part.probability[seen, k], part.truth[seen, k]
        distance = 0.0
        for low in np.arange(10) / 10:
            mine = (probability >= low) & ((probability < low + 0.1) | (low == 0.9))
            distance += abs(float(probability[mine].sum() - true[mine].sum()))
        error = numbers["calibration"][name]["error"]
        assert error.value == pytest.approx(distance / seen.sum())
        assert error.low <= error.value <= error.high
        assert sum(numbers["calibration"][name]["photos"]) == 18
    assert "top class" in numbers["calibration"]
    named = numbers["named"]
    assert 0 < named["right"] <= named["photos"] <= 18
    assert named["of_none"] == numbers["with_face"]["of_none"]
    text = as_text(found)
    assert (
        "Calibration (disease): mean distance of a probability from the share of photos with the class, in 10 bins"
        in text
    )
    assert (
        f"A class is named on {named['photos']} photos, correctly on {named['right']} of them"
        in text
    )
    assert (
        json.loads(json.dumps(found.as_json()))["all"]["classes.disease"]["calibration"][
            "top class"
        ]["error"]["value"]
        > 0
    )


def test_nothing_is_said_twice_where_every_photo_has_a_face_or_none_has(
    classed: Path, tmp_path: Path
) -> None:
    lines = labels(tmp_path / "labels.csv").read_text().splitlines()
    for faceless in (False, True):
        chosen = [lines[n + 1] for n, without in enumerate(FACELESS) if without == faceless]
        (tmp_path / "labels.csv").write_text("\n".join([lines[0], *chosen]))
        found = judge(classed, tmp_path / "labels.csv")
        numbers, text = found.numbers["classes.disease"], as_text(found)
        assert numbers["without_face"] == (len(chosen) if faceless else 0)
        assert "with_face" not in numbers
        assert "classifier alone" not in text and "with a face  " not in text
        assert ("whole pipeline" in text) == faceless
        assert ("all with a face" in text) != faceless


def test_a_class_that_is_to_be_apart_has_to_be_there(
    classed: Path, made: Path, tmp_path: Path
) -> None:
    truth = labels(tmp_path / "labels.csv")
    assert judge(classed, truth, apart=("Rosacea",)).numbers["classes.disease"]["apart"] == [
        "rosacea"
    ]
    with pytest.raises(
        UsageError,
        match="--apart rosacae: no such class; the classes of the pack are rosacea, lupus_ery",
    ):
        judge(classed, truth, apart=("rosacea", "rosacae"))
    with pytest.raises(UsageError, match="--apart acne: no such class; the pack has no classifier"):
        evaluate(
            destination_store(made / "scored"),
            EvaluationRequest(made / "truth.json", apart=("acne",)),
        )


def test_every_counted_box_is_right_or_false_and_every_true_one_found_or_missed(
    found: Evaluation, both: tuple[list[str], Boxes, Boxes]
) -> None:
    names, truth, _ = both
    verdicts = found.verdicts()
    counted = found.numbers["lesions"]["counted"]

    assert {v.image_id: v.true_count for v in verdicts} == dict(
        zip(names, truth.per_photo().tolist(), strict=True)
    )
    assert all(len(v.right) + len(v.false) == v.count for v in verdicts)
    assert (
        counted["right"]
        == sum(len(v.right) for v in verdicts)
        == sum(len(v.found) for v in verdicts)
    )
    assert counted["missed"] == sum(len(v.missed) for v in verdicts) > 0
    assert counted["precision"].value == counted["right"] / (counted["right"] + counted["false"])
    assert counted["recall"].low < counted["recall"].value < counted["recall"].high
