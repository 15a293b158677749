"""Embedded Ray as others on the network and its own monitoring see it, while a run is going on it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import skinbatch
from tests.faces import face, png, write_tree

RUN = """
import json, sys, time
import urllib.request
import psutil
from skinbatch.config import parse_config
from skinbatch.engines.score import score
from skinbatch.engines.presenter import Silent
from skinbatch.engines.ray_engine import RayEngine, ray

engine = RayEngine(parse_config({}).engine)  # this process's session: the run below finds it

listening = set()
me = psutil.Process()
for process in [me, *me.children(recursive=True)]:
    try:
        listening |= {c.laddr.ip for c in process.net_connections("inet") if c.status == "LISTEN"}
    except psutil.Error:
        continue
settings = parse_config({"run": {"max_failures": 1.0}, "engine": {"workers": 1, "cpus_per_worker": 1.0}})
report = score(sys.argv[1], sys.argv[2], pack=sys.argv[3], config=settings)
(node,) = ray.nodes()
metrics, until = "", time.monotonic() + 60
while "skinbatch_photos_isolated" not in metrics and time.monotonic() < until:
    with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    time.sleep(0.5)
engine.close()
print(json.dumps({"listening": sorted(listening), "exit_code": report.exit_code, "metrics": metrics}))
"""


@pytest.mark.slow
def test_embedded_ray_listens_on_loopback_only_and_exports_what_the_run_counted(
    tmp_path: Path, mortal_pack: str
) -> None:
    from skinbatch.models.fake import KILLS

    tree = write_tree(tmp_path / "photos", {"a.png": png(face(1, 1)), "b.png": b"", "c.png": png(face(corner=KILLS))})
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(skinbatch.__file__).parents[1]),
        "RAY_metrics_report_interval_ms": "500",
    }
    env.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tree), str(tmp_path / "out"), mortal_pack],
        env=env, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["exit_code"] == 0
    assert found["listening"]
    assert {ip.removeprefix("::ffff:") for ip in found["listening"]} <= {"127.0.0.1", "::1"}
    counted = {
        (name, status): float(value)
        for name, status, value in re.findall(
            r'^ray_skinbatch_(\w+?)(?:_total)?\{(?:[^}]*?status="(\w+)")?[^}]*\} (\S+)$', found["metrics"], re.MULTILINE
        )
    }
    assert counted["photos", "ok"] == 1
    assert counted["photos", "empty"] == 1
    assert counted["photos_isolated", ""] == 1
    assert counted["worker_deaths", ""] >= 3
    assert counted["units_retried", ""] >= 1
