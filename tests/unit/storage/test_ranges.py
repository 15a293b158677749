"""Test that a bucket listed side by side gives the items of one plain listing, in its order."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from itertools import pairwise
from typing import Any

import pytest

from skinbatch.errors import StoreError
from skinbatch.storage.locate import open_store
from skinbatch.storage.ranges import RangeListing
from tests.conftest import S3Server

PAGE = 10
KEYS = {
    "numbered": [f"flat/photo-{n:06}.jpg" for n in range(1234)],
    "from the middle": [f"flat/{n}.jpg" for n in range(95, 1400)],
    "hashes": [f"{hashlib.md5(str(n).encode()).hexdigest()}.png" for n in range(1000)],
    "small folders": [f"{n // 7:03}/x{n % 7}.jpg" for n in range(1000)],
    "named folders": [f"p/{name}/{n}.jpg" for name in ("ann", "bo", "zoë") for n in range(400)],
    "deep": [f"a/b/{n % 9}/c/{n:04}.tar" for n in range(900)],
    "words": ["".join(sorted(set(f"{n:b}x{n}"))) + "é" * (n % 60) for n in range(900)],
    "cuts that are keys": [f"k{n:03}" for n in range(500)] + [f"k{n}" for n in range(10)],
    "one page": [f"{n}.jpg" for n in range(PAGE)],
    "four pages": [f"{n:02}.jpg" for n in range(4 * PAGE)],
    "nothing": [],
}


class Bucket:
    """List keys as S3 does, `PAGE` in a page, and count the requests."""

    def __init__(self, keys: list[str], prefix: str = "") -> None:
        self.keys, self.prefix = sorted(set(keys)), prefix
        self.asked, self.at_once, self.most = 0, 0, 0
        self._lock = threading.Lock()

    def ask(self, where: dict[str, str]) -> tuple[dict[str, Any], str | None]:
        with self._lock:
            self.asked += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        try:
            return self.page(where)
        finally:
            with self._lock:
                self.at_once -= 1

    def page(self, where: dict[str, str]) -> tuple[dict[str, Any], str | None]:
        after = where.get("ContinuationToken") or where.get("StartAfter", "")
        prefix = where.get("Prefix", self.prefix)
        keys = [k for k in self.keys[bisect_right(self.keys, after) :] if k.startswith(prefix)]
        if "Delimiter" in where:
            folders = {
                prefix + k[len(prefix) :].split("/")[0] + "/"
                for k in keys
                if "/" in k[len(prefix) :]
            }
            return {"CommonPrefixes": [{"Prefix": f} for f in sorted(folders)[:PAGE]]}, None
        page = keys[:PAGE]
        return {"Contents": [{"Key": k} for k in page]}, page[-1] if len(keys) > PAGE else None

    def listed(self) -> list[str]:
        pages = RangeListing(self.ask, self.prefix).pages()
        return [item["Key"] for page in pages for item in page]


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_ranges_give_every_key_once_and_in_order(keys: list[str]) -> None:
    bucket = Bucket(keys)
    assert bucket.listed() == bucket.keys
    assert bucket.most <= 8
    plain = max(1, -(-len(bucket.keys) // PAGE))
    assert bucket.asked <= (plain if plain <= 4 else 2 * plain + 20)


def test_a_prefix_is_kept_to() -> None:
    bucket = Bucket([*KEYS["numbered"], *KEYS["small folders"]], "flat/")
    assert bucket.listed() == KEYS["numbered"]


def test_a_server_that_ignores_start_after_loses_nothing() -> None:
    class Deaf(Bucket):
        def page(self, where: dict[str, str]) -> tuple[dict[str, Any], str | None]:
            return super().page({k: v for k, v in where.items() if k != "StartAfter"})

    bucket = Deaf(KEYS["numbered"])
    assert bucket.listed() == bucket.keys


def test_a_server_with_an_order_of_its_own_is_listed_page_by_page() -> None:
    class Unordered(Bucket):
        def page(self, where: dict[str, str]) -> tuple[dict[str, Any], str | None]:
            page, token = super().page(where)
            return {"Contents": page["Contents"][::-1]}, token

    bucket = Unordered(KEYS["numbered"])
    assert sorted(bucket.listed()) == bucket.keys
    assert bucket.asked == -(-len(bucket.keys) // PAGE)


def test_an_error_in_one_range_ends_the_listing() -> None:
    class Failing(Bucket):
        def page(self, where: dict[str, str]) -> tuple[dict[str, Any], str | None]:
            page, token = super().page(where)
            if any(item["Key"] == "flat/photo-000777.jpg" for item in page.get("Contents", [])):
                raise StoreError("s3://bucket: its listing was cut off 5 times")
            return page, token

    with pytest.raises(StoreError, match="cut off"):
        Failing(KEYS["numbered"]).listed()


def test_the_first_page_takes_one_request() -> None:
    bucket = Bucket(KEYS["numbered"])
    assert len(next(RangeListing(bucket.ask, "").pages())) == PAGE
    assert bucket.asked == 1


def test_a_store_lists_a_bucket_on_a_server_as_one_plain_listing_does(s3: S3Server) -> None:
    bucket = s3.bucket()
    keys = [f"in/{n // 9:02}/ä {n}+.jpg" for n in range(90)] + [f"in/{n:03}.jpg" for n in range(60)]
    for key in keys:
        s3.client.put_object(Bucket=bucket, Key=key, Body=b"x")
    store = open_store(f"s3://{bucket}/in", s3.settings)
    requests: list[dict[str, Any]] = []

    def short_pages(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = 5
        requests.append(params)

    events = store._client.meta.events  # type: ignore[attr-defined]
    events.register("provide-client-params.s3.ListObjectsV2", short_pages)
    try:
        listed = list(store.keys())
    finally:
        events.unregister("provide-client-params.s3.ListObjectsV2", short_pages)
    assert listed == sorted(key.removeprefix("in/") for key in keys)
    assert all(a < b for a, b in pairwise(listed))
    assert any("StartAfter" in params for params in requests)
