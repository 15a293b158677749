"""Fuzz the archive readers: any bytes must give rows with valid statuses and unique names, in any
ranges.

`python -m tests.faults.fuzz_archives FOLDER -max_total_time=60`; FOLDER is as in fuzz_decoders.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris
import pyarrow as pa

with atheris.instrument_imports(include=["skinbatch.archive"]):
    from skinbatch.archive.shard import ShardReader, count_members
from skinbatch.config import DecodeSettings, StorageSettings
from skinbatch.storage.locate import Locator
from skinbatch.tables.rows import Row, images_table
from skinbatch.types import ImageResult, ShardKind, ShardRef, Status
from tests.faults.corpus_archives import hostile_archives

SETTINGS = DecodeSettings(max_image_bytes=1 << 20)
# Bytes of memory that archives may take.
ROOM = 1 << 30
KINDS: tuple[ShardKind, ...] = ("tar", "zip", "parquet")
PLACE = (
    Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)) / "archive"
)


def one(data: bytes) -> None:
    # Arrow allocates the claimed size of a Parquet page at once, and is refused, as on a worker whose memory is full.
    with suppress(pa.ArrowMemoryError):
        _check(data)


def _check(data: bytes) -> None:
    PLACE.write_bytes(data)
    kind = KINDS[len(data) % 3]  # of what its first bytes do not show
    shard = ShardRef("s", str(PLACE), kind, len(data), str(PLACE.stat().st_mtime_ns))
    locator = Locator(StorageSettings())
    whole = list(ShardReader(shard, locator, SETTINGS))
    ids = [fetched.ref.image_id for fetched in whole]
    assert len(set(ids)) == len(ids)
    assert all(image_id.startswith("s/") for image_id in ids)
    counted = count_members(shard, locator)
    assert counted == len(whole), (
        counted,
        [(f.ref.image_id, f.status, f.error) for f in whole[-3:]],
    )
    middle = len(whole) // 2
    halves = [
        *ShardReader(shard, locator, SETTINGS, 0, middle),
        *ShardReader(shard, locator, SETTINGS, middle),
    ]
    assert [(f.ref.image_id, f.status) for f in halves] == [
        (f.ref.image_id, f.status) for f in whole
    ]
    assert all(fetched.data is not None or fetched.status is not Status.OK for fetched in whole)
    rows = [Row(f.ref, "u", ImageResult(f.status, f.error)) for f in whole]
    assert images_table(rows, (), ()).num_rows == len(rows)


def main() -> None:
    for number, hostile in enumerate(hostile_archives("/outside")):
        if len(hostile.data) < 50_000:
            Path(sys.argv[1], f"seed-{number:03}").write_bytes(hostile.data)
    here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (here + ROOM, here + ROOM))
    atheris.Setup([*sys.argv, "-timeout=10", "-rss_limit_mb=2048"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
