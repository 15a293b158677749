"""How a cluster is cut into workers."""

from __future__ import annotations

from dataclasses import dataclass

from skinbatch.config import EngineSettings
from skinbatch.errors import UsageError

CPUS_PER_WORKER = (1, 2, 4)
"""The fewer the faster: a worker of one CPU waits for no other thread. Each has models and pixels of its own."""
WORKER_MEMORY = 2 << 30
"""Bytes that a worker on CPUs may need: 1.4 GB with the starter pack and two threads. A rule of thumb: it knows neither the
pack nor how many batches a worker scores at once (as many as it has CPUs, 4 at most). Where workers die for want of memory,
set `cpus_per_worker` higher or `workers` lower in [engine]: fewer workers have fewer copies of the models."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster. memory: bytes for workers; 0: not known."""

    cpus: float
    gpus: float = 0.0
    memory: float = 0.0


def shares(settings: EngineSettings, nodes: list[Node]) -> tuple[int, float, float]:
    """(workers, CPUs of each, GPUs of each) for these nodes, so that every worker fits on a node.

    On CPUs, what is not set is chosen so that every worker has WORKER_MEMORY; what is set is not compared with it.
    UsageError if the settings want more for a worker than any node has.
    """
    per_gpu = settings.gpus_per_worker
    if per_gpu is None:
        per_gpu = 1.0 if any(node.gpus for node in nodes) else 0.0
    hosts = [node for node in nodes if node.cpus > 0 and node.gpus >= per_gpu]
    if not hosts:
        raise UsageError(f"gpus_per_worker = {per_gpu:g}, but no node of the Ray cluster has as many GPUs")
    most = max(node.cpus for node in hosts)
    if settings.cpus_per_worker is not None and settings.cpus_per_worker > most:
        raise UsageError(
            f"cpus_per_worker = {settings.cpus_per_worker:g}, but no node of the Ray cluster has over {most:g}"
        )
    per_cpu = settings.cpus_per_worker
    if per_gpu:
        slots = [(node.cpus, int(node.gpus / per_gpu)) for node in hosts]
        if per_cpu is None:
            per_cpu = min(_whole(cpus / count) for cpus, count in slots)
        return settings.workers or max(1, sum(count for _, count in slots)), per_cpu, per_gpu
    if per_cpu is None:
        per_cpu = min(_by_memory(hosts), most)
        if settings.workers is not None:
            per_cpu = _whole(most)
            while per_cpu > 1 and sum(int(node.cpus / per_cpu) for node in hosts) < settings.workers:
                per_cpu -= 1
            if per_cpu <= 1 and sum(int(node.cpus) for node in hosts) < settings.workers:
                per_cpu = sum(node.cpus for node in hosts) / settings.workers
    return settings.workers or max(1, sum(int(node.cpus / per_cpu) for node in hosts)), per_cpu, per_gpu


def _by_memory(hosts: list[Node]) -> float:
    """The fewest CPUs a worker with which the workers of every host fit into its memory."""
    for cpus in CPUS_PER_WORKER:
        if all(node.memory >= node.cpus / cpus * WORKER_MEMORY for node in hosts):
            return float(cpus)
    return float(CPUS_PER_WORKER[-1])


def _whole(cpus: float) -> float:
    return float(int(cpus)) if cpus >= 1 else cpus
