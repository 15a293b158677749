"""Test that photos are chosen by a condition, at random, by uncertainty, or because the model contradicts their annotations."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skinbatch
from skinbatch.errors import UsageError
from skinbatch.grading.uncertainty import uncertainty
from skinbatch.runs.results import Results, open_results
from skinbatch.selection.choose import Selection, choose
from skinbatch.selection.foremost import Foremost, equal_shares
from skinbatch.selection.where import closed_connection
from skinbatch.storage.local import LocalStore
from tests.faces import face, jpeg, write_tree

LESIONS = {f"p{n % 3}/{n}.jpg": (n % 5, 6 * (n % 4 == 1)) for n in range(20)}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    """Score twenty photos with 0 to 10 lesions each, and one that is damaged."""
    root = tmp_path_factory.mktemp("scored")
    files = {
        name: jpeg(face(*lesions, shade=n)) for n, (name, lesions) in enumerate(LESIONS.items())
    }
    write_tree(root / "photos", files | {"p0/cut.jpg": jpeg(face(1, 1))[:900]})
    skinbatch.score(
        root / "photos", root / "dest", pack=fake_pack, engine="local", max_failures=1.0
    )
    return root


@pytest.fixture
def results(scored: Path) -> Results:
    return open_results(LocalStore(scored / "dest"))


def names(results: Results, **how: object) -> set[str]:
    return set(choose(results, Selection(**how)).image_ids)  # type: ignore[arg-type]


def test_a_condition_chooses_what_the_tables_say(results: Results) -> None:
    rows = results.images().to_pylist()
    expected = {
        r["image_id"]
        for r in rows
        if r["status"] == "ok" and r["grade"] == "moderate" and r["prob_rosacea"] > 0.5
    }
    assert 0 < len(expected) < 20
    assert names(results, where="grade = 'moderate' and prob_rosacea > 0.5") == expected
    assert len(names(results, where="image_id not like 'meta_photos/it''s meta_site/%'")) == 20
    assert names(results, where="Count_Total = 0 or regexp_matches(image_id, '^p1/')") == {
        name for name, lesions in LESIONS.items() if sum(lesions) == 0 or name.startswith("p1/")
    }
    chosen = choose(results, Selection(where="count_total >= 0"))
    assert (len(chosen.image_ids), chosen.left_out) == (20, 0)


@pytest.mark.parametrize(
    ("condition", "complaint"),
    [
        ("grad = 'mild'", r"no column 'grad'; similar: grade"),
        ('grade = "mild"', r"no column 'mild'; texts are in single quotes: 'mild'"),
        ("prob_roseacea > 1", r"similar: prob_rosacea"),
        ("grade =", "syntax error"),
        ("grade", "Could not convert string"),
        ("true, false", "single expression"),
        ("true) union select 'p0/0.jpg' --", "syntax error"),
        ("count(*) > 1", "aggregates"),
        ("count_total > 1000", "none of the 20 scored photos is chosen"),
        ("meta_site = 'a'", "no photo has 'meta_site'"),
    ],
)
def test_a_wrong_condition_is_explained(results: Results, condition: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as raised:
        names(results, where=condition)
    assert str(raised.value).startswith(f"--where {condition}: ") and raised.value.exit_code == 2


@pytest.mark.parametrize(
    "condition",
    [
        "exists (select * from read_csv('{file}'))",
        "exists (select * from read_text('{file}'))",
        "exists (select * from '{file}')",
        "exists (select * from glob('{folder}/*'))",
        "exists (select * from secret_table)",
        "true; copy (select 1) to '{folder}/written.csv'",
        "true; install httpfs",
        "exists (select * from query('select * from ''{file}'''))",
        "true; attach '{folder}/new.duckdb' as other",
        "getenv('PATH') is not null",
    ],
)
def test_a_condition_reaches_no_file_and_nothing_of_the_program(
    results: Results, tmp_path: Path, condition: str
) -> None:
    (tmp_path / "file.csv").write_text("a\n1\n")
    secret_table = pa.table({"a": [1]})
    with pytest.raises(UsageError, match="--where"):
        names(results, where=condition.format(file=tmp_path / "file.csv", folder=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file.csv"] and secret_table.num_rows == 1


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_csv('{file}')",
        "select * from '{file}'",
        "attach '{folder}/new.duckdb' as other",
        "copy (select 1) to '{folder}/written.csv'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
    ],
)
def test_even_a_whole_statement_reaches_no_file_and_no_database(
    tmp_path: Path, statement: str
) -> None:
    (tmp_path / "file.csv").write_text("a\n1\n")
    sql = statement.format(file=tmp_path / "file.csv", folder=tmp_path)
    connection = closed_connection()
    assert connection.execute("select 1 + 1").fetchall() == [(2,)]
    with pytest.raises(
        duckdb.Error,
        match=r"disabled by configuration|disabled through configuration|Cannot change",
    ):
        connection.execute(sql)
    assert [path.name for path in tmp_path.iterdir()] == ["file.csv"]


def test_pass_through_fields_are_columns_of_conditions_and_groups(
    tmp_path: Path, fake_pack: str
) -> None:
    photos = [jpeg(face(n, 0, shade=n)) for n in range(4)]
    table = pa.table(
        {"bytes": photos, "site": ["a", "a", None, "b"], "name": [f"{n}.jpg" for n in range(4)]}
    )
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in/photos.parquet")
    skinbatch.score(tmp_path / "in", tmp_path / "dest", pack=fake_pack, engine="local")
    results = open_results(LocalStore(tmp_path / "dest"))

    count_of = {row["image_id"]: row["count_total"] for row in results.images().to_pylist()}
    assert sorted(count_of[name] for name in names(results, where="meta_site = 'a'")) == [0, 1]
    assert sorted(count_of[name] for name in names(results, where='"meta_site" is null')) == [2]
    chosen = [count_of[name] for name in names(results, sample=3, stratify=("meta_site",))]
    assert {2, 3} < set(chosen) and len(chosen) == 3
    with pytest.raises(UsageError, match=r"no photo has 'meta_sight'; similar: meta_site"):
        names(results, where="meta_sight = 'a'")
    with pytest.raises(
        UsageError, match=r"--stratify meta_sight: no photo has it; similar: meta_site"
    ):
        names(results, sample=3, stratify=("meta_sight",))


def test_a_sample_is_the_same_each_time_and_takes_as_many_from_each_group(results: Results) -> None:
    assert names(results, sample=5) == names(results, sample=5) < names(results, sample=9)
    grade_of = {row["image_id"]: row["grade"] for row in results.images().to_pylist()}
    few = sum(grade == "moderate" for grade in grade_of.values())
    assert 3 < few < 10
    for wanted, moderate in ((6, 3), (18, few)):
        chosen = [grade_of[name] for name in names(results, sample=wanted, stratify=("grade",))]
        assert (len(chosen), chosen.count("moderate")) == (wanted, moderate)
    assert len(names(results, sample=99)) == 20
    by_tone = names(results, sample=4, stratify=("grade", "ita"), where="count_total > 0")
    assert len(by_tone) == 4 and all(sum(LESIONS[name]) > 0 for name in by_tone)


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        (
            {"sample": 3, "stratify": ("grde",)},
            "--stratify grde: `images` has no such column; similar: grade",
        ),
        (
            {"sample": 3, "stratify": ("ita_degrees",)},
            r"its values form no groups; stratify by ita \(skin tones\)",
        ),
        ({"stratify": ("grade",)}, "add --sample N"),
        ({"sample": 3, "uncertain": 3}, "--sample and --uncertain: choose one"),
        ({"suspect": 3}, "--suspect N compares photos with the annotations of --truth T"),
        ({"truth": Path("x")}, "--suspect N compares photos with the annotations of --truth T"),
        ({"truth_photos": Path("x")}, "--photos is the folder of the photos of --truth"),
    ],
)
def test_selections_that_cannot_be_meant_are_refused(
    results: Results, how: dict[str, object], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        names(results, **how)


def test_uncertainty_is_highest_for_boxes_at_the_threshold_and_counts_only_the_skin() -> None:
    photo = np.array([0, 1, 2, 2, 3, 4, 4, 4])
    score = np.array([0.5, 0.55, 0.5, 0.9, 0.5, 0.5, 0.5, 0.5])
    on_skin = np.array([True, True, True, True, False, True, True, True])
    found = uncertainty(photo, score, on_skin, 0.5, 6)
    np.testing.assert_allclose(found, [1 / 2, 0.5 / 2, 1 / 3, 0, 3 / 4, 0])
    assert uncertainty(photo, score, on_skin, 0.0, 6).tolist() == [0] * 6


def test_the_most_uncertain_photos_are_those_with_boxes_at_the_threshold(results: Results) -> None:
    # The fake detector gives every box 0.9.
    counts = {
        row["image_id"]: row["count_total"]
        for row in results.images().to_pylist()
        if row["status"] == "ok"
    }
    most = sorted(counts, key=lambda name: (-counts[name], name))[:4]
    assert set(choose(results, Selection(uncertain=4), threshold=0.9).image_ids) == set(most)


def test_of_equal_values_the_first_names_are_kept() -> None:
    kept = Foremost(2)
    for name in "cbad":
        kept.add(name, 1.0)
    kept.add("z", 0.5)
    assert (kept.names(), kept.names(1), kept.seen) == (["a", "b"], ["a"], 5)
    assert equal_shares({("a",): 2, ("b",): 50, ("c",): 50}, 20) == {
        ("a",): 2,
        ("b",): 9,
        ("c",): 9,
    }
    assert equal_shares({("a",): 2}, 20) == {("a",): 2}


def coco(path: Path, scored: Path, change: dict[str, list[list[float]]]) -> Path:
    """Write the model's own boxes as a truth, but other boxes for the photos in `change`."""
    boxes = skinbatch.open(scored / "dest").boxes().to_pylist()
    data: dict[str, list[dict[str, object]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "x"}],
    }
    for n, name in enumerate(LESIONS):
        own = [
            [b["x1"], b["y1"], b["x2"], b["y2"]]
            for b in boxes
            if b["image_id"] == name and b["counted"]
        ]
        data["images"].append({"id": n, "file_name": name, "width": 48, "height": 48})
        for x1, y1, x2, y2 in change.get(name, own):
            box = [x1 / 2, y1 / 2, (x2 - x1) / 2, (y2 - y1) / 2]
            data["annotations"].append(
                {"id": len(data["annotations"]), "image_id": n, "category_id": 1, "bbox": box}
            )
    path.write_text(json.dumps(data))
    return path


