"""Test that a destination of schema version 1, with a column for each pass-through field, can be
read but not added to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skinbatch
from skinbatch.errors import UsageError
from skinbatch.runs.status import read_status
from skinbatch.scoring import unit_scorer
from skinbatch.storage.local import LocalStore
from skinbatch.tables import parquet
from skinbatch.tables.meta import add_meta_columns
from skinbatch.tables.rows import images_table
from tests.faces import face, files_of, png, tar_bytes, write_tree
from tests.field.in_process import command, score


def as_version_1(rows: Sequence[Any], classes: Sequence[str], probs: Sequence[str]) -> pa.Table:
    return add_meta_columns(images_table(rows, classes, probs)).drop_columns(["meta"])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    members = {
        "1.png": png(face(1, 2, 20)),
        "1.json": json.dumps({"subject": "p1", "age": 41}).encode(),
        "2.png": png(face(0, 2, 21)),
        "2.json": json.dumps({"subject": "p2"}).encode(),
    }
    photos = {f"{n}.png": png(face(n % 4, 1, n)) for n in range(5)}
    return write_tree(
        tmp_path_factory.mktemp("old") / "photos", {"a.tar": tar_bytes(members), **photos}
    )


@pytest.fixture(scope="module")
def old(tree: Path, fake_pack: str) -> Path:
    """Write the table as version 1 did."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_scorer, "images_table", as_version_1)
        patch.setattr(parquet, "SCHEMA_VERSION", 1)
        score(tree, tree.parent / "out", fake_pack)
    described = tree.parent / "out/_skinbatch/dest.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"schema_version": 1}))
    return tree.parent / "out"


def test_the_fixture_is_of_version_1(old: Path) -> None:
    schemas = [pq.read_schema(path) for path in (old / "images").rglob("*.parquet")]
    assert {b"skinbatch.schema_version": b"1"}.items() <= schemas[0].metadata.items()
    assert any("meta_subject" in schema.names for schema in schemas)
    assert not any("meta" in schema.names for schema in schemas)
    assert json.loads((old / "_skinbatch/dest.json").read_text())["schema_version"] == 1


def test_it_is_opened_with_the_columns_of_today(
    old: Path, tree: Path, tmp_path: Path, fake_pack: str
) -> None:
    score(tree, tmp_path / "new", fake_pack)
    before, now = skinbatch.open(old), skinbatch.open(tmp_path / "new")
    for columns in (
        None,
        ["image_id", "meta_subject"],
        ["image_id", "meta"],
        ["image_id", "grade"],
    ):
        expected = now.images(columns).sort_by("image_id")
        assert before.images(columns).sort_by("image_id").to_pylist() == expected.to_pylist()
    assert before.boxes().num_rows == now.boxes().num_rows
    assert {name for images, _ in before.units() for name in images.column_names} == {
        name for images, _ in now.units() for name in images.column_names
    }


def test_it_is_verified_shown_and_exported(old: Path, tmp_path: Path) -> None:
    assert skinbatch.verify(old).differences == []
    assert (
        read_status(LocalStore(str(old))).state,
        read_status(LocalStore(str(old))).photos_done,
    ) == ("done", 7)
    code, said, _ = command("export", str(old), str(tmp_path / "coco"), "--format", "coco")
    assert (code, said.splitlines()[0].startswith("7 photos")) == (0, True)


def test_a_run_into_it_is_refused_with_the_way_out(old: Path, tree: Path, fake_pack: str) -> None:
    before = files_of(old)
    with pytest.raises(
        UsageError,
        match=r"schema version 1, .* writes version 2.*another destination.*still be read",
    ):
        skinbatch.score(tree, old, pack=fake_pack, engine="local")
    with pytest.raises(UsageError, match="another destination"):
        skinbatch.retry(old, engine="local")
    assert files_of(old) == before


def test_a_destination_of_a_newer_version_says_to_update(old: Path, tmp_path: Path) -> None:
    (tmp_path / "_skinbatch").mkdir()
    described = json.loads((old / "_skinbatch/dest.json").read_text()) | {"schema_version": 3}
    (tmp_path / "_skinbatch/dest.json").write_text(json.dumps(described))
    with pytest.raises(
        UsageError, match="schema version 3, but this skinbatch reads up to 2; update skinbatch"
    ):
        skinbatch.open(tmp_path)
