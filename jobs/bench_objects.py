"""Measure how fast objects of a bucket are read beside a plain boto3 loop.

Photos are written below the address once, as objects and as tars. Each side reads all of them, in
turns, in one process and with as many requests at the same time.
"""

from __future__ import annotations

import io
import statistics
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import boto3
import numpy as np
from botocore.config import Config as BotoConfig
from PIL import Image

from skinbatch.archive.unit_reader import read_unit
from skinbatch.config import DecodeSettings, StorageSettings
from skinbatch.scoring.unit_scorer import REQUESTS
from skinbatch.storage.locate import Locator, open_store, split_s3
from skinbatch.storage.store import ObjectInfo
from skinbatch.types import ImageRef, ShardRef, WorkUnit

TARGET = 0.8
# As a worker reads them: photos a unit, and requests at the same time.
UNIT = 512
_SIDE = 512
_IN_A_TAR = 500
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Rates:
    """Hold the photos a second of each repeat, for one kind of source."""

    what: str
    photos: int
    loop: list[float]
    reader: list[float]

    @property
    def ratio(self) -> float:
        """Return the median of the ratios of the turns."""
        return statistics.median(
            mine / bare for mine, bare in zip(self.reader, self.loop, strict=True)
        )

    def line(self) -> str:
        met = "reached" if self.ratio >= TARGET else "MISSED"
        loop, reader = statistics.median(self.loop), statistics.median(self.reader)
        return (
            f"{self.photos:,} photos as {self.what}: boto3 {loop:.0f} photos/s, skinbatch {reader:.0f}: "
            f"x {self.ratio:.2f}   target >= {TARGET} {met}"
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": round(self.ratio, 3)}


def measure(address: str, count: int, repeats: int) -> list[Rates]:
    """Measure both kinds of sources.

    Args:
        address: `s3://bucket/prefix`. Credentials and endpoint are boto3's.
        count: number of photos.
        repeats: turns of each side.
    """
    bucket, prefix = split_s3(address)
    client = boto3.Session().client("s3", config=BotoConfig(max_pool_connections=REQUESTS))
    loose, tars = _written(client, bucket, prefix.rstrip("/"), count)
    locator = Locator(StorageSettings())

    def bare_objects() -> int:
        def get(info: ObjectInfo) -> int:
            return len(client.get_object(Bucket=bucket, Key=info.key)["Body"].read())

        with ThreadPoolExecutor(REQUESTS) as pool:
            return len(list(pool.map(get, loose)))

    def bare_tars() -> int:
        for info in tars:
            body = client.get_object(Bucket=bucket, Key=info.key)["Body"]
            while body.read(_CHUNK):
                pass
        return count

    def objects() -> int:
        return _read(_units_of(bucket, loose), locator)

    def members() -> int:
        return _read(_units_of_tars(bucket, tars), locator)

    return [
        _in_turns("objects", count, repeats, bare_objects, objects),
        _in_turns("tars", count, repeats, bare_tars, members),
    ]


def _written(
    client: Any, bucket: str, prefix: str, count: int
) -> tuple[list[ObjectInfo], list[ObjectInfo]]:
    """Return the objects of the photos and of the tars, after writing what is missing."""
    store = open_store(f"s3://{bucket}/{prefix}", StorageSettings())
    there = {info.key: info for info in store.list()}

    def put(name: str, data: Callable[[], bytes]) -> None:
        if name not in there:
            client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=data())

    photos = [_photo(number) for number in range(8)]
    names = [f"photos/{number // 1000:04d}/{number:07d}.jpg" for number in range(count)]
    with ThreadPoolExecutor(REQUESTS) as pool:
        list(pool.map(lambda n: put(names[n], lambda: photos[n % len(photos)]), range(count)))

    tars = [f"tars/{start:07d}-{count}.tar" for start in range(0, count, _IN_A_TAR)]
    for name, start in zip(tars, range(0, count, _IN_A_TAR), strict=True):
        numbers = range(start, min(start + _IN_A_TAR, count))
        put(name, partial(_tar, photos, numbers))

    there = {info.key: info for info in store.list()}
    return (
        [_absolute(there[name], prefix) for name in names],
        [_absolute(there[name], prefix) for name in tars],
    )


def _absolute(info: ObjectInfo, prefix: str) -> ObjectInfo:
    return ObjectInfo(f"{prefix}/{info.key}", info.size, info.version)


def _photo(seed: int) -> bytes:
    """Return a JPEG of about 130 kB."""
    noise = np.random.default_rng(seed).integers(0, 256, (_SIDE // 4, _SIDE // 4, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((_SIDE, _SIDE)).save(out, "JPEG", quality=90)
    return out.getvalue()


def _tar(photos: Sequence[bytes], numbers: Iterable[int]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in numbers:
            info = tarfile.TarInfo(f"{number:07d}.jpg")
            data = photos[number % len(photos)]
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _units_of(bucket: str, photos: Sequence[ObjectInfo]) -> Iterator[WorkUnit]:
    for start in range(0, len(photos), UNIT):
        refs = (
            ImageRef(info.key, f"s3://{bucket}/{info.key}", info.size, info.version)
            for info in photos[start : start + UNIT]
        )
        yield WorkUnit(f"g{start}", tuple(refs))


def _units_of_tars(bucket: str, tars: Sequence[ObjectInfo]) -> Iterator[WorkUnit]:
    for info in tars:
        uri = f"s3://{bucket}/{info.key}"
        yield WorkUnit("s", shard=ShardRef(info.key, uri, "tar", info.size, info.version))


def _read(units: Iterable[WorkUnit], locator: Locator) -> int:
    count = 0
    for unit in units:
        for fetched in read_unit(unit, locator, DecodeSettings(), REQUESTS):
            assert fetched.data is not None, fetched.error
            count += 1
    return count


def _in_turns(
    what: str, count: int, repeats: int, bare: Callable[[], int], mine: Callable[[], int]
) -> Rates:
    rates = Rates(what, count, [], [])
    for _ in range(repeats):
        for side, measured in ((bare, rates.loop), (mine, rates.reader)):
            start = time.perf_counter()
            read = side()
            seconds = time.perf_counter() - start
            assert read == count, f"{read} of {count} photos were read"
            measured.append(count / seconds)
    return rates
