"""Test a Ray cluster whose nodes are drained, killed and added while a run works on them, and one
with an autoscaler."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import skinbatch
from skinbatch.config import parse_config
from skinbatch.engines.ray_watch import knock
from tests.faults.bench import differences, same_rows
from tests.faults.fault import ENVIRONMENT, Fault, Faults, state_of
from tests.faults.zygote import ROOT

pytestmark = pytest.mark.slow

RAY = str(Path(sys.executable).parent / "ray")
STORE = 100 << 20


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Return faults of which every process of the cluster will learn."""
    faults = Faults(tmp_path / "faults").plan([])
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent / 'hooks'}:{ROOT}")
    monkeypatch.setenv(ENVIRONMENT, str(faults.folder))
    return faults


@contextmanager
def cluster_of(nodes: int) -> Iterator[tuple[Any, list[Any]]]:
    """Yield a cluster and its nodes with one core each, the head first."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE}
    )
    try:
        others = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(nodes - 1)]
        cluster.wait_for_nodes()
        yield cluster, [cluster.head_node, *others]
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster: Any) -> subprocess.Popen[bytes]:
    """Start one more node in a process group of its own; the cluster's own way needs the main thread."""
    command = ["start", f"--address={cluster.address}", "--num-cpus=1", "--block"]
    command += [f"--object-store-memory={STORE}", "--disable-usage-stats"]
    return subprocess.Popen([RAY, *command], start_new_session=True, stdout=subprocess.DEVNULL)


def drain(cluster: Any, node: Any, seconds: int) -> None:
    """Announce that a node will be taken away, as a provider of spot machines does."""
    command = ["drain-node", "--address", cluster.address, "--node-id", node.node_id]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken back"]
    command += ["--deadline-remaining-seconds", str(seconds)]
    subprocess.run([RAY, *command], check=True)


def score_while(
    change: Callable[[], None], armed: Faults, archive: Path, out: Path, pack: str, cluster: Any
) -> dict[str, Any]:
    """Score with a worker a node, call `change` once all of them stand still, and return the record."""
    stopped = len(armed.planned())
    over = threading.Event()

    def wait_and_change() -> None:
        while len(armed.happened) < stopped:
            if over.wait(0.05):
                return
        change()

    thread = threading.Thread(target=wait_and_change)
    thread.start()
    settings = {
        "engine": {
            "batch_size": 2,
            "workers": stopped,
            "stall_timeout_s": 90.0,
            "ray_address": cluster.address,
        }
    }
    report = skinbatch.score(archive, out, pack=pack, engine="ray", config=parse_config(settings))
    over.set()
    thread.join()
    assert len(armed.happened) == stopped
    assert report.exit_code == 0
    (record,) = (out / "_skinbatch/runs").iterdir()
    content: dict[str, Any] = json.loads(record.read_text())
    return content


def stop_all(armed: Faults, workers: int) -> None:
    armed.plan([Fault("worker", "model", "before", 5 + n, "stop") for n in range(workers)])


def go_on(armed: Faults) -> None:
    for _, pid in armed.happened:
        if state_of(pid) == "T":
            os.kill(pid, signal.SIGCONT)


def test_nodes_that_are_killed_drained_and_added_lose_and_double_nothing(
    armed: Faults, archive: Path, undisturbed: Path, fake_pack: str, tmp_path: Path
) -> None:
    stop_all(armed, 3)
    with cluster_of(3) as (cluster, nodes):

        def change() -> None:
            drain(cluster, nodes[1], 60)
            cluster.remove_node(nodes[2], allow_graceful=False)
            added.append(add_node(cluster))
            go_on(armed)

        added: list[subprocess.Popen[bytes]] = []
        try:
            record = score_while(change, armed, archive, tmp_path / "out", fake_pack, cluster)
        finally:
            for node in added:
                os.killpg(node.pid, signal.SIGKILL)
    assert record["worker_deaths"] == 0, "no photo is to blame"
    assert differences(tmp_path / "out") == []
    assert same_rows(tmp_path / "out", undisturbed)


