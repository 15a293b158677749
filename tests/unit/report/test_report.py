"""Test reports of made-up tables: size, lists, escapes, unfinished runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import skinbatch
from jobs.bench_evaluate import generate
from skinbatch.config import Config
from skinbatch.errors import UsageError
from skinbatch.grading.schemes import HAYASHI, Scheme
from skinbatch.report.lookalikes import find_lookalikes
from skinbatch.report.page import write_page
from skinbatch.report.report import ReportRequest, make_report
from skinbatch.report.summary import LISTED
from skinbatch.report.tally import gather
from skinbatch.runs.destination import read_scoring
from skinbatch.runs.regrade import regrade
from skinbatch.runs.results import Results
from tests.faces import face, jpeg, png, tar_bytes, write_tree


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return 300 made-up photos with 6,000 boxes."""
    folder = tmp_path_factory.mktemp("report")
    generate(folder / "scored", folder / "truth.json", 300, 6000, np.random.default_rng(3))
    return skinbatch.open(folder / "scored")


def test_the_page_refers_to_no_other_file(results: Results) -> None:
    page = make_report(results, ReportRequest(), Config())

    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert "<script type=" not in page
    assert "<script src" not in page
    assert len(page.encode()) < 300_000


def test_the_page_does_not_grow_with_the_photos(results: Results, tmp_path: Path) -> None:
    generate(tmp_path / "scored", tmp_path / "truth.json", 3000, 20_000, np.random.default_rng(3))

    few = make_report(results, ReportRequest(), Config())
    many = make_report(skinbatch.open(tmp_path / "scored"), ReportRequest(), Config())

    # Every list and plot has an upper limit. Larger numbers are a little longer.
    assert len(many) < 1.1 * len(few)


def test_faces_are_shown_only_on_request(results: Results) -> None:
    assert "data:image" not in make_report(results, ReportRequest(), Config())


def test_what_is_gathered_is_what_the_tables_hold(results: Results) -> None:
    scoring = read_scoring(results.store, results.fingerprint)
    assert scoring is not None

    found = gather(results, scoring, HAYASHI, 0.3)

    images = results.images().to_pylist()
    assert found.photos == 300
    assert found.lesions == sum(row["count_total"] for row in images)
    assert found.histograms["count_total"].total == 300
    boundary = next(entry for entry in found.lists if entry.title.startswith("Close"))
    close = [row["image_id"] for row in images if row["count_total"] in (5, 6, 20, 21, 50, 51)]
    assert boundary.total == len(close)
    assert {name for name, _ in boundary.photos} <= set(close)
    assert len(boundary.photos) == min(LISTED, len(close))


def test_a_scheme_of_some_classes_has_its_own_boundary(results: Results) -> None:
    scheme = Scheme("papules", ("few", "many"), (2,), area="whole", classes=("papule",))
    done = regrade(results.store, scheme=scheme)
    graded = skinbatch.open(results.store.uri, grading=done.gid)
    scoring = read_scoring(graded.store, graded.fingerprint)
    assert scoring is not None

    (entry,) = [
        e for e in gather(graded, scoring, scheme, 0.3).lists if e.title.startswith("Close")
    ]

    close = [
        row["image_id"] for row in graded.images().to_pylist() if row["count_papule"] in (2, 3)
    ]
    assert entry.total == len(close) > 0


def test_boxes_off_the_skin_are_where_detector_and_segmenter_disagree(results: Results) -> None:
    scoring = read_scoring(results.store, results.fingerprint)
    assert scoring is not None

    (entry,) = [
        e
        for e in gather(results, scoring, HAYASHI, 0.3).lists
        if e.title == "Detector and segmenter disagree"
    ]

    off: dict[str, int] = {}
    for box in results.boxes().to_pylist():
        if box["score"] >= 0.3 and box["skin_overlap"] < 0.5:
            off[box["image_id"]] = off.get(box["image_id"], 0) + 1
    assert entry.total == sum(count >= 3 for count in off.values()) > 0
    assert entry.photos[0][1] == f"{max(off.values())} boxes off the skin"


def test_another_disease_beside_many_lesions_is_where_detector_and_classifier_disagree(
    tmp_path: Path, fake_pack: str
) -> None:
    # The fake classifier calls reddish photos rosacea.
    counts = {"clear.png": (0, 0), "few.png": (2, 0), "many.png": (7, 6), "more.png": (7, 7)}
    write_tree(tmp_path / "photos", {name: png(face(*lesions)) for name, lesions in counts.items()})
    skinbatch.score(tmp_path / "photos", tmp_path / "scored", pack=fake_pack, engine="local")
    results = skinbatch.open(tmp_path / "scored")
    scoring = read_scoring(results.store, results.fingerprint)
    assert scoring is not None

    (entry,) = [
        e
        for e in gather(results, scoring, HAYASHI, 0.3).lists
        if e.title == "Detector and classifier disagree"
    ]

    assert set(results.images(["top_class"]).column(0).to_pylist()) == {"rosacea"}
    assert entry.photos == (
        ("more.png", "14 lesions, and rosacea"),
        ("many.png", "13 lesions, and rosacea"),
    )


