"""Test what a run reports for machines: JSON lines with units and photos, and counters."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skinbatch import logs
from skinbatch.runs.record import RunLog, RunRecord
from skinbatch.storage.local import LocalStore
from skinbatch.storage.traffic import COUNTS, TRAFFIC, Traffic
from tests.faces import face, png, tar_bytes, write_tree


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.write_json(stream)
    yield stream
    logs.stop_json()


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_a_line_with_its_fields_and_those_that_are_bound(lines: io.StringIO) -> None:
    with logs.bound(run_id="r1"):
        logs.event("unit_done", unit_id="g01", photos=3)
        logs.event("photo_failed", logging.WARNING, image_id="a\nb\udcff.png")
    logs.event("after")
    first, second, third = read(lines)
    assert (first["level"], first["event"], first["run_id"], first["unit_id"], first["photos"]) == (
        *("info", "unit_done", "r1", "g01"),
        3,
    )
    assert first["time"].endswith("Z")
    assert (second["level"], second["image_id"]) == ("warning", "a\nb\udcff.png")
    assert "run_id" not in third


def test_what_other_libraries_warn_of_is_a_line_too(lines: io.StringIO) -> None:
    logging.getLogger("someone.else").warning("trouble with %s", "https://user:password@host/")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    first, second = read(lines)
    assert (first["event"], first["logger"], first["message"]) == (
        "log",
        "someone.else",
        "trouble with https://…@host/",
    )
    assert "old" in second["message"]


def test_without_json_the_library_says_nothing_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    logs.event("worker_died", logging.ERROR)
    assert not logs.writes_json()
    assert capfd.readouterr() == ("", "")


def answer(status: int, code: str = "") -> tuple[Any, dict[str, Any]]:
    return SimpleNamespace(status_code=status), {"Error": {"Code": code}}


def test_retries_and_throttles_are_counted_as_botocore_tells_of_them() -> None:
    traffic = Traffic()
    before = traffic.all()
    traffic.answered(attempts=1, response=answer(503, "SlowDown"), operation=None)
    traffic.answered(attempts=2, response=answer(500, "InternalError"))
    traffic.answered(attempts=3, response=None, caught_exception=OSError())
    traffic.answered(attempts=4, response=answer(400, "RequestLimitExceeded"))
    traffic.answered(attempts=5, response=answer(200))
    assert traffic.since(before) == dict.fromkeys(COUNTS, 0) | {
        "requests_retried": 4,
        "requests_throttled": 2,
    }


def test_a_run_record_counts_the_requests_of_workers_and_of_the_driver(tmp_path: Path) -> None:
    TRAFFIC.retried()  # before the run: not its own
    log = RunLog(
        LocalStore(tmp_path),
        RunRecord("1-a", "score", "local", "f" * 12, "photos", requests_retried=2),
    )
    TRAFFIC.retried()
    size = 0
    for _ in range(2):  # written twice, counted once
        log.write()
        written = json.loads((tmp_path / "_skinbatch/runs/1-a.json").read_text(encoding="utf-8"))
        assert (written["requests_retried"], written["requests_throttled"]) == (3, 0)
        size += (tmp_path / "_skinbatch/runs/1-a.json").stat().st_size
    assert log.cost().bytes_written == size


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "skinbatch", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def run(tree: Path, out: Path, pack: str) -> list[dict[str, Any]]:
    """Return the log of a run with failed photos."""
    done = command(
        "score", tree, out, "--pack", pack, "--engine", "local", "--log-format", "json", "--json"
    )
    assert done.returncode == 3, done.stderr
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert len({line["run_id"] for line in told if "run_id" in line}) == 1
    return told


def test_a_run_tells_its_units_and_the_photos_that_failed(tmp_path: Path, fake_pack: str) -> None:
    members = {"0.png": png(face(1, 1)), "1.png": b""}
    tree = write_tree(
        tmp_path / "photos", {"a.png": png(face(2, 1)), "b.jpg": b"", "s.tar": tar_bytes(members)}
    )
    told = run(tree, tmp_path / "out", fake_pack)
    failed = {line["image_id"]: line["status"] for line in told if line["event"] == "photo_failed"}
    assert failed == {"b.jpg": "empty", "s.tar/1.png": "empty"}
    assert [line["event"] for line in told][-1] == "run_ended"
    assert {"run_started", "phase", "worker_ready", "unit_done"} <= {line["event"] for line in told}
    assert all(line["unit_id"] for line in told if line["event"].startswith(("unit_", "photo_")))
    assert told[-1]["statuses"] == {"ok": 2, "empty": 2}
    assert command("status", tmp_path / "out").stdout.count("trouble") == 0


@pytest.mark.slow
def test_trouble_is_told_and_counted(tmp_path: Path, mortal_pack: str) -> None:
    from skinbatch.models.fake import KILLS

    members = {"0.png": png(face(1, 1)), "1.png": png(face(corner=KILLS))}
    out = tmp_path / "out"
    told = run(write_tree(tmp_path / "photos", {"s.tar": tar_bytes(members)}), out, mortal_pack)
    events = [line["event"] for line in told]
    (failed,) = (line for line in told if line["event"] == "photo_failed")
    assert (failed["image_id"], failed["status"]) == ("s.tar/1.png", "crashed")
    assert {"worker_died", "unit_retried", "unit_halved"} <= set(events)
    found = json.loads(command("status", out, "--json").stdout)
    (record,) = (json.loads(path.read_text()) for path in (out / "_skinbatch/runs").iterdir())
    for counters in (found, record):
        assert counters["photos_isolated"] == 1
        assert counters["units_retried"] == events.count("unit_retried") >= 1
        assert (counters["requests_retried"], counters["requests_throttled"]) == (0, 0)
    assert record["units_halved"] == events.count("unit_halved")
    assert "1 photos isolated" in command("status", out).stdout


def test_how_a_command_fails_is_a_line_as_well(tmp_path: Path, fake_pack: str) -> None:
    done = command(
        "score",
        tmp_path / "nowhere",
        tmp_path / "out",
        "--pack",
        fake_pack,
        "--engine",
        "local",
        "--log-format",
        "json",
    )
    assert done.returncode == 2
    (line,) = (json.loads(text) for text in done.stderr.splitlines())
    assert (line["level"], line["event"], line["exit_code"]) == ("error", "error", 2)
    assert "nowhere" in line["message"]
