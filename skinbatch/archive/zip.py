"""Read zip files by ranged reads."""

from __future__ import annotations

import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, cast

from skinbatch.archive.formats import HEAD_BYTES, shard_kind
from skinbatch.archive.member import BrokenArchiveError, MemberError, MemberKind
from skinbatch.archive.ranged import RangedFile
from skinbatch.errors import DiskError
from skinbatch.types import Status

# The first bytes of a member.
_MEMBER = b"PK\x03\x04"
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    struct.error,
)


def zip_members(file: RangedFile) -> Iterator[ZipMember]:
    """Yield the members in the order of the central directory.

    Raises:
        BrokenArchiveError: there is no directory. Also after the last member, if the file begins
            with members that the directory does not name, as when several zips were joined (`cat`).
    """
    try:
        archive = zipfile.ZipFile(cast(IO[bytes], file))
    except (*_UNREADABLE, NotImplementedError, OverflowError) as e:
        file.seek(0)
        # The directory is at the end, so a file that begins as a zip and has none was cut.
        cut = "not a zip file" in str(e) and shard_kind(file.read(HEAD_BYTES)) == "zip"
        status = Status.TRUNCATED if cut or not file.seek(0, 2) else Status.CORRUPT
        raise BrokenArchiveError(
            status, "has no central directory" if cut else f"not a readable zip: {e}"
        ) from None
    with archive:
        for info in archive.infolist():
            yield ZipMember(archive, info)

        unnamed = min(
            (info.header_offset for info in archive.infolist()), default=archive.start_dir
        )
        file.seek(0)
        if unnamed > 0 and file.read(len(_MEMBER)) == _MEMBER:
            raise BrokenArchiveError(
                Status.CORRUPT,
                f"its first {unnamed:,} bytes are members that its directory does not name; they may be of another zip "
                "that was joined to it; unpack both separately",
            )


class ZipMember:
    """Read one member of a zip; see Member."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self.name = info.orig_filename if "\0" in info.orig_filename else info.filename
        # The most that a table holds; such members are not read.
        self.size = min(info.file_size, 2**63 - 1)
        self.kind = _kind(info)
        self._archive, self._info = archive, info

    def head(self) -> bytes:
        try:
            return self._open(HEAD_BYTES)
        except MemberError:
            return b""

    def read(self) -> bytes:
        data = self._open(-1)
        if len(data) != self.size:
            raise MemberError(Status.TRUNCATED, f"{len(data):,} bytes of {self.size:,}")
        return data

    def skip(self) -> None:
        """Do nothing: the member has not been opened."""

    def _open(self, count: int) -> bytes:
        try:
            with self._archive.open(self._info) as member:
                return member.read(count)
        except NotImplementedError as e:
            raise MemberError(
                Status.UNSUPPORTED, f"packed with an unsupported method: {e}"
            ) from None
        except RuntimeError as e:  # encrypted after all
            raise MemberError(Status.REFUSED, str(e)) from None
        except DiskError as e:
            raise MemberError(Status.UNREADABLE, str(e)) from None
        except _UNREADABLE as e:
            raise MemberError(Status.CORRUPT, f"cannot be unpacked: {e}") from None


def _kind(info: zipfile.ZipInfo) -> MemberKind:
    if info.filename.endswith("/"):  # is_dir() fails on an empty name
        return "folder"
    mode = info.external_attr >> 16
    if info.create_system == 3 and stat.S_ISLNK(mode):
        return "link"
    return "encrypted" if info.flag_bits & 1 else "file"