def test_a_report_follows_the_grading(results: Results) -> None:
    done = regrade(results.store, threshold=0.7)

    page = make_report(
        skinbatch.open(results.store.uri, grading=done.gid), ReportRequest(), Config()
    )

    assert "hayashi, boxes from 0.7" in page
    assert f"<b>{done.grades['mild']}</b>" not in page or done.grades["mild"] == 300
    assert done.gid in page


def test_names_cannot_break_the_page(tmp_path: Path, fake_pack: str) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    write_tree(tmp_path / "photos", {name: b"\x89PN", "b.png": png(face(1))})
    skinbatch.score(tmp_path / "photos", tmp_path / "scored", pack=fake_pack, engine="local")

    page = make_report(skinbatch.open(tmp_path / "scored"), ReportRequest(thumbnails=5), Config())

    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_a_photo_that_has_gone_since_gets_a_placeholder(tmp_path: Path, fake_pack: str) -> None:
    write_tree(tmp_path / "photos", {"a.png": png(face(2)), "b.png": png(face(1))})
    skinbatch.score(tmp_path / "photos", tmp_path / "scored", pack=fake_pack, engine="local")
    (tmp_path / "photos/a.png").unlink()

    page = make_report(skinbatch.open(tmp_path / "scored"), ReportRequest(thumbnails=5), Config())

    assert page.count("data:image/jpeg") == 1
    assert "has disappeared since `a.png` was scored" in page


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    generate(tmp_path / "scored", tmp_path / "truth.json", 20, 100, np.random.default_rng(1))
    store = skinbatch.open(tmp_path / "scored").store
    store.delete(list(store.keys("_skinbatch/snapshots/")))

    done = next(iter(store.keys("_skinbatch/receipts/")))
    store.delete([done])
    images = skinbatch.open(tmp_path / "scored").images(["image_id"]).num_rows

    page = make_report(skinbatch.open(tmp_path / "scored"), ReportRequest(), Config())

    assert f"the run has not finished: {images} of 20 photos are done, and 1 of " in page
    assert "These are the results so far; run the same <code>skinbatch score</code> again" in page


def test_a_page_that_cannot_be_written_names_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match=r"file/report\.html: cannot be written"):
        write_page(tmp_path / "file" / "report.html", "page")


def test_a_damaged_record_of_a_run_costs_only_its_line(tmp_path: Path) -> None:
    generate(tmp_path / "scored", tmp_path / "truth.json", 20, 100, np.random.default_rng(1))
    store = skinbatch.open(tmp_path / "scored").store
    store.put("_skinbatch/runs/1-a.json", b"{half")
    store.put(
        "_skinbatch/runs/2-b.json",
        b'{"fingerprint": "0123456789ab", "command": "skinbatch score x"}',
    )

    page = make_report(skinbatch.open(tmp_path / "scored"), ReportRequest(), Config())

    assert "A run is not shown below" in page
    assert "skinbatch score x" in page


def test_the_same_photo_in_another_size_is_a_near_duplicate(tmp_path: Path, fake_pack: str) -> None:
    photo = Image.fromarray(face(2))
    smaller = np.asarray(photo.resize((80, 80)))
    photos = {
        "a.png": png(face(2)),
        "t.tar": tar_bytes({"small.jpg": jpeg(smaller)}),
        "other.png": png(face(4, 2, 9)),
    }
    write_tree(tmp_path / "photos", photos | {"copy.png": png(face(2))})
    skinbatch.score(tmp_path / "photos", tmp_path / "scored", pack=fake_pack, engine="local")
    results = skinbatch.open(tmp_path / "scored")

    found = find_lookalikes(results, Config())

    assert (found.compared, found.unread) == (3, 0)
    (group,) = found.groups
    assert "t.tar/small.jpg" in group
    assert group[0] in ("a.png", "copy.png")
    page = make_report(results, ReportRequest(look_alikes=True), Config())
    assert "Near-duplicates: 2" in page
    assert "Copies: 2" in page

    (tmp_path / "photos/other.png").unlink()
    gone = find_lookalikes(results, Config())
    assert (gone.compared, gone.unread) == (2, 1)
    assert gone.problem
