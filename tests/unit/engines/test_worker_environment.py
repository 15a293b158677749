"""Test the environment that a worker's process is started with."""

from __future__ import annotations

import pytest

from skinbatch.engines.worker import environment


def test_one_heap_and_the_threads_of_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    found = environment(3)
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["MALLOC_ARENA_MAX"] == "1"


def test_what_the_caller_set_for_the_allocator_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    assert environment(1)["MALLOC_ARENA_MAX"] == "8"
