"""Open the report from disk in a real browser: numbers, filters, dark mode, and the width of a phone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import skinbatch
from skinbatch.config import Config
from skinbatch.demo import Planted, write_demo_archive
from skinbatch.evaluate.evaluation import Evaluation, evaluate
from skinbatch.evaluate.request import EvaluationRequest
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.reading import destination_store
from skinbatch.report.against import Judgement
from skinbatch.report.page import write_page
from skinbatch.report.report import ReportRequest, make_report
from tests.faces import face, png, write_tree


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    """Score the demo's photos, one of them truncated, and one with red spots, with the fake pack.

    The fake detector finds only the red spots, which are not in the truth.
    """
    folder = tmp_path_factory.mktemp("report")
    planted = write_demo_archive(folder / "photos", 6)
    write_tree(folder / "photos", {"red.png": png(face(2))})
    write_truth(folder / "coco.json", [*planted, Planted("red.png", 0, 0, 6, 6)])
    skinbatch.score(folder / "photos", folder / "scored", pack=fake_pack, engine="local")
    return folder / "scored"


def write_truth(path: Path, planted: list[Planted]) -> None:
    """Write the planted lesions as COCO."""
    names = sorted({lesion.image_id for lesion in planted})
    annotations = [
        {
            "id": n,
            "image_id": names.index(lesion.image_id),
            "category_id": 1,
            "bbox": [lesion.x1, lesion.y1, lesion.x2 - lesion.x1, lesion.y2 - lesion.y1],
        }
        for n, lesion in enumerate(planted)
    ]
    images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "acne"}]}
    path.write_text(json.dumps(coco))


@pytest.fixture(scope="module")
def judged(scored: Path) -> Evaluation:
    truth = EvaluationRequest(scored.parent / "coco.json", resampling=Resampling(20), sliced=False)
    return evaluate(destination_store(scored), truth)


@pytest.fixture(scope="module")
def report(scored: Path, judged: Evaluation) -> Path:
    judgement = Judgement(judged.as_json(), judged.verdicts(), ())
    request = ReportRequest(thumbnails=20, version="test", judgement=judgement)
    page = make_report(skinbatch.open(scored), request, Config())
    path = scored.parent / "report.html"
    write_page(path, page)
    return path


def opened(
    browser: Any, report: Path, *, width: int = 1100, scheme: str = "light", fragment: str = ""
) -> Any:
    """Return the page, after checking that it asked for no other file and raised no error."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{report.as_uri()}{fragment}")
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == 1
    assert problems == []
    return page


def test_the_numbers_are_those_of_the_tables(browser: Any, scored: Path, report: Path) -> None:
    images = skinbatch.open(scored).images().to_pylist()
    ok = sum(row["status"] == "ok" for row in images)
    lesions = sum(row["count_total"] or 0 for row in images)

    cards = opened(browser, report).locator("header .card").all_inner_texts()

    shown = dict(reversed(card.split("\n")) for card in cards)
    assert shown["photos"] == str(len(images))
    assert shown["scored"] == str(ok)
    assert shown["failed"] == str(len(images) - ok)
    assert shown["lesions counted"] == str(lesions)


def test_filters_show_the_photos_that_fit_and_are_in_the_address(
    browser: Any, scored: Path, report: Path
) -> None:
    images = skinbatch.open(scored).images().to_pylist()
    grade = next(row["grade"] for row in images if row["grade"])
    page = opened(browser, report)

    page.select_option("[data-key=grade]", grade)

    visible = page.locator("#photos figure:visible").count()
    assert visible == sum(row["grade"] == grade for row in images) < len(images)
    assert page.locator("#shown").inner_text() == str(visible)
    assert page.url.endswith(f"#grade={grade}")

    again = opened(browser, report, fragment=f"#grade={grade}")
    assert again.locator("#photos figure:visible").count() == visible


def test_an_address_with_filters_opens_at_the_photos_and_links_leave_filters_alone(
    browser: Any, report: Path
) -> None:
    top = "e => e.getBoundingClientRect().top"
    assert opened(browser, report).locator("#gallery").evaluate(top) > 900, "below the window"
    page = opened(browser, report, fragment="#status=truncated")
    assert -1 <= page.locator("#gallery").evaluate(top) < 900

    page.locator("nav a[href='#course']").click()

    assert page.url.endswith("#course")
    assert page.locator("#photos figure:visible").count() == 1


def test_lists_that_are_closed_on_the_screen_are_printed(browser: Any, report: Path) -> None:
    page = opened(browser, report)
    closed = page.locator("details:not([open])")
    assert closed.count() > 0

    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")

    assert closed.count() == 0
    assert not page.locator("nav").is_visible() and not page.locator("#filters").is_visible()
    white = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    assert white == "rgb(255, 255, 255)"


def test_a_failed_photo_has_a_placeholder_with_the_reason(browser: Any, report: Path) -> None:
    page = opened(browser, report, fragment="#status=truncated")

    assert page.locator("#photos figure:visible .gone").all_inner_texts() == [
        "truncated: visit-1/cut-off.jpg: truncated jpeg: no end-of-image marker"
    ]


def test_boxes_of_people_and_model_lie_on_the_photo_side_by_side(
    browser: Any, judged: Evaluation, report: Path
) -> None:
    page = opened(browser, report)
    verdicts = judged.verdicts()

    assert page.locator(".pairs figure").count() == len(verdicts)
    assert page.locator(".two rect.missed").count() == sum(len(v.missed) for v in verdicts) > 0
    assert page.locator(".two rect.false").count() == sum(len(v.false) for v in verdicts) > 0
    left, right = page.locator(".pairs figure").first.locator("svg").all()
    assert left.bounding_box()["width"] == right.bounding_box()["width"] > 100
    assert left.locator("image").bounding_box()["width"] == pytest.approx(
        left.bounding_box()["width"], abs=1
    )
    assert right.locator("use").bounding_box()["width"] == pytest.approx(
        right.bounding_box()["width"], abs=1
    )


@pytest.mark.parametrize("width", [390, 1100])
def test_nothing_is_wider_than_the_window(browser: Any, report: Path, width: int) -> None:
    page = opened(browser, report, width=width)

    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_windows_get_a_dark_page_and_light_plots(browser: Any, report: Path) -> None:
    def luma(page: Any, selector: str, what: str) -> float:
        colour = page.locator(selector).first.evaluate(
            f"e => getComputedStyle(e).{what}.match(/[0-9.]+/g).slice(0, 3).map(Number)"
        )
        return float(0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2])

    dark, light = opened(browser, report, scheme="dark"), opened(browser, report, scheme="light")

    assert luma(dark, "body", "backgroundColor") < 60 < 200 < luma(light, "body", "backgroundColor")
    assert luma(dark, "svg text", "fill") > 180
    assert luma(light, "svg text", "fill") < 80
