"""Test that two scorings of the same photos are compared photo by photo."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

import skinbatch
from skinbatch import cli
from skinbatch.errors import UsageError
from skinbatch.report.compare import Comparison, _paired, compare, compare_page
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
    return scored(folder / "a", fake_pack, [0, 2, 4, 6, 7]), scored(folder / "b", fake_pack, [0, 2, 5, 5, 3, 1])


@pytest.fixture(scope="module")
def comparison(two: tuple[Path, Path]) -> Comparison:
    return compare(*(skinbatch.open(dest) for dest in two)).comparison


def test_numbers_are_those_of_the_tables(two: tuple[Path, Path], comparison: Comparison) -> None:
    low, high = ({r["image_id"]: r for r in skinbatch.open(dest).images().to_pylist()} for dest in two)
    common = sorted(low)
    counts = np.array([(low[n]["count_total"], high[n]["count_total"]) for n in common if low[n]["status"] == "ok"])
    difference = counts[:, 1] - counts[:, 0]

    assert (comparison.photos, comparison.only_a, comparison.only_b) == (6, 0, 1)
    assert comparison.count_bias == pytest.approx(difference.mean())
    assert comparison.count_high - comparison.count_bias == pytest.approx(1.96 * difference.std(ddof=1))
    assert comparison.drift == sum(low[n]["grade"] != high[n]["grade"] for n in common) / 6
    assert comparison.count_bias == pytest.approx(-0.8)
    assert comparison.drift == pytest.approx(2 / 6), "two photos were moderate and are mild"


def test_agreement_of_grades_is_scikit_learns(two: tuple[Path, Path], comparison: Comparison) -> None:
    low, high = ({r["image_id"]: r["grade_level"] for r in skinbatch.open(d).images().to_pylist()} for d in two)
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

    page = compare_page(found, version="test")

    assert found.comparison.changed
    for photo in found.comparison.changed:
        assert photo.image_id in page and photo.before in page
    assert page.count("<svg") == 2


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


def test_drift_over_the_limit_ends_with_5(two: tuple[Path, Path], comparison: Comparison, run: Run) -> None:
    assert comparison.drift > 0

    code, out, err = run("compare", *two, "--max-drift", comparison.drift / 2)
    assert code == 5
    assert "more than --max-drift" in err
    assert run("compare", *two, "--max-drift", comparison.drift)[0] == 0

    code, out, _ = run("compare", *two, "--json")
    assert code == 0
    assert json.loads(out)["drift"] == comparison.drift


def test_scorings_without_a_common_photo_are_refused(tmp_path: Path, two: tuple[Path, Path], fake_pack: str) -> None:
    write_tree(tmp_path / "photos", {"other/x.png": png(face(1))})
    skinbatch.score(tmp_path / "photos", tmp_path / "out", pack=fake_pack, engine="local")
    other = tmp_path / "out"

    with pytest.raises(UsageError, match=r"no photo in common: .* such as '0\.png' and 'other/x\.png'"):
        compare(skinbatch.open(two[0]), skinbatch.open(other))
