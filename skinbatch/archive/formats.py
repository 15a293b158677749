"""What a file is, told by its first bytes; what is listed, told by its name."""

from __future__ import annotations

import posixpath
import re
import zlib
from functools import lru_cache
from typing import Literal

from skinbatch.types import ShardKind

ImageFormat = Literal["jpeg", "png", "webp", "avif", "heif", "tiff", "bmp", "gif"]

# `.mpo` is two JPEGs or more in one file, of which the first is read; `.hif` is what some cameras call HEIF.
_JPEG_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".jfi", ".pjpeg", ".pjp", ".mpo")
_HEIF_EXTENSIONS = (".heic", ".heif", ".hif", ".avif", ".avifs")
IMAGE_EXTENSIONS = frozenset(
    (*_JPEG_EXTENSIONS, *_HEIF_EXTENSIONS, ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".gif")
)
SHARD_EXTENSIONS: dict[str, ShardKind] = {
    ".tar": "tar",
    ".tgz": "tar",
    ".tbz2": "tar",
    ".txz": "tar",
    ".tar.gz": "tar",
    ".tar.bz2": "tar",
    ".tar.xz": "tar",
    ".zip": "zip",
    ".parquet": "parquet",
}
# First bytes that are enough to tell any kind apart.
HEAD_BYTES = 1024
NO_EXTENSION = "(no extension)"
RESOURCE_FORK = "._*"
# What systems put beside photos, or into archives of them, with either kind of slash: resource forks of macOS, thumbnails
# of Synology, QNAP, GNOME and Android, the files of git-annex and DVC, which have another name where they are photos.
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
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}


def image_format(head: bytes) -> ImageFormat | None:
    """Of the first `HEAD_BYTES` bytes or more; None without a known signature."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        brands = {head[8:12]} | {head[i : i + 4] for i in range(16, min(int.from_bytes(head[:4]), 256), 4)}
        return "avif" if brands & _AVIF_BRANDS else "heif" if brands & _HEIF_BRANDS else None
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    return None


def is_cut_signature(data: bytes) -> bool:
    """The whole file is only the beginning of a signature."""
    if data.startswith(b"BM"):
        return len(data) < 18
    if (len(data) > 4 and b"ftyp".startswith(data[4:8])) or data.startswith(b"RIFF"):
        return len(data) < 12
    return any(signature.startswith(data) for signature in (*(s for s, _ in _SIGNATURES), b"RIFF", b"BM"))


def shard_kind(head: bytes) -> ShardKind | None:
    """Of the first `HEAD_BYTES` bytes; a compressed tar is told by what it unpacks to where that is cheap (gzip)."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "zip"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"\x1f\x8b"):
        try:
            return "tar" if is_tar_header(zlib.decompressobj(31).decompress(head, 512)) else None
        except zlib.error:
            return None
    if head.startswith((b"BZh", b"\xfd7zXZ\x00")) or is_tar_header(head[:512]):
        return "tar"
    return None


def is_tar_header(block: bytes) -> bool:
    """A tar header is known by its checksum, which old tars without `ustar` have too."""
    if len(block) < 512:
        return False
    try:
        stated = int(block[148:156].strip(b" \x00") or b"0", 8)
    except ValueError:
        return False
    return stated == tar_checksum(block)


def tar_checksum(block: bytes) -> int:
    return 256 + sum(block[:148]) + sum(block[156:512])


@lru_cache(maxsize=256)  # a listed file is asked for it several times in a row
def extension(key: str) -> str:
    """Lower case, with the dot; `.tar.gz` and its like whole; empty without one."""
    name = posixpath.basename(key).lower()
    stem, last = posixpath.splitext(name)
    double = posixpath.splitext(stem)[1] + last
    return double if double in SHARD_EXTENSIONS else last


def skip_name(key: str) -> str:
    """Return the name under which a skipped file is counted."""
    return junk_name(key) or extension(key) or NO_EXTENSION


def has_image_name(key: str) -> bool:
    """Return whether a file is a photo by its name: macOS leaves `._photo.jpg` beside `photo.jpg`, which is none."""
    return extension(key) in IMAGE_EXTENSIONS and not is_junk(key)


def is_resource_fork(key: str) -> bool:
    """Return whether a file is what macOS calls `._photo.jpg`."""
    return posixpath.basename(key.replace("\\", "/")).startswith("._")


def is_junk(key: str) -> bool:
    """Return whether a file is something that a system put beside photos, whatever it looks like."""
    return junk_name(key) is not None


@lru_cache(maxsize=256)
def junk_name(key: str) -> str | None:
    """Return what such a file is counted as, None for any other."""
    found = _JUNK.search(key)
    if found is None:
        return None
    return RESOURCE_FORK if found["fork"] else found["folder"] or found["file"]