def test_photos_with_missed_and_misplaced_annotations_come_first(
    scored: Path, results: Results, tmp_path: Path
) -> None:
    boxes = [
        [b["x1"], b["y1"], b["x2"], b["y2"]]
        for b in results.boxes().to_pylist()
        if b["image_id"] == "p0/9.jpg" and b["counted"]
    ]
    assert len(boxes) == 10
    moved = [[x1 + 3, y1, x2 + 3, y2] for x1, y1, x2, y2 in boxes[:1]]
    extra = [[0, 80, 10, 90]]
    change = {"p0/9.jpg": moved + boxes[1:-2] + extra, "p1/4.jpg": [], "p2/5.jpg": []}
    truth = coco(tmp_path / "truth.json", scored, change)
    chosen = choose(results, Selection(suspect=10, truth=truth))

    # p2/5.jpg has 0 + 6 lesions, p1/4.jpg has 4 + 0. An annotation that the model lacks is no contradiction.
    assert set(chosen.image_ids) == set(change) and chosen.notes == () and chosen.left_out == 17
    found = chosen.suspicions
    assert found["p2/5.jpg"].missed == 6
    assert found["p2/5.jpg"].value == pytest.approx(6 * 0.9)
    assert (found["p1/4.jpg"].missed, found["p1/4.jpg"].misplaced) == (4, 0)
    assert (found["p0/9.jpg"].missed, found["p0/9.jpg"].misplaced) == (2, 1)
    assert 2 * 0.9 < found["p0/9.jpg"].value < 3 * 0.9
    assert set(choose(results, Selection(suspect=1, truth=truth)).image_ids) == {"p2/5.jpg"}


