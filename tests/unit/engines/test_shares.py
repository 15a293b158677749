"""Workers are cut so that each fits on a node."""

import pytest

from skinbatch.config import EngineSettings
from skinbatch.engines.shares import Node, shares
from skinbatch.errors import UsageError

GB = 1 << 30


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
    assert shares(EngineSettings.model_validate(settings), [Node(*node) for node in nodes]) == expected


def test_more_than_any_node_has_is_refused() -> None:
    with pytest.raises(UsageError, match="no node of the Ray cluster has over 2"):
        shares(EngineSettings(cpus_per_worker=4.0), [Node(2), Node(2)])
    with pytest.raises(UsageError, match="no node of the Ray cluster has as many GPUs"):
        shares(EngineSettings(gpus_per_worker=1.0), [Node(2)])
