"""SIGINT and SIGTERM: who hears of them, and until when. Only the main thread may say so: in others all of this does nothing."""

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
    """Python ends with SIGINT instead of the exit code once a KeyboardInterrupt has left an `exec`, whoever caught it then;
    of its heirs it does not mind."""


def interrupt(number: int, frame: FrameType | None) -> None:
    """A handler: Interrupt, wherever the main thread is. Remembered, as a callback of a library may swallow that. The first after
    `exit_is_decided` changes nothing."""
    if _decided.is_set():
        _decided.clear()
        return
    _interrupted.set()
    raise Interrupt


def interrupted() -> bool:
    """`interrupt` has heard a signal."""
    return _interrupted.is_set()


def exit_is_decided() -> None:
    """What the command was to do is done, and recorded so: the next signal is not heard by `interrupt`; one more ends what
    hangs. Where others listen, as in a program that uses skinbatch, this does nothing."""
    if _may_say_so() and signal.getsignal(signal.SIGINT) is interrupt:
        _decided.set()


@contextmanager
def heard_by(handler: Handler) -> Iterator[None]:
    """Within it `handler` is called; afterwards what was called before is again, and what was not remembered is forgotten."""
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
    """Within it is made or ended what should not stay half made or half ended: the first signal is heard at the end. A second
    one interrupts."""
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
    """`handler` is called until the process has ended, or `signal.SIG_IGN`: nobody."""
    if _may_say_so():
        _put_back((number, handler) for number in _BOTH)


def _may_say_so() -> bool:
    return threading.current_thread() is threading.main_thread()


def _put_back(handlers: Iterable[tuple[int, Any]]) -> None:
    for number, handler in handlers:
        if handler is not None:  # None: not Python's
            signal.signal(number, handler)
