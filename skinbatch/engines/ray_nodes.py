"""Find the nodes of a Ray cluster: those that are up and those that its autoscaler may add."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.util.client
import yaml
from ray._private.state import state

from skinbatch.engines.shares import Node
from skinbatch.logs import event

# Settings that the launcher of virtual machines (`ray up`) puts on the head.
_BOOTSTRAP = "~/ray_bootstrap_config.yaml"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Number of nodes to assume when the autoscaler's settings give no limit.
_MANY = 1000


def nodes_up() -> list[Node]:
    """Return the nodes that are alive."""
    return [_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def draining_nodes() -> dict[str, float]:
    """Return the nodes that are about to be taken away, and the seconds that each has left.

    A spot machine is drained when its provider announces that it will be taken back, and an idle
    machine before the autoscaler ends it. Without a deadline the time is infinite. Through Ray
    Client (ray://) Ray does not tell, and nothing is returned.
    """
    if ray.util.client.ray.is_connected():
        return {}
    now = time.time()
    return {
        node: deadline / 1000 - now if deadline else math.inf
        for node, deadline in state.get_draining_nodes().items()
    }


def possible_nodes() -> list[Node]:
    """Return the nodes that the cluster's autoscaler may still add.

    They are read from the autoscaler's report to the head, else from the settings that `ray up`
    left on the head, else from the RayCluster in Kubernetes that this pod belongs to. The list is
    empty without an autoscaler, or if its settings cannot be read.
    """
    kinds: dict[tuple[float, float], Node] = {}
    for node in _reported() or _launched() or _in_kubernetes():
        shape = node.cpus, node.gpus
        others = kinds[shape].count if shape in kinds else 0  # spot and on-demand nodes
        kinds[shape] = replace(node, count=node.count + others)

    for node in nodes_up():
        shape = node.cpus, node.gpus
        if shape in kinds:
            kinds[shape] = replace(kinds[shape], count=kinds[shape].count - 1)
    return [node for node in kinds.values() if node.count > 0]


def _reported() -> list[Node]:
    config = state.get_cluster_config()
    groups = [] if config is None else config.node_group_configs
    return [_node(group.resources, _count(group.max_count)) for group in groups if group.max_count]


def _launched() -> list[Node]:
    """Read the launcher's settings, which exist only on a virtual machine that is the head."""
    path = Path(os.path.expanduser(_BOOTSTRAP))
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []
    return list(_node_types(config)) if isinstance(config, dict) else []


def _in_kubernetes() -> list[Node]:
    """Read the RayCluster with the rights of this pod.

    The head's pod may read its own RayCluster if the autoscaler is on.
    """
    name = os.environ.get("RAY_CLUSTER_NAME")
    if not name or "KUBERNETES_SERVICE_HOST" not in os.environ:
        return []
    from ray.autoscaler._private.kuberay import autoscaling_config as kuberay

    try:
        namespace = (
            os.environ.get("RAY_CLUSTER_NAMESPACE") or (_ACCOUNT / "namespace").read_text().strip()
        )
        producer = kuberay.AutoscalingConfigProducer(name, namespace)
        cluster = producer.kubernetes_api_client.get(f"rayclusters/{name}")
        if not cluster["spec"].get("enableInTreeAutoscaling"):
            return []
        return list(_node_types(kuberay._derive_autoscaling_config_from_ray_cr(cluster)))
    except Exception as e:  # no rights, no network, or another version of the operator
        event("autoscaler_unknown", message=f"{type(e).__name__}: {e}")
        return []


def _node_types(config: Mapping[str, Any]) -> Iterator[Node]:
    """Yield the nodes that a launcher's settings allow it to add."""
    for name, kind in (config.get("available_node_types") or {}).items():
        most = kind.get("max_workers", config.get("max_workers", 0))
        if name != config.get("head_node_type") and most:
            yield _node(kind.get("resources") or {}, _count(most))


def _node(has: Mapping[str, float], count: int = 1) -> Node:
    cpus, gpus, memory = (float(has.get(kind, 0) or 0) for kind in ("CPU", "GPU", "memory"))
    return Node(cpus, gpus, memory, count)


def _count(most: int) -> int:
    return _MANY if most < 0 else int(most)
