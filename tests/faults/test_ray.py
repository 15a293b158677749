"""Ray's actors killed and stopped at the points of a unit, and a machine of a cluster lost under them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import skinbatch
from skinbatch.config import parse_config
from skinbatch.runs.report import RunReport
from tests.faults.bench import differences, same_rows
from tests.faults.fault import ENVIRONMENT, Fault, Faults, state_of
from tests.faults.zygote import ROOT

pytestmark = pytest.mark.slow

POINTS = [
    Fault("worker", "get photo", "after", 20),
    Fault("worker", "model", "before", 5),
    Fault("worker", "put boxes", "before", 3),
    Fault("worker", "put receipts", "before", 3),
    Fault("worker", "put receipts", "after", 3),
]


@pytest.fixture(scope="module")
def armed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """Faults that every process hears of that Ray is going to start."""
    faults = Faults(tmp_path_factory.mktemp("ray") / "faults").plan([])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{Path(__file__).parent / 'hooks'}:{ROOT}")
        patch.setenv(ENVIRONMENT, str(faults.folder))
        yield faults


@pytest.fixture(scope="module")
def session(armed: Faults) -> Iterator[None]:
    """One embedded Ray for all but the cluster's test."""
    from skinbatch.engines.ray_engine import RayEngine

    engine = RayEngine(parse_config({"engine": {"name": "ray"}}).engine)
    yield
    engine.close()


def score(archive: Path, out: Path, pack: str, workers: int = 2, **engine: Any) -> RunReport:
    settings = {
        "engine": {"batch_size": 2, "workers": workers, "stall_timeout_s": 4.0, **engine},
        "storage": {"max_attempts": 1, "timeout_s": 0.5},
    }
    return skinbatch.score(archive, out, pack=pack, engine="ray", config=parse_config(settings))


@pytest.mark.parametrize("fault", POINTS, ids=lambda f: f"{f.when} {f.point}")
def test_an_actor_that_is_killed_costs_nothing(
    fault: Fault, armed: Faults, session: None, archive: Path, undisturbed: Path, fake_pack: str, tmp_path: Path
) -> None:
    armed.plan([fault])
    report = score(archive, tmp_path / "out", fake_pack)
    assert len(armed.happened) == 1
    assert report.exit_code == 0
    assert differences(tmp_path / "out") == []
    assert same_rows(tmp_path / "out", undisturbed)


def test_an_actor_that_stood_still_until_it_was_given_up_changes_nothing_when_it_goes_on(
    armed: Faults, session: None, archive: Path, undisturbed: Path, fake_pack: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    armed.plan([Fault("worker", "put receipts", "before", 3, "stop")])
    assert score(archive, out, fake_pack).exit_code == 0
    ((_, late),) = armed.happened
    if state_of(late) == "T":
        os.kill(late, signal.SIGCONT)
    end = time.monotonic() + 60
    while state_of(late) not in ("", "Z"):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert same_rows(out, undisturbed)
    assert score(archive, out, fake_pack).exit_code == 0
    assert differences(out) == []
    assert same_rows(out, undisturbed)


def test_a_machine_that_is_lost_is_not_the_units_fault(
    armed: Faults, archive: Path, undisturbed: Path, fake_pack: str, tmp_path: Path
) -> None:
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    armed.plan([Fault("worker", "model", "before", nth, "stop") for nth in (5, 6)])
    out = tmp_path / "out"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    try:
        nodes = [cluster.head_node, cluster.add_node(num_cpus=1, object_store_memory=100 << 20)]
        cluster.wait_for_nodes()
        done = threading.Event()

        def lose() -> None:
            """The machine that is not the head, while both actors stand in the midst of a unit."""
            while len(armed.happened) < 2:
                if done.wait(0.05):
                    return
            cluster.remove_node(nodes[1], allow_graceful=False)
            for _, pid in armed.happened:
                if state_of(pid) == "T":
                    os.kill(pid, signal.SIGCONT)

        loser = threading.Thread(target=lose)
        loser.start()
        report = score(archive, out, fake_pack, workers=2, ray_address=cluster.address, stall_timeout_s=60.0)
        done.set()
        loser.join()
        assert len(armed.happened) == 2
        assert report.exit_code == 0
        (record,) = (out / "_skinbatch/runs").iterdir()
        assert json.loads(record.read_text())["worker_deaths"] == 0
        assert differences(out) == []
        assert same_rows(out, undisturbed)
    finally:
        ray.shutdown()
        cluster.shutdown()
