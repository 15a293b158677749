"""Handle Ctrl-C: the step ends, the checkpoint is written, and training ends."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

_elsewhere = threading.Event()


def ask_to_stop(wish: bool = True) -> None:
    """Ask for the same as Ctrl-C, on a worker without a keyboard. False takes it back."""
    (_elsewhere.set if wish else _elsewhere.clear)()


class Interrupts:
    """Catch signals while the context lasts.

    The first SIGINT or SIGTERM only sets `asked`; the second SIGINT interrupts at once. In other
    threads than the main one, where Python has no signals, only `ask_to_stop` sets it.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, object] = {}

    @property
    def asked(self) -> bool:
        return self._asked or _elsewhere.is_set()

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self._asked:  # not by print, which may be at work just now
            os.write(
                2,
                b"\nskinbatch: stops after this step; Ctrl-C again: at once, with the last checkpoint\n",
            )
        self._asked = True
