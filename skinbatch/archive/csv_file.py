"""Read CSV files from spreadsheets, pandas and stores: their encodings, delimiters and gaps."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, BinaryIO, cast

from skinbatch.archive.formats import has_image_name
from skinbatch.errors import UsageError
from skinbatch.storage.store import ObjectInfo, Store

# Columns of a listing that are not passed through.
KNOWN = ("uri", "size", "etag", "version")

_DELIMITERS = ",;\t|"
_BOMS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
# Values that stand for a missing one in pandas, R and databases, in lower case.
_MISSING = frozenset(
    ("", "nan", "-nan", "na", "n/a", "<na>", "#n/a", "none", "null", "\\n", "nat", "-")
)
# `87.000` may be 87 or 87 thousand, depending on the country, so three zeros are refused.
_WHOLE = re.compile(r"\+?(\d{1,19})(?:\.(?:0{0,2}|0{4,})|,0{1,2})?")
# `1e+05`, as R writes 100000. Five digits at most: programs that round numbers keep six or more.
_SCIENTIFIC = re.compile(r"\+?\d(?:\.\d{1,4})?[eE]\+?\d{1,2}")
# A long number that a program has converted to a float: its last digits are lost.
_ROUNDED = re.compile(r"\d(?:\.\d+)?[eE]\+\d+")
# Floats hold every whole number below this.
_EXACT = 2**53


def is_csv(name: str) -> bool:
    return name.lower().endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz"))


def plain(name: str) -> str:
    """Return a column's name without differences that do not matter."""
    return name.strip().lower()


def has_uris(names: Iterable[str]) -> bool:
    return any(plain(name) == "uri" for name in names)


def check_known(uri: str, names: Iterable[str]) -> None:
    """Raise UsageError if two columns have the same known name."""
    for name, count in Counter(map(plain, names)).items():
        if name in KNOWN and count > 1:
            raise UsageError(f"{uri}: has {count} columns called `{name}`; keep only one of them")


def csv_records(
    store: Store, info: ObjectInfo, columns: Sequence[str] | None = None
) -> Iterator[dict[str, str]]:
    """Yield rows by column name, as a stream. Files packed with gzip are unpacked.

    Args:
        columns: names of the columns if the file has no header.

    Raises:
        UsageError: the file is not text in a known encoding, or not CSV with a `uri` column.
    """
    uri = store.uri_of(info.key)
    with store.stream(info.key, version=info.version or None) as stream:
        packed = cast(Any, stream).peek(2).startswith(b"\x1f\x8b")
        raw = cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if packed else stream
        try:
            text = io.TextIOWrapper(raw, encoding=_encoding(raw, uri), newline="")
            delimiter = ","
            if columns is None:
                columns, delimiter = _header(text, uri)
                check_known(uri, columns)
            number = 0
            for fields in csv.reader(text, delimiter=delimiter):
                if fields:
                    number += 1
                    if any(fields[len(columns) :]):
                        raise UsageError(
                            f"{uri}: row {number}: has {len(fields)} fields, but the header has {len(columns)}; put a value "
                            f"that holds the delimiter ({delimiter!r}) in quotes"
                        )
                    yield dict(zip(columns, fields, strict=False))
        except UnicodeError as e:
            raise UsageError(f"{uri}: is not UTF-8 ({e}); save it as UTF-8") from None
        except (csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as e:
            raise UsageError(f"{uri}: cannot be read as CSV: {e}") from None


def is_missing(value: Any) -> bool:
    """Return whether a value of a listing stands for a missing one."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip().lower() in _MISSING)


def whole_number(value: Any, where: str) -> int | None:
    """Return a size in bytes; None if it is missing.

    Raises:
        UsageError: If the value is neither missing nor a whole number.

    Example:
        >>> whole_number("87520.0", "list.csv: row 1")
        87520
    """
    if is_missing(value):
        return None

    size = -1
    if isinstance(value, str):
        size = _written_size(value.strip())
    elif isinstance(value, float | Decimal):
        size = int(value) if math.isfinite(value) and value == int(value) else -1
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    if not 0 <= size < 2**63:
        raise UsageError(f"{where}: size {str(value)[:40]!r} is not a number of bytes")
    return size


def _written_size(text: str) -> int:
    """Return the whole number that a text stands for; -1 if it stands for none or may be rounded."""
    if match := _WHOLE.fullmatch(text):
        return int(match[1])
    if _SCIENTIFIC.fullmatch(text):
        size = Decimal(text)
        # Programs that do not round use an exponent only where it is no longer than the number.
        if size == int(size) and len(text.lstrip("+")) <= len(str(int(size))):
            return int(size)
    return -1


def version_text(value: Any) -> str | None:
    """Return an ETag or other version as stores write it; None if it is missing or was rounded."""
    if is_missing(value):
        return None
    if isinstance(value, float):
        return str(int(value)) if abs(value) < _EXACT and value.is_integer() else None

    text = str(value).strip()
    if _ROUNDED.fullmatch(text):
        return None
    if re.fullmatch(r"\d+\.0", text):
        return text[:-2]
    return text.removeprefix("W/").strip('"') or None


def _encoding(raw: BinaryIO, uri: str) -> str:
    head = cast(Any, raw).peek(4)[:64]
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return encoding
    if b"\0" in head:
        raise UsageError(
            f"{uri}: is not text, or is UTF-16 without a byte order mark; save it as UTF-8"
        )
    return "utf-8-sig"


def _header(text: io.TextIOWrapper, uri: str) -> tuple[list[str], str]:
    """Return the names of the columns and the delimiter that gives a `uri` column."""
    delimiters = _DELIMITERS
    line = text.readline()
    while line and not line.strip():
        line = text.readline()
    # Excel's own way to name the delimiter.
    if line.lower().startswith("sep=") and len(line.strip("\r\n")) == len("sep=;"):
        delimiters = line[4]
        line = text.readline()

    columns: list[str] = []
    for delimiter in delimiters:
        names = next(csv.reader([line], delimiter=delimiter), [])
        if has_uris(names):
            return names, delimiter
        columns = max(columns, names, key=len)
    first = (
        "write a first line that names the columns"
        if any(map(has_image_name, columns))
        else "rename the column"
    )
    raise UsageError(
        f"{uri}: has no `uri` column; its columns are {', '.join(columns)}; {first} so that the one with the photos' "
        "addresses is called `uri`"
    )
