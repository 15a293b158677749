"""Run `skinbatch demo`: write photos with planted lesions, score them, count what was found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skinbatch import __version__
from skinbatch.config import Config
from skinbatch.demo import count_found, write_demo_archive
from skinbatch.engines.presenter import Presenter
from skinbatch.engines.score import score
from skinbatch.errors import UsageError
from skinbatch.reading import open as open_destination
from skinbatch.report.page import write_page
from skinbatch.report.report import ReportRequest, make_report
from skinbatch.runs.run_report import RunReport

PHOTOS = 12
# One of the demo's files is cut off, to show that a bad photo becomes a row. More failures than
# this would be a defect.
BROKEN_ON_PURPOSE = 0.1


@dataclass(frozen=True, slots=True)
class Found:
    """Count lesions. planted, found: lesions. boxes: counted boxes of the whole demo."""

    planted: int
    found: int
    boxes: int


def run_demo(folder: Path, engine: str | None, presenter: Presenter) -> tuple[RunReport, Found]:
    """Write FOLDER/photos (the same photos every time), FOLDER/scored and FOLDER/report.html.

    Raises UsageError if FOLDER holds something else or cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / "photos").is_dir():
            raise UsageError(
                f"{folder}: not empty, and not from an earlier demo; name another folder"
            )
        presenter.phase("making photos with lesions at known places")
        planted = write_demo_archive(folder / "photos", PHOTOS)
    except OSError as e:
        raise UsageError(
            f"{folder}: the demo cannot be written there ({e.strerror}); name another folder"
        ) from None

    report = score(
        folder / "photos",
        folder / "scored",
        engine=engine,
        max_failures=BROKEN_ON_PURPOSE,
        presenter=presenter,
    )
    if report.exit_code not in (0, 3):
        return report, Found(len(planted), 0, 0)

    results = open_destination(folder / "scored")
    presenter.phase("writing the report")
    # The demo's photos are in the public domain, so the report may show them.
    page = make_report(results, ReportRequest(thumbnails=PHOTOS + 1, version=__version__), Config())
    write_page(folder / "report.html", page)

    boxes = results.boxes()
    matched, total = count_found(boxes, planted)
    return report, Found(total, matched, sum(boxes.column("counted").to_pylist()))
