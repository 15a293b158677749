"""Test that a simulated run is a real one: every unit is committed once, whatever is preempted."""

import re
import sys
from pathlib import Path

import pytest

from jobs import simulate
from jobs.simulate_store import OneFileStore
from jobs.simulate_workers import Fleet, write_unit
from skinbatch.errors import NotFoundError
from skinbatch.runs import layout, plan, receipts
from skinbatch.runs.pages import Pages
from skinbatch.scoring.assignment import Assignment
from skinbatch.types import WorkUnit

FLEET = Fleet(
    workers=20, photo_s=[0.08, 0.12], photos=500, preempt=0.9, start_s=60.0, replace_s=180.0
)


def test_every_unit_is_committed_once_although_workers_are_lost(tmp_path: Path) -> None:
    found = simulate.simulate(FLEET, 600, tmp_path)
    assert found.done == 600
    assert found.lost > found.unheard > 0
    assert found.lost_with_unit > 0
    # 600 units of 50 s on 20 workers, of which two in three are there.
    assert 1000 < found.seconds < 4000
    assert 0 < found.idle < 0.3
    assert 0 < found.tail_s < 300


def test_a_unit_that_is_there_twice_is_noticed(tmp_path: Path) -> None:
    found = simulate.simulate(FLEET, 20, tmp_path)
    assert found.done == 20
    store = simulate.prepare_simulated(tmp_path).store
    (fingerprint,) = (
        key.removeprefix(layout.SCORINGS).removesuffix(".json")
        for key in store.keys(layout.SCORINGS)
    )
    kept = [*store.keys(layout.receipts_prefix(fingerprint))]
    receipt = receipts.from_json(store.get(kept[7])[0])
    again = layout.receipt_key(fingerprint, receipt.unit_id, 1, layout.fresh())
    store.put(again, b"{}")
    with pytest.raises(SystemExit, match=r"unit [78]: planned"):
        simulate.count_done_once(store, fingerprint)


def test_the_command_prints_a_table_and_writes_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["simulate.py", "--workers", "4", "--units", "30", "--json", str(tmp_path / "found")]
    monkeypatch.setattr(sys, "argv", argv)
    simulate.main()
    printed = capsys.readouterr().out
    assert "| units committed, each once | 30 | all |" in printed
    assert (tmp_path / "found").is_file()


def test_the_plan_of_a_listing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulate.py", "--plan", "1200", "--work", str(tmp_path)])
    simulate.main()
    printed = capsys.readouterr().out
    assert "| photos and units of the plan | 1,200, 32 |  |" in printed
    assert re.search(r"\| peak memory of the driver \| [1-9][\d,]* MiB \| 954 MiB \|", printed)


def test_times_are_drawn_from_the_units_of_a_measured_run(tmp_path: Path) -> None:
    ready = simulate.prepare_simulated(tmp_path, in_folder=True)
    simulate.write_plan(tmp_path, 3, in_folder=True)
    with pytest.raises(SystemExit, match="no unit there has been timed"):
        simulate.measured_times(ready.store.uri)

    (name,) = plan.names(ready.store, ready.scoring.fingerprint)
    planned = plan.read(ready.store, ready.scoring.fingerprint, name)
    for number, (unit_id, sha256) in enumerate(planned.units.inputs(), 1):
        given = Assignment(WorkUnit(unit_id), sha256)
        write_unit(ready.store, ready.scoring.fingerprint, given, 100, 10.0 * number)
    assert sorted(simulate.measured_times(ready.store.uri)) == [0.1, 0.2, 0.3]


def test_objects_are_listed_in_order_over_many_pages(tmp_path: Path) -> None:
    store = OneFileStore(tmp_path / "objects")
    keys = [f"a/{number:05d}" for number in range(2500)]
    for key in reversed(keys):
        store.put(key, key.encode())
    store.put("b/1", b"")
    assert [*store.keys("a/")] == keys
    assert store.get("a/00007")[0] == b"a/00007"
    large = tmp_path / "large"
    large.write_bytes(b"x" * 1000)
    assert store.put_file("a/00007", large).size == 1000
    assert store.get("a/00007")[0] == b"x" * 1000
    store.delete(keys[:1])
    with pytest.raises(NotFoundError):
        store.head(keys[0])


def test_texts_are_read_back_from_a_file_too() -> None:
    pages = Pages(in_memory=0)
    numbers = [pages.add(f"text {number}".encode()) for number in range(2000)]
    assert [pages[number] for number in numbers[::-1]] == [
        f"text {number}".encode() for number in numbers[::-1]
    ]
