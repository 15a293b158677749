"""Test that a destination on S3 is compacted, and goes on being used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import skinbatch
from skinbatch.reading import destination_store
from skinbatch.runs.compact import compact
from skinbatch.storage.local import LocalStore
from tests.conftest import S3Server
from tests.faces import comparable, face, png, rows, tar_bytes, write_tree
from tests.faults.in_process import decodes
from tests.field.in_process import command, score

SLOW = pytest.mark.slow


def without_uris(tables: tuple[Any, ...]) -> list[Any]:
    images, boxes = tables
    return [images.drop_columns(["uri", "version"]), boxes]


@pytest.mark.parametrize(
    "server", ["s3", pytest.param("ceph", marks=SLOW), pytest.param("rclone", marks=SLOW)]
)
def test_a_bucket_is_compacted_and_only_new_photos_are_decoded_after_it(
    server: str, request: pytest.FixtureRequest, fake_pack: str, tmp_path: Path
) -> None:
    s3: S3Server = request.getfixturevalue(server)
    files = {f"{n:02}.png": png(face(n % 6, n % 4, n)) for n in range(30)}
    files["s.tar"] = tar_bytes({f"{n}.png": png(face(n, 1, 40 + n)) for n in range(4)})
    source = write_tree(tmp_path / "photos", files)
    dest = f"s3://{s3.bucket()}/some/scored"
    settings: dict[str, Any] = {
        "storage": s3.settings.model_dump(exclude_defaults=True),
        "run": {"save_masks": True},
    }
    assert score(source, dest, fake_pack, **settings).exit_code == 0
    store = destination_store(dest, s3.settings)
    before = comparable(dest, storage=s3.settings)
    masks = skinbatch.open(dest, storage=s3.settings).masks().sort_by("image_id")

    done = compact(store)

    assert done.files_before > 9 and done.files_after == done.merged == 3
    report = skinbatch.verify(dest, storage=s3.settings)
    assert (report.differences, report.rows, report.files) == ([], 34, 3)
    after = comparable(dest, storage=s3.settings)
    assert all(a.equals(b) for a, b in zip(after, before, strict=True))
    assert skinbatch.open(dest, storage=s3.settings).masks().sort_by("image_id").equals(masks)

    write_tree(source, {"new.png": png(face(5, 2, 99)), "03.png": png(face(1, 3, 98))})
    with decodes() as decoded:
        assert score(source, dest, fake_pack, **settings).exit_code == 0
    assert decoded == {"new.png", "03.png"}
    assert skinbatch.verify(dest, storage=s3.settings).differences == []
    keys = [key for key in store.keys("images/")]
    tables = [pq.read_table(_local(store.get(key)[0], tmp_path)) for key in keys]
    assert sum(table.num_rows for table in tables) == 35
    assert compact(store).files_after == 3
    assert skinbatch.verify(dest, storage=s3.settings).differences == []


def _local(data: bytes, folder: Path) -> Path:
    (folder / "file.parquet").write_bytes(data)
    return folder / "file.parquet"


def test_stopped_runs_only_new_and_retry_go_on_after_a_compact(
    fake_pack: str, tmp_path: Path
) -> None:
    photos = {f"{n:02}.png": png(face(n % 6, n % 4, n)) for n in range(40)}
    source, dest = (
        write_tree(tmp_path / "photos", photos | {"bad.png": b"no photo"}),
        tmp_path / "out",
    )
    failing = {"max_failures": 1.0}
    assert score(source, dest, fake_pack, run=failing).exit_code == 0
    first = compact(destination_store(dest))
    assert first.files_after == 2

    # A run that stops early: its units are not in the snapshot, and stay as they are.
    write_tree(source, {f"n{n:02}.png": png(face(n % 5, 1, 60 + n)) for n in range(10)})
    assert score(source, dest, fake_pack, run=failing | {"limit": 1}).exit_code == 6
    assert compact(destination_store(dest)).merged == 0
    assert len(rows(dest)) == 41
    with decodes() as decoded:
        assert score(source, dest, fake_pack, run=failing).exit_code == 0
    assert decoded < {f"n{n:02}.png" for n in range(10)}
    assert skinbatch.verify(dest).differences == []
    assert len(rows(dest)) == 51

    compact(destination_store(dest))
    write_tree(source, {"00.png": png(face(5, 5, 1)), "late.png": png(face(2, 2, 2))})
    with decodes() as decoded:
        done = score(source, dest, fake_pack, run=failing, source={"only_new": True})
    assert (done.exit_code, decoded) == (0, {"late.png"})
    assert skinbatch.verify(dest).differences == []

    compact(destination_store(dest))
    before = comparable(dest)
    code, said, _ = command("status", str(dest), "--json")
    state = json.loads(said)
    assert (code, state["photos_done"], state["units_left"]) == (0, 52, 0)
    code, said, error = command("retry", str(dest), "--engine", "local", "--json")
    assert code in (0, 3) and json.loads(said)["scored"] == 1, error
    assert skinbatch.verify(dest).differences == []
    assert all(a.equals(b) for a, b in zip(comparable(dest), before, strict=True))
    assert command("report", str(dest), "-o", str(tmp_path / "report.html"))[0] == 0


def test_the_command_prints_a_summary_and_json(fake_pack: str, tmp_path: Path) -> None:
    files = {f"{n:02}.png": png(face(n % 6, n % 4, n)) for n in range(30)}
    source = write_tree(tmp_path / "photos", files)
    dest = tmp_path / "out"
    assert score(source, dest, fake_pack).exit_code == 0
    size = sum(info.size for kind in ("images/", "boxes/") for info in LocalStore(dest).list(kind))

    code, said, _ = command("compact", str(dest))
    assert (
        code == 0 and said.startswith("8 files (") and f"({size / 1e6:.1f} MB) are now 2 (" in said
    )

    code, said, _ = command("compact", str(dest))
    assert code == 0 and said.startswith("nothing to merge: 2 files")

    code, said, _ = command("compact", str(dest), "--json")
    assert code == 0 and '"files_after": 2' in said and '"merged": 0' in said

    code, _, said = command("compact", str(tmp_path / "photos"))
    assert code == 2 and "is not a destination of skinbatch" in said
