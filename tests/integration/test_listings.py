"""Test that a store is asked to list as often as its page size demands, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import skinbatch
from skinbatch.config import Config, StorageSettings
from skinbatch.runs import layout
from skinbatch.storage.client import s3_client
from tests.conftest import S3Server
from tests.faces import face, png, tar_bytes

PAGE = 5
UNITS = 12


@pytest.fixture
def listings(s3: S3Server) -> Iterator[Counter[str]]:
    """Count listing requests by prefix, in a store with five keys per page."""
    asked: Counter[str] = Counter()

    def note(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = PAGE
        asked[params["Prefix"]] += 1

    events = s3_client(s3.settings, False).meta.events
    events.register("provide-client-params.s3.ListObjectsV2", note)
    yield asked
    events.unregister("provide-client-params.s3.ListObjectsV2", note)


def pages(keys: int) -> int:
    return max(1, -(-keys // PAGE))


def score(storage: StorageSettings, bucket: str, pack: str) -> skinbatch.RunReport:
    source, dest = f"s3://{bucket}/photos", f"s3://{bucket}/scored"
    return skinbatch.score(source, dest, pack=pack, engine="local", config=Config(storage=storage))


def test_a_finished_destination_is_listed_once_and_after_work_once_more(
    s3: S3Server, listings: Counter[str], fake_pack: str
) -> None:
    bucket = s3.bucket()
    shards = {
        f"photos/{n:02}.tar": tar_bytes({"x.png": png(face(n % 5, 1, n))}) for n in range(UNITS)
    }
    for key, data in shards.items():
        s3.client.put_object(Bucket=bucket, Key=key, Body=data)
    first = score(s3.settings, bucket, fake_pack)
    assert (first.exit_code, first.rows) == (0, UNITS)
    large = [layout.receipts_prefix(first.fingerprint)]
    large += [layout.data_prefix(kind, first.fingerprint) for kind in ("images", "boxes")]

    listings.clear()
    assert score(s3.settings, bucket, fake_pack).nothing_to_do
    for prefix in large:
        assert listings[f"scored/{prefix}"] == pages(UNITS), prefix
    # The source is looked at twice before it is listed, so that a missing one is refused before anything starts.
    assert listings["photos/"] <= pages(UNITS) + 3
    small = {
        prefix: n for prefix, n in listings.items() if prefix.removeprefix("scored/") not in large
    }
    assert sum(small.values()) - listings["photos/"] <= 10, small

    changed = tar_bytes({"x.png": png(face(2, 2, 77))})
    s3.client.put_object(Bucket=bucket, Key="photos/00.tar", Body=changed)
    listings.clear()
    again = score(s3.settings, bucket, fake_pack)
    assert (again.exit_code, again.scored) == (0, 1)
    for prefix in large:  # before the run, after its one unit, and after the clean-up
        assert listings[f"scored/{prefix}"] == pages(UNITS) + pages(UNITS + 1) + pages(UNITS), (
            prefix
        )
