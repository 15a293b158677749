"""Open the pages of `compare` and `series` from disk in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import skinbatch
from skinbatch.evaluate.request import EvaluationRequest
from skinbatch.evaluate.several_scorings import side_by_side
from skinbatch.reading import destination_store
from skinbatch.report.compare import compare
from skinbatch.report.compare_page import compare_page
from skinbatch.report.page import write_page
from skinbatch.report.series import read_series, series_page
from tests.faces import face, png, write_tree

VISITS = {"anna": (7, 6, 5, 3, 2, 1), "ben": (3, 4, 3), "eva": (0,)}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> list[Path]:
    """Score the same names three times, with other lesions each time, and write the first one's lesions as a truth."""
    folder = tmp_path_factory.mktemp("compare")
    dests = []
    for number, more in enumerate((0, 1, -1)):
        files = {
            f"{who}/visit-{n + 1}.png": png(face(max(0, lesions + more * (n % 2)), shade=n))
            for who, counts in VISITS.items()
            for n, lesions in enumerate(counts)
        }
        write_tree(folder / f"photos-{number}", files)
        dests.append(folder / f"scored-{number}")
        skinbatch.score(folder / f"photos-{number}", dests[-1], pack=fake_pack, engine="local")
    lines = ["image,label,x1,y1,x2,y2"]
    for who, counts in VISITS.items():
        for n, lesions in enumerate(counts):
            name = f"{who}/visit-{n + 1}.png,acne"
            lines += [f"{name},27,{19 + 9 * k},34,{26 + 9 * k}" for k in range(lesions)] or [
                f"{name},,,,"
            ]
    (folder / "truth.csv").write_text("\n".join(lines))
    return dests


@pytest.fixture(scope="module")
def pages(scored: list[Path]) -> dict[str, Path]:
    results = [skinbatch.open(dest) for dest in scored]
    found = [compare(results[0], other) for other in results[1:]]
    truth = EvaluationRequest(scored[0].parent / "truth.csv")
    judged = side_by_side([(destination_store(dest), None) for dest in scored], truth)
    series = read_series(results[0], r"^(\w+)/", r"visit-(\d+)")
    made = {
        "compare": compare_page(found, version="test", judged=judged),
        "series": series_page(series, results[0], version="test"),
    }
    paths = {name: scored[0].parent / f"{name}.html" for name in made}
    for name, path in paths.items():
        write_page(path, made[name])
    return paths


@pytest.mark.parametrize("width", [390, 1100])
@pytest.mark.parametrize("name", ["compare", "series"])
def test_a_page_fits_the_window_and_asks_for_nothing(
    browser: Any, pages: dict[str, Path], name: str, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())

    assert [url for url in asked if not url.startswith("data:")] == [pages[name].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=pages[name].with_name(f"{name}-{width}.png"), full_page=True)


def test_the_numbers_of_the_page_are_those_of_the_tables(
    browser: Any, scored: list[Path], pages: dict[str, Path]
) -> None:
    tables = [skinbatch.open(dest).images(["image_id", "grade"]).to_pylist() for dest in scored]
    grades = [{row["image_id"]: row["grade"] for row in table} for table in tables]
    page = browser.new_page()
    page.goto(pages["compare"].as_uri())

    drifts = [float(text) for text in page.locator(".drift").all_inner_texts()]
    cells = [int(text) for text in page.locator("#first .confusion td").all_inner_texts()]
    judged = page.locator("#judged tbody tr").all_inner_texts()

    expected = [sum(grades[0][n] != other[n] for n in other) / len(other) for other in grades[1:]]
    assert drifts == pytest.approx(expected, abs=0.0005)
    assert sum(cells) == len(grades[0])
    assert any(row.startswith("count MAE\t0.00") for row in judged), (
        "the first scoring finds what the truth says"
    )
