"""Decide which code handles SIGINT and SIGTERM, and until when.

Only the main thread may set handlers. In other threads these functions do nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]
_BOTH = (signal.SIGINT, signal.SIGTERM)
_interrupted = threading.Event()
_decided = threading.Event()


class Interrupt(KeyboardInterrupt):
    """Interrupt the main thread.

    Once a KeyboardInterrupt has left an `exec`, Python ends with SIGINT instead of the exit code,
    even if the exception was caught. Subclasses do not have that effect.
    """


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal by raising Interrupt in the main thread.

    The signal is also remembered, because a callback of a library may swallow the exception. The
    first signal after `exit_is_decided` is ignored.
    """
    if _decided.is_set():
        _decided.clear()
        return
    _interrupted.set()
    raise Interrupt


def interrupted() -> bool:
    """Return whether `interrupt` has received a signal."""
    return _interrupted.is_set()


def exit_is_decided() -> None:
    """Record that the command has done its work and written its result.

    `interrupt` then ignores the next signal; one more ends a process that hangs. If another handler
    is set, as in a program that uses skinbatch, this does nothing.
    """
    if _may_say_so() and signal.getsignal(signal.SIGINT) is interrupt:
        _decided.set()


@contextmanager
def heard_by(handler: Handler) -> Iterator[None]:
    """Call `handler` for signals within the context, then restore the earlier handlers.

    A signal that was received within is forgotten, unless one was remembered before.
    """
    if not _may_say_so():
        yield
        return
    remembered = _interrupted.is_set()
    before = [(number, signal.signal(number, handler)) for number in _BOTH]
    try:
        yield
    finally:
        _put_back(before)
        if not remembered:
            _interrupted.clear()
        if signal.getsignal(signal.SIGINT) is not interrupt:
            _decided.clear()


@contextmanager
def deferred() -> Iterator[None]:
    """Defer the first signal to the end of the context, so that no step is left half done.

    A second signal interrupts at once.
    """
    heard: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if heard:
            raise Interrupt
        heard.append(number)

    try:
        with heard_by(note):
            yield
    finally:
        if heard:
            signal.raise_signal(heard[0])


def from_now_on(handler: Handler | signal.Handlers) -> None:
    """Call `handler` for signals until the process ends; `signal.SIG_IGN` ignores them."""
    if _may_say_so():
        _put_back((number, handler) for number in _BOTH)


def _may_say_so() -> bool:
    return threading.current_thread() is threading.main_thread()


def _put_back(handlers: Iterable[tuple[int, Any]]) -> None:
    for number, handler in handlers:
        if handler is not None:  # None: a handler that was not set from Python
            signal.signal(number, handler)
