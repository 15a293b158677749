"""The Ray engine: one actor a worker, embedded on this machine or on a cluster that is already there."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from skinbatch import signals
from skinbatch.config import Config, EngineSettings
from skinbatch.engines.pool import Death, Event, Finished, Progress, Ready, check_precision
from skinbatch.engines.shares import Node, shares
from skinbatch.engines.worker import Worker, environment
from skinbatch.errors import UsageError
from skinbatch.models.manifest import FILENAME
from skinbatch.models.pack import load_pack
from skinbatch.ray_environment import settle, with_text_as_command, without_sigterm_handler
from skinbatch.scoring.assignment import Assignment, ScoringContext, UnitFailed
from skinbatch.storage.base import TEMPORARY
from skinbatch.storage.local import path_of, uri_of

settle()

import ray  # noqa: E402
from ray._private import ray_constants  # noqa: E402
from ray._private import utils as ray_utils  # noqa: E402
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from skinbatch.engines.ray_metrics import RunMetrics  # noqa: E402

_CLUSTERS = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
_MISSING_NODE_S = 30.0
_PROBE_S = 60.0
_KNOCK_S = 5.0
_STARTS = 3
_OBJECT_STORE = 256 << 20
"""Bytes of shared memory for embedded Ray: only descriptors and receipts go through it."""


class RayEngine:
    """Ray where it is found: an initialised session, a named cluster, RAY_ADDRESS, else embedded on this machine."""

    name = "ray"

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        address = settings.ray_address or os.environ.get("RAY_ADDRESS")
        self.address = address
        self._ours = not ray.is_initialized()
        if not self._ours:
            return
        warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
        try:
            with without_sigterm_handler(ray_utils), with_text_as_command(ray_utils):
                self._connect()
        except KeyboardInterrupt:
            ray.shutdown()
            raise
        except Exception as e:  # Ray raises any class here, bare Exception too
            raise UsageError(
                f"Ray at {address or 'this machine'} cannot be reached: {e}; --engine local needs no Ray"
            ) from e

    def _connect(self) -> None:
        if self.address is not None:
            _knock(self.address)
            ray.init(self.address, logging_level=logging.ERROR, log_to_driver=False)
            return
        for tries_left in range(_STARTS, 0, -1):
            try:
                with _on_loopback(), signals.deferred():  # else Ray's agents would outlive it for a minute
                    ray.init(
                        "local",
                        include_dashboard=False,
                        object_store_memory=_OBJECT_STORE,
                        logging_level=logging.ERROR,
                        log_to_driver=False,
                    )
                return
            except Exception as e:  # bare, with this text: Ray's patience is 30 s, which a busy machine exceeds
                if tries_left == 1 or "timed out during startup" not in str(e):
                    raise
                ray.shutdown()

    @property
    def embedded(self) -> bool:
        return self._ours and self.address is None

    def check(self, source: str, destination: str, config: Config) -> None:
        """Ask a task on every node for the local source and pack, and for a token that is written into a local destination.

        UsageError naming the node that lacks one: a folder of the same name on a node's own disk is not the destination.
        """
        check_precision(config.model.precision, self._workers()[2] > 0)
        if self.embedded:
            return
        token = None
        if not source.startswith("s3://") and not os.path.exists(path_of(source)):
            raise UsageError(f"{source}: there is nothing there; name a folder, an archive file or a listing")
        try:
            if not destination.startswith("s3://"):
                folder = path_of(destination)
                os.makedirs(folder, exist_ok=True)
                with tempfile.NamedTemporaryFile(dir=folder, prefix=TEMPORARY, delete=False) as file:
                    token = uri_of(file.name)
            pack = load_pack(config.pack, config.storage).address
            paths = [p for p in (source, token) if p is not None and not p.startswith("s3://")]
            self._check_nodes([*paths, f"{pack}/{FILENAME}"] if os.path.isabs(pack) else paths)
        except OSError as e:
            raise UsageError(f"{destination}: cannot be written: {e.strerror}") from None
        finally:
            if token is not None:
                os.unlink(path_of(token))

    def _check_nodes(self, paths: list[str]) -> None:
        found = ray.remote(num_cpus=0)(_missing_paths)
        probes = {
            found.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n["NodeID"], soft=False)).remote(paths): n
            for n in ray.nodes()
            if n["Alive"] and paths
        }
        for probe, node in probes.items():
            try:
                missing = ray.get(probe, timeout=_PROBE_S)
            except RayError as e:
                raise UsageError(f"node {node['NodeManagerAddress']} of the Ray cluster does not answer: {e}") from e
            if missing:
                raise UsageError(
                    f"{missing[0]}: not seen on node {node['NodeManagerAddress']} of the Ray cluster; on a cluster, source, "
                    "destination and pack must be s3:// or a folder that every node mounts"
                )

    def start(self, context: ScoringContext) -> RayPool:
        workers, per_cpu, per_gpu = self._workers()
        return RayPool(replace(context, threads=max(1, int(per_cpu)), gpu=per_gpu > 0), workers, per_cpu, per_gpu)

    def _workers(self) -> tuple[int, float, float]:
        """How many, with how many CPUs and GPUs each. UsageError for more than any node has."""
        nodes = [
            Node(*(float(n["Resources"].get(kind, 0)) for kind in ("CPU", "GPU", "memory")))
            for n in ray.nodes()
            if n["Alive"]
        ]
        return shares(self.settings, nodes)

    def close(self) -> None:
        if self._ours:
            with signals.deferred():
                ray.shutdown()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray that is started within it listens on 127.0.0.1 only: by itself it lets anybody who reaches this machine run code
    on it. Ray has no argument for it, only this switch, meant for desktops; whoever sets the variable has it their way."""
    if _CLUSTERS in os.environ:
        yield
        return
    before = ray_constants.ENABLE_RAY_CLUSTER
    os.environ[_CLUSTERS], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        del os.environ[_CLUSTERS]
        ray_constants.ENABLE_RAY_CLUSTER = before


