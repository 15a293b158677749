"""Test that workers are sized so that each fits on a node."""

import pytest
from pydantic import ValidationError

from skinbatch.config import EngineSettings
from skinbatch.engines.shares import Node, shares
from skinbatch.errors import UsageError

GB = 1 << 30


def node_of(cpus: float, gpus: float = 0.0, memory: float = 0.0) -> Node:
    return Node(cpus, gpus, memory)


@pytest.mark.parametrize(
    ("settings", "nodes", "expected"),
    [
        ({}, [(2, 0)], (1, 2, 0)),
        ({}, [(2, 0)] * 4, (4, 2, 0)),
        ({}, [(2, 0, 4 * GB)], (2, 1, 0)),
        ({}, [(8, 0, 12 * GB)], (4, 2, 0)),
        ({}, [(8, 0, 12 * GB), (8, 0, 64 * GB)], (8, 2, 0)),
        ({}, [(8, 0, 2 * GB)], (2, 4, 0)),
        ({}, [(16, 0)], (4, 4, 0)),
        ({"workers": 2}, [(2, 0)], (2, 1, 0)),
        ({"workers": 4}, [(2, 0)], (4, 0.5, 0)),
        ({"workers": 3}, [(8, 0)], (3, 2, 0)),
        ({"cpus_per_worker": 1.0}, [(2, 0)], (2, 1, 0)),
        ({}, [(56, 0), (8, 1), (8, 1)], (2, 8, 1)),
        ({"gpus_per_worker": 0.5}, [(16, 2)], (4, 4, 0.5)),
        ({"gpus_per_worker": 0.0}, [(16, 2)], (4, 4, 0)),
        ({}, [(1, 4)], (4, 0.25, 1)),
    ],
)
def test_shares_fit_on_nodes(
    settings: dict[str, float], nodes: list[tuple[float, ...]], expected: tuple[float, ...]
) -> None:
    assert (
        shares(EngineSettings.model_validate(settings), [node_of(*node) for node in nodes])
        == expected
    )


@pytest.mark.parametrize(
    ("settings", "nodes", "grows", "expected"),
    [
        ({"workers": "1:64"}, [(8, 0, 64 * GB)], False, (8, 1, 0)),
        ({"workers": "1:3"}, [(8, 0, 64 * GB)], False, (3, 1, 0)),
        ({"workers": "1:64"}, [(8, 0, 64 * GB)], True, (64, 1, 0)),
        ({"workers": "4:8"}, [(8, 0)], True, (8, 2, 0)),
        ({"workers": "2:8"}, [(8, 0)], False, (2, 4, 0)),
        ({"workers": "2:8"}, [(8, 2)], True, (8, 4, 1)),
        ({"workers": "2:8"}, [], True, (8, 1, 0)),
    ],
)
def test_a_range_of_workers_starts_as_many_as_find_room(
    settings: dict[str, object],
    nodes: list[tuple[float, ...]],
    grows: bool,
    expected: tuple[float, ...],
) -> None:
    cluster = [node_of(*node) for node in nodes]
    assert shares(EngineSettings.model_validate(settings), cluster, grows=grows) == expected


@pytest.mark.parametrize(
    ("device", "settings", "room"),
    [
        ("cpu", {"workers": "9:16"}, "room for 8, each with 1 CPU;"),
        ("cpu", {"workers": "3:4", "cpus_per_worker": 4.0}, "room for 2, each with 4 CPUs"),
        ("gpu", {"workers": "3:4", "gpus_per_worker": 0.5}, "for 2, each with 4 CPUs and 0.5 GPUs"),
    ],
)
def test_a_range_whose_least_finds_no_room_is_refused(
    device: str, settings: dict[str, object], room: str
) -> None:
    with pytest.raises(UsageError, match=room):
        shares(EngineSettings.model_validate({"device": device} | settings), [Node(8, 1)])


def test_the_start_of_a_range_is_not_checked_where_nodes_may_join_that_nobody_can_name() -> None:
    settings = EngineSettings.model_validate({"workers": "4:64"})
    assert shares(settings, [Node(2)], grows=True, all_known=False) == (64, 1.0, 0.0)


@pytest.mark.parametrize("text", ["8:4", "0:4", "a:b", "4:", ":4", "-1:3", "1.5:2", "", "0"])
def test_what_is_no_number_or_range_of_workers_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        EngineSettings.model_validate({"workers": text})


def test_more_than_any_node_has_is_refused() -> None:
    with pytest.raises(UsageError, match="no node of the Ray cluster has more than 2"):
        shares(EngineSettings(cpus_per_worker=4.0), [Node(2), Node(2)])
    with pytest.raises(UsageError, match="no node of the Ray cluster has as many GPUs"):
        shares(EngineSettings(gpus_per_worker=1.0), [Node(2)])


@pytest.mark.parametrize(
    ("settings", "nodes", "expected"),
    [
        ({"device": "cpu"}, [Node(8, 2, 64 << 30)], (8, 1.0, 0.0)),
        ({"device": "gpu"}, [Node(8, 2)], (2, 4.0, 1.0)),
        ({"device": "gpu", "gpus_per_worker": 0.5}, [Node(8, 2)], (4, 2.0, 0.5)),
        ({"device": "auto"}, [Node(4), Node(8, 1, count=3)], (3, 8.0, 1.0)),
    ],
)
def test_the_device_decides_what_a_worker_gets(
    settings: dict[str, object], nodes: list[Node], expected: tuple[float, ...]
) -> None:
    assert shares(EngineSettings.model_validate(settings), nodes) == expected


def test_a_gpu_that_no_node_has_is_waited_for_where_nodes_may_join_and_refused_elsewhere() -> None:
    settings = EngineSettings(device="gpu")
    assert shares(settings, [Node(4)], grows=True) == (1, 1.0, 1.0)
    with pytest.raises(UsageError, match="device = 'gpu', but there is no GPU"):
        shares(settings, [Node(4)])


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 1.0), ("gpu", 0.0)])
def test_a_device_and_gpus_that_contradict_each_other_are_refused(device: str, gpus: float) -> None:
    with pytest.raises(UsageError, match="remove one of them"):
        shares(
            EngineSettings.model_validate({"device": device, "gpus_per_worker": gpus}), [Node(4, 1)]
        )


def test_a_cluster_that_was_scaled_to_zero_is_waited_for() -> None:
    assert shares(EngineSettings(), [Node(0)], grows=True) == (1, 1.0, 0.0)
    assert shares(EngineSettings(workers=3, cpus_per_worker=2.0), [], grows=True) == (3, 2.0, 0.0)
