"""Use a bucket, or a prefix of one, on S3 or a server with its protocol as a store."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import random
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from urllib3.exceptions import HTTPError

from skinbatch.config import StorageSettings
from skinbatch.errors import (
    ChangedError,
    ForbiddenError,
    NotFoundError,
    ObjectTooLargeError,
    SkinbatchError,
    StoreError,
    UsageError,
)
from skinbatch.storage.answers import length_of, modified_of, place_of, version_of
from skinbatch.storage.client import s3_client, s3_errors
from skinbatch.storage.deletes import Deletes
from skinbatch.storage.store import TEMPORARY, ObjectInfo
from skinbatch.storage.traffic import TRAFFIC

_DELETE_BATCH = 1000
# To skip less than this, reading on is cheaper than a new request.
_READ_ON = 8 << 20
# The longest pause after the first lost answer, which doubles with each further one, and its limit.
_PAUSES_S = (0.1, 20.0)
# S3 takes up to 5 GiB in one request. Larger files are written in parts.
_LARGEST_PUT = 4 << 30
_DATE = re.compile(r"\d{4}-\d\d-\d\dT")
_SHA256 = "skinbatch-sha256"


class S3Store:
    """Read and write the objects of `bucket` whose key begins with `prefix/`.

    A store connects at its first use, separately in each process.
    """

    def __init__(
        self, bucket: str, prefix: str, settings: StorageSettings, *, anonymous: bool = False
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
        self._settings = settings
        self._anonymous = anonymous
        self._deletes = Deletes(bucket)

    @property
    def uri(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def uri_of(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        token: str | None = ""
        while token is not None:
            page, token = self._page(prefix, token)
            for item in page.get("Contents", ()):
                key = item["Key"][len(self._prefix) :]
                # Consoles create empty objects whose key ends with a slash, to show a folder.
                folder = key.endswith("/") and not item["Size"]
                if key and not folder and f"/{TEMPORARY}" not in f"/{key}":
                    yield ObjectInfo(key, item["Size"], version_of(item), modified_of(item))

    def _page(self, prefix: str, token: str) -> tuple[dict[str, Any], str | None]:
        """Return a page of a listing, and the token of the next one; None after the last.

        An answer that does not state whether it is the last page, such as an empty one, is
        requested again. It would otherwise end the listing silently.
        """
        place = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        if token:
            place["ContinuationToken"] = token
        for attempt in range(1, self._settings.max_attempts + 1):
            with s3_errors(self.uri_of(prefix)):
                page: dict[str, Any] = self._client.list_objects_v2(**place)
            more, following = page.get("IsTruncated"), page.get("NextContinuationToken")
            if more is False or (more and following):
                return page, following if more else None
            self._again(attempt)
        raise StoreError(f"{self.uri_of(prefix)}: its listing was cut off {attempt} times")

    def _again(self, failures: int) -> None:
        """Count a retry and pause before the next attempt."""
        TRAFFIC.retried()
        if failures < self._settings.max_attempts:
            first, longest = _PAUSES_S
            time.sleep(random.random() * min(longest, first * 2 ** (failures - 1)))

    def keys(self, prefix: str = "") -> Iterator[str]:
        return (info.key for info in self.list(prefix))

    def head(self, key: str) -> ObjectInfo:
        with s3_errors(self.uri_of(key)):
            answer = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        return ObjectInfo(
            key, length_of(answer, self.uri_of(key)), version_of(answer), modified_of(answer)
        )

    def get(
        self,
        key: str,
        *,
        version: str | None = None,
        size: int | None = None,
        limit: int | None = None,
    ) -> tuple[bytes, ObjectInfo]:
        with _S3Stream(self, key, version, size=size) as stream:
            info = stream.info
            if limit is not None and info.size > limit:
                raise ObjectTooLargeError(
                    f"{self.uri_of(key)}: {info.size:,} bytes, over the limit of {limit:,}"
                )
            return stream.read_whole(), info

    def get_range(self, key: str, start: int, stop: int, *, version: str | None = None) -> bytes:
        if not 0 <= start <= stop:
            raise StoreError(f"{self.uri_of(key)}: bytes {start}-{stop} were requested")
        if start == stop:
            return b""
        with _S3Stream(self, key, version, start, stop) as stream:
            return stream.read_exactly(stop - start)

    def stream(self, key: str, *, version: str | None = None, size: int | None = None) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_S3Stream(self, key, version, size=size), 1 << 20))

    def put(self, key: str, data: bytes) -> ObjectInfo:
        md5, sha256 = hashlib.md5(data, usedforsecurity=False), hashlib.sha256(data)
        return self._put(key, data, len(data), md5.digest(), sha256.hexdigest())

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        with open(path, "rb") as source:
            while chunk := source.read(1 << 20):
                md5.update(chunk)
                sha256.update(chunk)
            size = source.tell()
            source.seek(0)
            return self._put(key, source, size, md5.digest(), sha256.hexdigest())

    def _put(
        self, key: str, body: bytes | BinaryIO, size: int, md5: bytes, sha256: str
    ) -> ObjectInfo:
        # The server refuses bytes with another MD5. The SHA-256 is stored, and returned to readers.
        place, metadata = {"Bucket": self._bucket, "Key": self._prefix + key}, {_SHA256: sha256}
        with s3_errors(self.uri_of(key)):
            if size <= _LARGEST_PUT:
                checked = {"ContentMD5": base64.b64encode(md5).decode(), "Metadata": metadata}
                version = version_of(self._client.put_object(Body=body, **checked, **place))
            else:
                self._client.upload_fileobj(body, **place, ExtraArgs={"Metadata": metadata})
                version = self.head(key).version
        TRAFFIC.written(size)
        return ObjectInfo(key, size, version)

    def delete(self, keys: Iterable[str]) -> None:
        rest = iter(keys)
        while batch := list(islice(rest, _DELETE_BATCH)):
            left = [self._prefix + key for key in batch]
            for attempt in range(1, self._settings.max_attempts + 1):
                refused = self._deletes.delete(self._client, left)
                if not refused:
                    break
                left = [*refused]
                self._again(attempt)
            else:
                raise StoreError(
                    f"s3://{self._bucket}/{left[0]}: not deleted in {attempt} attempts: {refused[left[0]]}"
                )

    def clear_temporary(self, listed: Iterable[str] = ()) -> int:
        """Return 0: a put is one request and leaves nothing behind.

        Unfinished uploads below the root belong to other programs.
        """
        return 0

    def probe_writable(self) -> None:
        # Use a fixed name, so that the next probe removes what a killed one left. Use another name
        # if two probe at once.
        try:
            try:
                self._probe(f"{TEMPORARY}probe")
            except NotFoundError:
                self._probe(f"{TEMPORARY}probe-{secrets.token_hex(8)}")
        except (ForbiddenError, NotFoundError) as e:
            raise UsageError(
                f"{self.uri}: cannot be written to: {e}; the credentials must allow PutObject, GetObject and "
                "DeleteObject here"
            ) from None

    def _probe(self, key: str) -> None:
        self.put(key, b"skinbatch")
        try:
            self.get(key)
        finally:
            self.delete([key])

    @property
    def _client(self) -> Any:
        return s3_client(self._settings, self._anonymous)


class _S3Stream(io.RawIOBase):
    """Read bytes [start, stop) of one version of an object, and resume after lost connections.

    It gives up after max_attempts attempts in a row that came no further than earlier ones. A long
    stream may break any number of times otherwise.

    size: of the whole object in this version, from a listing. An answer with another length counts
    as lost.
    """

    def __init__(
        self,
        store: S3Store,
        key: str,
        version: str | None,
        start: int = 0,
        stop: int | None = None,
        *,
        size: int | None = None,
    ) -> None:
        self._size = size if version is not None else None
        self._sha256: str | None = None
        self._store, self._key = store, key
        self._uri = store.uri_of(key)
        self._version, self._at, self._stop = version, start, stop
        self._failures, self._furthest = 0, start
        self._body: Any = None
        self.info = self._open()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move forward; moving back is not supported."""
        assert self._stop is not None
        target = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._stop}[whence]
        if target < self._at:
            raise io.UnsupportedOperation("an S3 stream goes forward only")
        while (
            self._at < target
            and target - self._at < _READ_ON
            and self.read(min(1 << 20, target - self._at))
        ):
            pass
        if self._at < target:
            self._drop()
            self._at = target
        return target

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._read_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_whole(self) -> bytes:
        """Return all bytes after comparing them with the checksums that came along."""
        while True:
            data = self.read_exactly(self.info.size)
            if self._sha256 in (None, hashlib.sha256(data).hexdigest()) and self._ends_well():
                return data
            self._lost("other bytes than were written")
            self._at = 0

    def _ends_well(self) -> bool:
        """Return whether the body ends well; only its end compares the server's checksum."""
        try:
            return self._body is None or not self._body.read(1)
        except (SkinbatchError, MemoryError):
            raise
        except Exception:
            return False

    def read_exactly(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count and (part := self._read_some(count)):
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        self._drop()
        super().close()

    def _read_some(self, count: int) -> bytes:
        """Return at most `count` bytes and at least one; none only at the announced end."""
        assert self._stop is not None
        count = min(count, self._stop - self._at)
        while count > 0:
            try:
                if self._body is None:
                    self._open()
                data = self._body.read(count)
                if data:
                    self._at += len(data)
                    TRAFFIC.read(len(data))
                    return cast(bytes, data)
                lost = "ended early"
            except (SkinbatchError, MemoryError):
                raise
            except Exception as e:  # botocore, urllib3 and http.client raise unrelated classes here
                lost = type(e).__name__
            self._lost(lost)
        return b""

    def _lost(self, how: str) -> None:
        """Pause before the next attempt, or raise StoreError after the last one."""
        self._drop()
        self._failures = 1 if self._at > self._furthest else self._failures + 1
        self._furthest = max(self._furthest, self._at)
        self._store._again(self._failures)
        if self._failures >= self._store._settings.max_attempts:
            raise StoreError(
                f"{self._uri}: connection lost {self._failures} times at byte {self._at} ({how})"
            )

    def _open(self) -> ObjectInfo:
        while True:
            try:
                info = self._answer()
            except (
                HTTPError
            ) as e:  # in the text of a refusal, which botocore reads outside its retries
                self._lost(type(e).__name__)
                continue
            if self._size in (None, info.size):
                return info
            self._lost(f"{info.size:,} bytes came of {self._size:,}")

    def _answer(self) -> ObjectInfo:
        options: dict[str, str] = {}
        if self._at or self._stop is not None:
            options["Range"] = f"bytes={self._at}-{'' if self._stop is None else self._stop - 1}"
        else:  # for ranges, some servers send the checksum of the whole object
            options["ChecksumMode"] = "ENABLED"
        if self._version is not None and not _DATE.match(self._version):
            options["IfMatch"] = f'"{self._version}"'
        with s3_errors(self._uri, unchanged=(HTTPError,)):
            answer = self._store._client.get_object(
                Bucket=self._store._bucket, Key=self._store._prefix + self._key, **options
            )
        self._body = answer["Body"]
        first, total = place_of(answer, self._uri)
        stop = total if self._stop is None else self._stop
        if first != self._at or stop > total:
            self._drop()
            raise StoreError(
                f"{self._uri}: bytes {self._at}-{stop} were requested; it has {total}, and the answer began at {first}"
            )
        version = version_of(answer)
        # Not every server honours If-Match.
        if self._version is not None and version != self._version:
            self._drop()
            raise ChangedError(f"{self._uri}: changed since it was listed")
        if self._size in (None, total):
            self._version, self._stop = version, stop
        self._sha256 = answer.get("Metadata", {}).get(_SHA256)
        return ObjectInfo(self._key, total, version)

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
