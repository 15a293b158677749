"""Test how a file names photos by their image_id."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skinbatch.errors import UsageError
from skinbatch.selection.image_ids import read_image_ids

NAMES = frozenset({"a.jpg", "tars/1.tar/b c.jpg", "é,1.png"})


def test_text_csv_and_parquet_name_the_same_photos(tmp_path: Path) -> None:
    text = tmp_path / "wrong.txt"
    text.write_text("\ufeffa.jpg\r\n\ntars/1.tar/b c.jpg\r\né,1.png", encoding="utf-8")
    csv = tmp_path / "wrong.csv"
    csv.write_text(
        'status,image_id\nok,a.jpg\nok,tars/1.tar/b c.jpg\n\ntimeout,"é,1.png"\n', encoding="utf-8"
    )
    parquet = tmp_path / "wrong.parquet"
    pq.write_table(pa.table({"n": [1, 2, 3, 4], "image_id": [*sorted(NAMES), None]}), parquet)
    assert [read_image_ids(path) for path in (text, csv, parquet)] == [NAMES] * 3


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.txt", b"\n \n", "empty.txt: names no photo; write one image_id on each line"),
        ("ids.csv", b"name,uri\na,b\n", "ids.csv: no column image_id; its columns are name, uri"),
        ("ids.parquet", b"PAR1", "ids.parquet: not readable as Parquet"),
        ("ids.txt", b"\xff\xfe", "ids.txt: byte 0 is not UTF-8"),
    ],
)
def test_a_file_that_names_no_photo_is_refused(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError) as raised:
        read_image_ids(tmp_path / name)
    assert message in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.txt: cannot be read"):
        read_image_ids(tmp_path / "nowhere.txt")
