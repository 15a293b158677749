"""Test runs that are killed, interrupted or run twice: the same command continues, and the tables are right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import skinbatch
from skinbatch.config import parse_config
from skinbatch.engines.driver import drive
from skinbatch.engines.local import LocalEngine
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.run import Run
from skinbatch.engines.setup import prepare
from skinbatch.errors import ClaimError
from skinbatch.runs import claim, layout
from tests.faces import comparable, face, png, rows, tar_bytes, write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = {f"{n % 4}/{n:03}.png": png(face(n % 6, n % 5, n % 100)) for n in range(150)}
    members = {f"{n:02}.png": png(face(n % 3, 1, 50 + n)) for n in range(20)}
    return write_tree(
        tmp_path_factory.mktemp("resume") / "photos", {**photos, "s.tar": tar_bytes(members)}
    )


@pytest.fixture(scope="module")
def undisturbed(tree: Path, fake_pack: str) -> Path:
    out = tree.parent / "undisturbed"
    assert skinbatch.score(tree, out, pack=fake_pack, engine="local").exit_code == 0
    return out


def command(tree: Path, out: Path, pack: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "skinbatch",
        "score",
        str(tree),
        str(out),
        "--pack",
        pack,
        "--engine",
        "local",
    ]


def stop_after_the_second_unit(
    tree: Path, out: Path, pack: str, signal_number: int
) -> tuple[int, str, int]:
    """Return the exit code, the output and the units that were done.

    Photos are scored one by one, so that there is time.
    """
    settings = tree.parent / "slow.toml"
    settings.write_text("[engine]\nbatch_size = 1\n[decode]\nthreads = 1\n")
    process = subprocess.Popen(
        [*command(tree, out, pack), "--config", str(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(list((out / "_skinbatch/receipts").rglob("*.json"))) < 2:
        assert process.poll() is None, process.communicate()
    process.send_signal(signal_number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said, len(list((out / "_skinbatch/receipts").rglob("*.json")))


def test_a_killed_driver_is_resumed_by_the_same_command(
    tree: Path, undisturbed: Path, fake_pack: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, _, done = stop_after_the_second_unit(tree, out, fake_pack, signal.SIGKILL)
    assert code == -signal.SIGKILL
    checked = skinbatch.verify(out)
    assert (checked.exit_code, checked.units_left > 0) == (5, True)
    leave_half_written(out, checked.fingerprint)

    again = skinbatch.score(tree, out, pack=fake_pack, engine="local")
    assert again.exit_code == 0
    assert 0 < again.scored < again.rows == 170
    assert done >= 2
    assert skinbatch.verify(out).differences == []
    for ours, theirs in zip(comparable(out), comparable(undisturbed), strict=True):
        assert ours.equals(theirs)
    assert not list(out.rglob(".tmp-*"))

    leave_half_written(out, checked.fingerprint)
    assert skinbatch.score(tree, out, pack=fake_pack, engine="local").nothing_to_do
    assert not list(out.rglob(".tmp-*"))


def leave_half_written(out: Path, fingerprint: str) -> None:
    """Write what dying writers leave behind: beside tables, beside a receipt, in place of one, and elsewhere."""
    receipts = out / "_skinbatch/receipts" / fingerprint
    other = out / "images" / "scoring=0123456789ab"
    for folder in (
        out / "images" / f"scoring={fingerprint}",
        next(receipts.iterdir()),
        receipts / "never",
        out,
        other,
    ):
        folder.mkdir(exist_ok=True)
        (folder / ".tmp-dead").write_bytes(b"half")


def test_ctrl_c_keeps_what_is_committed(
    tree: Path, undisturbed: Path, fake_pack: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, said, done = stop_after_the_second_unit(tree, out, fake_pack, signal.SIGINT)
    assert code == 130
    assert "Traceback" not in said
    assert not (out / layout.CLAIM).exists()
    kept = {r["unit_id"] for r in rows(out).values()}
    assert len(kept) == done
    report = skinbatch.score(tree, out, pack=fake_pack, engine="local")
    assert (report.exit_code, report.rows) == (0, 170)
    assert report.scored == 170 - sum(r["unit_id"] in kept for r in rows(out).values())
    assert comparable(out)[0].equals(comparable(undisturbed)[0])
    assert skinbatch.verify(out).differences == []


def run_of(tree: Path, out: Path, pack: str) -> Run:
    return Run(
        prepare(str(tree), str(out), parse_config({"pack": pack})), SilentPresenter(), "test"
    )


def test_a_second_driver_is_told_who_holds_the_destination(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    first, second = (run_of(tree, tmp_path / "out", fake_pack) for _ in range(2))
    first.claim.beat_s = 0.05
    first.claim.take()
    first.claim.start(lambda: None)
    try:
        with pytest.raises(ClaimError) as raised:
            drive(second, LocalEngine(parse_config({}).engine))
    finally:
        first.claim.release()
    assert raised.value.exit_code == 7
    assert first.claim.run_id in str(raised.value)
    assert str(os.getpid()) in str(raised.value)
    assert not (tmp_path / "out/_skinbatch/plans").exists()


def test_a_claim_that_nobody_keeps_up_is_taken_over(
    tree: Path, fake_pack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim.Claim.take, "__defaults__", (0.2, lambda holder: None, lambda: None))
    out = tmp_path / "out"
    elsewhere = {
        "run_id": "r1",
        "at": "2026-01-01T00:00:00Z",
        "beat": 3,
        "host": "gone",
        "pid": 1,
        "machine": "other",
    }
    write_tree(out, {layout.CLAIM: json.dumps(elsewhere).encode()})
    report = drive(run_of(tree, out, fake_pack), LocalEngine(parse_config({}).engine))
    assert (report.exit_code, report.rows) == (0, 170)
    assert not (out / layout.CLAIM).exists()


def test_who_is_interrupted_while_it_watches_a_claim_ends_with_130_and_leaves_it(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    elsewhere = {
        "run_id": "r1",
        "at": "2026-01-01T00:00:00Z",
        "beat": 3,
        "host": "gone",
        "pid": 1,
        "machine": "other",
    }
    write_tree(out, {layout.CLAIM: json.dumps(elsewhere).encode()})
    run = run_of(tree, out, fake_pack)
    run.interruption.hear(signal.SIGINT, None)
    began = time.monotonic()
    assert drive(run, LocalEngine(parse_config({}).engine)).exit_code == 130
    assert time.monotonic() - began < claim.WATCH_S
    assert json.loads((out / layout.CLAIM).read_bytes()) == elsewhere
    assert not (out / layout.RUNS).exists()


def test_a_file_that_is_lost_after_the_run_is_found_and_made_again(
    tree: Path, undisturbed: Path, fake_pack: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    skinbatch.score(tree, out, pack=fake_pack, engine="local")
    stray = sorted((out / "images").rglob("*.parquet"))[0].with_name("stray.parquet")
    stray.write_bytes(b"not ours")
    assert [stray.name in d for d in skinbatch.verify(out).differences] == [True]
    lost = sorted((out / "boxes").rglob("*.parquet"))[0]
    lost.unlink()
    checked = skinbatch.verify(out)
    assert (checked.exit_code, checked.units_left) == (5, 1)
    assert any(lost.name in d for d in checked.differences)
    report = skinbatch.score(tree, out, pack=fake_pack, engine="local")
    assert report.exit_code == 0
    assert skinbatch.verify(out).differences == []
    assert not stray.exists()
    assert comparable(out)[1].equals(comparable(undisturbed)[1])


def test_one_changed_byte_is_named_by_verify(tree: Path, undisturbed: Path, tmp_path: Path) -> None:
    target = sorted((undisturbed / "images").rglob("*.parquet"))[0]
    before = target.read_bytes()
    try:
        target.write_bytes(before[:100] + bytes([before[100] ^ 1]) + before[101:])
        checked = skinbatch.verify(undisturbed)
    finally:
        target.write_bytes(before)
    assert checked.exit_code == 5
    assert any(target.name in d and "SHA-256" in d for d in checked.differences)
