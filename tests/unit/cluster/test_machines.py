"""Test that Ray and EC2 accept the autoscaler file for virtual machines."""

from __future__ import annotations

from typing import Any

import boto3
import jsonschema
import pytest
import yaml
from botocore.session import Session
from botocore.validate import ParamValidator

from tests.unit.cluster.manifests import CLUSTER, copied


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Read the file as it is written, with all calls of AWS out of reach."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("AWS was asked")

    monkeypatch.setattr(boto3, "client", refuse)
    monkeypatch.setattr(boto3, "resource", refuse)
    monkeypatch.setattr(boto3.Session, "client", refuse)
    monkeypatch.setattr(boto3.Session, "resource", refuse)
    text: dict[str, Any] = copied(yaml.safe_load((CLUSTER / "aws/cluster.yaml").read_text()))
    return text


def validated(config: dict[str, Any]) -> dict[str, Any]:
    """Fill in Ray's defaults and apply its own checks, as `ray up` does."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config.setdefault("cluster_synced_files", [])
    prepared: dict[str, Any] = prepare_config(config)
    validate_config(prepared)
    return prepared


def test_ray_takes_the_file(config: dict[str, Any]) -> None:
    prepared = validated(config)

    assert set(prepared["available_node_types"]) == {"head", "gpu-spot", "gpu-on-demand"}


def test_ray_refuses_a_misspelt_field(config: dict[str, Any]) -> None:
    config["max_worker"] = 3

    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validated(config)


def test_spot_machines_come_first(config: dict[str, Any]) -> None:
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    read = AutoscalingConfig(validated(config), skip_content_hash=True)
    types = read.get_node_type_configs()

    assert types is not None
    assert types["gpu-spot"].priority > types["gpu-on-demand"].priority
    spot = config["available_node_types"]["gpu-spot"]["node_config"]
    assert spot.pop("InstanceMarketOptions") == {"MarketType": "spot"}
    assert spot == config["available_node_types"]["gpu-on-demand"]["node_config"]


def test_ec2_takes_every_machine(config: dict[str, Any]) -> None:
    request = Session().get_service_model("ec2").operation_model("RunInstances").input_shape

    for name, node_type in config["available_node_types"].items():
        machine = {"MinCount": 1, "MaxCount": 1, **node_type["node_config"]}
        report = ParamValidator().validate(machine, request)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


def test_no_worker_is_placed_on_the_head(config: dict[str, Any]) -> None:
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0}


def test_no_machine_gets_the_old_image_of_ray(config: dict[str, Any]) -> None:
    images = {
        each["node_config"]["ImageId"]
        for each in validated(config)["available_node_types"].values()
    }

    assert all(image.startswith("resolve:ssm:/aws/service/deeplearning/") for image in images)
