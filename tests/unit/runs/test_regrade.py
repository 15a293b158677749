"""Test that stored boxes are graded again: with another threshold, scheme or counting method,
beside the first grading."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

import skinbatch
from jobs.bench_evaluate import CLASSES, generate
from skinbatch.errors import ClaimError, UsageError
from skinbatch.evaluate.evaluation import evaluate
from skinbatch.evaluate.request import EvaluationRequest
from skinbatch.export.export import ExportRequest, export
from skinbatch.grading.scheme_file import find_scheme
from skinbatch.grading.schemes import SCHEMES, Scheme
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.reading import destination_store
from skinbatch.runs import gradings, layout
from skinbatch.runs.claim import Claim
from skinbatch.runs.regrade import Regraded, regrade
from skinbatch.runs.verify import verify
from skinbatch.storage.store import Store


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished destination of 40 photos with 1,200 boxes, graded by Hayashi from 0.3."""
    folder = tmp_path_factory.mktemp("regrade")
    generate(folder / "scored", folder / "truth.json", 40, 1200, np.random.default_rng(7))
    return folder / "scored"


@pytest.fixture
def store(scored: Path) -> Store:
    return destination_store(scored)


def test_the_settings_of_the_first_run_give_its_counts_and_grades(
    scored: Path, store: Store
) -> None:
    done = regrade(store)

    first = skinbatch.open(scored).images(["image_id", "count_total", "grade_level"])
    again = skinbatch.open(scored, grading=done.gid).images(
        ["image_id", "count_total", "grade_level"]
    )
    assert again.equals(first)
    assert done.changed == 0
    assert done.grades["mild"] == pc.sum(pc.equal(first["grade_level"], 0)).as_py()


def test_another_threshold_counts_the_boxes_that_reach_it(scored: Path, store: Store) -> None:
    done = regrade(store, threshold=0.6)

    results = skinbatch.open(scored, grading=done.gid)
    boxes, images = results.boxes().to_pylist(), results.images().to_pylist()
    assert all(b["counted"] == (b["score"] >= 0.6 and b["skin_overlap"] >= 0.5) for b in boxes)
    for image in images:
        mine = [b for b in boxes if b["image_id"] == image["image_id"] and b["counted"]]
        assert image["count_total"] == len(mine)
        assert image["count_papule"] == sum(b["label"] == "papule" for b in mine)
    assert 0 < sum(b["counted"] for b in boxes) < len(boxes)


def test_the_tables_of_the_scoring_stay_as_they_are(scored: Path, store: Store) -> None:
    before = {p: p.read_bytes() for p in (scored / "images").rglob("*.parquet")}
    verified = skinbatch.verify(scored)

    regrade(store, threshold=0.9)

    assert {p: p.read_bytes() for p in (scored / "images").rglob("*.parquet")} == before
    assert skinbatch.verify(scored) == verified


def test_the_same_grading_again_replaces_its_older_files(scored: Path, store: Store) -> None:
    first = regrade(store, threshold=0.8)
    second = regrade(store, threshold=0.8)

    assert first == second
    prefix = layout.grading_data_prefix(first.scoring, first.gid)
    assert len(list(store.keys(prefix))) == 1
    assert len(gradings.record_names(store, first.scoring)[first.gid]) == 1


def test_files_of_a_killed_regrade_are_removed_by_the_next(store: Store) -> None:
    done = regrade(store, threshold=0.7)
    stray = f"{layout.grading_data_prefix(done.scoring, done.gid)}9.{'0' * 12}.parquet"
    store.put(stray, b"half written")

    regrade(store, threshold=0.7)

    assert stray not in list(store.keys("gradings/"))


def test_a_scheme_may_grade_some_classes_only(scored: Path, store: Store) -> None:
    scheme = Scheme("papules", ("none", "some", "many"), (0, 3), area="whole", classes=("papule",))

    done = regrade(store, scheme=scheme)

    for image in skinbatch.open(scored, grading=done.gid).images().to_pylist():
        papules = image["count_papule"]
        assert image["grade"] == ("none" if papules == 0 else "some" if papules <= 3 else "many")
        assert image["grade_scheme"] == "papules"


