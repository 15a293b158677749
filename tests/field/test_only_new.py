"""Test that `--only-new` scores new photos and leaves every row of the others as it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import skinbatch
from skinbatch.errors import UsageError
from skinbatch.runs.only_new import CHANGED
from tests.faces import comparable, face, files_of, png, rows, tar_bytes, write_tree
from tests.faults.in_process import decodes
from tests.field.in_process import score

ONLY_NEW = {"source": {"only_new": True}}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    members = {"a.png": png(face(1, 1, 50)), "b.png": png(face(2, 1, 51))}
    loose = {f"{n:02}.png": png(face(n % 6, n % 4, n)) for n in range(12)}
    return write_tree(tmp_path / "photos", {**loose, "s.tar": tar_bytes(members)})


def replace(path: Path, data: bytes) -> None:
    """Replace a file, with a later modification time even on a coarse clock."""
    later = path.stat().st_mtime_ns + 10**9
    path.write_bytes(data)
    os.utime(path, ns=(later, later))


def test_changed_and_missing_photos_keep_their_rows(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    dest = tmp_path / "out"
    assert score(tree, dest, fake_pack).exit_code == 0
    before = comparable(dest)

    replace(tree / "03.png", png(face(7, 7, 90)))
    replace(tree / "s.tar", tar_bytes({"c.png": png(face(3, 3, 91))}))
    (tree / "04.png").unlink()
    new = {"new.png": png(face(5, 5, 92)), "t.tar": tar_bytes({"d.png": png(face(4, 4, 93))})}
    write_tree(tree, new)
    with decodes() as decoded:
        report = score(tree, dest, fake_pack, **ONLY_NEW)
    assert (report.exit_code, report.rows, report.skipped[CHANGED]) == (0, 16, 2)
    assert decoded == {"new.png", "t.tar/d.png"}

    images, boxes = comparable(dest)
    ids = before[0].column("image_id").to_pylist()
    old = [name in ids for name in images.column("image_id").to_pylist()]
    assert images.filter(old).equals(before[0])
    old = [name in ids for name in boxes.column("image_id").to_pylist()]
    assert boxes.filter(old).equals(before[1])
    assert rows(dest)["new.png"]["count_total"] == 10
    assert skinbatch.verify(dest).differences == []

    # Without the option, everything is brought up to date.
    with decodes() as decoded:
        assert score(tree, dest, fake_pack).rows == 14
    assert decoded == {"03.png", "s.tar/c.png"}
    assert skinbatch.verify(dest).differences == []


def test_nothing_is_done_or_written_if_nothing_is_new(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    dest = tmp_path / "out"
    assert score(tree, dest, fake_pack, **ONLY_NEW).scored == 14
    files = files_of(dest)
    for path in tree.iterdir():
        path.unlink()
    report = score(tree, dest, fake_pack, **ONLY_NEW)
    assert (report.exit_code, report.nothing_to_do, report.rows) == (0, True, 14)
    assert files_of(dest) == files


def test_it_needs_the_plan_of_the_last_run(tree: Path, fake_pack: str, tmp_path: Path) -> None:
    dest = tmp_path / "out"
    assert score(tree, dest, fake_pack).exit_code == 0
    for plan in dest.glob("_skinbatch/plans/*/*/units.parquet"):
        plan.write_bytes(plan.read_bytes()[:-9])
    with pytest.raises(UsageError, match="--only-new needs the plan of the last run"):
        score(tree, dest, fake_pack, **ONLY_NEW)