def test_boxes_in_shares_of_the_photo_are_refused_and_not_compared_as_pixels(
    scored: Path, results: Results, tmp_path: Path
) -> None:
    truth = coco(tmp_path / "truth.json", scored, {})
    data = json.loads(truth.read_text())
    for annotation in data["annotations"]:
        annotation["bbox"] = [value / 96 for value in annotation["bbox"]]
    truth.write_text(json.dumps(data))

    with pytest.raises(
        UsageError, match="all its boxes lie within 0 to 1, which is less than a pixel"
    ):
        choose(results, Selection(suspect=3, truth=truth))


def test_annotated_photos_that_were_not_scored_are_named(
    scored: Path, results: Results, tmp_path: Path
) -> None:
    truth = coco(tmp_path / "truth.json", scored, {"p1/4.jpg": []})
    data = json.loads(truth.read_text())
    data["images"] += [{"id": 97, "file_name": "p9/new.jpg"}, {"id": 98, "file_name": "p0/cut.jpg"}]
    truth.write_text(json.dumps(data))
    (note,) = choose(results, Selection(suspect=3, truth=truth)).notes
    assert (
        note.startswith("2 annotated photos were not scored")
        and "p9/new.jpg" in note
        and "p0/cut.jpg" in note
    )

    box = {"id": 1, "image_id": 97, "category_id": 1, "bbox": [1, 2, 3, 4]}
    data |= {"images": [{"id": 97, "file_name": "p9/new.jpg"}], "annotations": [box]}
    truth.write_text(json.dumps(data))
    with pytest.raises(
        UsageError, match=r"none of its 1 annotated photos, such as p9/new.jpg, is a scored photo"
    ):
        choose(results, Selection(suspect=3, truth=truth))
