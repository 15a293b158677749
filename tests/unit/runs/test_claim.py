"""Test that one wrong answer about the claim does not count as another driver."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from skinbatch.errors import ClaimError, NotFoundError
from skinbatch.runs import layout
from skinbatch.runs.claim import Claim
from skinbatch.storage.local import LocalStore
from skinbatch.storage.store import ObjectInfo

BEAT_S = 0.02


class Stumbling(LocalStore):
    """Give a wrong answer about the claim every other time."""

    def __init__(self, root: Path, wrong: Callable[[bytes], bytes]) -> None:
        super().__init__(root)
        self.wrong, self.reads = wrong, 0

    def get(self, key: str, **how: object) -> tuple[bytes, ObjectInfo]:
        data, info = super().get(key, **how)  # type: ignore[arg-type]
        self.reads += 1
        return (self.wrong(data) if self.reads % 2 else data), info


def not_there(data: bytes) -> bytes:
    raise NotFoundError("claim.json: is not there")


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "no JSON": lambda data: b"\x00" + data[1:],
    "another run": lambda data: data.replace(b"run-1", b"run-7"),
    "not there": not_there,
}


def until(said: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < end
        time.sleep(BEAT_S / 2)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_answer_does_not_end_a_run(tmp_path: Path, wrong: str) -> None:
    store = Stumbling(tmp_path, WRONG[wrong])
    claim, beats = Claim(store, "run-1", BEAT_S), []
    claim.take(watch_s=0.1)
    claim.start(lambda: beats.append(1))
    until(lambda: len(beats) >= 5 or claim.lost)
    assert claim.lost is None
    claim.release()
    assert not (tmp_path / layout.CLAIM).exists()


@pytest.mark.parametrize("wrong", ["no JSON", "another run"])
def test_a_wrong_answer_gives_a_living_claim_to_nobody(tmp_path: Path, wrong: str) -> None:
    first = Claim(LocalStore(tmp_path), "run-1", BEAT_S)
    first.take()
    first.start(lambda: None)
    with pytest.raises(ClaimError, match="held by another run"):
        Claim(Stumbling(tmp_path, WRONG[wrong]), "run-2").take(watch_s=5.0)
    assert json.loads((tmp_path / layout.CLAIM).read_bytes())["run_id"] == "run-1"
    first.release()


def test_a_claim_that_is_gone_or_anothers_is_lost(tmp_path: Path) -> None:
    for said in (None, b'{"run_id": "run-9", "host": "h"}', b"damaged"):
        claim = Claim(LocalStore(tmp_path), "run-1", BEAT_S)
        claim.take(watch_s=0.05)
        if said is None:
            (tmp_path / layout.CLAIM).unlink()
        else:
            (tmp_path / layout.CLAIM).write_bytes(said)
        claim.start(lambda: None)
        until(lambda: claim.lost)  # noqa: B023
        claim.release()
        assert "run-9" in str(claim.lost) or said != b'{"run_id": "run-9", "host": "h"}'
