"""Test who gets SIGINT and SIGTERM: inside, afterwards, in other threads, and while something is half made."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest

from skinbatch import signals

BOTH = (signal.SIGINT, signal.SIGTERM)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in BOTH]


@pytest.mark.parametrize("number", BOTH)
def test_who_has_heard_a_signal_hears_it_no_more_afterwards(number: signal.Signals) -> None:
    before, heard = handlers(), []
    with signals.heard_by(lambda number, frame: heard.append(number)):
        signal.raise_signal(number)
        assert handlers() != before
    assert heard == [number]
    assert handlers() == before


@pytest.mark.parametrize("number", BOTH)
def test_an_interrupt_that_a_library_swallows_is_remembered_until_the_end(
    number: signal.Signals,
) -> None:
    with signals.heard_by(signals.interrupt):
        assert not signals.interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        with signals.heard_by(signals.interrupt):
            assert signals.interrupted()
        assert signals.interrupted()
    assert not signals.interrupted()


def test_in_another_thread_nothing_changes() -> None:
    def all_of_it() -> list[object]:
        with signals.heard_by(signals.interrupt), signals.deferred():
            found = handlers()
        signals.from_now_on(signal.SIG_IGN)
        return found

    before = handlers()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(all_of_it).result() == before
    assert handlers() == before


def test_what_is_half_made_is_made_before_the_signal_is_heard() -> None:
    made = threading.Event()
    with signals.heard_by(signals.interrupt), pytest.raises(KeyboardInterrupt), signals.deferred():
        signal.raise_signal(signal.SIGTERM)
        made.set()
    assert made.is_set()


def test_when_the_exit_is_decided_the_first_signal_changes_nothing_for_the_command_alone() -> None:
    with signals.heard_by(signals.interrupt):
        signals.exit_is_decided()
        signal.raise_signal(signal.SIGTERM)
        assert not signals.interrupted()
        with pytest.raises(KeyboardInterrupt):  # what hangs at the end
            signal.raise_signal(signal.SIGTERM)
    heard: list[int] = []
    with signals.heard_by(lambda number, frame: heard.append(number)):
        signals.exit_is_decided()  # of a program that uses skinbatch
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    with signals.heard_by(signals.interrupt), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_a_second_signal_does_not_wait() -> None:
    def made(so_far: Callable[[], None]) -> None:
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            so_far()

    def never() -> None:
        raise AssertionError("the second signal waited too")

    with signals.heard_by(signals.interrupt), pytest.raises(KeyboardInterrupt):
        made(never)


def test_a_signal_goes_to_whom_it_belongs_when_it_has_waited() -> None:
    heard: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    with signals.heard_by(note):
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            assert heard == []
        assert heard == [signal.SIGTERM]


def test_an_interrupt_of_code_that_is_made_while_it_runs_ends_with_the_exit_code_all_the_same() -> (
    None
):
    # Dataclasses run such code while they are imported. Python would end with SIGINT where
    # KeyboardInterrupt leaves it.
    program = (
        "import signal, sys; from skinbatch import signals; signals.from_now_on(signals.interrupt)\n"
        "try: exec('signal.raise_signal(signal.SIGTERM)')\n"
        "except KeyboardInterrupt: sys.exit(130)\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 130