@pytest.mark.parametrize(
    ("name", "count", "grade"),
    [
        ("hayashi", 5, "mild"),
        ("hayashi", 6, "moderate"),
        ("acne04", 51, "3"),
        ("iga-like", 0, "clear"),
    ],
)
def test_bounds_of_the_schemes(name: str, count: int, grade: str) -> None:
    scheme, counts = SCHEMES[name], np.array([count])

    (level,) = scheme.levels(counts, counts, counts * 0, np.array([False]))

    assert scheme.grades[level] == grade


def test_a_scheme_file_of_a_user_is_read(tmp_path: Path) -> None:
    file = tmp_path / "scheme.toml"
    file.write_text(
        'name = "trial-7"\ngrades = ["clear", "mild", "severe"]\nupper = [0, 10]\nclasses = ["papule"]\n'
    )

    assert find_scheme(str(file)) == Scheme(
        "trial-7", ("clear", "mild", "severe"), (0, 10), "half", ("papule",)
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('name = "x"\ngrades = ["a", "b"]\nupper = [1, 2]\n', "2 grades need 1 upper"),
        ('name = "x"\ngrades = ["a", "b", "c"]\nupper = [5, 5]\n', "have to rise"),
        ('name = "hayashi"\ngrades = ["a", "b"]\nupper = [1]\n', "scheme that exists"),
        (
            'name = "x"\ngrades = ["a", "b"]\nuppers = [1]\n',
            "the keys are name, grades, upper, area, classes",
        ),
        ('name = "x"\ngrades = ["a", "b"]\nupper = [1.5]\n', "upper.0"),
        ("name = ", "not readable as TOML"),
    ],
)
def test_a_wrong_scheme_file_is_refused_by_its_key(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "scheme.toml"
    file.write_text(text)

    with pytest.raises(UsageError, match=complaint) as error:
        find_scheme(str(file))

    assert str(file) in str(error.value)


def test_a_threshold_below_the_stored_scores_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match=r"boxes are stored from a score of 0\.05 on"):
        regrade(store, threshold=0.01)


def test_classes_that_the_detector_does_not_have_are_named(store: Store) -> None:
    scheme = Scheme("x", ("a", "b"), (1,), classes=("cyst",))

    with pytest.raises(UsageError, match=f"names cyst; .* {', '.join(CLASSES)}"):
        regrade(store, scheme=scheme)


def test_an_unfinished_scoring_is_not_graded(tmp_path: Path) -> None:
    generate(tmp_path / "scored", tmp_path / "truth.json", 20, 100, np.random.default_rng(1))
    unfinished = destination_store(tmp_path / "scored")
    unfinished.delete(list(unfinished.keys("_skinbatch/snapshots/")))

    with pytest.raises(UsageError, match="not finished: 20 of 20 photos are done so far"):
        regrade(unfinished)


def test_a_destination_that_a_run_holds_is_left_alone(store: Store) -> None:
    claim = Claim(store, "other", beat_s=0.05)
    claim.take()
    claim.start(lambda: None)
    try:
        with pytest.raises(ClaimError, match="held by another run"):
            regrade(store)
    finally:
        claim.release()


def test_an_unknown_grading_is_refused_with_those_that_exist(scored: Path, store: Store) -> None:
    done: Regraded = regrade(store)

    with pytest.raises(
        UsageError, match=f"no grading `fffff`.*{done.gid} .hayashi, boxes from 0.3"
    ):
        skinbatch.open(scored, grading="fffff")


def test_a_grading_of_an_older_snapshot_says_so(tmp_path: Path) -> None:
    generate(tmp_path / "scored", tmp_path / "truth.json", 20, 100, np.random.default_rng(1))
    dest = destination_store(tmp_path / "scored")
    done = regrade(dest)
    (key,) = dest.keys(f"_skinbatch/snapshots/{done.scoring}/")
    newer = f"_skinbatch/snapshots/{done.scoring}/{layout.numbered(7)}.parquet"
    dest.put(newer, dest.get(key)[0])

    with pytest.raises(UsageError, match="were scored since"):
        skinbatch.open(tmp_path / "scored", grading=done.gid)


@pytest.fixture
def regraded(tmp_path: Path) -> tuple[Store, Regraded]:
    """Return a destination of its own with one grading, for a test to damage."""
    generate(tmp_path / "scored", tmp_path / "truth.json", 20, 100, np.random.default_rng(1))
    store = destination_store(tmp_path / "scored")
    return store, regrade(store, threshold=0.6)


