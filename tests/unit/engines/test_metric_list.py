"""Test that the dashboard and the page about metrics name the metrics that the code exports."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from skinbatch.engines.metric_list import METRICS, PREFIX, exported
from skinbatch.report.run_history import PARTS

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
    tags_of = {
        full: {"scoring", "le", *metric.tags}
        for name, metric in METRICS.items()
        for full in exported(name)
    }
    for query in queries(panels):
        selected = re.findall(rf"({PREFIX}\w+)\{{([^}}]*)\}}", query)
        assert len(selected) == query.count(PREFIX), query
        for name, conditions in selected:
            assert set(re.findall(r"(\w+)!?=", conditions)) <= tags_of[name], query
        for tag, name in re.findall(rf"by \((\w+)\) \((?:rate\()?({PREFIX}\w+)", query):
            assert tag in tags_of[name], query
        assert len(re.findall(rf"by \(\w+\) \((?:rate\()?{PREFIX}", query)) == query.count(" by ")


def test_the_dashboard_takes_rates_of_counters_only(panels: list[dict[str, Any]]) -> None:
    gauges = {
        full
        for name, metric in METRICS.items()
        if metric.kind == "gauge"
        for full in exported(name)
    }
    for query in queries(panels):
        assert not gauges.intersection(re.findall(rf"(?:rate|increase)\(({PREFIX}\w+)", query)), (
            query
        )


def test_seconds_of_parts_are_divided_by_those_of_the_same_units(
    panels: list[dict[str, Any]],
) -> None:
    (query,) = [query for query in queries(panels) if "stage_seconds" in query]
    assert "units_in_work" not in query, "it has changed when the unit ends"
    assert len(set(re.findall(r"\[(.*?)\]", query))) == 1
    assert "unit_seconds_sum" in query


def test_counters_that_may_count_once_are_shown_as_totals(panels: list[dict[str, Any]]) -> None:
    """Prometheus takes the first value of a counter for its start."""
    rare = ("worker_deaths", "photos_isolated", "requests_throttled", "requests_retried")
    for query in queries(panels):
        if any(f"{PREFIX}{name}_total" in query for name in rare):
            assert not re.search(r"rate\(|increase\(", query), query


def test_every_panel_asks_the_prometheus_that_the_reader_chooses() -> None:
    dashboard = json.loads((ROOT / "cluster/grafana.json").read_text(encoding="utf-8"))
    source, scoring = dashboard["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert scoring["datasource"] == chosen
    assert all(panel["datasource"] == chosen for panel in dashboard["panels"])


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
