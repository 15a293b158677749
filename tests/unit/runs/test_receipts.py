"""Test when a unit is done, and what resuming has to read."""

from dataclasses import replace

import pytest

from skinbatch.runs import layout, plan, receipts, snapshot
from skinbatch.runs.ledger import Ledger
from skinbatch.storage.local import LocalStore
from skinbatch.types import WorkUnit
from tests.unit.runs.support import (
    FP,
    commit,
    full,
    photos,
    proof,
    write_fold,
    write_plan,
    write_snapshot,
)


def units_of(store: LocalStore, current: plan.Plan) -> list[WorkUnit]:
    return list(plan.work_units(store, FP, current, current.units))


def test_a_receipt_proves_its_unit_while_its_files_are_there(store: LocalStore) -> None:
    unit = units_of(store, write_plan(store, photos(40)))[0]
    receipt = commit(store, unit)
    assert proof(store, unit.unit_id, unit.inputs_sha256) == [receipt]
    store.delete([receipt.files[0].path])
    assert proof(store, unit.unit_id, unit.inputs_sha256) is None


def test_a_receipt_of_other_inputs_proves_nothing(store: LocalStore) -> None:
    unit = units_of(store, write_plan(store, photos(40)))[0]
    commit(store, unit)
    changed = replace(unit, images=tuple(replace(r, version="2") for r in unit.images))
    assert proof(store, changed.unit_id, changed.inputs_sha256) is None


def test_the_highest_generation_wins_then_the_smallest_attempt(store: LocalStore) -> None:
    unit = units_of(store, write_plan(store, photos(40)))[0]
    commit(store, unit)
    seconds = [commit(store, unit, generation=2) for _ in range(3)]
    ledger = Ledger.load(store, FP)
    best = ledger.best(unit.unit_id, unit.inputs_sha256)
    assert best is not None
    assert ledger.receipt(best) == min(seconds, key=lambda r: r.attempt)


def test_both_halves_prove_a_unit_and_one_does_not(store: LocalStore) -> None:
    unit = units_of(store, write_plan(store, photos(40)))[0]
    first, second = unit.halves()
    assert sorted(r.image_id for r in first.images + second.images) == sorted(
        r.image_id for r in unit.images
    )
    one = commit(store, first, whole=unit.inputs_sha256)
    assert proof(store, unit.unit_id, unit.inputs_sha256) is None
    quarters = [commit(store, q, whole=unit.inputs_sha256) for q in second.halves()]
    assert proof(store, unit.unit_id, unit.inputs_sha256) == [one, *quarters]


def test_halves_of_other_inputs_prove_nothing(store: LocalStore) -> None:
    unit = units_of(store, write_plan(store, photos(40)))[0]
    for half in unit.halves():
        commit(store, half, whole="f" * 64)
    assert proof(store, unit.unit_id, unit.inputs_sha256) is None


class CountingStore(LocalStore):
    """Count the receipts that are read one by one."""

    read = 0

    def get(self, key, **how):  # type: ignore[no-untyped-def]
        self.read += key.startswith(layout.receipts_prefix(FP))
        return super().get(key, **how)


@pytest.mark.parametrize("copy", ["fold", "snapshot"])
def test_resuming_reads_folds_and_snapshots_instead_of_one_object_a_unit(
    store: LocalStore, copy: str
) -> None:
    current = write_plan(store, photos(100))
    committed = [commit(store, unit) for unit in units_of(store, current)]
    if copy == "fold":
        write_fold(store, 1, committed[:-1])
    else:
        write_snapshot(store, 1, current.name, committed[:-1])
    counting = CountingStore(store.uri)
    ledger = Ledger.load(counting, FP)
    assert counting.read == 1
    assert {stub.attempt for stub in ledger if stub.complete} == {r.attempt for r in committed}


def test_a_fold_decides_nothing(store: LocalStore) -> None:
    unit = units_of(store, write_plan(store, photos(40)))[0]
    receipt = commit(store, unit)
    write_fold(store, 1, [receipt])
    store.delete([receipts.key_of(FP, receipt)])
    assert proof(store, unit.unit_id, unit.inputs_sha256) is None


def test_a_damaged_receipt_is_named_and_proves_nothing(store: LocalStore) -> None:
    unit = units_of(store, write_plan(store, photos(40)))[0]
    key = layout.receipt_key(FP, unit.unit_id, 1, "abc")
    store.put(key, b'{"unit_id": ')
    ledger = Ledger.load(store, FP)
    assert ledger.unreadable == {key}
    assert ledger.proof(unit.unit_id, unit.inputs_sha256) is None


def test_failed_attempts_are_found_by_unit_and_inputs_and_the_newest_tells_why(
    store: LocalStore,
) -> None:
    unit = units_of(store, write_plan(store, photos(40)))[0]
    for n, reason in enumerate(("killed", "no photo made progress", "killed")):
        record = {
            "reason": reason,
            "timed_out": "progress" in reason,
            "at": f"2026-01-0{(n + 1) % 3 + 1}",
        }
        receipts.write_death(store, FP, unit.unit_id, unit.inputs_sha256, record)
    found = receipts.deaths(store, FP)
    assert {name: len(keys) for name, keys in found.items()} == {
        (unit.unit_id, unit.inputs_sha256[:12]): 3
    }
    (keys,) = found.values()
    assert receipts.last_death(store, keys)["timed_out"] is True
    store.put(keys[0], b"{")
    assert len([key for key in keys if receipts.last_death(store, [key])]) == 2


def test_halves_of_a_retry_count_before_the_whole_unit_of_an_older_generation(
    store: LocalStore,
) -> None:
    unit = units_of(store, write_plan(store, photos(40)))[0]
    whole = commit(store, unit)
    first, second = unit.halves()
    halves = [commit(store, first, whole=unit.inputs_sha256, generation=2)]
    assert proof(store, unit.unit_id, unit.inputs_sha256) == [whole]
    halves.append(commit(store, second, whole=unit.inputs_sha256, generation=2))
    assert proof(store, unit.unit_id, unit.inputs_sha256) == halves


@pytest.mark.parametrize(
    "prefix", [layout.snapshots_prefix(FP), layout.folds_prefix(FP), layout.plans_prefix(FP)]
)
def test_stray_files_among_numbered_ones_are_left_alone(store: LocalStore, prefix: str) -> None:
    unit = units_of(store, write_plan(store, photos(40)))[0]
    receipt = commit(store, unit)
    for name in ("._1.0123456789ab.parquet", "x.parquet", "1.ab.parquet", "copy/units.parquet"):
        store.put(prefix + name, b"?")
    ledger = Ledger.load(store, FP)
    assert full(ledger, ledger.proof(unit.unit_id, unit.inputs_sha256)) == [receipt]
    assert snapshot.newest_that_counts(ledger) is None
    assert len(plan.names(store, FP)) == 1


def test_receipts_that_were_read_one_by_one_can_be_folded(store: LocalStore) -> None:
    current = write_plan(store, photos(100))
    committed = [commit(store, unit) for unit in units_of(store, current)]
    write_fold(store, 1, committed[:2])
    assert {r.attempt for r in Ledger.load(store, FP).read_singly} == {
        r.attempt for r in committed[2:]
    }
