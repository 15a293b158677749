"""Run the local engine's child process.

The driver starts it as `python -m skinbatch.engines.child FD` and talks to it over a socket pair.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PROGRESS_S = 0.5


def main(fd: int) -> None:
    """Receive a context, then assignments, and send messages.

    The messages are ("ready", device, host), ("progress", n) and ("done", outcome). The process
    ends when the driver's end of the socket closes, whatever it is doing at that moment.
    """
    _die_first()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the driver decides
    connection: Connection[Any, Any] = Connection(fd)
    lock = threading.Lock()
    parent = os.getppid()

    def send(*message: object) -> None:
        with lock:
            connection.send(message)

    context = connection.recv()
    try:
        from skinbatch.engines.worker import Worker

        worker = Worker(context)
    except Exception:
        send("broken", traceback.format_exc())
        return
    send("ready", *worker.describe())
    busy = threading.Event()

    def report() -> None:
        while os.getppid() == parent:
            if busy.wait(PROGRESS_S):
                send("progress", worker.progress())
                threading.Event().wait(PROGRESS_S)
        os._exit(1)

    threading.Thread(target=report, name="progress", daemon=True).start()
    while True:
        try:
            assignment = connection.recv()
        except EOFError:
            return
        busy.set()
        outcome = worker.score(assignment)
        busy.clear()
        send("done", outcome)


def _die_first() -> None:
    """Have Linux kill this process, and not the driver, when memory runs out.

    The driver then tries its unit again.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]))
    except (BrokenPipeError, ConnectionResetError):
        os._exit(1)
