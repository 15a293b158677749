"""Test what scripts and notebooks show while `score()` works."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

import skinbatch
from skinbatch.engines.terminal import LinePresenter
from tests.faces import face, png, write_tree

SCRIPT = """
import sys, skinbatch
report = skinbatch.score(sys.argv[1], sys.argv[2], pack=sys.argv[3], engine="local")
print("rows:", report.rows)
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_tree(tmp_path / "photos", {f"{n}.png": png(face(n)) for n in range(3)})
    return tmp_path / "photos"


def test_a_notebooks_line_is_written_over_and_ends_with_all_photos(
    photos: Path, tmp_path: Path, fake_pack: str
) -> None:
    stream = io.StringIO()
    with LinePresenter(stream) as presenter:
        skinbatch.score(
            photos, tmp_path / "out", pack=fake_pack, engine="local", presenter=presenter
        )

    text = stream.getvalue()
    assert text.endswith("\n") and text.count("\n") == 1
    shown = [line.strip() for line in text.split("\r")][1:]
    assert shown[-1].startswith("3/3 photos")
    assert len(shown) > 2


def test_notes_stay_above_the_line_that_is_written_over() -> None:
    stream = io.StringIO()
    with LinePresenter(stream) as presenter:
        presenter.phase("listing the source")
        presenter.note("short")
        presenter.phase("scoring")

    assert stream.getvalue() == "\rlisting the source\rnote: short       \n\rscoring\n"


def test_a_script_shows_a_bar_on_a_terminal_and_nothing_elsewhere(
    photos: Path, tmp_path: Path, fake_pack: str
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [
        sys.executable,
        str(tmp_path / "script.py"),
        str(photos),
        str(tmp_path / "a"),
        fake_pack,
    ]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}

    reader, writer = pty.openpty()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=writer, text=True, env=environment
    ) as running:
        os.close(writer)
        shown = b""
        with contextlib.suppress(OSError):  # Linux reports the end of a terminal as an error
            while part := os.read(reader, 65536):
                shown += part
        assert running.stdout is not None
        assert running.stdout.read() == "rows: 3\n"
    os.close(reader)
    assert re.search(r"\d/3 photos", shown.decode())

    command[3] = str(tmp_path / "b")
    piped = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert piped.stdout == "rows: 3\n"
    assert "photos" not in piped.stderr
