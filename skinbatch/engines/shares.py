"""How a cluster is cut into workers."""

from __future__ import annotations

from skinbatch.config import EngineSettings
from skinbatch.errors import UsageError

CPUS_PER_WORKER = 4


def shares(settings: EngineSettings, nodes: list[tuple[float, float]]) -> tuple[int, float, float]:
    """(workers, CPUs of each, GPUs of each) for nodes with (CPUs, GPUs), so that every worker fits on a node.

    UsageError if the settings want more for a worker than any node has.
    """
    per_gpu = settings.gpus_per_worker
    if per_gpu is None:
        per_gpu = 1.0 if any(gpus for _, gpus in nodes) else 0.0
    hosts = [(cpus, gpus) for cpus, gpus in nodes if cpus > 0 and gpus >= per_gpu]
    if not hosts:
        raise UsageError(f"gpus_per_worker = {per_gpu:g}, but no node of the Ray cluster has as many GPUs")
    most = max(cpus for cpus, _ in hosts)
    if settings.cpus_per_worker is not None and settings.cpus_per_worker > most:
        raise UsageError(
            f"cpus_per_worker = {settings.cpus_per_worker:g}, but no node of the Ray cluster has over {most:g}"
        )
    per_cpu = settings.cpus_per_worker
    if per_gpu:
        slots = [(cpus, int(gpus / per_gpu)) for cpus, gpus in hosts]
        if per_cpu is None:
            per_cpu = min(_whole(cpus / count) for cpus, count in slots)
        return settings.workers or max(1, sum(count for _, count in slots)), per_cpu, per_gpu
    if per_cpu is None:
        per_cpu = min(float(CPUS_PER_WORKER), most)
        if settings.workers is not None:
            per_cpu = _whole(most)
            while per_cpu > 1 and sum(int(cpus / per_cpu) for cpus, _ in hosts) < settings.workers:
                per_cpu -= 1
            if per_cpu <= 1 and sum(int(cpus) for cpus, _ in hosts) < settings.workers:
                per_cpu = sum(cpus for cpus, _ in hosts) / settings.workers
    return settings.workers or max(1, sum(int(cpus / per_cpu) for cpus, _ in hosts)), per_cpu, per_gpu


def _whole(cpus: float) -> float:
    return float(int(cpus)) if cpus >= 1 else cpus
