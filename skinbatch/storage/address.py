"""Refuse addresses that are neither a local path nor `s3://bucket/key`, with a suggestion."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from skinbatch.errors import UsageError

_S3_LIKE = frozenset(("s3", "s3a", "s3n"))
_GOOGLE = frozenset(("gs", "gcs"))
_WEB = frozenset(("http", "https"))
# Schemes that are unlikely names of folders. They are recognised even with too few slashes.
_OTHERS = frozenset(
    (
        "abfs",
        "abfss",
        "az",
        "azure",
        "b2",
        "ftp",
        "hdfs",
        "hf",
        "oss",
        "r2",
        "sftp",
        "ssh",
        "wasb",
        "wasbs",
    )
)
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_AMAZON = re.compile(r"(?:(?P<bucket>.+)\.)?s3(?:[.-][a-z0-9-]+)?\.amazonaws\.com")


def check_address(uri: str) -> None:
    """Raise UsageError unless `uri` can be a local path or an s3:// address."""
    if not uri:
        raise UsageError("an empty path; name a folder or s3://bucket/prefix")
    if uri.startswith("s3://"):
        return
    scheme, _, rest = uri.partition(":")
    if scheme.lower() == "file":
        raise UsageError(
            f"{uri}: file:// is not supported; write only the path: /{_plain(rest.removeprefix('//localhost'))}"
        )
    check_local(uri)


def check_local(path: str) -> None:
    """Raise UsageError if `path` is an address of other storage, or a misspelt s3:// address."""
    scheme, colon, rest = path.partition(":")
    if not colon:
        return
    if _DRIVE.match(path):
        raise UsageError(
            f"{path}: this is a Windows path; write the folder as this machine sees it, such as {_mounted(path)}"
        )

    kind = scheme.lower()
    if kind in _S3_LIKE:
        raise UsageError(
            f"{path}: {scheme}: is not supported; did you mean s3://{_plain(rest)}? (A local folder of that name: ./{path})"
        )
    if kind in _GOOGLE:
        raise UsageError(
            f"{path}: {scheme}:// is not supported; read Google Cloud Storage as s3://{_plain(rest)} with [storage] "
            'endpoint_url = "https://storage.googleapis.com" and an HMAC key'
        )
    if kind in _WEB:
        raise UsageError(f"{path}: {scheme}:// is not supported; {_meant_by_web(path)}")
    if kind in _OTHERS or (rest.startswith("//") and scheme.isalnum()):
        raise UsageError(
            f"{path}: {scheme}:// is not supported; use a local path or s3://bucket/prefix"
        )


def _plain(rest: str) -> str:
    return rest.strip("/\\").replace("\\", "/")


def _mounted(path: str) -> str:
    return f"/mnt/{path[0].lower()}/{_plain(path[2:])}"


def _meant_by_web(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        host = _AMAZON.fullmatch(parts.hostname or "")
    except ValueError:
        host = None
    if host is None:
        return "download the files, or use s3://bucket/prefix (another server's address is [storage] endpoint_url)"
    key = parts.path.strip("/")
    return f"write s3://{host['bucket']}/{key}" if host["bucket"] else f"write s3://{key}"
