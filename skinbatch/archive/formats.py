"""Recognise files by their first bytes, and listed names by their extension."""

from __future__ import annotations

import posixpath
import re
import zlib
from functools import lru_cache
from typing import Literal

from skinbatch.types import ShardKind

ImageFormat = Literal["jpeg", "png", "webp", "avif", "heif", "tiff", "bmp", "gif"]

# `.mpo` is a file with two or more JPEGs, of which the first is read. Some cameras use `.hif` for
# HEIF.
_JPEG_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".jfi", ".pjpeg", ".pjp", ".mpo")
_HEIF_EXTENSIONS = (".heic", ".heif", ".hif", ".avif", ".avifs")
IMAGE_EXTENSIONS = frozenset(
    (
        *_JPEG_EXTENSIONS,
        *_HEIF_EXTENSIONS,
        ".png",
        ".apng",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
    )
)
SHARD_EXTENSIONS: dict[str, ShardKind] = {
    ".tar": "tar",
    ".tgz": "tar",
    ".tbz2": "tar",
    ".txz": "tar",
    ".tzst": "tar",
    ".tar.gz": "tar",
    ".tar.bz2": "tar",
    ".tar.xz": "tar",
    ".tar.zst": "tar",
    ".zip": "zip",
    ".parquet": "parquet",
}
# Number of first bytes that are enough to recognise any kind.
HEAD_BYTES = 1024
NO_EXTENSION = "(no extension)"
RESOURCE_FORK = "._*"
# Files that systems put beside photos, or into archives of photos, with either kind of slash:
# resource forks of macOS, thumbnails of Synology, QNAP, GNOME and Android, and the files of
# git-annex and DVC, whose photos also appear under their real names.
_JUNK = re.compile(
    r"(?:^|[/\\])"
    r"(?:(?P<fork>\._[^/\\]*$|__MACOSX(?=[/\\])|\.AppleDouble(?=[/\\]))"
    r"|(?P<folder>@eaDir|\.@__thumb|\.thumbnails|\.git|\.dvc)(?=[/\\])"
    r"|(?P<file>\.DS_Store)$)"
)

_SIGNATURES: tuple[tuple[bytes, ImageFormat], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {
    b"heic",
    b"heix",
    b"heim",
    b"heis",
    b"hevc",
    b"hevx",
    b"hevm",
    b"hevs",
    b"mif1",
    b"msf1",
}
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}


def image_format(head: bytes) -> ImageFormat | None:
    """Return the format of an image from its first `HEAD_BYTES` bytes; None if unknown."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        brands = {head[8:12]} | {
            head[i : i + 4] for i in range(16, min(int.from_bytes(head[:4]), 256), 4)
        }
        return "avif" if brands & _AVIF_BRANDS else "heif" if brands & _HEIF_BRANDS else None
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    return None


def is_cut_signature(data: bytes) -> bool:
    """Return whether the whole file is only the beginning of a signature."""
    if data.startswith(b"BM"):
        return len(data) < 18
    if (len(data) > 4 and b"ftyp".startswith(data[4:8])) or data.startswith(b"RIFF"):
        return len(data) < 12
    return any(
        signature.startswith(data) for signature in (*(s for s, _ in _SIGNATURES), b"RIFF", b"BM")
    )


def shard_kind(head: bytes) -> ShardKind | None:
    """Return the kind of a shard from its first `HEAD_BYTES` bytes; None if it is not one.

    A gzip is unpacked a little to check that it holds a tar. Other compressed files count as tars.
    """
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "zip"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"\x1f\x8b"):
        try:
            return "tar" if is_tar_header(zlib.decompressobj(31).decompress(head, 512)) else None
        except zlib.error:
            return None
    if head.startswith((b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")) or is_tar_header(head[:512]):
        return "tar"
    return None


def is_tar_header(block: bytes) -> bool:
    """Return whether a block is a tar header, by its checksum, which old tars have too."""
    if len(block) < 512:
        return False
    try:
        stated = int(block[148:156].strip(b" \x00") or b"0", 8)
    except ValueError:
        return False
    return stated == tar_checksum(block)


def tar_checksum(block: bytes) -> int:
    return 256 + sum(block[:148]) + sum(block[156:512])


@lru_cache(maxsize=256)  # each listed file is looked up several times in a row
def extension(key: str) -> str:
    """Return the extension in lower case, with the dot; "" if there is none.

    Double ones such as `.tar.gz` are returned whole.
    """
    name = posixpath.basename(key).lower()
    stem, last = posixpath.splitext(name)
    double = posixpath.splitext(stem)[1] + last
    return double if double in SHARD_EXTENSIONS else last


def skip_name(key: str) -> str:
    """Return the name under which a skipped file is counted."""
    return junk_name(key) or extension(key) or NO_EXTENSION


def has_image_name(key: str) -> bool:
    """Return whether a file is a photo by its name.

    macOS leaves `._photo.jpg` beside `photo.jpg`, which is not a photo.
    """
    return extension(key) in IMAGE_EXTENSIONS and not is_junk(key)


def is_resource_fork(key: str) -> bool:
    """Return whether a file is a resource fork of macOS, `._photo.jpg`."""
    return posixpath.basename(key.replace("\\", "/")).startswith("._")


def is_junk(key: str) -> bool:
    """Return whether a file was put beside photos by a system, even if it is an image."""
    return junk_name(key) is not None


@lru_cache(maxsize=256)
def junk_name(key: str) -> str | None:
    """Return the name under which a junk file is counted; None for any other file."""
    match = _JUNK.search(key)
    if match is None:
        return None
    return RESOURCE_FORK if match["fork"] else match["folder"] or match["file"]
