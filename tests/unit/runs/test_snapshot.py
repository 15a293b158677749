"""Test that only a snapshot decides, and that verify names every difference."""

import json
import re
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from skinbatch.errors import ClaimError, UsageError
from skinbatch.runs import cleanup, destination, layout, plan, receipts, results, snapshot
from skinbatch.runs.claim import Claim
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.plan import Plan
from skinbatch.runs.snapshot import Snapshot
from skinbatch.runs.stub import Stubs
from skinbatch.runs.verify import verify
from skinbatch.storage.local import LocalStore
from skinbatch.types import Receipt, Status
from tests.unit.runs.support import FP, commit, photos, write_fold, write_plan, write_snapshot


def scored(store: LocalStore, count: int = 60) -> tuple[Plan, list[Receipt], Snapshot]:
    destination.write_destination(store, destination.Destination("/photos", 2, 1))
    scoring = destination.Scoring(
        FP, {}, {}, "fake", {}, ("acne",), ("prob_rosacea",), False, "2026-01-01T00:00:00Z"
    )
    destination.write_scoring(store, scoring)
    current = write_plan(store, photos(count))
    done = [commit(store, unit) for unit in plan.work_units(store, FP, current, current.units)]
    return current, done, write_snapshot(store, 1, current.name, done)[1]


def local(store: LocalStore, key: str) -> Path:
    return Path(store.uri) / key


def differences(store: LocalStore) -> str:
    report = verify(store)
    assert report.exit_code == 5
    return "\n".join(report.differences)


def test_a_finished_scoring_verifies(store: LocalStore) -> None:
    scored(store)
    report = verify(store)
    assert report.differences == []
    assert (report.photos, report.rows, report.exit_code) == (60, 60, 0)


def test_verify_names_a_deleted_file(store: LocalStore) -> None:
    _, done, _ = scored(store)
    store.delete([done[0].files[0].path])
    said = differences(store)
    assert done[0].files[0].path in said
    assert "does not count" in said


