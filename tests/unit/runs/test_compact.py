"""Test that `compact` merges small files, and that everything else works on merged files as before."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pyarrow.parquet as pq
import pytest

import skinbatch
from jobs.bench_evaluate import generate
from skinbatch.errors import ClaimError, NotFoundError, StoreError, TableError, UsageError
from skinbatch.reading import destination_store
from skinbatch.runs import claim, layout, merging, plan, receipts, snapshot
from skinbatch.runs.claim import Claim
from skinbatch.runs.compact import Compacted
from skinbatch.runs.compact import compact as compact_store
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.merged import read_part
from skinbatch.runs.merging import MergeInput, Merger, Moved, replace_stale, superfluous
from skinbatch.runs.regrade import regrade
from skinbatch.runs.stub import Stub
from skinbatch.scoring.reuse import read_file
from skinbatch.storage.local import LocalStore
from skinbatch.tables.parquet import read_metadata, read_parquet, write_parquet
from skinbatch.types import DataFile, MergedPart, Receipt
from tests.faces import comparable


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished destination of 160 photos with 2,000 boxes in about 16 units."""
    folder = tmp_path_factory.mktemp("compact")
    generate(folder / "scored", folder / "truth.json", 160, 2000, np.random.default_rng(7))
    return folder / "scored"


@pytest.fixture
def dest(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "scored"))


def compact(dest: Path) -> Compacted:
    return compact_store(destination_store(dest))


def ledger_of(dest: Path) -> Ledger:
    (scoring,) = (dest / "_skinbatch" / "scorings").glob("*.json")
    return Ledger.load(destination_store(dest), scoring.stem)


def files(dest: Path, kind: str) -> list[Path]:
    return sorted((dest / kind).rglob("*.parquet"))


def receipts_of(dest: Path) -> list[Receipt]:
    ledger = ledger_of(dest)
    return [ledger.receipt(stub) for stub in ledger]


def same_tables(ours: Path, theirs: Path) -> bool:
    return all(a.equals(b) for a, b in zip(comparable(ours), comparable(theirs), strict=True))


def test_the_files_of_all_units_become_one_of_each_kind(made: Path, dest: Path) -> None:
    units = len(files(dest, "images"))
    assert units > 10

    done = compact(dest)

    assert (done.files_before, done.files_after, done.merged) == (2 * units, 2, 2)
    assert done.bytes_before == sum(
        p.stat().st_size for k in ("images", "boxes") for p in files(made, k)
    )
    assert done.bytes_after == sum(
        p.stat().st_size for k in ("images", "boxes") for p in files(dest, k)
    )
    assert same_tables(dest, made)
    report = skinbatch.verify(dest)
    assert (report.differences, report.rows, report.boxes, report.files) == ([], 160, 2000, 2)


def test_a_second_compact_has_nothing_to_do(dest: Path) -> None:
    compact(dest)
    kept = files(dest, "images") + files(dest, "boxes")

    done = compact(dest)

    assert (done.merged, done.left_behind, done.files_before, done.files_after) == (0, 0, 2, 2)
    assert files(dest, "images") + files(dest, "boxes") == kept


def test_each_units_table_is_a_row_group_with_the_metadata_of_its_file(
    made: Path, dest: Path
) -> None:
    compact(dest)
    store, before = destination_store(dest), {r.unit_id: r for r in receipts_of(made)}
    (path,) = files(dest, "boxes")
    with_boxes = sum(
        file.rows > 0 for r in before.values() for file in r.files if file.kind == "boxes"
    )
    assert pq.ParquetFile(path).num_row_groups == with_boxes

    for receipt in receipts_of(dest):
        for file, old in zip(receipt.files, before[receipt.unit_id].files, strict=True):
            assert isinstance(file, MergedPart) and file.original == old
            table = read_file(store, file)
            expected = read_parquet((made / old.path).read_bytes(), old.path)
            assert table.equals(expected)
            assert read_metadata(table) == read_metadata(expected)
            assert table.schema.equals(expected.schema, check_metadata=True)


