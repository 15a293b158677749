"""Test that a listing of many photos, which are kept in a file, becomes the same plan."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any

import pytest

from skinbatch.runs import layout, listed, row_buffer
from skinbatch.runs.listed import Listing, amend, collect
from skinbatch.runs.plan import PlanWriter
from skinbatch.storage.local import LocalStore
from tests.unit.runs.support import FP, photos

LISTED = [*photos(900), *(replace(photo, size=7) for photo in photos(300)), *photos(1200)[900:]]


def files_of_plan(store: LocalStore, listing: Listing) -> list[bytes]:
    """Plan a listing and return the files of the plan in the order of their names."""
    PlanWriter(store, FP, lambda shard: 0).write(listing, None, 4)
    return [store.get(key)[0] for key in sorted(store.keys(layout.plans_prefix(FP)))]


@pytest.fixture
def in_memory(store: LocalStore) -> list[bytes]:
    files = files_of_plan(store, collect(LISTED))
    store.delete(list(store.keys("")))
    return files


@pytest.fixture
def few_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_buffer, "IN_MEMORY", 100)
    monkeypatch.setattr(listed, "_CHUNK", 70)


def test_many_photos_make_the_same_plan_from_a_file(
    store: LocalStore, in_memory: list[bytes], few_in_memory: None
) -> None:
    listing = collect(LISTED)
    assert listing.photos.num_rows == len(LISTED)
    assert listing.photos.column("image_id").to_pylist() != [photo.image_id for photo in LISTED]
    assert files_of_plan(store, listing) == in_memory
    assert collect(LISTED).photos.equals(listing.photos), "the pages are read again"


def test_many_photos_make_the_same_plan_if_there_is_no_disk(
    store: LocalStore,
    in_memory: list[bytes],
    few_in_memory: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert files_of_plan(store, collect(LISTED)) == in_memory


@pytest.mark.parametrize("place", [0, 1, -1])
def test_photos_that_are_out_of_order_make_the_same_plan(
    place: int, store: LocalStore, in_memory: list[bytes], few_in_memory: None
) -> None:
    """After a change, the photo comes last in the listing."""
    wrong = replace(LISTED[place], version="before")
    others = [photo for photo in LISTED if photo.image_id != wrong.image_id]
    listing = amend(collect([wrong, *others]), {wrong.image_id: LISTED[place]}, ())
    assert files_of_plan(store, listing) == in_memory
