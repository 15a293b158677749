"""Test the columns in which a ledger keeps receipts, and that a plan and its ledger stay small."""

import gc
import hashlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.simulate_store import OneFileStore
from jobs.simulate_workers import write_unit
from skinbatch.runs import layout, ledger
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.pages import Pages
from skinbatch.runs.stub import Stubs, StubTable
from skinbatch.runs.units import PlannedUnit, Units
from skinbatch.scoring.assignment import Assignment
from skinbatch.types import ShardRef, WorkUnit
from skinbatch.unit_id import UnitId
from tests.unit.runs.support import FP

# A driver takes about 250 MB before the first unit, and 2 million units must fit into 1 GB.
MOST_BYTES_A_UNIT = 256
# A multiple of the texts in a page, so that no page is open at the end.
UNITS = 2048


def planned(parts: bool) -> Iterator[PlannedUnit]:
    """Yield units of tars, or of zips of which each has many parts."""
    for number in range(UNITS):
        key = f"{number // 1000:05d}/{number // (100 if parts else 1):08d}.tar"
        shard = ShardRef(key, f"s3://photos/{key}", "tar", 10**9 + number, _hash(key)[:32])
        unit_id = UnitId.of_shard(int(_hash(key)[:16], 16))
        sha256 = _hash(f"inputs {number}")
        yield PlannedUnit(unit_id.part(number % 100) if parts else unit_id, sha256, None, "", shard)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("parts", [False, True])
def test_a_planned_and_finished_unit_takes_a_quarter_of_a_kilobyte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: bool
) -> None:
    # The first 32 MB of the receipts' texts stay in memory, however many units there are.
    monkeypatch.setattr(ledger, "Pages", lambda: Pages(in_memory=0))
    store = OneFileStore(tmp_path / "store")
    receipts = [
        write_unit(store, FP, Assignment(WorkUnit(unit_id), sha256), 500, 50.0)
        for unit_id, sha256 in Units.of(planned(parts)).inputs()
    ]

    def held() -> tuple[Units, Ledger, Stubs]:
        units, own = Units.of(planned(parts)), Ledger(store, FP)
        for receipt in receipts:
            own.add(receipt)
        done = own.done(units)
        assert len(units) == len(done) == UNITS and all(stub in done for stub in own)
        return units, own, done

    held()  # what is imported and remembered once does not count
    tracemalloc.start()
    kept = held()
    gc.collect()  # JSON leaves cycles behind
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept and taken / UNITS < MOST_BYTES_A_UNIT


def test_receipts_of_a_unit_are_found_in_order_however_many_units_there_are() -> None:
    table = StubTable()
    names = [(f"s{n % 1500:016x}", 1 + n // 1500, layout.fresh()) for n in range(4000)]
    for name in names:
        table.add(*name)
    for unit_id in {name[0] for name in names}:
        stubs = table.of_unit(unit_id)
        found = [(stub.unit_id, stub.generation, stub.attempt) for stub in stubs]
        assert found == [name for name in names if name[0] == unit_id]
    assert table.of_unit("s") == table.of_unit("") == []


@pytest.mark.parametrize("unit_id", ["g0110.1.0", "ü", "\udcff", ""])
def test_any_name_that_an_object_may_have_is_kept_as_it_is(unit_id: str) -> None:
    table = StubTable()
    table.add("g01", 7, "x/y")
    table.add(unit_id, 10**30, "a.b/c")
    (stub,) = table.of_unit(unit_id)
    assert (stub.unit_id, stub.generation, stub.attempt) == (unit_id, 10**30, "a.b/c")
    # A part of another receipt's name is not the name of a unit.
    assert table.of_unit("g01/7.x") == []


def test_stubs_hold_what_they_were_made_of() -> None:
    table = StubTable()
    every = [table.add(f"g{n:b}", 1, "a") for n in range(8)]
    some = Stubs(table, every[5:2:-1])
    assert list(some) == [every[5], every[4], every[3]] and some[0] == every[5]
    assert [stub in some for stub in every] == [3 <= n <= 5 for n in range(8)]
    assert some == Stubs(table, some) and some != Stubs(table, reversed(some))
    assert table.add("g", 1, "later") not in some


def test_a_stub_shows_what_was_filled_in() -> None:
    stub = StubTable().add("s1", 1, "a")
    assert (stub.whole, stub.shard_size, stub.rows, stub.read) == (None, None, 0, False)
    with pytest.raises(ValueError, match="not a SHA-256"):
        stub.fill(b"short", 1, (), None)
    stub.fill(bytes(range(32)), 9, (("ok", 3), ("corrupt", 1)), 10**12)
    stub.keep_text(5)
    assert (stub.whole, stub.needed, stub.text) == (bytes(range(32)), 9, 5)
    assert (stub.shard_size, stub.rows, stub.failed) == (10**12, 4, 1)