def test_some_columns_of_a_part_are_read_without_the_others(dest: Path) -> None:
    compact(dest)
    part = next(file for file in receipts_of(dest)[3].files if file.kind == "images")
    assert isinstance(part, MergedPart)
    table = read_part(destination_store(dest), part, ["status", "image_id", "no_such"])
    assert set(table.column_names) == {"status", "image_id"} and table.num_rows == part.rows


def test_files_end_at_a_size_and_at_a_number_of_units(
    dest: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "TARGET_BYTES", 60_000)
    monkeypatch.setattr(merging, "MOST_UNITS", 6)
    compact(dest)
    ledger = ledger_of(dest)
    assert len(ledger.merged) >= 5
    assert all(file.size < 90_000 and len(file) <= 6 for file in ledger.merged)
    assert same_tables(dest, made)
    assert skinbatch.verify(dest).differences == []

    monkeypatch.undo()
    assert compact(dest).files_after == 2
    assert same_tables(dest, made)
    assert skinbatch.verify(dest).differences == []


def test_large_files_stay_as_they_are(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skinbatch.runs.compact.SMALL_BYTES", 10)
    done = compact(dest)
    assert done.merged == 0 and done.files_after == done.files_before > 20


def test_tables_of_different_devices_go_into_different_files(dest: Path, made: Path) -> None:
    """The fingerprint does not cover the device, so a unit's metadata must stay its own."""
    ledger = ledger_of(dest)
    for number, stub in enumerate(ledger):
        receipt = ledger.receipt(stub)
        written = []
        for file in receipt.files:
            table = read_parquet((dest / file.path).read_bytes(), file.path)
            metadata = read_metadata(table) | {"computed_by": f"device {number % 2}"}
            data = write_parquet(table, metadata)
            (dest / file.path).write_bytes(data)
            written.append(described(file, data))
        rewrite_receipt(dest, ledger, receipt, written)
    shutil.rmtree(dest / "_skinbatch" / "snapshots")
    restore_snapshot(dest)

    assert compact(dest).files_after == 4
    store = destination_store(dest)
    for number, receipt in enumerate(receipts_of(dest)):
        for file in receipt.files:
            assert read_metadata(read_file(store, file))["computed_by"] == f"device {number % 2}"
    assert same_tables(dest, made)


def described(file: DataFile, data: bytes) -> DataFile:
    return DataFile(file.kind, file.path, hashlib.sha256(data).hexdigest(), len(data), file.rows)


def rewrite_receipt(dest: Path, ledger: Ledger, receipt: Receipt, written: list[DataFile]) -> None:
    changed = replace(receipt, files=tuple(written))
    (dest / receipts.key_of(ledger.fingerprint, receipt)).write_bytes(receipts.to_json(changed))


def restore_snapshot(dest: Path) -> None:
    ledger = ledger_of(dest)
    name = plan.names(ledger.store, ledger.fingerprint)[0]
    units = plan.read(ledger.store, ledger.fingerprint, name).units
    snapshot.write(ledger, 1, name, ledger.done(units))


def test_regrade_and_units_read_merged_files(dest: Path, made: Path) -> None:
    expected = regrade(destination_store(made), threshold=0.6)
    compact(dest)
    done = regrade(destination_store(dest), threshold=0.6)
    assert (done.grades, done.changed, done.boxes) == (
        expected.grades,
        expected.changed,
        expected.boxes,
    )
    ours = skinbatch.open(dest, grading=done.gid).images().sort_by("image_id")
    theirs = skinbatch.open(made, grading=expected.gid).images().sort_by("image_id")
    assert ours.equals(theirs)
    assert sum(images.num_rows for images, _ in skinbatch.open(dest).units()) == 160
    unit_id = receipts_of(dest)[0].unit_id
    assert skinbatch.open(dest).unit(unit_id)[0].num_rows > 0


def test_an_open_reader_finds_rows_that_were_moved_since(dest: Path) -> None:
    results = skinbatch.open(dest)
    compact(dest)
    assert results.images().num_rows == 160
    assert results.boxes().num_rows == 2000


def test_an_interrupted_iteration_says_why(dest: Path) -> None:
    results = skinbatch.open(dest)
    compact(dest)
    with pytest.raises(StoreError, match=r"`skinbatch compact` has merged files; start again"):
        list(results.units())


def test_a_damaged_small_file_stops_it_and_nothing_is_deleted(dest: Path) -> None:
    before = files(dest, "boxes")
    (path := before[5]).write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(TableError, match=f"{path.name}.*not those that were written; delete it"):
        compact(dest)
    assert files(dest, "boxes") == before


@pytest.mark.parametrize("place", [4, 0.3, 0.8, -20])
def test_verify_notices_every_changed_byte_of_a_merged_file(dest: Path, place: float) -> None:
    compact(dest)
    (path,) = files(dest, "images")
    data = bytearray(path.read_bytes())
    data[int(place * len(data)) if 0 < place < 1 else int(place)] ^= 4
    path.write_bytes(data)

    said = skinbatch.verify(dest).differences

    assert any(path.name in each for each in said)


def test_a_merged_file_that_was_cut_off_counts_as_gone(dest: Path) -> None:
    compact(dest)
    (path,) = files(dest, "images")
    path.write_bytes(path.read_bytes()[:-100])
    said = " ".join(skinbatch.verify(dest).differences)
    assert "the newest snapshot" in said and path.name in said
    path.write_bytes(b"")
    assert path.name in " ".join(skinbatch.verify(dest).differences)


def test_an_unfinished_scoring_is_refused(dest: Path) -> None:
    shutil.rmtree(dest / "_skinbatch" / "snapshots")
    with pytest.raises(UsageError, match=r"not finished.*skinbatch score` again, then compact"):
        compact(dest)
    assert not (dest / layout.CLAIM).exists()


def test_it_ends_with_7_beside_another_and_names_it(
    dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim.Claim.__init__, "__defaults__", (0.02,))
    store = LocalStore(dest)
    held = Claim(store, "run-a")
    held.take()
    held.start(lambda: None)
    try:
        with pytest.raises(ClaimError, match=r"held by another run, run run-a on .*process \d+"):
            compact(dest)
    finally:
        held.release()
    assert compact(dest).files_after == 2


def test_older_versions_refuse_a_compacted_destination(dest: Path) -> None:
    assert json.loads((dest / layout.DEST).read_text())["layout_version"] == 1
    compact(dest)
    assert json.loads((dest / layout.DEST).read_text())["layout_version"] == 2


def test_a_merged_file_that_does_not_read_back_is_removed_and_nothing_is_lost(
    dest: Path, made: Path
) -> None:
    class Wrong(LocalStore):
        def put(self, key, data):  # type: ignore[no-untyped-def]
            merged = layout.merged_hashes(key) is not None
            return super().put(key, data[:200] + b"?" + data[201:] if merged else data)

    with pytest.raises(StoreError, match=r"gave back other bytes.*was deleted"):
        compact_store(Wrong(dest))
    assert same_tables(dest, made)
    assert skinbatch.verify(dest).differences == []


def test_small_files_stay_while_the_merged_file_beside_them_is_damaged(
    dest: Path, made: Path
) -> None:
    """A kill may leave a merged file that was never read back."""
    compact(dest)
    (path,) = files(dest, "images")
    for old in files(made, "images"):
        shutil.copy(old, path.parent)
    data = path.read_bytes()
    path.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])

    with pytest.raises(TableError, match=f"{path.name}.*delete it"):
        compact(dest)

    path.unlink()
    compact(dest)
    assert same_tables(dest, made)
    assert skinbatch.verify(dest).differences == []


