"""Test workers that share a GPU on real Ray clusters, whose nodes declare a GPU that they do not have."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray
from ray.cluster_utils import Cluster

from skinbatch.config import EngineSettings, parse_config
from skinbatch.engines.cards import CONTEXT_MEMORY
from skinbatch.engines.pool import Finished, PoolEvent, UnitProgress, WorkerReady
from skinbatch.engines.ray_nodes import nodes_up
from skinbatch.engines.ray_pool import RayPool
from skinbatch.engines.shares import shares
from skinbatch.errors import UsageError
from skinbatch.scoring.assignment import Assignment, ScoringContext, UnitDone
from skinbatch.types import WorkUnit

pytestmark = pytest.mark.slow

GB = 1 << 30
CARD = 16 * GB
WAIT_S = 120


class OnCard:
    """Report the GPU that Ray gave to the worker, and the memory that a unit's name asks for."""

    def __init__(self, context: ScoringContext) -> None:
        self.context = context

    def node(self) -> tuple[str, tuple[str, str]]:
        node = ray.get_runtime_context().get_node_id()
        return node, (f"GPU {ray.get_gpu_ids()}", node)

    def score(self, assignment: Assignment) -> UnitDone:
        return UnitDone(None, gpu_memory=int(assignment.unit.unit_id), gpu_card=CARD)

    def progress(self) -> UnitProgress:
        return UnitProgress()


@contextmanager
def cards(nodes: int) -> Iterator[None]:
    """Connect to a cluster of nodes with two cores and one declared GPU each."""
    node = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


@contextmanager
def pool_of(settings: EngineSettings) -> Iterator[RayPool]:
    """Start as many workers as the settings give on the nodes that are up."""
    context = ScoringContext("0" * 12, "/nowhere", parse_config({}), (), (), {})
    pool = RayPool(context, *shares(settings, nodes_up()), actor=OnCard)
    try:
        yield pool
    finally:
        pool.close()


def wait_for(pool: RayPool, kind: type[PoolEvent], number: int) -> list[PoolEvent]:
    events: list[PoolEvent] = []
    until = time.monotonic() + WAIT_S
    while len(events) < number:
        assert time.monotonic() < until, events
        events += [event for event in pool.wait(0.5) if isinstance(event, kind)]
    return events


@pytest.mark.parametrize("nodes", [1, 2])
def test_four_workers_start_on_each_card(nodes: int) -> None:
    with cards(nodes), pool_of(EngineSettings(gpus_per_worker=0.25)) as pool:
        assert pool.size == 4 * nodes
        ready = wait_for(pool, WorkerReady, pool.size)
        places = Counter(
            (event.host, event.device) for event in ready if isinstance(event, WorkerReady)
        )
        assert sorted(places.values()) == [4] * nodes
        assert {device for _, device in places} == {"GPU [0]"}
        assert len({host for host, _ in places}) == nodes


def test_a_worker_over_its_share_ends_the_run() -> None:
    fits = 4 * GB - CONTEXT_MEMORY
    with cards(1), pool_of(EngineSettings(gpus_per_worker=0.25, workers=1)) as pool:
        wait_for(pool, WorkerReady, 1)
        pool.submit(0, Assignment(WorkUnit(str(fits)), ""))
        wait_for(pool, Finished, 1)
        pool.submit(0, Assignment(WorkUnit(str(fits + 1)), ""))
        with pytest.raises(UsageError, match=r"set 0\.3333 \(3 workers a GPU\).*committed is kept"):
            wait_for(pool, Finished, 1)
