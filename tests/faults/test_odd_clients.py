"""What the S3 client raises while an archive file is read is the store's, of whatever kind it is: never a row."""

from __future__ import annotations

import io
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skinbatch.archive.shard import ShardReader, count_members
from skinbatch.config import Config
from skinbatch.errors import StoreError
from skinbatch.storage.client import s3_client
from skinbatch.storage.locate import Locator
from skinbatch.types import ShardRef, Status
from tests.conftest import S3Server
from tests.faces import face, png, tar_bytes

PHOTOS = {f"{n}.png": png(face(n, 1, n)) for n in range(3)}
ODD = (RuntimeError("Credentials were refreshed, but are still expired"), ValueError("an odd header"))
"""As botocore raises them, with no class of their own, where credentials run out and where it cannot read an answer."""


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


@pytest.mark.parametrize("error", ODD, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("kind", ["tar", "zip", "parquet"])
def test_what_the_client_raises_while_an_archive_file_is_read_is_no_row(
    s3: S3Server, kind: str, error: Exception
) -> None:
    bucket, data = s3.bucket(), archive(kind)
    s3.client.put_object(Bucket=bucket, Key=f"a.{kind}", Body=data)
    config = Config(storage=s3.settings)
    locator = Locator(config.storage)
    shard = ShardRef(f"a.{kind}", f"s3://{bucket}/a.{kind}", kind, len(data), None)  # type: ignore[arg-type]

    def read() -> list[Status]:
        return [fetched.status for fetched in ShardReader(shard, locator, config.decode)]

    assert read() == [Status.OK] * 3
    client = s3_client(config.storage, False)
    asked: list[str] = []

    def fail(**_: object) -> None:
        asked.append(kind)
        if len(asked) > 1:  # after the file's first bytes
            raise error

    client.meta.events.register("before-send.s3.GetObject", fail)
    try:
        with pytest.raises(StoreError, match=f"{bucket}/a.{kind}: {type(error).__name__}: {error}"):
            read()
        with pytest.raises(StoreError):
            count_members(shard, locator)
    finally:
        client.meta.events.unregister("before-send.s3.GetObject", fail)
    assert read() == [Status.OK] * 3
