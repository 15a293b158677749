"""Run the README's code blocks as they are, on the demo's photos."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skinbatch.demo import write_demo_archive

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """Return (language, code) of the blocks under the heading Use."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    use = text.split("\n## Use\n", 1)[1].split("\n## ", 1)[0]
    found = _BLOCK.findall(use)
    # `tests/field/test_ray.py` runs the line for a cluster, on one.
    return [(language, code) for language, code in found if not code.startswith("ray job submit")]


@pytest.mark.timeout(300)
def test_blocks_of_the_readme_run(tmp_path: Path) -> None:
    write_demo_archive(tmp_path / "photos", photos=8)
    scripts = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    # `score` ends with 3 here, as one photo is truncated on purpose; `verify` after it shows that all went well.
    assert [language for language, _ in blocks()] == ["sh", "python"]

    for language, code in blocks():
        command = ["bash", "-uc", code] if language == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    assert done.stdout.split() == ["mild", "4"], "what the README shows"
