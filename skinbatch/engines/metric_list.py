"""List the metrics of a run, without importing Ray.

`ray_metrics.py` exports them. The dashboard and the page about them are checked against this list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# Ray puts this before the name of a metric, and Prometheus `_total` after that of a counter.
PREFIX = "ray_skinbatch_"
# Value of the tag `scoring` for the sample of `skinbatch plan`.
SAMPLE = "plan"


@dataclass(frozen=True, slots=True)
class PrometheusMetric:
    """Describe one metric. tags: besides `scoring`, which every metric has."""

    kind: Literal["counter", "gauge", "histogram"]
    description: str
    tags: tuple[str, ...] = ()


METRICS: Mapping[str, PrometheusMetric] = {
    "photos": PrometheusMetric(
        "counter", "Photos scored, by status; copied rows do not count", ("status",)
    ),
    "photos_isolated": PrometheusMetric("counter", "Photos found to kill or to hang their worker"),
    "units": PrometheusMetric("counter", "Attempts at units, by outcome", ("outcome",)),
    "units_retried": PrometheusMetric("counter", "Attempts at units that were handed out before"),
    "units_waiting": PrometheusMetric("gauge", "Units that are not done and that no worker has"),
    "units_in_work": PrometheusMetric("gauge", "Units that a worker has"),
    "unit_seconds": PrometheusMetric("histogram", "Seconds that a worker took for a unit"),
    "stage_seconds": PrometheusMetric(
        "counter",
        "Seconds of workers by part: fetch, decode, segmenter, crop, detector, classifier, grade, write, "
        "and wait, in which models waited for photos",
        ("part",),
    ),
    "workers_ready": PrometheusMetric("gauge", "Workers that have built their models"),
    "worker_deaths": PrometheusMetric("counter", "Workers that died or were given up"),
    "gpu_memory_bytes": PrometheusMetric(
        "gauge", "Most GPU memory that a worker has reserved, by worker", ("worker",)
    ),
    "bytes_read": PrometheusMetric("counter", "Bytes that workers read"),
    "bytes_written": PrometheusMetric("counter", "Bytes that workers wrote"),
    "requests_retried": PrometheusMetric("counter", "Requests to a store that workers made again"),
    "requests_throttled": PrometheusMetric(
        "counter", "Answers of a store that asked for fewer requests"
    ),
}
# Upper bounds of the classes of `unit_seconds`.
UNIT_SECONDS = (1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


def exported(name: str) -> list[str]:
    """Return the names under which Prometheus has a metric."""
    match METRICS[name].kind:
        case "counter":
            return [f"{PREFIX}{name}_total"]
        case "gauge":
            return [f"{PREFIX}{name}"]
        case "histogram":
            return [f"{PREFIX}{name}_{part}" for part in ("bucket", "sum", "count")]