def merge(ledger: Ledger, stubs: Iterable[Stub], kind: str = "images") -> None:
    """Write a merged file of some units, and leave their own files."""
    sources = []
    for stub in stubs:
        file = next(file for file in ledger.receipt(stub).files if file.kind == kind)
        sources.append(MergeInput.of_unit(stub, file))
    Merger(ledger.store, ledger.fingerprint).move(sources)


def test_a_merged_file_stays_while_only_an_unread_one_holds_the_same_rows(dest: Path) -> None:
    """Two files that both hold a unit which nobody names must not count on each other."""
    ledger = ledger_of(dest)
    stubs = list(ledger)
    merge(ledger, stubs[:6])
    merge(ledger, stubs[:4])
    ledger = ledger_of(dest)
    both = {file.key for file in ledger.merged}
    named = set(list(ledger)[1:])

    assert not both & set(superfluous(ledger, named, Moved()))

    moved = replace_stale(ledger, named)
    ledger.list_again()
    assert both <= set(superfluous(ledger, named, moved))


def test_a_receipt_with_other_rows_than_its_file_stops_it(dest: Path) -> None:
    """The numbers of the row groups depend on the rows that receipts record."""
    ledger = ledger_of(dest)
    receipt = next(ledger.receipt(stub) for stub in ledger if stub.rows > 1)
    wrong = [replace(file, rows=0) for file in receipt.files]
    rewrite_receipt(dest, ledger, receipt, wrong)
    shutil.rmtree(dest / "_skinbatch" / "snapshots")
    restore_snapshot(dest)
    before = files(dest, "images")

    with pytest.raises(TableError, match=r"rows, but its receipt records 0; delete it"):
        compact(dest)
    assert files(dest, "images") == before


