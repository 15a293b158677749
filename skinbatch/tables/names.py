"""Build column names for classes and pass-through fields, and text that Parquet can hold."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

# The prefix of columns that hold one pass-through field each.
META_PREFIX = "meta_"

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(r"\\x\{([0-9a-f]{2}|[0-9a-f]{4})\}")


def safe_text(text: str) -> str:
    r"""Return `text` with everything that UTF-8 cannot hold escaped, for Arrow, JSON and S3.

    File systems and tars may name a photo with bytes that are not UTF-8. Python represents them as
    lone surrogates (`surrogateescape`). A byte 0xff becomes the text `\x{ff}`, any other surrogate
    `\x{d800}`. Ordinary text is returned unchanged. Text that already looks like an escape gets its
    backslash escaped (`\x{5c}`), so that two different names never become the same text and
    `original_text` can restore them.
    """
    if _SURROGATE.search(text) is None and "\\x{" not in text:
        return text
    text = _ESCAPE.sub(lambda m: r"\x{5c}" + m[0][1:], text)
    return _SURROGATE.sub(lambda m: _escaped(ord(m[0])), text)


def original_text(text: str) -> str:
    """Return the text that `safe_text` escaped: the name of the file, for `os.fsencode`.

    Readers of the tables need it to find a file by its name in a table.
    """
    return _ESCAPE.sub(lambda m: _unescaped(m[1]), text)


def composed(text: str) -> str:
    r"""Return `text` in Unicode's composed form (NFC), in which names are compared.

    macOS writes the decomposed form: its `é` is an `e` followed by an accent.

    Example:
        >>> composed("e\u0301") == "\u00e9"
        True
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def column_name(class_name: str) -> str:
    """Return a class name for use in columns: lower-case letters, digits and `_`."""
    return re.sub(r"[^a-z0-9_]", "_", class_name.lower())


def count_columns(detector_classes: Sequence[str]) -> dict[str, str]:
    """Return class -> its column, `count_<class>`.

    A name that is taken gets `_2`: `total`, or the name of another class that becomes the same.
    """
    taken = ("count_total", "count_left", "count_right")
    return _unique({name: f"count_{column_name(name)}" for name in detector_classes}, taken)


def mask_columns(segmenter_classes: Sequence[str]) -> dict[str, str]:
    """Return class -> its column, `rle_<class>`."""
    return _unique({name: f"rle_{column_name(name)}" for name in segmenter_classes}, ())


def prob_columns(head: str, classes: Sequence[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return class -> its column.

    It is `prob_<class>` for the head `disease`, and `<head>_prob_<class>` for other heads. taken:
    columns of the pack's other heads.
    """
    prefix = "prob" if head == "disease" else f"{column_name(head)}_prob"
    return _unique({name: f"{prefix}_{column_name(name)}" for name in classes}, taken)


def meta_columns(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return pass-through field -> its column, `meta_<name>`, sorted. Names keep their case.

    Names that differ only in case get `_2`, `_3`: DuckDB and Spark cannot tell them apart.
    """
    return _unique({name: META_PREFIX + safe_text(name) for name in sorted(set(names))}, taken)


def _unique(proposed: Mapping[str, str], taken: Iterable[str]) -> dict[str, str]:
    used = {column.lower() for column in taken}
    columns: dict[str, str] = {}
    for name, column in proposed.items():
        free, n = column, 1
        while free.lower() in used:
            n += 1
            free = f"{column}_{n}"
        used.add(free.lower())
        columns[name] = free
    return columns


def _escaped(code: int) -> str:
    return f"\\x{{{code - 0xDC00:02x}}}" if 0xDC80 <= code <= 0xDCFF else f"\\x{{{code:04x}}}"


def _unescaped(digits: str) -> str:
    code = int(digits, 16)
    return chr(0xDC00 + code) if len(digits) == 2 and code >= 0x80 else chr(code)


def similar(name: str, known: Sequence[str]) -> list[str]:
    """Return up to three names that someone who wrote an unknown one may have meant."""
    names = difflib.get_close_matches(name, known, 3, 0.5)
    if names:
        return names
    last = name.rpartition("_")[2].lower()
    return [column for column in known if last and last in column.lower()][:3]


def closest(name: str, known: Sequence[str]) -> str:
    """Return the end of a message about an unknown column: the names most similar to it, or all."""
    if names := similar(name, known):
        return f"; similar: {', '.join(names)}"
    return f"; its columns: {', '.join(known)}" if known else ""
