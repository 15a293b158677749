"""Test that Prometheus finds the metrics of a run at the port that embedded Ray opens for them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faces import face, png, write_tree

ROOT = Path(__file__).parents[2]

# Waits until the last value of the run is exported.
_SCRAPE = """
import json, sys, time, urllib.request
from pathlib import Path
import ray

def scrape(last):
    (node,) = ray.nodes()
    metrics, until = "", time.monotonic() + 60
    while last not in metrics and time.monotonic() < until:
        url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            metrics = answer.read().decode()
        time.sleep(0.3)
    print(json.dumps(metrics))
"""

_SIMULATED = f"""
from dataclasses import replace
from jobs import simulate
from jobs.simulate_ray import FakeRayEngine
{_SCRAPE}
from skinbatch.engines.ray_metrics import RunMetrics
from skinbatch.scoring.assignment import Assignment, UnitDone, UnitFailed
from skinbatch.storage.discard import DISCARD
from skinbatch.types import WorkUnit

work = Path(sys.argv[1])
simulate.write_plan(work, 20, in_folder=True)
run = simulate.Run(simulate.prepare_simulated(work, in_folder=True), simulate.SilentPresenter(), "test")
run.planner = simulate.PlannedBefore(run.prepared, run.presenter, run.log, lambda: None)
engine = FakeRayEngine(2)
assert simulate.drive(run, engine).exit_code == 0

# Two units are left for one that was halved, and nothing is in work when the run is broken off.
metrics = RunMetrics("halved", 3)
unit = Assignment(WorkUnit("g0"), "")
for given in (unit, unit, replace(unit, unit=WorkUnit("g0.0")), replace(unit, unit=WorkUnit("g0.1"))):
    metrics.submitted(0, given)
metrics.finished(0, UnitFailed("defect", "a bug"))
metrics.submitted(0, given)
metrics.closed()

# The sample of a plan has the fingerprint of the scoring that it is for.
sample = engine.start(replace(run.prepared.context, destination=DISCARD, units=10))
sample.progress()
sample.close()

# What only a GPU, a bad store and a deadly photo would show.
metrics = RunMetrics("other", 10)
given = Assignment(WorkUnit("g0"), "")
metrics.submitted(7, given)
metrics.finished(7, UnitFailed("store", "503", traffic={{"requests_throttled": 3}}))
metrics.submitted(7, given)
metrics.finished(7, UnitDone(None, gpu_memory=1 << 30))
metrics.submitted(8, Assignment(WorkUnit("g1"), ""))
metrics.standing(5)
metrics.replaced(8)
scrape("gpu_memory_bytes")
engine.close()
"""

_REAL = f"""
from skinbatch.config import parse_config
from skinbatch.engines.ray_engine import RayEngine
from skinbatch.engines.score import score
{_SCRAPE}
settings = parse_config({{"engine": {{"workers": 1, "cpus_per_worker": 1.0}}}})
engine = RayEngine(settings.engine)  # this process's session: the run below finds it
assert score(sys.argv[1], sys.argv[2], pack=sys.argv[3], config=settings).exit_code == 0
scrape("skinbatch_unit_seconds_sum")
engine.close()
"""


def scraped(program: str, *arguments: str) -> dict[tuple[str, ...], float]:
    """Run a program that prints metrics, and return name and values of tags -> value."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_metrics_report_interval_ms": "300"}
    env.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]

    found: dict[tuple[str, ...], float] = {}
    lines = re.findall(
        r"^ray_skinbatch_(\w+)\{([^}]*)\} (\S+)$",
        json.loads(done.stdout.splitlines()[-1]),
        re.MULTILINE,
    )
    for name, tags, value in lines:
        own = re.findall(r'\b(?:scoring|status|outcome|part|worker)="(\w+)"', tags)
        found[(name, *sorted(own))] = float(value)
    return found


def test_a_run_through_ray_exports_what_it_counted(tmp_path: Path) -> None:
    found = scraped(_SIMULATED, str(tmp_path))
    (scoring,) = {tag for name, *tags in found for tag in tags if re.fullmatch("[0-9a-f]{12}", tag)}

    def of_run(name: str, *tags: str) -> float:
        return found[(name, *sorted([scoring, *tags]))]

    assert of_run("units_total", "done") == 20
    assert of_run("photos_total", "ok") == 20 * 500
    assert of_run("stage_seconds_total", "fetch") == 20 * 1.0
    assert of_run("stage_seconds_total", "decode") == 20 * 9.0
    assert of_run("unit_seconds_count") == 20
    standing = [of_run(name) for name in ("units_waiting", "units_in_work", "workers_ready")]
    assert standing == [0, 0, 0]

    assert found["gpu_memory_bytes", "7", "other"] == 1 << 30
    assert found["units_total", "other", "store"] == 1
    assert found["units_retried_total", "other"] == 1
    assert found["requests_throttled_total", "other"] == 3
    assert found["worker_deaths_total", "other"] == 1
    # One of ten is done, and one was in work.
    assert found["units_waiting", "other"] == 8
    assert found["units_in_work", "other"] == 1
    assert found["workers_ready", "other"] == 5

    assert found["units_total", "defect", "halved"] == 1
    assert found["units_waiting", "halved"] == 4
    assert found["units_waiting", "plan"] == 10
    assert found["units_in_work", "halved"] == 0


@pytest.mark.slow
def test_workers_report_the_seconds_of_each_part(tmp_path: Path, fake_pack: str) -> None:
    write_tree(tmp_path / "photos", {f"{n}.png": png(face(n, 1)) for n in range(4)})
    found = scraped(_REAL, str(tmp_path / "photos"), str(tmp_path / "out"), fake_pack)
    (scoring,) = {tag for name, *tags in found for tag in tags if name == "unit_seconds_sum"}

    def seconds(part: str) -> float:
        return found[("stage_seconds_total", *sorted([scoring, part]))]

    assert found[("photos_total", *sorted([scoring, "ok"]))] == 4
    for part in ("fetch", "decode", "wait", "segmenter", "detector", "classifier", "write"):
        assert seconds(part) > 0, part
    assert found["unit_seconds_sum", scoring] > seconds("segmenter")
    assert found["bytes_read_total", scoring] > 0 < found["bytes_written_total", scoring]
