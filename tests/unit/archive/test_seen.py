"""Test that names are recognised again, and take little memory."""

from __future__ import annotations

import tracemalloc

from skinbatch.archive.seen import SeenNames


def test_each_name_is_new_once() -> None:
    seen = SeenNames()
    names = [f"s3://photos/{n:07d}.jpg" for n in range(50_000)]
    assert all(seen.add(name) for name in names)
    assert not any(seen.add(name) for name in names)
    assert seen.add("s3://photos/caf\udce9.jpg")
    assert not seen.add("s3://photos/caf\udce9.jpg")


def test_names_take_few_bytes() -> None:
    """Leave out the first names, for which the buckets are made."""
    tracemalloc.start()
    seen = SeenNames()
    for n in range(200_000):
        seen.add(str(n))
    few, _ = tracemalloc.get_traced_memory()
    for n in range(200_000, 1_000_000):
        seen.add(str(n))
    many, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (many - few) / 800_000 < 16
