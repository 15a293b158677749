"""Test how others on the network, and Ray's own monitoring, see embedded Ray during a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import skinbatch
from tests.conftest import S3Server
from tests.faces import face, png
from tests.faults.proxy import Proxy, refusal

RUN = """
import json, sys, time
import urllib.request
import psutil
from skinbatch.config import parse_config
from skinbatch.engines.score import score
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.ray_engine import RayEngine, ray

engine = RayEngine(parse_config({}).engine)  # this process's session: the run below finds it

listening = set()
me = psutil.Process()
for process in [me, *me.children(recursive=True)]:
    try:
        listening |= {c.laddr.ip for c in process.net_connections("inet") if c.status == "LISTEN"}
    except psutil.Error:
        continue
storage = {"endpoint_url": sys.argv[4]}
settings = parse_config(
    {"run": {"max_failures": 1.0}, "engine": {"workers": 1, "cpus_per_worker": 1.0}, "storage": storage}
)
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
    tmp_path: Path, mortal_pack: str, s3: S3Server
) -> None:
    from skinbatch.models.fake import KILLS

    bucket = s3.bucket()
    for name, data in {
        "a.png": png(face(1, 1)),
        "b.png": b"",
        "c.png": png(face(corner=KILLS)),
    }.items():
        s3.client.put_object(Bucket=bucket, Key=name, Body=data)
    asked: list[str] = []

    def every_other(method: str, path: str) -> Any:
        asked.extend([path] * (method == "GET" and path.endswith("/a.png")))
        return refusal(503, "SlowDown") if path.endswith("/a.png") and len(asked) % 2 else None

    proxy = Proxy(str(s3.settings.endpoint_url), share=0.0)
    proxy.refuse = every_other
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(skinbatch.__file__).parents[1]),
        "RAY_metrics_report_interval_ms": "500",
    }
    env.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", RUN, f"s3://{bucket}", str(tmp_path / "out"), mortal_pack, proxy.url],
        env=env, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    proxy.close()
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["exit_code"] == 0
    assert found["listening"]
    assert {ip.removeprefix("::ffff:") for ip in found["listening"]} <= {"127.0.0.1", "::1"}
    counted = {
        (name, status): float(value)
        for name, status, value in re.findall(
            r'^ray_skinbatch_(\w+?)(?:_total)?\{(?:[^}]*?status="(\w+)")?[^}]*\} (\S+)$',
            found["metrics"],
            re.MULTILINE,
        )
    }
    assert counted["photos", "ok"] == 1
    assert counted["photos", "empty"] == 1
    assert counted["photos_isolated", ""] == 1
    assert counted["worker_deaths", ""] >= 3
    assert counted["units_retried", ""] >= 1
    # The counts of workers that died are lost.
    assert (
        1 <= counted["requests_retried", ""] == counted["requests_throttled", ""] <= len(asked) / 2
    )
