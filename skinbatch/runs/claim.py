"""Who holds the destination. Advisory: it spares two drivers double work; correctness never depends on it."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skinbatch.errors import ClaimError, SkinbatchError, UsageError
from skinbatch.runs import layout
from skinbatch.runs.destination import now, read_json
from skinbatch.storage.base import Store

BEAT_S = 10.0
WATCH_S = 30.0
_READS = 3


class Claim:
    """Held while a driver works; its heartbeat also rewrites the run's record.

    `on_beat` is called on the heartbeat's thread, every ten seconds.
    """

    def __init__(self, store: Store, run_id: str, beat_s: float = BEAT_S) -> None:
        self.store = store
        self.run_id = run_id
        self.beat_s = beat_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._beats = 0
        self.taken = False
        self.lost: str | None = None
        """Who has taken the claim over from this run, which was not heard from for too long."""

    def take(
        self,
        watch_s: float = WATCH_S,
        on_wait: Callable[[str], None] = lambda holder: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the claim, or raise ClaimError naming the holder if its claim is seen to change within `watch_s`.

        check: called every second; what it raises ends the watch."""
        held = _read(self.store)
        if held is not None and not _is_dead_neighbour(held):
            on_wait(describe(held))
            end = time.monotonic() + watch_s
            while time.monotonic() < end:
                check()
                time.sleep(min(1.0, watch_s / 10))
                seen = self._seen(lambda record: record == held)
                if seen is None:
                    break
                if seen != held:
                    raise ClaimError(
                        f"{self.store.uri} is held by another run, {describe(seen)}; wait for it to end, or stop it"
                    )
        self._write()
        self.taken = True

    def start(self, on_beat: Callable[[], None]) -> None:
        """Begin the heartbeat."""

        def beat() -> None:
            while not self._stop.wait(self.beat_s):
                try:
                    held = self._seen(self._is_mine)
                    if not self._is_mine(held):
                        self.lost = describe(held) if held is not None else "a run that has ended since"
                        return
                    self._write()
                    on_beat()
                except SkinbatchError:
                    continue  # a store that cannot be written now stops the units, which report it; the next beat tries again

        self._thread = threading.Thread(target=beat, name="claim", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """End the heartbeat and give the claim back, if it is still this run's."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._is_mine(self._seen(self._is_mine)):
            self.store.delete([layout.CLAIM])

    def _is_mine(self, record: dict[str, Any] | None) -> bool:
        return record is not None and record.get("run_id") == self.run_id

    def _seen(self, expected: Callable[[dict[str, Any] | None], bool]) -> dict[str, Any] | None:
        """The claim; what is not expected is read again, as some stores notice no byte that is wrong on the way."""
        for _ in range(_READS):
            found = _read(self.store)
            if expected(found):
                break
        return found

    def _write(self) -> None:
        self._beats += 1
        record = {"run_id": self.run_id, "at": now(), "beat": self._beats} | _identity()
        self.store.put(layout.CLAIM, json.dumps(record).encode())


def describe(record: dict[str, Any]) -> str:
    """`run R on HOST, process P, last seen T`."""
    return (
        f"run {record.get('run_id')} on {record.get('host')}, process {record.get('pid')}, last seen {record.get('at')}"
    )


def _read(store: Store) -> dict[str, Any] | None:
    for _ in range(_READS):
        try:
            return read_json(store, layout.CLAIM)
        except UsageError:
            continue
    return None  # damaged: not a claim that anybody holds


def _identity() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(), "started": _started(os.getpid())}


def _machine() -> str:
    """Boot and process namespace: where a process number means the same process."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in clock ticks since boot, as text; "" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_dead_neighbour(held: dict[str, Any]) -> bool:
    """The holder was a process of this very machine and is no more, so there is nothing to watch."""
    if not held.get("machine") or held["machine"] != _machine():
        return False
    return _started(int(held.get("pid", -1))) != held.get("started")
