"""Test that processes that make batches ignore signals meant for the trainer, and never outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from torch.utils.data import DataLoader, Dataset

from skinbatch.train.photos.processes import batches_of, quiet


class Numbers(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return index

    def __len__(self) -> int:
        return 10**6


def disturbed(worker: int) -> None:
    """Send both signals before the process is ready for them."""
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
    quiet(worker)


@pytest.fixture
def running() -> Iterator[tuple[Iterator[Any], psutil.Process]]:
    """Return batches, and the process that makes them."""
    batches = batches_of(
        DataLoader(Numbers(), batch_size=2, num_workers=1, worker_init_fn=disturbed)
    )
    yield batches, psutil.Process(batches._workers[0].pid)  # type: ignore[attr-defined]
    del batches


def test_signals_that_everybody_gets_end_no_process_that_makes_batches(
    running: tuple[Iterator[Any], psutil.Process],
) -> None:
    batches, made_by = running
    assert next(batches).tolist() == [0, 1]
    for name in ("TERM", "INT", "TERM"):
        subprocess.run(["kill", f"-{name}", str(made_by.pid)], check=True)
    assert [next(batches).tolist()[0] for _ in range(50)] == list(range(2, 102, 2))
    assert made_by.is_running()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGINT, signal.SIGTERM}, (
        "the trainer hears them"
    )


def test_the_trainers_own_signal_ends_it(running: tuple[Iterator[Any], psutil.Process]) -> None:
    batches, made_by = running
    next(batches)
    made_by.terminate()
    assert made_by.wait(timeout=30) == 0


def test_it_ends_when_its_trainer_was_killed(tmp_path: Path) -> None:
    program = (
        "import time\n"
        "from torch.utils.data import DataLoader\n"
        "from skinbatch.train.photos.processes import batches_of, quiet\n"
        "from tests.unit.train.test_processes import Numbers\n"
        "batches = batches_of(DataLoader(Numbers(), batch_size=2, num_workers=1, worker_init_fn=quiet))\n"
        "next(batches)\n"
        "print(batches._workers[0].pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    trainer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    orphan = psutil.Process(int(trainer.stdout.readline()))
    trainer.kill()
    trainer.communicate()
    deadline = time.monotonic() + 60  # torch's processes check their parent every five seconds
    while orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_that_hears_no_signal_does_not_keep_its_trainer_from_ending() -> None:
    program = (
        "import re, time\n"
        "from torch.utils.data import DataLoader\n"
        "from skinbatch.train.photos.processes import batches_of, quiet\n"
        "from tests.unit.train.test_processes import Numbers\n"
        "class Stuck(Numbers):\n"
        "    def __getitem__(self, index):\n"
        "        if index >= 4:\n"
        "            re.match('(a+)+$', 'a' * 60 + 'b')  # for longer than anybody waits, and lets no other thread run\n"
        "        return index\n"
        "batches = batches_of(DataLoader(Stuck(), batch_size=2, num_workers=1, worker_init_fn=quiet))\n"
        "next(batches)\n"
        "print(batches._workers[0].pid, flush=True)\n"
        "time.sleep(1)\n"
    )
    trainer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert trainer.returncode == 0, trainer.stderr
    assert not psutil.pid_exists(int(trainer.stdout))