def test_verify_names_a_changed_byte(store: LocalStore) -> None:
    _, done, _ = scored(store)
    path = local(store, done[0].files[0].path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert f"{done[0].files[0].path}: its bytes are not those that were written" in differences(
        store
    )


def test_verify_names_a_foreign_file_and_a_foreign_receipt(store: LocalStore) -> None:
    current, _, _ = scored(store)
    unit = next(iter(plan.work_units(store, FP, current, current.units)))
    late = commit(store, unit)
    said = differences(store)
    assert f"{receipts.key_of(FP, late)}: a receipt that the snapshot does not name" in said
    assert f"{late.files[0].path}: a data file that the snapshot does not name" in said


def test_verify_names_a_receipt_whose_files_are_gone(store: LocalStore) -> None:
    current, _, _ = scored(store)
    late = commit(store, next(iter(plan.work_units(store, FP, current, current.units))))
    store.delete([late.files[1].path])
    assert "a receipt whose files are gone" in differences(store)


def test_verify_names_missing_doubled_and_unplanned_rows(store: LocalStore) -> None:
    current, done, _ = scored(store)
    units = list(plan.work_units(store, FP, current, current.units))
    short = replace(units[0], images=units[0].images[1:])
    doubled = replace(units[1], images=(*units[1].images, units[1].images[0]))
    foreign = replace(
        units[2], images=(*units[2].images, replace(units[2].images[0], image_id="strange.jpg"))
    )
    for unit, old in zip((short, doubled, foreign), done[:3], strict=True):
        fake = commit(store, unit, whole=old.whole_sha256)
        done[done.index(old)] = replace(fake, inputs_sha256=old.inputs_sha256)
        store.put(
            receipts.key_of(FP, fake),
            receipts.to_json(done[done.index(replace(fake, inputs_sha256=old.inputs_sha256))]),
        )
    cleanup.clean_up(*write_snapshot(store, 2, current.name, done))
    said = differences(store)
    assert f"planned but without a row: {units[0].images[0].image_id}" in said
    assert f"more than one row: {units[1].images[0].image_id}" in said
    assert "a row that the plan does not have: strange.jpg" in said


def test_verify_says_how_many_units_are_left(store: LocalStore) -> None:
    current, _, _ = scored(store)
    write_plan(store, photos(61), current)
    assert re.search(r"not finished: 1 of \d+ units", differences(store))


def test_a_plan_that_another_driver_wrote_at_the_same_time_leaves_nothing_to_do(
    store: LocalStore,
) -> None:
    current, _, _ = scored(store)
    twin = replace(current, name=f"{current.number + 1}.{12 * '0'}")
    for key in [*store.keys(f"{layout.plans_prefix(FP)}{current.name}/")]:
        store.put(key.replace(current.name, twin.name), store.get(key)[0])
    assert plan.newest_alike(store, FP, current).name == twin.name
    assert verify(store).differences == []


def test_a_newer_plan_of_other_inputs_is_not_taken_for_ones_own(store: LocalStore) -> None:
    current, _, _ = scored(store)
    other = write_plan(store, photos(61), current)
    with pytest.raises(ClaimError, match=f"another run has written plan {other.name}"):
        plan.newest_alike(store, FP, current)
    local(store, f"{layout.plans_prefix(FP)}{other.name}/units.parquet").write_bytes(b"damaged")
    with pytest.raises(ClaimError, match=f"another run has written plan {other.name}"):
        plan.newest_alike(store, FP, current)
    assert plan.newest_alike(store, FP, other) is other


def test_open_shows_whole_units_of_the_newest_plan_while_no_snapshot_counts(
    store: LocalStore,
) -> None:
    _, done, written = scored(store)
    store.delete([f"{layout.snapshots_prefix(FP)}{written.name}.parquet"])
    shown = results.open_results(store)
    assert shown.snapshot is None
    assert shown.images(["image_id"]).num_rows == 60
    store.delete([done[0].files[0].path])
    assert results.open_results(store).images().num_rows == 60 - done[0].inputs_count


def test_open_goes_back_to_the_snapshot_before_when_the_newest_does_not_count(
    store: LocalStore,
) -> None:
    current, done, first = scored(store)
    unit = next(iter(plan.work_units(store, FP, current, current.units)))
    newer = commit(store, unit, generation=2)
    write_snapshot(store, 2, current.name, [newer, *done[1:]])
    assert results.open_results(store).snapshot != first.name
    store.delete([newer.files[0].path])
    assert results.open_results(store).snapshot == first.name


def test_cleaning_up_leaves_what_the_snapshot_names_and_nothing_else(store: LocalStore) -> None:
    current, done, _ = scored(store)
    units = list(plan.work_units(store, FP, current, current.units))
    retried = commit(store, units[0], generation=2)
    commit(store, units[1])
    write_fold(store, 1, done)
    assert cleanup.clean_up(*write_snapshot(store, 2, current.name, [retried, *done[1:]])) == 7
    assert verify(store).differences == []
    assert len(list(local(store, f"images/scoring={FP}").glob("*.parquet"))) == len(done)


@pytest.mark.parametrize("fresh", [True, False])
def test_cleaning_up_stops_when_another_run_has_written_a_newer_snapshot(
    store: LocalStore, fresh: bool
) -> None:
    current, done, _ = scored(store)
    ledger = Ledger.load(store, FP)
    first = snapshot.newest_that_counts(ledger)
    assert first is not None
    unit = next(iter(plan.work_units(store, FP, current, current.units)))
    newer = commit(store, unit, generation=2)
    write_snapshot(store, 2, current.name, [newer, *done[1:]])
    with pytest.raises(ClaimError, match="another run has written snapshot 2"):
        cleanup.clean_up(ledger, first, fresh=fresh)
    assert verify(store).rows == 60


def test_a_run_whose_files_are_not_listed_does_not_blame_another_runs_snapshot(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, done, own = scored(store)
    ledger = Ledger.load(store, FP)
    keys = store.keys

    def late(prefix: str = "") -> Iterator[str]:
        return (key for key in keys(prefix) if key != done[0].files[0].path)

    monkeypatch.setattr(cleanup, "_LOOK_AGAIN_S", (0.0, 0.0))
    monkeypatch.setattr(store, "keys", late)
    named = snapshot.Snapshot(own.name, own.plan, Stubs(ledger.table, ledger))
    with pytest.raises(ClaimError, match=f"does not show this run's snapshot {own.name}") as said:
        cleanup.clean_up(ledger, named)
    assert "has written" not in str(said.value)
    monkeypatch.undo()
    assert cleanup.clean_up(ledger, named) == 0
    assert verify(store).differences == []


def test_statuses_are_found_in_the_receipts(store: LocalStore) -> None:
    current = write_plan(store, photos(20))
    unit = next(iter(plan.work_units(store, FP, current, current.units)))
    assert commit(store, unit, status=Status.CORRUPT).statuses == {"corrupt": len(unit.images)}
    (stub,) = Ledger.load(store, FP)
    assert stub.complete and stub.statuses == (("corrupt", len(unit.images)),)


def test_a_claim_that_beats_is_respected_and_its_holder_named(store: LocalStore) -> None:
    held = Claim(store, "run-a", beat_s=0.05)
    held.take()
    held.start(lambda: None)
    foreign = json.loads(local(store, layout.CLAIM).read_text())
    assert foreign["run_id"] == "run-a"
    try:
        with pytest.raises(ClaimError, match="run-a"):
            Claim(store, "run-b").take(watch_s=20)
    finally:
        held.release()
    assert not local(store, layout.CLAIM).exists()


def test_a_claim_that_does_not_beat_is_taken_over(store: LocalStore) -> None:
    stale = {
        "run_id": "dead",
        "host": "elsewhere",
        "pid": 1,
        "machine": "another",
        "started": "1",
        "beat": 3,
    }
    store.put(layout.CLAIM, json.dumps(stale).encode())
    heard: list[str] = []
    claim = Claim(store, "run-b")
    claim.take(watch_s=0.2, on_wait=heard.append)
    assert "elsewhere" in heard[0]
    claim.release()


def test_a_dead_process_of_this_machine_is_not_waited_for(store: LocalStore) -> None:
    Claim(store, "run-a").take()
    record = json.loads(local(store, layout.CLAIM).read_text()) | {"pid": 2**22 + 1}
    store.put(layout.CLAIM, json.dumps(record).encode())
    heard: list[str] = []
    Claim(store, "run-b").take(on_wait=heard.append)
    assert heard == []


def test_a_folder_that_is_no_destination_is_said_to_be_none(store: LocalStore) -> None:
    with pytest.raises(UsageError, match="not a destination"):
        verify(store)


def test_a_run_whose_claim_was_taken_over_hears_of_it(store: LocalStore) -> None:
    ours = Claim(store, "run-a", beat_s=0.02)
    ours.take()
    store.put(
        layout.CLAIM,
        json.dumps({"run_id": "run-b", "host": "elsewhere", "pid": 1, "at": "now"}).encode(),
    )
    beaten = threading.Event()
    ours.start(beaten.set)
    assert ours._thread is not None
    ours._thread.join(timeout=20)
    assert ours.lost is not None
    assert "run-b" in ours.lost
    assert not beaten.is_set()
    ours.release()
    assert json.loads(local(store, layout.CLAIM).read_text())["run_id"] == "run-b"


def test_a_snapshot_that_is_too_large_for_memory_is_written_from_a_file(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_IN_MEMORY", 1)
    _, done, written = scored(store)
    assert len(done) > 1
    found = snapshot.newest_that_counts(Ledger.load(store, FP))
    assert found is not None
    assert (found.name, found.rows) == (written.name, 60)
    assert verify(store).differences == []


def test_a_large_snapshot_needs_no_room_for_temporary_files(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(snapshot, "_IN_MEMORY", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
    with pytest.raises(OSError, match="not there"):
        tempfile.TemporaryFile()  # noqa: SIM115 - cannot be opened
    _, _, written = scored(store)
    found = snapshot.newest_that_counts(Ledger.load(store, FP))
    assert found is not None
    assert (found.name, found.rows) == (written.name, 60)
    assert verify(store).differences == []
