"""Test that a destination is read whole, or one unit at a time if it does not fit in memory."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from skinbatch.errors import StoreError
from skinbatch.runs import plan
from skinbatch.runs.results import Results
from skinbatch.storage.local import LocalStore
from tests.unit.runs.support import FP, commit, photos, write_plan, write_snapshot


@pytest.fixture
def results(store: LocalStore) -> Results:
    """Return several units with a snapshot of them."""
    current = write_plan(store, photos(60))
    done = [commit(store, unit) for unit in plan.work_units(store, FP, current, current.units)]
    write_snapshot(store, 1, current.name, done)
    return Results(store, FP)


def test_units_are_the_tables_one_after_the_other(results: Results) -> None:
    found = list(results.units(["image_id", "unit_id"], ["label", "score"]))
    ids = [set(images.column("unit_id").to_pylist()) for images, _ in found]
    assert len(found) > 2 and all(len(of_one) == 1 for of_one in ids)
    assert [min(of_one) for of_one in ids] == sorted(min(of_one) for of_one in ids)
    together = pa.concat_tables(images for images, _ in found).sort_by("image_id")
    assert together.equals(results.images(["image_id", "unit_id"]).sort_by("image_id"))
    assert {tuple(boxes.column_names) for _, boxes in found} == {("label", "score")}


def test_files_that_a_run_takes_away_meanwhile_are_said(results: Results) -> None:
    for path in Path(results.store.uri).glob("boxes/**/*.parquet"):
        path.unlink()
    with pytest.raises(StoreError, match=r"a run has just ended in .*; start again"):
        list(results.units())
