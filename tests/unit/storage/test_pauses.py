"""Test the pauses before S3 is asked again: longer with each failure, up to a limit, and random."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from skinbatch.config import StorageSettings
from skinbatch.errors import StoreError
from skinbatch.storage.s3 import S3Store

ATTEMPTS = 12
LONGEST_S = 20.0


class Broken:
    """Simulate a client whose listings do not end and whose bodies break off."""

    def list_objects_v2(self, **_: Any) -> dict[str, Any]:
        return {}

    def get_object(self, **_: Any) -> dict[str, Any]:
        def read(count: int) -> bytes:
            raise ConnectionResetError

        return {
            "Body": SimpleNamespace(read=read, close=lambda: None),
            "ContentLength": 5,
            "ETag": '"1"',
        }


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], list[float]]:
    """Return the seconds slept between attempts to `list` or to `get`, when chance is always `luck`."""

    def found(what: str, luck: float) -> list[float]:
        slept: list[float] = []
        monkeypatch.setattr(S3Store, "_client", Broken())
        monkeypatch.setattr(time, "sleep", slept.append)
        monkeypatch.setattr(random, "random", lambda: luck)
        store = S3Store("bucket", "", StorageSettings(max_attempts=ATTEMPTS))
        with pytest.raises(StoreError):
            list(store.list()) if what == "list" else store.get("key")
        return slept

    return found


@pytest.mark.parametrize("what", ["list", "get"])
def test_pauses_grow_with_every_failure_up_to_the_longest(
    what: str, pauses: Callable[[str, float], list[float]]
) -> None:
    slept = pauses(what, 1.0)
    assert len(slept) == ATTEMPTS - 1  # none after the last one
    assert 0 < slept[0] <= 1
    growing = [pause for pause in slept if pause < LONGEST_S]
    assert all(after == pytest.approx(2 * before) for before, after in pairwise(growing))
    assert slept == growing + [LONGEST_S] * (ATTEMPTS - 1 - len(growing))
    assert 4 <= len(growing) < ATTEMPTS - 1


@pytest.mark.parametrize("what", ["list", "get"])
def test_workers_that_failed_together_do_not_ask_again_together(
    what: str, pauses: Callable[[str, float], list[float]]
) -> None:
    longest = pauses(what, 1.0)
    assert pauses(what, 0.25) == pytest.approx([pause / 4 for pause in longest])
    assert sum(longest) < ATTEMPTS * LONGEST_S
