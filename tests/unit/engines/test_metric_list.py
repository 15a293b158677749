"""Test that the dashboard and the page about metrics name the metrics that the code exports."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from skinbatch.engines.metric_list import METRICS, PREFIX, exported
from skinbatch.report.course import PARTS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/what-bounds-a-run.md").read_text(encoding="utf-8")
NAMES = {name for metric in METRICS for name in exported(metric)}


@pytest.fixture(scope="module")
def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((ROOT / "cluster/grafana.json").read_text(encoding="utf-8"))
    return list(dashboard["panels"])


def queries(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_the_dashboard_shows_every_metric_and_no_other(panels: list[dict[str, Any]]) -> None:
    shown = {name for query in queries(panels) for name in re.findall(rf"{PREFIX}\w+", query)}
    assert shown == NAMES


def test_the_dashboard_groups_by_tags_that_the_metrics_have(panels: list[dict[str, Any]]) -> None:
    for query in queries(panels):
        tags = {*re.findall(r"by \((\w+)\)", query), *re.findall(r"[{,]\s*(\w+)!?=", query)}
        (metric,) = {
            name for name in METRICS for full in exported(name) if re.search(rf"{full}\b", query)
        } - {"units_in_work"} or {"units_in_work"}
        assert tags <= {"scoring", "le", *METRICS[metric].tags}, query


def test_every_panel_has_its_own_place(panels: list[dict[str, Any]]) -> None:
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("name", METRICS)
def test_the_page_describes_every_metric(name: str) -> None:
    metric = METRICS[name]
    tags = ", ".join(f"`{tag}`" for tag in metric.tags)
    full_name = exported(name)[0].removesuffix("_bucket")
    assert f"\n| `{full_name}` | {metric.kind} | {tags} | {metric.description} |\n" in PAGE


def test_the_page_names_no_metric_that_does_not_exist() -> None:
    histograms = {
        f"{PREFIX}{name}" for name, metric in METRICS.items() if metric.kind == "histogram"
    }
    assert set(re.findall(rf"{PREFIX}\w+", PAGE)) <= NAMES | histograms


def test_the_parts_of_a_worker_s_time_are_described() -> None:
    described = METRICS["stage_seconds"].description
    assert all(part in described for part in ("fetch", "decode", *PARTS))
