"""Test which nodes an autoscaler may add, read from its configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.kuberay import autoscaling_config as kuberay

from skinbatch.config import EngineSettings
from skinbatch.engines import ray_nodes
from skinbatch.engines.shares import Node, shares

MANIFEST = Path(__file__).parents[3] / "cluster/kubernetes/base/raycluster.yaml"


def test_the_groups_of_a_raycluster_are_nodes_that_may_be_added(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Use Ray's own translation of the manifest: eight spot and eight on-demand nodes with a GPU."""
    documents = yaml.safe_load_all(MANIFEST.read_text())
    manifest = next(document for document in documents if document["kind"] == "RayCluster")
    custom_resource = {
        "metadata": {"name": "skinbatch", "namespace": "photos"},
        "spec": manifest["spec"],
    }
    config = kuberay._derive_autoscaling_config_from_ray_cr(custom_resource)
    monkeypatch.setattr(ray_nodes, "_reported", lambda: [])
    monkeypatch.setattr(ray_nodes, "_launched", lambda: list(ray_nodes._node_types(config)))
    monkeypatch.setattr(ray_nodes, "nodes_up", lambda: [Node(0.0), Node(6.0, 1.0, 24 << 30)])

    possible = ray_nodes.possible_nodes()
    assert [(node.gpus, node.count) for node in possible] == [(1.0, 15), (0.0, 8)]
    workers, _, gpus = shares(EngineSettings(), [Node(0.0), Node(6.0, 1.0, 24 << 30), *possible])
    assert (workers, gpus) == (16, 1.0)
    workers, _, gpus = shares(EngineSettings(device="cpu"), [Node(0.0), *possible])
    assert gpus == 0.0 and workers > 8


def test_the_settings_of_a_launcher_are_read_on_its_head(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = {
        "head_node_type": "head",
        "max_workers": 3,
        "available_node_types": {
            "head": {"resources": {"CPU": 4}, "max_workers": 0},
            "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 2},
            "none": {"resources": {"CPU": 64}, "max_workers": 0},
            "small": {"resources": {"CPU": 2}},
        },
    }
    (tmp_path / "ray_bootstrap_config.yaml").write_text(json.dumps(config))
    monkeypatch.setenv("HOME", str(tmp_path))
    found = ray_nodes._launched()
    assert [(node.cpus, node.gpus, node.count) for node in found] == [(8.0, 1.0, 2), (2.0, 0.0, 3)]


@pytest.mark.parametrize("text", ["", "- a list", "{broken", "available_node_types:"])
def test_settings_that_cannot_be_read_say_nothing(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ray_bootstrap_config.yaml").write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ray_nodes._launched() == []
