"""Plan a listing of millions of loose photos, and measure the driver's memory."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.config import load_config
from skinbatch.engines.planning import Planner
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.run import Run
from skinbatch.engines.setup import prepare
from skinbatch.models.fake import write_fake_pack

_ROWS = 100_000
_SCHEMA = pa.schema([("uri", pa.string()), ("size", pa.int64()), ("etag", pa.string())])


def write_listing(path: Path, photos: int) -> None:
    """Write a Parquet file that names so many photos in a bucket."""
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for first in range(0, photos, _ROWS):
            numbers = range(first, min(photos, first + _ROWS))
            columns = [
                [f"s3://photos/archive/{n // 1000:06d}/{n:010d}.jpg" for n in numbers],
                [200_000 + n % 99_991 for n in numbers],
                [hashlib.md5(str(n).encode(), usedforsecurity=False).hexdigest() for n in numbers],
            ]
            writer.write_table(pa.table(columns, schema=_SCHEMA))


def plan_listing(photos: int, work: Path) -> tuple[int, int, float]:
    """Write a listing in another process, and plan it in this one.

    Returns the photos and units of the plan, and the seconds that it took.
    """
    listing = work / "listing.parquet"
    writing = multiprocessing.get_context("spawn").Process(
        target=write_listing, args=(listing, photos)
    )
    writing.start()
    writing.join()
    if writing.exitcode:
        raise SystemExit("the listing could not be written")

    write_fake_pack(work / "pack")
    config = load_config(overrides={"pack": str(work / "pack")})
    run = Run(prepare(str(listing), str(work / "dest"), config), SilentPresenter(), "simulate")
    started = time.perf_counter()
    planner = Planner(run.prepared, run.presenter, run.log, lambda: None)
    plan = planner.plan_source()
    return plan.photos, len(plan.units), time.perf_counter() - started
