"""Run each fuzz target for a set time, SKINBATCH_FUZZ_SECONDS.

An input that fails is kept, and the message names its file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import SMALL

SECONDS = int(os.environ.get("SKINBATCH_FUZZ_SECONDS", "60"))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.parametrize("target", ["fuzz_decoders", "fuzz_archives"])
def test_nothing_is_found_in_a_set_time(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python")
    (tmp_path / "corpus").mkdir()
    command = [
        *SMALL,
        sys.executable,
        "-m",
        f"tests.faults.{target}",
        str(tmp_path / "corpus"),
        f"-artifact_prefix={tmp_path}/",
    ]
    done = subprocess.run(
        [*command, f"-max_total_time={SECONDS}"],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS + 200,
    )
    found = sorted(
        p.name for p in tmp_path.iterdir() if p.name.startswith(("crash-", "timeout-", "oom-"))
    )
    assert (done.returncode, found) == (0, []), done.stdout[-3000:] + done.stderr[-1000:]
    assert "Done" in done.stderr


@pytest.mark.slow
def test_no_flipped_bit_of_a_parquet_footer_ends_a_process_or_makes_two_counts(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"a", b"b"]}), path, compression="none", store_schema=False)
    command = [sys.executable, "-m", "tests.faults.flips", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (said,) = done.stdout.splitlines()
    assert int(said.removeprefix("flips ")) > 1000
