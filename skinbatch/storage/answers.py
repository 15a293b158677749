"""Read what an S3 server says about an object. Raises StoreError for what makes no sense."""

from __future__ import annotations

import re
from typing import Any

from skinbatch.errors import StoreError


def place_of(found: dict[str, Any], uri: str) -> tuple[int, int]:
    """Return the position at which the body begins, and the length of the whole object."""
    if "ContentRange" not in found:
        return 0, length_of(found, uri)
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", found["ContentRange"])
    if match is None:
        raise StoreError(f"{uri}: Content-Range {found['ContentRange']!r} is not understood")
    return int(match[1]), int(match[2])


def length_of(found: dict[str, Any], uri: str) -> int:
    """Return the length of the body."""
    if "ContentLength" not in found:  # sent in chunks: a part would look like a whole object
        raise StoreError(f"{uri}: the store does not give its length")
    return int(found["ContentLength"])


def version_of(found: dict[str, Any]) -> str:
    """Return the ETag without quotes, or the time of the last modification if there is none."""
    etag = str(found.get("ETag") or "").removeprefix("W/").strip('"')
    if etag:
        return etag
    modified = found.get("LastModified")
    return modified.isoformat() if modified is not None else ""


def modified_of(found: dict[str, Any]) -> float | None:
    """Return the time of the last modification in seconds since 1970."""
    modified = found.get("LastModified")
    return None if modified is None else float(modified.timestamp())
