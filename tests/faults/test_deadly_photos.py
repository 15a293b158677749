"""Test that photos that kill or hang their worker are found and named, and that no other photo suffers."""

from __future__ import annotations

import bz2
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import skinbatch
from skinbatch.config import parse_config
from skinbatch.models.fake import HANGS, KILLS
from tests.faces import counts, face, png, rows, tar_bytes, write_tree
from tests.faults.corpus_archives import header


def test_photos_that_kill_the_worker_are_crashed_and_their_neighbours_are_scored(
    tmp_path: Path, mortal_pack: str
) -> None:
    photos = {"0.png": png(face(4, 0)), "1.png": png(face(corner=KILLS))}
    members = {"0.png": png(face(0, 1)), "1.png": png(face(1, 1, corner=KILLS))}
    tree = write_tree(tmp_path / "photos", {**photos, "s.tar": tar_bytes(members)})
    dest = tmp_path / "out"
    report = skinbatch.score(tree, dest, pack=mortal_pack, engine="local", max_failures=0.5)
    assert (report.exit_code, dict(report.statuses)) == (0, {"ok": 2, "crashed": 2})
    assert counts(dest) == {"0.png": (4, 4, 0), "s.tar/0.png": (1, 0, 1)}
    found = rows(dest)
    for image_id in ("1.png", "s.tar/1.png"):
        assert found[image_id]["status"] == "crashed"
        assert "killed by SIGABRT" in found[image_id]["error"]
        assert "." in found[image_id]["unit_id"]
    assert skinbatch.verify(dest).differences == []
    assert list((dest / "_skinbatch/attempts").rglob("*.json")) == []

    # In the next plan, the units are whole again: their rows are copied, and no worker dies again.
    write_tree(tree, {"3.png": png(face(3, 3))})
    again = skinbatch.score(tree, dest, pack=mortal_pack, engine="local", max_failures=0.5)
    assert (again.exit_code, again.scored, again.copied) == (0, 1, 2)
    assert counts(dest)["3.png"] == (6, 3, 3)
    assert skinbatch.verify(dest).differences == []


def test_a_photo_that_hangs_is_a_timeout(tmp_path: Path, mortal_pack: str) -> None:
    tree = write_tree(tmp_path / "photos", {"a.png": png(face(corner=HANGS))})
    settings = parse_config({"engine": {"stall_timeout_s": 2.0}})
    report = skinbatch.score(
        tree, tmp_path / "out", pack=mortal_pack, engine="local", config=settings
    )
    assert (report.exit_code, dict(report.statuses)) == (3, {"timeout": 1})
    assert "no photo made progress for 2 s" in rows(tmp_path / "out")["a.png"]["error"]
    assert skinbatch.verify(tmp_path / "out").differences == []


@pytest.fixture(scope="module")
def slow_member() -> tuple[Callable[[str], bytes], float]:
    """Return a tar.bz2 whose first member takes seconds to unpack, with a photo behind it.

    Returns the member's name and the seconds as well.
    """
    size, chunk = 64 << 20, np.random.default_rng(0).bytes(1 << 20)

    def made(name: str) -> bytes:
        packer = bz2.BZ2Compressor()
        parts = [packer.compress(header(name, size))]
        parts += [packer.compress(chunk) for _ in range(size >> 20)]
        return b"".join(
            [*parts, packer.compress(tar_bytes({"0.png": png(face(1, 1))})), packer.flush()]
        )

    held = made("a")
    begin = time.monotonic()
    bz2.decompress(held)
    return made, time.monotonic() - begin


@pytest.mark.slow
def test_an_archive_file_with_a_large_member_that_is_no_photo_takes_its_time(
    tmp_path: Path, fake_pack: str, slow_member: tuple[Callable[[str], bytes], float]
) -> None:
    made, seconds = slow_member
    tree = write_tree(tmp_path / "photos", {"a.png": png(face()), "held.tar.bz2": made("dump.sql")})
    settings = parse_config({"engine": {"stall_timeout_s": seconds / 3}})
    report = skinbatch.score(
        tree, tmp_path / "out", pack=fake_pack, engine="local", config=settings
    )
    assert (report.exit_code, dict(report.statuses)) == (0, {"ok": 2})
    assert list((tmp_path / "out/_skinbatch/attempts").rglob("*.json")) == []
    assert skinbatch.verify(tmp_path / "out").differences == []


@pytest.mark.slow
def test_an_archive_file_that_holds_up_its_reader_is_a_timeout_and_no_outage(
    tmp_path: Path, fake_pack: str, slow_member: tuple[Callable[[str], bytes], float]
) -> None:
    """Unpack a photo that takes seconds, and check that neither the store nor other photos are blamed."""
    made, seconds = slow_member
    tree = write_tree(tmp_path / "photos", {"a.png": png(face()), "held.tar.bz2": made("long.png")})
    settings = parse_config(
        {
            "engine": {"stall_timeout_s": seconds / 3},
            "decode": {"max_image_bytes": 1 << 30},
            "run": {"max_failures": 0.9},
        }
    )
    report = skinbatch.score(
        tree, tmp_path / "out", pack=fake_pack, engine="local", config=settings
    )
    found = rows(tmp_path / "out")
    assert (report.exit_code, dict(report.statuses)) == (0, {"ok": 2, "timeout": 1}), found
    assert found["a.png"]["status"] == found["held.tar.bz2/0.png"]["status"] == "ok"
    assert "no photo made progress for" in found["held.tar.bz2/#timeout-0"]["error"]
    assert skinbatch.verify(tmp_path / "out").differences == []
