"""Import everything once and fork drivers, which fork their workers, so that a run starts in
milliseconds.

Otherwise it is the same as `skinbatch` on the command line: drivers and workers are processes that
can be killed and stopped.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from tests.faults.fault import Faults

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Driver:
    """Hold a run that was started. said: the file with its output."""

    zygote: Zygote
    pid: int
    said_in: Path

    @property
    def said(self) -> str:
        return self.said_in.read_text()

    def wait(self, timeout_s: float = 60.0) -> int | None:
        """Return the exit code, or minus the signal that ended it; None if it was stopped or is still running."""
        code: int | None = self.zygote.ask(do="wait", pid=self.pid, timeout_s=timeout_s)
        return code

    def end(self, timeout_s: float = 60.0) -> int:
        """Return the same for a run that must end."""
        code = self.wait(timeout_s)
        assert code is not None, f"the driver does not end; it said: {self.said}"
        return code

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def sweep(self) -> None:
        """Kill what is left of its processes."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


class Zygote:
    """Start drivers and learn how they ended: the near end."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._drivers: list[Driver] = []
        self._started = 0

    def start(self, arguments: Sequence[str], faults: Faults, **how: Any) -> Driver:
        """Start `skinbatch ARGUMENTS` under a plan of faults. how: see `_drive`."""
        said = faults.folder / f"said.{self._started}"
        self._started += 1
        keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        pid = self.ask(
            do="start",
            keys=keys,
            arguments=[*arguments],
            faults=str(faults.folder),
            said=str(said),
            how=how,
        )
        self._drivers.append(Driver(self, pid, said))
        return self._drivers[-1]

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def sweep(self) -> None:
        """Kill whatever this zygote's drivers have left since the last sweep.

        Process ids are reused, so old ones may belong to other tests by now.
        """
        while self._drivers:
            self._drivers.pop().sweep()

    def close(self) -> None:
        self.sweep()
        self._process.kill()
        self._process.wait()


def _serve() -> None:
    """Serve requests: the far end."""
    import skinbatch.cli.main
    import skinbatch.engines.local
    import skinbatch.engines.score
    import skinbatch.engines.worker
    import skinbatch.models.fake
    import skinbatch.reading
    import skinbatch.scoring.unit_scorer
    import skinbatch.storage.s3  # noqa: F401

    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        answer = _start(request) if request["do"] == "start" else _wait(**request)
        print(json.dumps(answer), flush=True)


def _start(request: dict[str, Any]) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    out = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDONLY)
    for stream, fd in ((null, 0), (out, 1), (out, 2)):
        os.dup2(stream, fd)
    os.environ.update(request["keys"])
    _drive(request["arguments"], Faults(Path(request["faults"])), **request["how"])
    return 0


def _wait(pid: int, timeout_s: float, do: str) -> int | None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if found:
            return None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def _drive(
    arguments: list[str],
    faults: Faults,
    beat_s: float = 0.2,
    watch_s: float = 2.0,
    lose: bool = False,
    clock_s: float = 0,
    clock_after: int = 0,
    memory: int | None = None,
) -> None:
    """Run the command line in this process.

    beat_s, watch_s: of the claim. lose: do not kill a worker that is given up, as on a machine that
    cannot be reached. clock_s: error of the clock in seconds. clock_after: set it only once this
    many receipts are written. memory: bytes of address space that a worker may have beyond this
    process's.
    """
    from skinbatch.cli import main as cli
    from skinbatch.engines import local
    from skinbatch.runs import claim

    if clock_s:
        _turn_clock(
            lambda: (
                clock_s if faults.passed("worker", "put receipts", "after") >= clock_after else 0.0
            )
        )
    claim.Claim.__init__.__defaults__ = (beat_s,)
    claim.Claim.take.__defaults__ = (watch_s, lambda holder: None, lambda: None)
    local.LocalPool = _forking(faults, lose, memory)  # type: ignore[misc]
    faults.arm("driver")
    sys.argv = ["skinbatch", *arguments]
    code = cli._guarded(cli.app)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _forking(faults: Faults, lose: bool, memory: int | None) -> Any:
    from skinbatch.engines import child
    from skinbatch.engines.local import LocalPool, _with_threads

    class ForkingPool(LocalPool):
        """Provide a pool of one child that is forked, not spawned."""

        def _start(self) -> None:
            ours, theirs = Pipe()
            pid = os.fork()
            if not pid:
                ours.close()
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                if lose:
                    parent = os.getppid()
                    os.getppid = lambda: parent  # nor does it learn that the driver is gone
                faults.arm("worker")
                if memory is not None:
                    most = (
                        int(Path("/proc/self/statm").read_text().split()[0])
                        * resource.getpagesize()
                        + memory
                    )
                    resource.setrlimit(resource.RLIMIT_AS, (most, most))
                try:
                    child.main(theirs.fileno())
                except (BrokenPipeError, ConnectionResetError):
                    os._exit(1)
                os._exit(0)
            theirs.close()
            self._process = _Forked(pid)  # type: ignore[assignment]
            self._connection = ours
            self._send(_with_threads(self.context, 1))

        def replace(self, worker: int, reason: str) -> None:
            if lose:
                self._connection.close()
                self._start()
            else:
                super().replace(worker, reason)

    return ForkingPool


class _Forked:
    """Offer what the pool needs of a Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _turn_clock(wrong_by: Callable[[], float]) -> None:
    """Change `time.time` and `datetime.now` for everything in this process."""
    import datetime

    right = time.time
    time.time = lambda: right() + wrong_by()

    class Wrong(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.datetime.fromtimestamp(time.time(), tz)

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("skinbatch") and hasattr(module, "datetime"):
            setattr(module, "datetime", Wrong)  # noqa: B010


if __name__ == "__main__":
    _serve()
