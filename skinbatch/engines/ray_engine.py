"""Run workers as Ray actors, embedded on this machine or on an existing cluster."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from skinbatch import signals
from skinbatch.config import Config, EngineSettings
from skinbatch.engines.pool import check_precision
from skinbatch.engines.shares import Node, shares
from skinbatch.errors import UsageError
from skinbatch.models.manifest import FILENAME
from skinbatch.ray_environment import (
    cluster_address,
    settle,
    why_not,
    with_text_as_command,
    without_sigterm_handler,
)
from skinbatch.scoring.assignment import ScoringContext
from skinbatch.storage.discard import DISCARD
from skinbatch.storage.local import path_of, uri_of
from skinbatch.storage.store import TEMPORARY

settle(os.environ.get("RAY_ADDRESS"))

import ray  # noqa: E402
import ray.util.client  # noqa: E402
from ray._private import ray_constants  # noqa: E402
from ray._private import utils as ray_utils  # noqa: E402
from ray.exceptions import RayError  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from skinbatch.engines.ray_nodes import nodes_up, possible_nodes  # noqa: E402
from skinbatch.engines.ray_pool import RayPool  # noqa: E402
from skinbatch.engines.ray_watch import HeadLost, HeadWatch, Placement, knock  # noqa: E402

_CLUSTERS = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
_PROBE_S = 60.0
_KNOCK_S = 5.0
_STARTS = 3
# Bytes of shared memory for embedded Ray: only descriptions and receipts pass through it.
_OBJECT_STORE = 256 << 20


class RayEngine:
    """Use the Ray session of this process, else the named cluster, else Ray on this machine.

    A cluster is named by `ray_address` or RAY_ADDRESS.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.address = cluster_address(settings.ray_address)
        self._head: HeadWatch | None = None
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
        except Exception as e:  # Ray raises all kinds here, even a bare Exception
            # A head that is not up yet is an outage, after which the same command may succeed.
            outage = isinstance(e, OSError) and self.address is not None
            raise (HeadLost if outage else UsageError)(why_not(e, self.address)) from e

    def _connect(self) -> None:
        if self.address is not None:
            knock(self.address, _KNOCK_S)  # ray.init would try for minutes
            ray.init(self.address, logging_level=logging.ERROR, log_to_driver=False)
            return
        for tries_left in range(_STARTS, 0, -1):
            try:
                with _on_loopback(), signals.deferred():  # otherwise Ray's agents would outlive it
                    ray.init(
                        "local",
                        include_dashboard=False,
                        object_store_memory=_OBJECT_STORE,
                        logging_level=logging.ERROR,
                        log_to_driver=False,
                    )
                return
            except Exception as e:  # Ray waits only 30 s, too little on a busy machine
                if tries_left == 1 or "timed out during startup" not in str(e):
                    raise
                ray.shutdown()

    @property
    def embedded(self) -> bool:
        return self._ours and self.address is None

    def check(self, source: str, destination: str, config: Config) -> None:
        """Check on every node that the local source, destination and pack can be seen.

        A token is written into a local destination and looked for on each node: a folder of the
        same name on a node's own disk is not the destination.

        config: names the pack by its address. Raises UsageError naming the node that lacks one of
        them.
        """
        check_precision(config.model.precision, self._workers()[2] > 0)
        if self.embedded:
            return
        token = None
        if not source.startswith("s3://") and not os.path.exists(path_of(source)):
            raise UsageError(f"{source}: does not exist; name a folder, a shard or a listing")
        try:
            if not destination.startswith(("s3://", DISCARD)):
                folder = path_of(destination)
                os.makedirs(folder, exist_ok=True)
                with tempfile.NamedTemporaryFile(
                    dir=folder, prefix=TEMPORARY, delete=False
                ) as file:
                    token = uri_of(file.name)
            pack = config.pack
            paths = [p for p in (source, token) if p is not None and not p.startswith("s3://")]
            self._check_nodes([*paths, f"{pack}/{FILENAME}"] if os.path.isabs(pack) else paths)
        except OSError as e:
            raise UsageError(f"{destination}: cannot be written: {e.strerror}") from None
        finally:
            if token is not None:
                os.unlink(path_of(token))

    def _check_nodes(self, paths: list[str]) -> None:
        find_missing = ray.remote(num_cpus=0)(_missing_paths)
        probes = {
            find_missing.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(n["NodeID"], soft=False)
            ).remote(paths): n
            for n in ray.nodes()
            if n["Alive"] and paths
        }
        for probe, node in probes.items():
            try:
                missing = ray.get(probe, timeout=_PROBE_S)
            except RayError as e:
                raise UsageError(
                    f"node {node['NodeManagerAddress']} of the Ray cluster does not answer: {e}"
                ) from e
            if missing:
                raise UsageError(
                    f"{missing[0]}: not seen on node {node['NodeManagerAddress']} of the Ray cluster; on a cluster, source, "
                    "destination and pack must be s3:// or a folder that every node mounts"
                )

    def start(self, context: ScoringContext) -> RayPool:
        workers, per_cpu, per_gpu = self._workers()
        if not isinstance(self.settings.workers, int) and context.units is not None:
            workers = min(workers, max(1, context.units))
        context = replace(context, threads=max(1, int(per_cpu)), gpu=per_gpu > 0)
        if ray.util.client.ray.is_connected():  # ray://: a proxy watches the head
            return RayPool(context, workers, per_cpu, per_gpu)
        self._head = HeadWatch(ray.get_runtime_context().gcs_address)
        placement = Placement(
            self._head, per_cpu, per_gpu, self.settings.start_timeout_s, self._possible
        )
        return RayPool(context, workers, per_cpu, per_gpu, placement, self._head)

    def _workers(self) -> tuple[int, float, float]:
        """Return (workers, CPUs of each, GPUs of each).

        Raises UsageError if they ask for more than any node has or can have.
        """
        possible = self._possible()
        return shares(
            self.settings,
            [*nodes_up(), *possible],
            grows=not self.embedded,
            all_known=self.embedded or bool(possible),
        )

    def _possible(self) -> list[Node]:
        return [] if self.embedded or ray.util.client.ray.is_connected() else possible_nodes()

    def close(self) -> None:
        if self._ours:
            with signals.deferred():
                ray.shutdown()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Make Ray started within this context listen on 127.0.0.1 only.

    By default Ray lets anybody who can reach this machine run code on it. Ray has no argument for
    this, only an environment variable meant for desktops. If the user has set it, it is left alone.
    """
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


def _missing_paths(paths: list[str]) -> list[str]:
    return [p for p in paths if not os.path.exists(path_of(p))]
