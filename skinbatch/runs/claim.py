"""Record who is using the destination.

The claim is advisory: it spares two drivers doubled work. Correctness never depends on it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skinbatch.errors import ClaimError, SkinbatchError, UsageError
from skinbatch.runs import layout
from skinbatch.runs.destination import now, read_json
from skinbatch.storage.store import Store

BEAT_S = 10.0
WATCH_S = 30.0
_READS = 3


class Claim:
    """Hold the claim on a destination while a driver works.

    `on_beat` is called on the heartbeat's thread every ten seconds; the driver uses it to rewrite
    the run's record.
    """

    def __init__(self, store: Store, run_id: str, beat_s: float = BEAT_S) -> None:
        self.store = store
        self.run_id = run_id
        self.beat_s = beat_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._beats = 0
        self.taken = False
        # What holds it, in the words of messages to others.
        self.command = "run"
        # The run that took the claim over because this one was silent for too long.
        self.lost: str | None = None

    def take(
        self,
        watch_s: float = WATCH_S,
        on_wait: Callable[[str], None] = lambda holder: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the claim, or raise ClaimError if another run's claim changes within `watch_s`.

        Args:
            watch_s: seconds to watch another run's claim.
            on_wait: called with a description of the holder when the watch begins.
            check: called every second; an exception from it ends the watch.
        """
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
        """Start the heartbeat."""

        def beat() -> None:
            while not self._stop.wait(self.beat_s):
                try:
                    held = self._seen(self._is_mine)
                    if not self._is_mine(held):
                        self.lost = (
                            describe(held) if held is not None else "a run that has ended since"
                        )
                        return
                    self._write()
                    on_beat()
                except SkinbatchError:
                    continue  # the units report a store that cannot be written; the next beat tries again

        self._thread = threading.Thread(target=beat, name="claim", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Stop the heartbeat and remove the claim if it is still this run's."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._is_mine(self._seen(self._is_mine)):
            self.store.delete([layout.CLAIM])

    def _is_mine(self, record: dict[str, Any] | None) -> bool:
        return record is not None and record.get("run_id") == self.run_id

    def _seen(self, expected: Callable[[dict[str, Any] | None], bool]) -> dict[str, Any] | None:
        """Read the claim, and read it again if it is not as expected.

        Some stores do not notice a byte that was damaged on the way.
        """
        for _ in range(_READS):
            record = _read(self.store)
            if expected(record):
                break
        return record

    def _write(self) -> None:
        self._beats += 1
        record = {"run_id": self.run_id, "at": now(), "beat": self._beats, "command": self.command}
        record |= _identity()
        self.store.put(layout.CLAIM, json.dumps(record).encode())


def describe(record: dict[str, Any]) -> str:
    """Return `run R on HOST, process P, last seen T`."""
    return (
        f"{record.get('command', 'run')} {record.get('run_id')} on {record.get('host')}, "
        f"process {record.get('pid')}, last seen {record.get('at')}"
    )


@contextmanager
def claimed(
    store: Store, run_id: str, command: str, on_wait: Callable[[str], None] = lambda holder: None
) -> Iterator[Claim]:
    """Hold the claim while a command works that is not a run.

    Args:
        store: The destination.
        run_id: Names the holder.
        command: Tells others what holds it.
        on_wait: As in `Claim.take`.

    Raises:
        ClaimError: Another holder is at work (exit code 7).
    """
    claim = Claim(store, run_id)
    claim.command = command
    claim.take(on_wait=on_wait)
    claim.start(lambda: None)
    try:
        yield claim
    finally:
        claim.release()


def _read(store: Store) -> dict[str, Any] | None:
    for _ in range(_READS):
        try:
            return read_json(store, layout.CLAIM)
        except UsageError:
            continue
    return None  # a damaged claim is nobody's


def _identity() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "machine": _machine(),
        "started": _started(os.getpid()),
    }


def _machine() -> str:
    """Return boot and process namespace: the scope in which a process number identifies a process."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return the start of a process in clock ticks since boot, as text; "" if it does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_dead_neighbour(held: dict[str, Any]) -> bool:
    """Return whether the holder was a process of this very machine that has ended.

    There is nothing to watch then.
    """
    if not held.get("machine") or held["machine"] != _machine():
        return False
    return _started(int(held.get("pid", -1))) != held.get("started")
