"""Test listings as pandas, spreadsheets, databases and people write them."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skinbatch
from skinbatch.archive.source import open_source
from skinbatch.config import Config
from skinbatch.errors import UsageError
from skinbatch.types import ImageRef
from tests.faces import face, jpeg, rows, write_tree

PHOTO = jpeg(face(3))


def refs(path: Path) -> list[ImageRef]:
    return [
        entry for entry in open_source(str(path), Config()).entries() if isinstance(entry, ImageRef)
    ]


def csv(folder: Path, text: str | bytes, name: str = "list.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def test_sizes_that_pandas_made_floats_are_sizes(tmp_path: Path, fake_pack: str) -> None:
    write_tree(tmp_path / "in", {"ph/a.jpg": PHOTO, "ph/b.jpg": PHOTO})
    path = csv(tmp_path / "in", f"uri,size\nph/a.jpg,{len(PHOTO)}.0\nph/b.jpg,\n")
    report = skinbatch.score(path, tmp_path / "out", pack=fake_pack, engine="local")
    assert (report.exit_code, report.statuses) == (0, {"ok": 2})
    assert rows(tmp_path / "out")["ph/a.jpg"]["size"] == len(PHOTO)
    assert skinbatch.verify(tmp_path / "out").differences == []


SIZES: list[tuple[Any, int | None]] = [
    *(
        ("87520.0", 87520),
        ("87520.", 87520),
        ("87520.000000", 87520),
        (" 87520 ", 87520),
        ("+7", 7),
        ("0", 0),
    ),
    ("87520,0", 87520),
    *(
        ("1e+05", 100_000),
        ("1E+05", 100_000),
        ("2e5", 200_000),
        ("1.2e+07", 12_000_000),
        ("1.2345e+10", 12_345_000_000),
    ),
    *(
        (gap, None)
        for gap in ("", "nan", "NaN", "NA", "N/A", "<NA>", "None", "null", "NULL", "\\N", "-")
    ),
]


@pytest.mark.parametrize(("size", "expected"), SIZES)
def test_sizes_and_gaps_in_csv(tmp_path: Path, size: str, expected: int | None) -> None:
    (ref,) = refs(csv(tmp_path, f'uri;size\na.jpg;"{size}"\n'))
    assert ref.size == expected


@pytest.mark.parametrize(
    "size",
    [
        *("87520.5", "87.520", "87.000", "87,520", "8_7", "0x10", "inf", "-3.0", "87 KB", "true"),
        *(
            "1.23457e+08",
            "1.23457E+11",
            "1.235e+05",
            "1.000e+05",
            "1e-05",
            "1e+99",
            "1.5e+00",
            "e+05",
        ),
    ],
)
def test_a_size_that_can_be_read_in_two_ways_is_refused_by_row(tmp_path: Path, size: str) -> None:
    with pytest.raises(UsageError, match=r"list\.csv: row 2: size .* is not a number of bytes"):
        refs(csv(tmp_path, f"uri;size\na.jpg;1\nb.jpg;{size}\n"))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([87520.0, None, float("nan")]), [87520, None, None]),
        (pa.array([5, None, 7], pa.int32()), [5, None, 7]),
        (pa.array([5, None, 7], pa.uint64()), [5, None, 7]),
        (pa.array([Decimal("5.00"), None, Decimal(7)], pa.decimal128(10, 2)), [5, None, 7]),
        (pa.array(["5.0", "", "nan"], pa.string_view()), [5, None, None]),
        (pa.array(["1e+05", "100000.0", "100000"]), [100_000] * 3),
        (pa.nulls(3), [None] * 3),
    ],
)
def test_sizes_and_gaps_in_parquet(
    tmp_path: Path, column: pa.Array, expected: list[int | None]
) -> None:
    pq.write_table(
        pa.table({"uri": ["a.jpg", "b.jpg", "c.jpg"], "size": column}), tmp_path / "list.parquet"
    )
    assert [ref.size for ref in refs(tmp_path / "list.parquet")] == expected


@pytest.mark.parametrize("value", [87520.5, float("inf"), True])
def test_a_size_in_parquet_that_is_none_is_refused(tmp_path: Path, value: float | bool) -> None:
    pq.write_table(pa.table({"uri": ["a.jpg"], "size": [value]}), tmp_path / "list.parquet")
    with pytest.raises(UsageError, match=r"list\.parquet: row 1: size"):
        refs(tmp_path / "list.parquet")


@pytest.mark.parametrize(
    ("column", "text", "expected"),
    [
        ("etag", '"""abc-2"""', "abc-2"),
        ("etag", 'W/"abc"', "abc"),
        ("ETag", "nan", None),
        ("etag", "1.2345678901234567e+31", None),
        ("version", "1700000000.0", "1700000000"),
        ("version", "1.7000000001234568e+18", None),
        ("version", "1700000000123456789", "1700000000123456789"),
        ("version", "NULL", None),
    ],
)
def test_versions_and_gaps(tmp_path: Path, column: str, text: str, expected: str | None) -> None:
    (ref,) = refs(csv(tmp_path, f"uri,{column}\na.jpg,{text}\n"))
    assert ref.version == expected
    if text == "nan":
        pq.write_table(
            pa.table({"uri": ["a.jpg"], "version": [float("nan")]}), tmp_path / "list.parquet"
        )
        assert refs(tmp_path / "list.parquet")[0].version is None


TEXT = 'Patient;"URI";Größe\np1;"ä; b.jpg";groß\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encodings_ends_of_lines_and_delimiters(
    tmp_path: Path, encoding: str, end: str, delimiter: str
) -> None:
    data = (
        TEXT.replace("ä; b", "ä?b")
        .replace(";", delimiter)
        .replace("?", delimiter)
        .replace("\n", end)
        .encode(encoding)
    )
    for path in (csv(tmp_path, data), csv(tmp_path, gzip.compress(data), "list.csv.gz")):
        (ref,) = refs(path)
        assert (ref.image_id, ref.meta) == (
            f"ä{delimiter}b.jpg",
            {"Patient": "p1", "Größe": "groß"},
        )


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nuri;note\r\na.jpg;x, y\r\n",
        "\n\nuri,note\na.jpg,\"x, y\"\n",
        '"a,b";uri;note\n1;a.jpg;x, y\n',
        "uri,note,,\na.jpg,\"x, y\",,\n",
        "note,uri\n\"x, y\",a.jpg,,,\n",
    ],
)  # fmt: skip
def test_what_spreadsheets_add(tmp_path: Path, text: str) -> None:
    (ref,) = refs(csv(tmp_path, text))
    assert (ref.image_id, ref.meta["note"]) == ("a.jpg", "x, y")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("uri,size\nphotos/a, b.jpg,5\n", r"row 1: has 3 fields, but the header has 2; .*quotes"),
        ("uri,URI\na.jpg,b.jpg\n", "2 columns called `uri`"),
        ("uri,size,Size \na.jpg,1,2\n", "2 columns called `size`"),
        ("a.jpg\nb.jpg\n", "no `uri` column; its columns are a.jpg; write a first line"),
        (
            "path,label\na.jpg,1\n",
            "no `uri` column; its columns are path, label; rename the column",
        ),
        ("uri\nmüller.jpg\n".encode("latin-1"), "is not UTF-8"),
        (
            "uri\nmüller.jpg\n".encode("utf-16-le"),
            "UTF-16 without a byte order mark; save it as UTF-8",
        ),
        ("uri\nC:\\photos\\a.jpg\n", "row 1: .*a Windows path"),
        ("uri\ngs://bucket/a.jpg\n", r"row 1: .*s3://bucket/a\.jpg with \[storage\] endpoint_url"),
        ("uri\nok.jpg\nS3://bucket/a.jpg\n", r"row 2: .*did you mean s3://bucket/a\.jpg"),
        ("uri\nhttps://bucket.s3.amazonaws.com/a/b.jpg\n", r"row 1: .*write s3://bucket/a/b\.jpg"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(
    tmp_path: Path, data: str | bytes, message: str
) -> None:
    with pytest.raises(UsageError, match=rf"list\.csv: .*{message}"):
        refs(csv(tmp_path, data))


def test_a_file_uri_is_read_as_such_uris_are_written(tmp_path: Path) -> None:
    photo = write_tree(tmp_path, {"a b%.jpg": PHOTO}) / "a b%.jpg"
    (ref,) = refs(csv(tmp_path, f"uri\n{photo.as_uri()}\n"))
    assert ref.uri == str(photo)


def test_rows_without_an_address_are_counted(tmp_path: Path) -> None:
    source = open_source(str(csv(tmp_path, "uri,n\na.jpg,1\n,2\nnan,3\n")), Config())
    assert len(list(source.entries())) == 1
    assert source.skipped == {"(no uri)": 2}
