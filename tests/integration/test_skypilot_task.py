"""Test that SkyPilot accepts the task.

It needs an environment of its own, as it pins other versions than we do.
"""

from __future__ import annotations

import json
import subprocess
import venv
from pathlib import Path

import pytest

from tests.unit.cluster.manifests import CLUSTER

SKYPILOT = "skypilot==0.14.1"

READ = """
import json, sys
import sky
task = sky.Task.from_yaml(sys.argv[1])
machines = [[next(iter(each.accelerators)), each.use_spot] for each in task.resources]
print(json.dumps({"run": task.run, "machines": sorted(machines)}))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_skypilot_takes_the_task(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv/bin/python")
    subprocess.run(
        [python, "-m", "pip", "install", "-q", SKYPILOT], check=True, capture_output=True
    )

    def read(task: Path) -> subprocess.CompletedProcess[str]:
        env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            [python, "-c", READ, str(task)], env=env, capture_output=True, text=True
        )

    taken = read(CLUSTER / "skypilot/task.yaml")
    assert taken.returncode == 0, taken.stderr
    found = json.loads(taken.stdout.splitlines()[-1])
    assert found["machines"] == [["A10", True], ["A10G", True], ["L4", True]]
    assert "skinbatch score s3://my-photos s3://my-scores" in found["run"]

    misspelt = tmp_path / "task.yaml"
    misspelt.write_text(
        (CLUSTER / "skypilot/task.yaml").read_text().replace("use_spot", "use_sopt")
    )
    refused = read(misspelt)
    assert refused.returncode != 0
    assert "use_sopt" in refused.stderr