def test_a_byte_that_was_damaged_on_the_way_is_read_again(dest: Path) -> None:
    compact(dest)

    class Noisy(LocalStore):
        reads = 0

        def get_range(
            self, key: str, start: int, stop: int, *, version: str | None = None
        ) -> bytes:
            data = bytearray(super().get_range(key, start, stop, version=version))
            self.reads += 1
            if self.reads % 2:
                data[len(data) // 2] ^= 255
            return bytes(data)

    for receipt in receipts_of(dest):
        for file in receipt.files:
            assert isinstance(file, MergedPart)
            assert read_part(Noisy(dest), file).equals(read_part(LocalStore(dest), file))


def test_threads_that_read_the_same_merged_file_share_its_footer(dest: Path) -> None:
    compact(dest)
    parts = [file for receipt in receipts_of(dest) for file in receipt.files[:1]]
    together = Barrier(8)

    class Counting(LocalStore):
        heads = 0

        def head(self, key: str):  # type: ignore[no-untyped-def]
            self.heads += 1
            return super().head(key)

    store = Counting(dest)

    def read(part: DataFile) -> int:
        together.wait()
        return int(read_file(store, part).num_rows)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, parts[:8]))
    assert store.heads == 1


def test_nothing_is_written_once_another_run_has_a_newer_snapshot(dest: Path) -> None:
    ledger = ledger_of(dest)
    current = snapshot.newest_that_counts(ledger)
    assert current is not None

    def another_run(done: int, of: int) -> None:
        if done == 3:
            snapshot.write(ledger, 9, current.plan, current.receipts)

    with pytest.raises(ClaimError, match=r"snapshot 9\..* has taken over"):
        compact_store(destination_store(dest), progress=another_run)
    assert ledger_of(dest).merged == []


def test_a_leftover_that_another_command_deletes_first_ends_with_7(dest: Path) -> None:
    ledger = ledger_of(dest)
    stubs = list(ledger)
    merge(ledger, stubs[:6])
    merge(ledger, stubs[5:10])

    class Late(LocalStore):
        def get(self, key, **options):  # type: ignore[no-untyped-def]
            if layout.merged_hashes(key) is not None:
                raise NotFoundError(f"{self.uri_of(key)}: not found")
            return super().get(key, **options)

    with pytest.raises(ClaimError, match="nothing is lost"):
        compact_store(Late(dest))


def test_a_table_is_found_wherever_compact_has_moved_it(
    dest: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [file for receipt in receipts_of(dest) for file in receipt.files]
    with monkeypatch.context() as small:
        small.setattr(merging, "MOST_UNITS", 6)
        compact(dest)
    between = [file for receipt in receipts_of(dest) for file in receipt.files]
    compact(dest)

    store = destination_store(dest)
    for old, moved in zip(before, between, strict=True):
        table = read_parquet((made / old.path).read_bytes(), old.path)
        assert read_file(store, old).equals(table)
        assert read_file(store, moved).equals(table)

    shutil.rmtree(dest / "images")
    with pytest.raises(NotFoundError):
        read_file(store, next(file for file in before if file.kind == "images"))
