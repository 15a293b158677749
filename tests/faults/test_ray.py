"""Test Ray actors that are killed and stopped at the points of a unit, and a cluster that loses a machine."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import skinbatch
from skinbatch.config import parse_config
from skinbatch.runs import cleanup, snapshot
from skinbatch.runs.run_report import RunReport
from tests.faults.bench import differences, same_rows
from tests.faults.fault import ENVIRONMENT, Fault, Faults, state_of
from tests.faults.zygote import ROOT

pytestmark = pytest.mark.slow

POINTS = [
    Fault("worker", "get photo", "after", 20),
    Fault("worker", "model", "before", 5),
    Fault("worker", "put boxes", "before", 3),
    Fault("worker", "put boxes", "after", 3),
    Fault("worker", "put receipts", "before", 3),
    Fault("worker", "put receipts", "after", 3),
]


@pytest.fixture(scope="module")
def armed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """Set faults of which every process that Ray starts will learn."""
    faults = Faults(tmp_path_factory.mktemp("ray") / "faults").plan([])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{Path(__file__).parent / 'hooks'}:{ROOT}")
        patch.setenv(ENVIRONMENT, str(faults.folder))
        yield faults


@pytest.fixture(scope="module")
def session(armed: Faults) -> Iterator[None]:
    """Start one embedded Ray for all tests but the cluster's."""
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
    fault: Fault,
    armed: Faults,
    session: None,
    archive: Path,
    undisturbed: Path,
    fake_pack: str,
    tmp_path: Path,
) -> None:
    armed.plan([fault])
    report = score(archive, tmp_path / "out", fake_pack)
    assert len(armed.happened) == 1
    assert report.exit_code == 0
    assert differences(tmp_path / "out") == []
    assert same_rows(tmp_path / "out", undisturbed)


class Unreachable:
    """Simulate an actor that Ray's order to end does not reach, as on a machine that is cut off.

    Otherwise Ray would end an actor that is stopped, and one that continues before it could write.
    """

    def __init__(self, faults: Faults, patch: pytest.MonkeyPatch) -> None:
        import ray

        self.faults, self.actors = faults, list[Any]()
        self._kill = ray.kill
        patch.setattr(ray, "kill", self._end)

    def _end(self, actor: Any, no_restart: bool = True) -> None:
        from ray._private import state

        stopped = {pid for _, pid in self.faults.happened}
        if not self.actors and state.actors(actor._actor_id.hex()).get("Pid") in stopped:
            # Ray keeps it while this name refers to it.
            self.actors.append(actor)
        else:
            self._kill(actor, no_restart=no_restart)

    @property
    def pid(self) -> int:
        ((_, pid),) = self.faults.happened
        return pid

    def goes_on(self) -> None:
        """Let an actor continue until it has written its tables and receipt, which nobody waits for."""
        assert self.actors and state_of(self.pid) == "T"
        before = self.faults.passed("worker", "put receipts", "after")
        os.kill(self.pid, signal.SIGCONT)
        self._until(lambda: self.faults.passed("worker", "put receipts", "after") == before + 1)

    def end(self) -> None:
        for actor in self.actors:
            self._kill(actor)
        self._until(lambda: state_of(self.pid) in ("", "Z"))

    def _until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not true():
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.fixture
def unreachable(
    session: None, armed: Faults, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Unreachable]:
    armed.plan([Fault("worker", "put images", "before", 3, "stop")])
    made = Unreachable(armed, monkeypatch)
    yield made
    made.end()


def receipts_in(out: Path) -> list[Path]:
    return sorted(out.rglob("_skinbatch/receipts/*/*/*.json"))


@pytest.mark.parametrize("when", ["before the snapshot", "before the clean-up"])
def test_what_an_actor_writes_late_while_the_run_ends_is_cleaned_up(
    when: str,
    unreachable: Unreachable,
    archive: Path,
    undisturbed: Path,
    fake_pack: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    owner, name = (snapshot, "write") if when == "before the snapshot" else (cleanup, "clean_up")
    original, late = getattr(owner, name), list[Path]()

    def held_up(*args: Any, **how: Any) -> Any:
        before = receipts_in(out)
        unreachable.goes_on()
        late.extend(set(receipts_in(out)) - set(before))
        return original(*args, **how)

    monkeypatch.setattr(owner, name, held_up)
    assert score(archive, out, fake_pack, cpus_per_worker=0.5).exit_code == 0
    assert len(late) == 1 and not late[0].exists()
    assert differences(out) == []
    assert same_rows(out, undisturbed)


@pytest.mark.parametrize(
    ("point", "what"),
    [
        ("put images", "a receipt that the snapshot does not name"),
        ("put boxes", "a receipt whose files are gone"),
    ],
)
def test_what_an_actor_writes_late_when_the_run_has_ended_changes_nothing(
    point: str,
    what: str,
    armed: Faults,
    unreachable: Unreachable,
    archive: Path,
    undisturbed: Path,
    fake_pack: str,
    tmp_path: Path,
) -> None:
    """Let an actor write everything late, or all but the images, which the clean-up has deleted.

    Of two complete receipts of a unit, the one with the smallest attempt counts for every reader.
    """
    out = tmp_path / "out"
    armed.plan([Fault("worker", point, "before", 3, "stop")])
    assert score(archive, out, fake_pack, cpus_per_worker=0.5).exit_code == 0
    assert differences(out) == []
    before = receipts_in(out)
    unreachable.goes_on()
    (late,) = set(receipts_in(out)) - set(before)
    assert same_rows(out, undisturbed)
    assert any(f"{late}: {what}" in said for said in differences(out))
    assert score(archive, out, fake_pack, cpus_per_worker=0.5).exit_code == 0
    (own,) = (path for path in before if path.parent == late.parent)
    counts = min(own, late) if point == "put images" else own
    assert receipts_in(out) == sorted((set(before) - {own}) | {counts})
    assert differences(out) == []
    assert same_rows(out, undisturbed)


def test_an_actor_that_stands_still_is_given_up_and_ended(
    armed: Faults, session: None, archive: Path, undisturbed: Path, fake_pack: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    armed.plan([Fault("worker", "put receipts", "before", 3, "stop")])
    assert score(archive, out, fake_pack).exit_code == 0
    ((_, late),) = armed.happened
    end = time.monotonic() + 60
    while state_of(late) not in ("", "Z"):  # by Ray, although it does not hear that it should
        assert time.monotonic() < end
        time.sleep(0.05)
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
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20}
    )
    try:
        nodes = [cluster.head_node, cluster.add_node(num_cpus=1, object_store_memory=100 << 20)]
        cluster.wait_for_nodes()
        done = threading.Event()

        def lose() -> None:
            """Kill the machine that is not the head, while both actors are in the middle of a unit."""
            while len(armed.happened) < 2:
                if done.wait(0.05):
                    return
            cluster.remove_node(nodes[1], allow_graceful=False)
            for _, pid in armed.happened:
                if state_of(pid) == "T":
                    os.kill(pid, signal.SIGCONT)

        loser = threading.Thread(target=lose)
        loser.start()
        report = score(
            archive, out, fake_pack, workers=2, ray_address=cluster.address, stall_timeout_s=60.0
        )
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
