"""Test that two scorings of the same photos are compared photo by photo."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

import skinbatch
from jobs.bench_evaluate import generate
from skinbatch.cli import main as cli
from skinbatch.errors import UsageError
from skinbatch.report.compare import _paired, compare
from skinbatch.report.compare_page import as_text, compare_page
from skinbatch.report.comparison import Comparison
from skinbatch.report.person_groups import parse_group
from tests.faces import face, png, write_tree


def scored(folder: Path, pack: str, lesions: list[int]) -> Path:
    """Score photos `0.png`, `1.png`, … with so many lesions on the left, and a damaged one."""
    files = {f"{n}.png": png(face(left)) for n, left in enumerate(lesions)}
    write_tree(folder / "photos", files | {"cut.png": b"\x89PN"})
    skinbatch.score(folder / "photos", folder / "scored", pack=pack, engine="local")
    return folder / "scored"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> tuple[Path, Path]:
    """Return two scorings of the same names; the second finds other lesions and has one photo more."""
    folder = tmp_path_factory.mktemp("compare")
    return scored(folder / "a", fake_pack, [0, 2, 4, 6, 7]), scored(
        folder / "b", fake_pack, [0, 2, 5, 5, 3, 1]
    )


@pytest.fixture(scope="module")
def comparison(two: tuple[Path, Path]) -> Comparison:
    return compare(*(skinbatch.open(dest) for dest in two)).comparison


def test_numbers_are_those_of_the_tables(two: tuple[Path, Path], comparison: Comparison) -> None:
    low, high = (
        {r["image_id"]: r for r in skinbatch.open(dest).images().to_pylist()} for dest in two
    )
    common = sorted(low)
    counts = np.array(
        [
            (low[n]["count_total"], high[n]["count_total"])
            for n in common
            if low[n]["status"] == "ok"
        ]
    )
    difference = counts[:, 1] - counts[:, 0]

    assert (comparison.photos, comparison.only_a, comparison.only_b) == (6, 0, 1)
    assert comparison.count_bias == pytest.approx(difference.mean())
    assert comparison.count_high - comparison.count_bias == pytest.approx(
        1.96 * difference.std(ddof=1)
    )
    assert comparison.drift == sum(low[n]["grade"] != high[n]["grade"] for n in common) / 6
    assert comparison.count_bias == pytest.approx(-0.8)
    assert comparison.drift == pytest.approx(2 / 6), "two photos were moderate and are mild"


def test_agreement_of_grades_is_scikit_learns(
    two: tuple[Path, Path], comparison: Comparison
) -> None:
    low, high = (
        {r["image_id"]: r["grade_level"] for r in skinbatch.open(d).images().to_pylist()}
        for d in two
    )
    graded = [n for n in low if low[n] is not None]
    pairs = [low[n] for n in graded], [high[n] for n in graded]

    expected = cohen_kappa_score(*pairs, weights="quadratic")

    assert sum(map(sum, comparison.confusion)) == len(graded)
    assert comparison.quadratic_kappa == pytest.approx(expected, nan_ok=True)


def test_boxes_that_stayed_are_found_again(comparison: Comparison) -> None:
    assert (comparison.boxes_a, comparison.boxes_b) == (19, 15)
    assert comparison.boxes_same == 2 + 4 + 5 + 3


def test_boxes_pair_up_one_to_one() -> None:
    box, near, far = [0.0, 0, 10, 10], [1.0, 0, 11, 10], [50.0, 50, 60, 60]

    assert _paired(np.array([box, near]), np.array([box])) == 1
    assert _paired(np.array([box, near]), np.array([near, box, far])) == 2
    assert _paired(np.array([box]), np.array([far])) == 0
    assert _paired(np.zeros((0, 4)), np.array([far])) == 0


def test_a_scoring_does_not_differ_from_itself(two: tuple[Path, Path]) -> None:
    same = compare(skinbatch.open(two[0]), skinbatch.open(two[0])).comparison

    assert same.drift == same.count_bias == 0
    assert same.changed == ()
    assert same.boxes_same == same.boxes_a == same.boxes_b


def test_the_page_names_what_changed(two: tuple[Path, Path]) -> None:
    found = compare(*(skinbatch.open(dest) for dest in two))

    page = compare_page([found], version="test")

    assert found.comparison.changed
    for photo in found.comparison.changed:
        assert photo.image_id in page and photo.before in page
    assert page.count("<svg") == 2


def test_numbers_have_intervals_over_photos_or_groups(
    two: tuple[Path, Path], comparison: Comparison
) -> None:
    grouped = compare(
        *(skinbatch.open(dest) for dest in two), grouping=parse_group("status")
    ).comparison

    assert comparison.box_agreement == pytest.approx(2 * 14 / (19 + 15))
    assert (comparison.over, grouped.over) == ("photos", "groups")
    for name, (low, high) in comparison.intervals.items():
        assert low - 1e-9 <= getattr(comparison, name) <= high + 1e-9, name
    assert grouped.drift == comparison.drift
    assert grouped.intervals["drift"] == pytest.approx((0, 2 / 5)), (
        "the damaged photo alone, the others alone"
    )
    assert "95 % percentile intervals of bootstrap samples of groups" in as_text([grouped])
    with pytest.raises(UsageError, match="--group doctor: the table `images` has no such column"):
        compare(*(skinbatch.open(dest) for dest in two), grouping=parse_group("doctor"))


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["skinbatch", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(str(ended.value.code)), said.out, said.err

    return command


def test_drift_over_the_limit_ends_with_5(
    two: tuple[Path, Path], comparison: Comparison, run: Run
) -> None:
    assert comparison.drift > 0

    code, out, err = run("compare", *two, "--max-drift", comparison.drift / 2)
    assert code == 5
    assert "more than --max-drift" in err
    assert run("compare", *two, "--max-drift", comparison.drift)[0] == 0

    code, out, _ = run("compare", *two, "--json")
    assert code == 0
    assert json.loads(out)["drift"] == comparison.drift


def test_scorings_without_a_common_photo_are_refused(
    tmp_path: Path, two: tuple[Path, Path], fake_pack: str
) -> None:
    write_tree(tmp_path / "photos", {"other/x.png": png(face(1))})
    skinbatch.score(tmp_path / "photos", tmp_path / "out", pack=fake_pack, engine="local")
    other = tmp_path / "out"

    with pytest.raises(
        UsageError, match=r"no photo in common: .* such as '0\.png' and 'other/x\.png'"
    ):
        compare(skinbatch.open(two[0]), skinbatch.open(other))


def test_several_scorings_are_judged_by_the_same_photos_of_a_truth(
    tmp_path: Path, two: tuple[Path, Path], run: Run
) -> None:
    lines = ["image,label,x1,y1,x2,y2"]
    for n, lesions in enumerate([0, 2, 4, 6, 7, 1]):
        lines += [f"{n}.png,acne,{27},{19 + 9 * k},{34},{26 + 9 * k}" for k in range(lesions)] or [
            f"{n}.png,acne,,,,"
        ]
    (tmp_path / "truth.csv").write_text("\n".join(lines))

    code, out, _ = run("compare", *two, two[0], "--truth", tmp_path / "truth.csv", "--json")
    found = json.loads(out)
    code_text, text, _ = run(
        "compare", *two, two[0], "--truth", tmp_path / "truth.csv", "-o", tmp_path / "compare.html"
    )

    assert (code, code_text) == (0, 0)
    assert [c["drift"] for c in found["comparisons"]] == [found["drift"], 0.0]
    assert found["truth"]["photos"] == 5, "5.png is only in B, and the damaged photo in none"
    (note,) = [note for note in found["truth"]["notes"] if "not judged" in note]
    assert note.startswith("1 of 6 annotated photos are not judged") and note.endswith(": 5.png")
    errors = found["truth"]["numbers"]["count MAE"]
    assert errors[0] == errors[2]
    assert errors[0]["value"] < errors[1]["value"]
    assert all(each["low"] <= each["value"] <= each["high"] for each in errors)
    assert "the same 5 photos for all" in text and "C compared with A" in text
    page = (tmp_path / "compare.html").read_text()
    assert (
        "Three scorings" in page and f"{errors[1]['value']:.2f} ({errors[1]['low']:.2f} to" in page
    )


def test_a_photo_whose_name_is_ambiguous_in_one_scoring_is_judged_in_none(
    tmp_path: Path, fake_pack: str, run: Run
) -> None:
    dests = []
    for name, folders in (("a", ("one",)), ("b", ("one", "two"))):
        photos = {f"{folder}/x.png": png(face(2)) for folder in folders} | {
            "one/y.png": png(face(3))
        }
        write_tree(tmp_path / name, photos)
        dests.append(tmp_path / f"scored-{name}")
        skinbatch.score(tmp_path / name, dests[-1], pack=fake_pack, engine="local")
    (tmp_path / "truth.csv").write_text(
        "image,label,x1,y1,x2,y2\nx.png,acne,27,19,34,26\ny.png,acne,27,19,34,26\n"
    )

    _, out, _ = run("compare", *dests, "--truth", tmp_path / "truth.csv", "--json")

    found = json.loads(out)["truth"]
    assert found["photos"] == 1
    assert [each["value"] for each in found["numbers"]["count MAE"]] == [2, 2], (
        "only y.png, with 3 boxes for 1"
    )


def test_one_destination_is_not_compared(two: tuple[Path, Path], run: Run) -> None:
    code, _, err = run("compare", two[0])
    assert code == 2
    assert "compare takes 2 to 26 destinations; 1 given" in err
    code, _, err = run("compare", *two, "--scoring", "abc")
    assert code == 2
    assert "--scoring: name all 2 scorings or none; 1 given" in err


def test_an_unfinished_scoring_says_how_much_is_missing(tmp_path: Path, run: Run) -> None:
    generate(tmp_path / "whole", tmp_path / "truth.json", 20, 100, np.random.default_rng(1))
    shutil.copytree(tmp_path / "whole", tmp_path / "scored")
    store = skinbatch.open(tmp_path / "scored").store
    store.delete(
        [*store.keys("_skinbatch/snapshots/"), next(iter(store.keys("_skinbatch/receipts/")))]
    )
    results = skinbatch.open(tmp_path / "scored")
    done = results.images(["image_id"]).num_rows

    code, text, _ = run(
        "compare", tmp_path / "whole", tmp_path / "scored", "-o", tmp_path / "compare.html"
    )

    said = f"the run has not finished: {done} of 20 photos are done, and 1 of"
    assert code == 0 and 0 < done < 20
    assert f"Note: {results.store.uri}: {said}" in text
    assert said in (tmp_path / "compare.html").read_text()
    assert said in results._repr_html_()
