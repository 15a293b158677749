"""Read what an S3 server says about an object. Raises StoreError for what makes no sense."""

from __future__ import annotations

import re
from typing import Any

from skinbatch.errors import StoreError


def place_of(answer: dict[str, Any], uri: str) -> tuple[int, int]:
    """Return the position at which the body begins, and the length of the whole object."""
    if "ContentRange" not in answer:
        return 0, length_of(answer, uri)
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer["ContentRange"])
    if match is None:
        raise StoreError(f"{uri}: Content-Range {answer['ContentRange']!r} is not understood")
    return int(match[1]), int(match[2])


def length_of(answer: dict[str, Any], uri: str) -> int:
    """Return the length of the body."""
    if "ContentLength" not in answer:  # sent in chunks: a part would look like a whole object
        raise StoreError(f"{uri}: the store does not give its length")
    return int(answer["ContentLength"])


def version_of(answer: dict[str, Any]) -> str:
    """Return the ETag without quotes, or the time of the last modification if there is none."""
    etag = str(answer.get("ETag") or "").removeprefix("W/").strip('"')
    if etag:
        return etag
    modified = answer.get("LastModified")
    return modified.isoformat() if modified is not None else ""


def modified_of(answer: dict[str, Any]) -> float | None:
    """Return the time of the last modification in seconds since 1970."""
    modified = answer.get("LastModified")
    return None if modified is None else float(modified.timestamp())
