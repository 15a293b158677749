"""Find out which photo a Label Studio task names: an upload, a local file, or a stored object."""

from __future__ import annotations

import posixpath
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skinbatch.archive.formats import has_image_name
from skinbatch.errors import UsageError
from skinbatch.tables.names import safe_text

_UPLOAD = "/data/upload/"
_LOCAL = "/data/local-files/"
# How addresses of local files begin.
LOCAL_FILES = f"{_LOCAL}?d="
# Field with the photo's key, which `skinbatch export` writes.
OWN_NAME = "image_id"
# Label Studio puts eight hexadecimal digits before the name of an upload.
_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")
_PLACES = ("http://", "https://", "s3://", "gs://", "azure-blob://", "file://", "/data/")
_USUAL = "image"


@dataclass(frozen=True, slots=True)
class PhotoName:
    """Hold the names of a task's photo.

    Attributes:
        name: without Label Studio's additions.
        names: paths at which its file may lie, the best first.
        written: as in the task, which is how listings of a store name it.
        is_key: whether `name` is the key of a scored photo, which `skinbatch export` wrote.
    """

    name: str
    names: tuple[str, ...]
    written: str
    is_key: bool = False


def photo_of(data: Mapping[str, Any], where: str) -> PhotoName:
    """Return the photo of a task's data. Its key is in `image_id` if `skinbatch export` wrote the task.

    Raises:
        UsageError: No field names a photo, or several do and none of them is `image`.
    """
    texts = {name: value for name, value in data.items() if isinstance(value, str) and value}
    fields = [name for name, value in texts.items() if has_image_name(_path(value))]
    fields = fields or [name for name, value in texts.items() if value.startswith(_PLACES)]
    if len(fields) > 1 and _USUAL in fields:
        fields = [_USUAL]
    if len(fields) != 1:
        there = ", ".join(fields or data) or "none"
        how_many = "several fields name a photo" if fields else "no field names a photo"
        raise UsageError(f"{where}: {how_many}: {there}; keep one, or call it `{_USUAL}`")
    written = texts[fields[0]]
    photo, key = _named(written), texts.get(OWN_NAME)
    if key is None or not _ends_with(written, key):
        return photo
    return PhotoName(key, (key, *photo.names), photo.written, is_key=True)


def _ends_with(address: str, key: str) -> bool:
    """Return whether an address, as it is or decoded, ends with a photo's key."""
    end = safe_text(key).lstrip("/")
    return address.endswith(end) or urllib.parse.unquote(address).endswith(end)


def _named(written: str) -> PhotoName:
    path = _path(written)
    plain = path.strip("/")
    if not written.startswith(_UPLOAD):
        return PhotoName(plain, (f"/{plain}",), written)

    folder, base = posixpath.split(plain)
    stripped = _PREFIX.sub("", base)
    names = (f"/{plain}", f"/{folder}/{stripped}") if stripped != base else (f"/{plain}",)
    return PhotoName(stripped, names, base)


def _path(written: str) -> str:
    """Return the path within an address, decoded, with slashes."""
    address = urllib.parse.urlsplit(written) if written.startswith(_PLACES) else None
    if address is None:
        return posixpath.normpath(written.replace("\\", "/"))
    path = address.path
    if path.startswith(_LOCAL):
        path = urllib.parse.parse_qs(address.query).get("d", [""])[0]
        return path.replace("\\", "/")
    return urllib.parse.unquote(path).replace("\\", "/")
