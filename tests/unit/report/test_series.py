"""Test counts and grades of one face over time."""

from __future__ import annotations

import pytest

import skinbatch
from skinbatch.errors import UsageError
from skinbatch.report.series import as_text, read_series, series_page
from skinbatch.runs.results import Results
from tests.faces import face, png, tar_bytes, write_tree


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Results:
    """Score Anna, who gets better from visit 2 to visit 10, Ben, who comes once, and a tar with
    subject and date in sidecars."""
    folder = tmp_path_factory.mktemp("series")
    members = {
        "1.png": png(face(1)),
        "1.json": b'{"subject": "eva", "taken": "2024-03-01"}',
        "2.png": png(face(5, 2)),
        "2.json": b'{"subject": "eva", "taken": "2023-12-31T10:00:00"}',
    }
    write_tree(
        folder / "photos",
        {
            "anna/visit-2.png": png(face(7, 6)),
            "anna/visit-10.png": png(face(1)),
            "anna/visit-9.png": b"\x89PN",
            "ben/visit-1.png": png(face(3)),
            "other.png": png(face(2)),
            "shard.tar": tar_bytes(members),
        },
    )
    skinbatch.score(folder / "photos", folder / "scored", pack=fake_pack, engine="local")
    return skinbatch.open(folder / "scored")


def test_photos_of_a_face_are_in_order_of_time_as_numbers(results: Results) -> None:
    found = read_series(results, r"^(\w+)/visit", r"visit-(\d+)")

    anna, ben = found.subjects
    assert [visit.time for visit in anna.visits] == ["2", "9", "10"]
    assert [visit.count_total for visit in anna.visits] == [13, None, 1]
    assert [visit.grade for visit in anna.visits] == ["moderate", None, "mild"]
    assert anna.visits[1].status != "ok"
    assert ben.name == "ben"
    assert set(found.unmatched) == {"other.png", "shard.tar/1.png", "shard.tar/2.png"}


def test_subject_and_time_may_be_columns_and_dates_are_dates(results: Results) -> None:
    found = read_series(results, "meta_subject", "taken")

    (eva,) = found.subjects
    assert [(visit.time, visit.count_total) for visit in eva.visits] == [
        ("2023-12-31T10:00:00", 7),
        ("2024-03-01", 1),
    ]


def test_text_and_page_show_every_subject(results: Results) -> None:
    found = read_series(results, r"^(\w+)/visit", r"visit-(\d+)")

    text, page = as_text(found), series_page(found, results, version="test")

    assert "anna: 3 photos" in text and "ben: 1 photo\n" in text
    assert "without subject or time: 3" in text
    assert page.count("<svg") == 2
    assert "3 photos have no subject or no time" in page


@pytest.mark.parametrize(
    ("subject", "time", "complaint"),
    [
        ("meta_subjekt", r"\d", "no column 'meta_subjekt'; similar: meta_subject"),
        ("subjekt", r"\d", r"names such as .*; columns similar to 'subjekt': meta_subject"),
        ("(", r"\d", r"--subject: '\(' is neither a column nor a regular expression"),
        ("nobody", r"\d", "no photo has a subject by 'nobody'"),
    ],
)
def test_what_cannot_be_told_is_refused(
    results: Results, subject: str, time: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_series(results, subject, time)
