"""Divide the CPUs and GPUs of a cluster among workers."""

from __future__ import annotations

from dataclasses import dataclass

from skinbatch.config import EngineSettings
from skinbatch.engines.cards import check_share, workers_a_card
from skinbatch.errors import UsageError
from skinbatch.worker_range import least_of, most_of

# CPUs of a worker, tried in this order. Fewer are faster, because a worker with one CPU waits for
# no other thread. Each worker has models and pixels of its own.
CPUS_PER_WORKER = (1, 2, 4)
# Bytes that a worker on CPUs may need: 1.4 GB with the starter pack and two threads. This rule of
# thumb considers neither the pack nor the number of batches that a worker scores at once (one per
# CPU, 4 at most). If workers die because memory runs out, set `cpus_per_worker` higher or `workers`
# lower in [engine]: fewer workers have fewer copies of the models.
WORKER_MEMORY = 2 << 30


@dataclass(frozen=True, slots=True)
class Node:
    """Describe a machine of the cluster, or several equal ones that its autoscaler may add.

    memory: bytes for workers; 0 if unknown.
    """

    cpus: float
    gpus: float = 0.0
    memory: float = 0.0
    count: int = 1


def shares(
    settings: EngineSettings, nodes: list[Node], *, grows: bool = False, all_known: bool = True
) -> tuple[int, float, float]:
    """Return (workers, CPUs of each, GPUs of each), so that every worker fits on a node.

    On CPUs, values that are not set are chosen so that every worker has WORKER_MEMORY. Values that
    are set are not compared with it.

    Of a range of workers, as many start as find room. If nodes may join, all of them start, and
    those without room wait.

    Args:
        settings: `[engine]`.
        nodes: those that are up, and those that the autoscaler may add.
        grows: nodes that are not known yet may join. A requested GPU is then waited for, and so is
            any node if no node has CPUs, as in a cluster that was scaled to zero.
        all_known: `nodes` has all that may join. Otherwise a range may begin with more workers than
            there is room for.

    Raises:
        UsageError: If the settings ask for more per worker than any node has, or for more workers
            than there is room for.
    """
    least, number = least_of(settings.workers), most_of(settings.workers)
    per_gpu = _gpus_of_a_worker(settings, nodes)
    hosts = [node for node in nodes if node.cpus > 0 and node.gpus >= per_gpu]
    empty = not any(node.cpus > 0 for node in nodes)
    if not hosts and grows and (empty or settings.device == "gpu"):
        return number or 1, settings.cpus_per_worker or 1.0, per_gpu
    if not hosts and settings.gpus_per_worker is None:
        raise UsageError(
            "device = 'gpu', but there is no GPU here; use device = 'auto' or a cluster with GPUs"
        )
    if not hosts:
        raise UsageError(
            f"gpus_per_worker = {per_gpu:g}, but no node of the Ray cluster has as many GPUs; lower it"
        )
    most = max(node.cpus for node in hosts)
    if settings.cpus_per_worker is not None and settings.cpus_per_worker > most:
        raise UsageError(
            f"cpus_per_worker = {settings.cpus_per_worker:g}, but no node of the Ray cluster has more than {most:g}; "
            "lower it"
        )
    per_cpu = settings.cpus_per_worker
    if per_gpu:
        if per_cpu is None:
            per_cpu = min(_whole(node.cpus / _by_gpus(node, per_gpu)) for node in hosts)
        room = sum(node.count * _on_one(node, per_cpu, per_gpu) for node in hosts)
    else:
        if per_cpu is None:
            per_cpu = min(_by_memory(hosts), most)
            if least is not None:
                per_cpu = min(per_cpu, max(1.0, _for_so_many(least, hosts)))
            elif number is not None:
                per_cpu = _for_so_many(number, hosts)
        room = _fitting(hosts, per_cpu)

    if least is None or number is None:
        return number or max(1, room), per_cpu, per_gpu
    if room < least and all_known:
        added = " (with what the autoscaler may add)" if grows else ""
        raise UsageError(
            f"workers = {settings.workers!r}: there is room for {room}, each with {amounts(per_cpu, per_gpu)}{added}; lower MIN, "
            "or cpus_per_worker and gpus_per_worker if they are set"
        )
    return number if grows else min(number, room), per_cpu, per_gpu


def amounts(cpus: float, gpus: float) -> str:
    """Describe what a worker needs or a node has.

    >>> amounts(1, 0), amounts(4, 0.5)
    ('1 CPU', '4 CPUs and 0.5 GPUs')
    """
    texts = [f"{cpus:g} CPU{'' if cpus == 1 else 's'}"]
    texts += [f"{gpus:g} GPU{'' if gpus == 1 else 's'}"] if gpus else []
    return " and ".join(texts)


def _gpus_of_a_worker(settings: EngineSettings, nodes: list[Node]) -> float:
    """Return the GPUs of each worker.

    Raises UsageError if `device` and `gpus_per_worker` contradict each other, and for a share that
    Ray cannot use.
    """
    per_gpu = settings.gpus_per_worker
    if settings.device == "cpu" and per_gpu:
        raise UsageError(f"device = 'cpu', but gpus_per_worker = {per_gpu:g}; remove one of them")
    if settings.device == "gpu" and per_gpu == 0:
        raise UsageError("device = 'gpu', but gpus_per_worker = 0; remove one of them")
    if per_gpu is not None:
        check_share(per_gpu)
        return per_gpu
    if settings.device == "cpu":
        return 0.0
    return 1.0 if settings.device == "gpu" or any(node.gpus >= 1 for node in nodes) else 0.0


def _on_one(node: Node, per_cpu: float, per_gpu: float) -> int:
    """Return how many workers fit on a node with GPUs."""
    return min(int(node.cpus / per_cpu), _by_gpus(node, per_gpu))


def _by_gpus(node: Node, per_gpu: float) -> int:
    """Return how many workers fit on a node's GPUs. Ray never takes a share from two GPUs."""
    if per_gpu >= 1:
        return int(node.gpus / per_gpu)
    cards, rest = divmod(node.gpus, 1)
    return int(cards) * workers_a_card(per_gpu) + int(rest / per_gpu)


def _for_so_many(workers: int, hosts: list[Node]) -> float:
    """Return the most whole CPUs per worker with which this many workers fit.

    With more workers than CPUs, it is a fraction of a CPU.
    """
    per_cpu = _whole(max(node.cpus for node in hosts))
    while per_cpu > 1 and _fitting(hosts, per_cpu) < workers:
        per_cpu -= 1
    if per_cpu <= 1 and sum(int(node.cpus) * node.count for node in hosts) < workers:
        per_cpu = sum(node.cpus * node.count for node in hosts) / workers
    return per_cpu


def _fitting(hosts: list[Node], per_cpu: float) -> int:
    """Return how many workers with so many CPUs fit on the hosts."""
    return sum(node.count * int(node.cpus / per_cpu) for node in hosts)


def _by_memory(hosts: list[Node]) -> float:
    """Return the fewest CPUs per worker with which every host's workers fit into its memory."""
    for cpus in CPUS_PER_WORKER:
        if all(node.memory >= node.cpus / cpus * WORKER_MEMORY for node in hosts):
            return float(cpus)
    return float(CPUS_PER_WORKER[-1])


def _whole(cpus: float) -> float:
    return float(int(cpus)) if cpus >= 1 else cpus