def test_a_unit_that_cannot_end_before_its_node_is_taken_away_goes_elsewhere(
    armed: Faults, archive: Path, undisturbed: Path, fake_pack: str, tmp_path: Path
) -> None:
    stop_all(armed, 2)
    with cluster_of(2) as (cluster, nodes):

        def change() -> None:
            drain(cluster, nodes[1], 12)
            (head,) = nodes[0].all_processes["raylet"]
            for _, pid in armed.happened:
                if parent_of(pid) == head.process.pid:
                    os.kill(pid, signal.SIGCONT)

        record = score_while(change, armed, archive, tmp_path / "out", fake_pack, cluster)
    assert record["worker_deaths"] == 0
    assert record["units_retried"] == 1
    assert differences(tmp_path / "out") == []
    assert same_rows(tmp_path / "out", undisturbed)


def test_an_autoscaler_adds_nodes_for_waiting_workers_and_gets_them_back_at_the_tail(
    armed: Faults, archive: Path, undisturbed: Path, fake_pack: str, tmp_path: Path
) -> None:
    """Ray's own autoscaler starts real nodes of one core on this machine, two at most."""
    armed.plan([Fault("worker", "model", "before", 9, "stop")])
    seen: dict[str, Any] = {}
    out = tmp_path / "out"
    with autoscaling_cluster(tmp_path, nodes=2) as address:

        def look_at_the_tail() -> None:
            """Look at the cluster once a single worker is left, which stands still."""
            import ray
            from ray._private.state import actors

            while not armed.happened:
                if over.wait(0.05):
                    return
            while not over.wait(0.2):
                states = Counter(actor["State"] for actor in actors().values())
                if states["ALIVE"] == 1 and not states["PENDING_CREATION"]:
                    break
            seen["states"] = states
            seen["nodes"] = sum(
                node["Alive"] and "CPU" in node["Resources"] for node in ray.nodes()
            )
            seen["free"] = ray.available_resources().get("CPU")
            go_on(armed)

        over = threading.Event()
        looking = threading.Thread(target=look_at_the_tail)
        looking.start()
        engine = {"batch_size": 2, "stall_timeout_s": 120.0, "ray_address": address}
        settings = parse_config({"engine": engine | {"workers": "1:5"}})
        report = skinbatch.score(archive, out, pack=fake_pack, engine="ray", config=settings)
        over.set()
        looking.join()
    assert report.exit_code == 0
    assert seen["nodes"] == 2
    assert seen["free"] == 1.0
    assert seen["states"]["ALIVE"] == 1 and not seen["states"]["PENDING_CREATION"]
    assert same_rows(out, undisturbed)


@contextmanager
def autoscaling_cluster(folder: Path, nodes: int) -> Iterator[str]:
    """Yield the address of a head without cores, whose autoscaler adds nodes with one core each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = folder / "autoscaler.json"
    config.write_text(json.dumps(_autoscaler(address, nodes)))
    command = ["start", "--head", "--block", f"--autoscaling-config={config}", "--num-cpus=0"]
    command += [f"--port={address.rpartition(':')[2]}", "--disable-usage-stats"]
    command += [f"--object-store-memory={STORE}", "--include-dashboard=false"]
    environment = os.environ | {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_AUTH_MODE": "disabled",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    with (folder / "ray.log").open("wb") as log:
        head = subprocess.Popen(
            [RAY, *command], env=environment, start_new_session=True, stdout=log, stderr=log
        )
    try:
        for _ in range(600):
            with suppress(OSError):
                knock(address, 1)
                break
            time.sleep(0.1)
        yield address
    finally:
        import ray

        ray.shutdown()
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()


def _autoscaler(address: str, nodes: int) -> dict[str, Any]:
    """Return the settings of Ray's autoscaler with its provider for tests."""
    core = {"resources": {"CPU": 1, "object_store_memory": STORE}, "max_workers": nodes}
    head = {"resources": {"CPU": 0}, "max_workers": 0}
    empty_lists = (
        "initialization_commands",
        "setup_commands",
        "head_setup_commands",
        "worker_setup_commands",
        "head_start_ray_commands",
        "worker_start_ray_commands",
        "cluster_synced_files",
        "rsync_exclude",
        "rsync_filter",
    )
    return {
        "cluster_name": "test",
        "max_workers": nodes,
        "upscaling_speed": 10,
        "idle_timeout_minutes": 5,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "disable_node_updaters": True,
        },
        "available_node_types": {
            "ray.head.default": head | {"node_config": {}},
            "core": core | {"node_config": {}, "min_workers": 0},
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in empty_lists},
    }


def parent_of(pid: int) -> int:
    """Return the parent of a process. A worker's is the raylet of its node."""
    status = Path(f"/proc/{pid}/stat").read_text()
    return int(status.rpartition(")")[2].split()[1])
