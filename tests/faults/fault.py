"""Inject planned faults into drivers and workers by patching what they call.

The product has no code for it.
"""

from __future__ import annotations

import errno
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

Role = Literal["driver", "worker"]
Deed = Literal["kill", "stop", "full", "int", "term", "hang", "memory", "outage"]
_SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "int": signal.SIGINT,
    "term": signal.SIGTERM,
}
_STORES = {"skinbatch.storage.local": "LocalStore", "skinbatch.storage.s3": "S3Store"}
_MODELS = "skinbatch.models.fake"
_DECODER = "skinbatch.archive.decode"
ENVIRONMENT, ROLE = "SKINBATCH_TEST_FAULTS", "SKINBATCH_TEST_ROLE"
KILLS_DECODER, HANGS_DECODER = b"kills its decoder", b"hangs its decoder"


@dataclass(frozen=True, slots=True)
class Fault:
    """Describe one thing that goes wrong, once.

    point: `put receipts`, `get photo`, `list snapshots`, `keys images`, `delete folds`, …: a call
    of a store and its object; or `model`, a call of the segmenter; or `decode`. nth: which call,
    from 1, counted over all processes of the role. when: before or after the call.
    """

    role: Role
    point: str
    when: Literal["before", "after"] = "before"
    nth: int = 1
    deed: Deed = "kill"


class Faults:
    """Keep a plan of faults in a folder, count the points that are passed, and record what has happened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def plan(self, faults: Sequence[Fault]) -> Faults:
        """Write the plan, and forget what was passed and happened before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.iterdir():
            old.unlink()
        (self.folder / "plan.json").write_text(json.dumps([asdict(f) for f in faults]))
        return self

    def planned(self) -> list[Fault]:
        path = self.folder / "plan.json"
        return [Fault(**raw) for raw in json.loads(path.read_text())] if path.exists() else []

    @property
    def happened(self) -> list[tuple[Fault, int]]:
        """Return the faults that have happened, each with the process that it hit."""
        planned = self.planned()
        found = sorted(self.folder.glob("happened.*"), key=lambda p: int(p.suffix[1:]))
        return [(planned[int(p.suffix[1:])], int(p.read_text() or 0)) for p in found]

    def passed(self, role: Role, point: str, when: str) -> int:
        """Return how often a point was passed."""
        path = self.folder / f"count.{role}.{point}.{when}".replace(" ", "_")
        return path.stat().st_size if path.exists() else 0

    def arm(self, role: Role) -> None:
        """Patch what this process has imported or will import, and record the process."""
        (self.folder / f"process.{role}.{os.getpid()}").touch()
        for name, patch in _patches(lambda point, when: self._pass(role, point, when)).items():
            if name in sys.modules:
                patch(sys.modules[name])
            else:
                sys.meta_path.insert(0, _PatchOnImport(name, patch))

    def running(self, role: Role) -> list[int]:
        """Return the processes of this plan that have not ended."""
        found = (int(p.suffix[1:]) for p in self.folder.glob(f"process.{role}.*"))
        return [pid for pid in found if state_of(pid) not in ("", "Z")]

    def _pass(self, role: Role, point: str, when: str) -> None:
        count = self._count(role, point, when)
        for number, fault in enumerate(self.planned()):
            if (fault.role, fault.point, fault.when, fault.nth) == (
                role,
                point,
                when,
                count,
            ) and self._claim(number):
                _do(fault)

    def _count(self, role: Role, point: str, when: str) -> int:
        path = self.folder / f"count.{role}.{point}.{when}".replace(" ", "_")
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(fd, b"x")
            # After this process's own byte, whoever else has appended.
            return os.lseek(fd, 0, os.SEEK_CUR)
        finally:
            os.close(fd)

    def _claim(self, number: int) -> bool:
        """Return whether this process is the first to reach this fault."""
        try:
            fd = os.open(self.folder / f"happened.{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        os.write(fd, str(os.getpid()).encode())
        os.close(fd)
        return True


def _do(fault: Fault) -> None:
    # The signal is sent to this thread, which would otherwise run on until another thread takes it.
    if fault.deed == "stop":
        signal.pthread_kill(threading.get_ident(), _SIGNALS["stop"])
    elif fault.deed in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[fault.deed])
    elif fault.deed == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif fault.deed == "memory":
        raise MemoryError
    elif fault.deed == "outage":
        raise ConnectionError("an outage of the test")
    else:
        threading.Event().wait()


def _patches(at: Callable[[str, str], None]) -> dict[str, Callable[[ModuleType], None]]:
    """Return the patches to apply to a module when it is loaded, by its name."""

    def around(owner: Any, name: str, point: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def patched(*args: Any, **kwargs: Any) -> Any:
            where = point(*args, **kwargs)
            at(where, "before")
            result = original(*args, **kwargs)
            at(where, "after")
            return result

        setattr(owner, name, patched)

    def store(class_name: str) -> Callable[[ModuleType], None]:
        def patch(module: ModuleType) -> None:
            cls = getattr(module, class_name)
            for name in ("put", "get", "stream"):
                around(cls, name, lambda self, key, *_, _name=name, **__: f"{_name} {kind_of(key)}")
            for name in ("list", "keys"):
                around(
                    cls, name, lambda self, prefix="", _name=name, **_: f"{_name} {kind_of(prefix)}"
                )
            around(cls, "delete", lambda self, keys: f"delete {kind_of(keys[0])}")
            if class_name == "LocalStore":
                _map_errors(cls)

        return patch

    patches = {name: store(class_name) for name, class_name in _STORES.items()}
    patches[_MODELS] = lambda module: around(module.FakeSegmenter, "__call__", lambda *_: "model")
    patches[_DECODER] = lambda module: around(module, "_decode", _decoded)
    return patches


def _decoded(data: bytes, *_: object) -> str:
    """Do what a broken decoder does if the photo ends in a trigger; else return the name of the point."""
    if data.endswith(KILLS_DECODER):
        os.kill(os.getpid(), signal.SIGSEGV)
    if data.endswith(HANGS_DECODER):
        threading.Event().wait()
    return "decode"


def _map_errors(cls: Any) -> None:
    """Report a full disk as the store does, because the fault happens inside the store."""
    patched = cls.put

    def put(self: Any, key: str, data: bytes) -> Any:
        with self._errors(key):
            return patched(self, key, data)

    cls.put = put


def state_of(pid: int) -> str:
    """Return the state of a process: `R`, `S`, `T` (stopped), `Z` (a zombie), …; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (
        FileNotFoundError,
        ProcessLookupError,
    ):  # the latter if it ended between opening and reading
        return ""


def kind_of(key: str) -> str:
    """Return the kind of a key: `receipts`, `images`, `claim`, …; `photo` if it is not part of a destination."""
    parts = key.split("/")
    if "_skinbatch" in parts:
        return (parts[parts.index("_skinbatch") + 1 :] or [""])[0].removesuffix(".json")
    return parts[0] if parts[0] in ("images", "boxes", "masks") else "photo"


class _PatchOnImport(importlib.abc.MetaPathFinder):
    """Patch one module as soon as it is loaded."""

    def __init__(self, name: str, patch: Callable[[ModuleType], None]) -> None:
        self.name, self.patch = name, patch

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            self.patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
