"""Test that the data dictionary is the text that the files carry."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import skinbatch
from skinbatch.cli import main as cli
from tests.faces import face, png, write_tree


def test_the_command_prints_the_meaning_of_every_column_as_the_files_have_it(
    tmp_path: Path,
    fake_pack: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_tree(tmp_path / "photos", {"a.png": png(face(1))})
    skinbatch.score(
        tmp_path / "photos", tmp_path / "out", pack=fake_pack, engine="local", save_masks=True
    )
    monkeypatch.setattr(sys, "argv", ["skinbatch", "schema", "--pack", fake_pack, "--json"])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 0
    told = {table["name"]: table["columns"] for table in json.loads(capsys.readouterr().out)}
    for kind in ("images", "boxes", "masks"):
        (file,) = (tmp_path / "out" / kind).rglob("*.parquet")
        stored = pq.read_schema(file)
        assert [column["name"] for column in told[kind]] == stored.names
        for column in told[kind]:
            field = stored.field(column["name"])
            assert (column["type"], column["nullable"]) == (str(field.type), field.nullable)
            assert column["meaning"] == field.metadata[b"description"].decode() != ""
