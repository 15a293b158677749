"""Test that any error that the S3 client raises while an archive is read counts as the store's, never as a row."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.response import StreamingBody

from skinbatch.archive.shard import ShardReader, count_members
from skinbatch.config import Config, parse_config
from skinbatch.errors import StoreError, UsageError
from skinbatch.logs import event, stop_json, write_json
from skinbatch.storage.client import s3_client, s3_errors
from skinbatch.storage.locate import Locator
from skinbatch.types import ShardRef, Status
from tests.conftest import S3Server
from tests.faces import face, png, tar_bytes

PHOTOS = {f"{n}.png": png(face(n, 1, n)) for n in range(3)}
# Errors without a class of their own, which botocore raises if credentials expire or an answer
# cannot be read.
ODD = (
    RuntimeError("Credentials were refreshed, but are still expired"),
    ValueError("an odd header"),
)


def archive(kind: str) -> bytes:
    if kind == "tar":
        return tar_bytes(PHOTOS)
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as written:
            for name, data in PHOTOS.items():
                written.writestr(name, data)
    else:
        pq.write_table(pa.table({"image": list(PHOTOS.values())}), out)
    return out.getvalue()


@pytest.fixture(params=["tar", "zip", "parquet"])
def kept(request: pytest.FixtureRequest, s3: S3Server) -> tuple[ShardRef, Config]:
    """Put an archive file into a bucket."""
    bucket, data, kind = s3.bucket(), archive(request.param), request.param
    s3.client.put_object(Bucket=bucket, Key=f"a.{kind}", Body=data)
    config = parse_config(
        {"storage": {"endpoint_url": s3.settings.endpoint_url, "max_attempts": 2}}
    )
    return ShardRef(f"a.{kind}", f"s3://{bucket}/a.{kind}", kind, len(data), None), config


def read(shard: ShardRef, config: Config) -> list[Status]:
    return [
        fetched.status for fetched in ShardReader(shard, Locator(config.storage), config.decode)
    ]


@pytest.mark.parametrize("error", ODD, ids=lambda e: type(e).__name__)
def test_what_the_client_raises_while_an_archive_file_is_read_is_no_row(
    kept: tuple[ShardRef, Config], error: Exception
) -> None:
    shard, config = kept
    assert read(shard, config) == [Status.OK] * 3
    client = s3_client(config.storage, False)
    asked: list[int] = []

    def fail(**_: object) -> None:
        asked.append(1)
        if len(asked) > 1:  # after the file's first bytes
            raise error

    client.meta.events.register("before-send.s3.GetObject", fail)
    try:
        with pytest.raises(StoreError, match=f"{shard.uri}: {type(error).__name__}: {error}"):
            read(shard, config)
        with pytest.raises(StoreError):
            count_members(shard, Locator(config.storage))
    finally:
        client.meta.events.unregister("before-send.s3.GetObject", fail)
    assert read(shard, config) == [Status.OK] * 3


@pytest.mark.parametrize("error", ODD, ids=lambda e: type(e).__name__)
def test_what_a_body_raises_is_a_lost_connection_and_at_last_an_outage(
    kept: tuple[ShardRef, Config], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, config = kept
    as_it_is, bodies = StreamingBody.read, 0
    failing: set[int] = set()

    def raising(self: StreamingBody, amt: int | None = None) -> bytes:
        nonlocal bodies
        bodies += 1
        if bodies in failing:
            raise error
        return as_it_is(self, amt)

    monkeypatch.setattr(StreamingBody, "read", raising)
    failing |= {2}
    assert read(shard, config) == [Status.OK] * 3
    assert bodies > 2
    bodies, failing = 0, set(range(2, 1000))
    with pytest.raises(StoreError, match=f"{shard.uri}: connection lost"):
        read(shard, config)
    bodies = 0
    with pytest.raises(StoreError):
        count_members(shard, Locator(config.storage))


@pytest.mark.parametrize("endpoint", ["localhost:9000", "minio:9000", "http://"])
def test_an_address_that_cannot_be_one_is_wrong_use_and_no_outage(endpoint: str) -> None:
    config = parse_config({"storage": {"endpoint_url": endpoint}})
    with pytest.raises(UsageError, match="endpoint_url"):
        s3_client(config.storage, False)


@pytest.mark.parametrize("name", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
def test_settings_of_boto3_that_cannot_be_read_are_wrong_use_and_no_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    broken = tmp_path / "settings"
    broken.write_text("this is [not settings\n")
    monkeypatch.setenv(name, str(broken))
    config = parse_config({"storage": {"endpoint_url": f"http://127.0.0.1:{len(name)}"}})
    with pytest.raises(UsageError, match=str(broken)):
        s3_client(config.storage, False)


def test_what_the_client_says_of_headers_is_in_no_log() -> None:
    stream = io.StringIO()
    write_json(stream)
    try:
        with pytest.raises(StoreError) as caught, s3_errors("s3://b/k"):
            raise RuntimeError('headers: {"X-Amz-Security-Token": "FwoGZXIvSECRETTOKEN"}')
        event("later", nested={"said": ['{"X-Amz-Security-Token": "FwoGZXIvSECRETTOKEN"}']})
    finally:
        stop_json()
    assert "X-Amz-Security-Token" in stream.getvalue() and "nested" in stream.getvalue()
    assert "SECRETTOKEN" not in stream.getvalue() + str(caught.value)