def _knock(address: str) -> None:
    """Raise ConnectionError at once where nobody listens; ray.init would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # `auto`, `local`, a session's folder
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
    except OSError as e:
        raise ConnectionError(f"nobody answers there ({e})") from None


def _missing_paths(paths: list[str]) -> list[str]:
    return [p for p in paths if not os.path.exists(path_of(p))]


class _Actor(Worker):
    """A worker with its node, so that a dead machine can be told from a dead process."""

    def node(self) -> tuple[str, tuple[str, str]]:
        return ray.get_runtime_context().get_node_id(), self.describe()


class RayPool:
    """A pool of actors with `max_restarts=0`: a dead one is replaced here, where its unit is known."""

    def __init__(self, context: ScoringContext, workers: int, cpus: float, gpus: float) -> None:
        self.size = workers
        self._context = ray.put(context)
        self._metrics = RunMetrics(context.fingerprint)
        self._remote = ray.remote(concurrency_groups={"progress": 1})(_Actor).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": environment(context.threads)},
        )
        self._actors: dict[int, Any] = {}
        self._nodes: dict[int, str] = {}
        self._calls: dict[Any, tuple[int, str]] = {}
        self._asked: dict[Any, int] = {}
        self._progress: dict[int, Progress] = {}
        self._missing: dict[int, tuple[float, str]] = {}
        for worker in range(workers):
            self._start(worker)

    def _start(self, worker: int) -> None:
        actor = self._remote.remote(self._context)
        self._actors[worker] = actor
        self._nodes.pop(worker, None)
        self._calls[actor.node.remote()] = (worker, "ready")

    def submit(self, worker: int, assignment: Assignment) -> None:
        self._progress[worker] = Progress()
        self._metrics.submitted(worker, assignment)
        self._calls[self._actors[worker].score.remote(assignment)] = (worker, "score")

    def wait(self, timeout_s: float) -> list[Event]:
        events = self._bury_missing()
        if events or not self._calls:
            time.sleep(0 if events else timeout_s)
            return events
        done, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout_s)
        for call in done:
            worker, kind = self._calls.pop(call)
            event = self._event(worker, kind, call)
            if event is not None:
                events.append(event)
        return events

    def _event(self, worker: int, kind: str, call: Any) -> Event | None:
        try:
            value = ray.get(call)
        except RayTaskError as e:
            if kind == "ready":
                return self._dead(worker, str(e))
            return Finished(worker, UnitFailed("defect", str(e)))
        except ActorUnavailableError as e:
            # Ray does not know yet whether the process or its machine is gone; ray.nodes() will tell.
            self._missing[worker] = (time.monotonic() + _MISSING_NODE_S, str(e))
            return None
        except RayError as e:  # died, killed for memory, could not be placed or set up
            return self._dead(worker, str(e))
        if kind == "score":
            self._metrics.finished(worker, value)
            return Finished(worker, value)
        self._nodes[worker], (device, host) = value
        return Ready(worker, device, host)

    def _bury_missing(self) -> list[Event]:
        events: list[Event] = []
        for worker, (until, reason) in list(self._missing.items()):
            if self._machine_lost(worker) or time.monotonic() > until:
                del self._missing[worker]
                events.append(self._dead(worker, reason))
        return events

    def _machine_lost(self, worker: int) -> bool:
        node = self._nodes.get(worker)
        return node is not None and node not in {n["NodeID"] for n in ray.nodes() if n["Alive"]}

    def _dead(self, worker: int, reason: str) -> Death:
        lost = self._machine_lost(worker) or "node has died" in reason or "node was dead" in reason
        self._replace(worker)
        return Death(worker, _first_lines(reason), lost)

    def progress(self) -> Mapping[int, Progress]:
        if self._asked:
            done, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
            for call in done:
                worker = self._asked.pop(call)
                try:
                    self._progress[worker] = ray.get(call)
                except RayError:
                    continue  # its unit's own call says what happened
        asked = set(self._asked.values())
        for worker, kind in self._calls.values():
            if kind == "score" and worker not in asked:
                method = self._actors[worker].progress.options(concurrency_group="progress")
                self._asked[method.remote()] = worker
        return self._progress

    def replace(self, worker: int, reason: str) -> None:
        self._replace(worker)

    def _replace(self, worker: int) -> None:
        self._calls = {call: who for call, who in self._calls.items() if who[0] != worker}
        self._asked = {call: who for call, who in self._asked.items() if who != worker}
        self._missing.pop(worker, None)
        self._metrics.replaced()
        ray.kill(self._actors[worker], no_restart=True)
        self._start(worker)

    def close(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor, no_restart=True)


def _first_lines(text: str) -> str:
    """Ray's errors run to pages; the first lines name the cause."""
    return " ".join(line.strip() for line in text.splitlines()[:12] if line.strip())[:600]