def test_a_sound_grading_is_no_difference(regraded: tuple[Store, Regraded]) -> None:
    assert verify(regraded[0]).differences == []


@pytest.mark.parametrize(
    ("where", "data", "complaint"),
    [
        (
            "gradings/",
            None,
            r"grading {gid} \(hayashi, boxes from 0\.6\): .*: the file is gone; run",
        ),
        ("gradings/", b"half of it", r"grading {gid} .*its bytes are not those that were written"),
        (
            "_skinbatch/gradings/",
            b"{{",
            r"_skinbatch/gradings/.* is damaged: .*; delete it, and run `skinbatch regrade`",
        ),
        ("_skinbatch/gradings/", None, r"files that no record of a grading names: grading={gid}/"),
    ],
    ids=["file gone", "file changed", "record damaged", "record gone"],
)
def test_verify_names_a_damaged_grading(
    regraded: tuple[Store, Regraded], where: str, data: bytes | None, complaint: str
) -> None:
    store, done = regraded
    (key,) = store.keys(where)
    store.delete([key])
    if data is not None:
        store.put(key, data)

    report = verify(store)

    assert report.exit_code == 5
    (difference,) = report.differences
    assert re.search(complaint.replace("{gid}", done.gid).replace("{{", "{"), difference)


def test_a_grading_of_an_older_snapshot_is_no_difference(regraded: tuple[Store, Regraded]) -> None:
    store, done = regraded
    (key,) = store.keys(f"_skinbatch/snapshots/{done.scoring}/")
    data = store.get(key)[0]
    store.delete([key])
    store.put(f"_skinbatch/snapshots/{done.scoring}/{layout.numbered(7)}.parquet", data)

    assert verify(store).differences == []


def test_export_writes_the_boxes_that_a_grading_counts(
    regraded: tuple[Store, Regraded], tmp_path: Path
) -> None:
    store, done = regraded

    written = export(
        store.uri, str(tmp_path / "out"), ExportRequest("coco", grading=done.gid)
    ).boxes

    boxes = skinbatch.open(store.uri).boxes().to_pylist()
    assert written == sum(b["score"] >= 0.6 and b["skin_overlap"] >= 0.5 for b in boxes) > 0
    with pytest.raises(
        UsageError, match="--score-threshold, --grading: a grading has its own threshold"
    ):
        export(
            store.uri, str(tmp_path / "x"), ExportRequest("coco", threshold=0.5, grading=done.gid)
        )
    with pytest.raises(UsageError, match="--grading is for what `skinbatch score` has scored"):
        export(
            str(tmp_path / "truth.json"),
            str(tmp_path / "x"),
            ExportRequest("coco", grading=done.gid),
        )


def test_evaluate_judges_the_counts_of_a_grading(
    regraded: tuple[Store, Regraded], tmp_path: Path
) -> None:
    store, done = regraded
    request = EvaluationRequest(
        tmp_path / "truth.json", resampling=Resampling(0), thresholds=(0.6,), grading=done.gid
    )

    found = evaluate(store, request).as_json()

    assert found["about"]["grading"] == {
        "threshold": 0.6,
        "counting": "boxes",
        "scheme": "hayashi",
        "grading": done.gid,
    }
    at_threshold, own = found["all"]["lesions"]["count_error"]
    assert own["threshold"] == 0.6
    assert own["mae"] == at_threshold["mae"]


def test_severities_are_not_judged_by_a_scheme_with_other_grades(
    regraded: tuple[Store, Regraded], tmp_path: Path
) -> None:
    store, _ = regraded
    done = regrade(store, scheme=SCHEMES["iga-like"])
    severities = tmp_path / "severities.csv"
    names = skinbatch.open(store.uri).images(["image_id"]).column("image_id").to_pylist()
    severities.write_text("image,label\n" + "".join(f"{name},\n" for name in names))

    with pytest.raises(
        UsageError, match="the truth has 4 severities, and the scheme 'iga-like' has 5 grades"
    ):
        evaluate(store, EvaluationRequest(severities, grading=done.gid))
    assert (
        "grades" in evaluate(store, EvaluationRequest(severities, resampling=Resampling(0))).numbers
    )
