"""Run processes that make batches ahead, and decide when they end.

SIGINT and SIGTERM often go to all processes of a terminal, service or job at once. A trainer that
loses such a process cannot end its step and keep it.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import TypeVar

import cv2
from torch.utils.data import DataLoader

T = TypeVar("T")
ENDING = (signal.SIGINT, signal.SIGTERM)
_GRACE_S = 2.0
_started: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


def batches_of(loader: DataLoader[T]) -> Iterator[T]:
    """Yield the loader's batches, with its processes started.

    The processes start with both signals blocked, so that none ends them before `quiet` has run.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        batches = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _started.update(getattr(batches, "_workers", ()))
    return batches


# This runs after torch's own handlers, which ask, and before multiprocessing's, which would wait
# for ever.
@atexit.register
def _end_what_is_stuck() -> None:
    """Kill a process that is stuck in code that no Python thread can interrupt."""
    left = [process for process in _started if process.is_alive()]
    for process in left:
        process.terminate()
    for process in left:
        process.join(_GRACE_S)
        if process.is_alive():
            process.kill()
            process.join()


def quiet(worker: int) -> None:
    """Set up a loader's process: one core, no SIGINT, and SIGTERM only from the trainer.

    With SIGTERM, torch and Python end a process that does not end by itself. Without a trainer it
    ends as torch's processes do, within seconds.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    # macOS does not tell who sent a signal, so every signal counts.
    if not hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return
    # This comes before any thread is started: a signal that is blocked in all threads stays
    # pending.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_heed, args=(os.getppid(),), daemon=True).start()


def _heed(trainer: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)
