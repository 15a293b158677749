"""Test that a report gives its numbers with intervals over persons."""

from __future__ import annotations

from pathlib import Path

import pytest

import skinbatch
from skinbatch.config import Config
from skinbatch.errors import UsageError
from skinbatch.report.group_figures import group_figures
from skinbatch.report.person_groups import parse_group
from skinbatch.report.report import ReportRequest, make_report
from skinbatch.runs.results import Results
from tests.faces import face, png, write_tree


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Results:
    folder: Path = tmp_path_factory.mktemp("figures")
    counts = {"anna": (7, 7, 6), "ben": (1, 0), "eva": (3,)}
    write_tree(
        folder / "photos",
        {
            f"{who}/{n}.png": png(face(lesions))
            for who, mine in counts.items()
            for n, lesions in enumerate(mine)
        },
    )
    skinbatch.score(folder / "photos", folder / "scored", pack=fake_pack, engine="local")
    return skinbatch.open(folder / "scored")


def test_persons_are_counted_and_numbers_have_intervals_over_them(results: Results) -> None:
    grouping = parse_group(r"^(\w+)/")
    assert grouping is not None

    found = group_figures(results, grouping)

    counts = results.images(["count_total"]).column(0).to_pylist()
    assert found.about.startswith(
        "Groups by `^(\\w+)/`: 3 groups in 6 photos; 5 photos share theirs with another photo"
    )
    title, value, interval = found.rows[0]
    assert (title, value) == ("mean lesions per photo", f"{sum(counts) / 6:.3f}")
    low, high = map(float, interval.split(" to "))
    assert low < float(value) < high
    page = make_report(results, ReportRequest(version="test", group=grouping), Config())
    assert "By person" in page and interval in page


def test_a_group_that_fits_nothing_is_told(results: Results) -> None:
    for text, said in (
        (
            "(q+)/",
            r"--group \(q\+\)/: fits none of 6 photos, such as .*png: none of them has a group",
        ),
        ("doctor", "--group doctor: the table `images` has no such column"),
        ("vew", r"has no such column, but view \(fields of the source: none\)"),
    ):
        grouping = parse_group(text)
        assert grouping is not None
        with pytest.raises(UsageError, match=said):
            group_figures(results, grouping)
    with pytest.raises(UsageError, match=r"--group \(: not a regular expression"):
        parse_group("(")
