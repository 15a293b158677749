"""Test SIGINT and SIGTERM from the command's first line to its last: exit code 130 and one message.

Nothing is left behind, and the same command continues. Before its first line, Python has not begun
to run it, and it ends as any program does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import skinbatch
from skinbatch import signals
from skinbatch.config import parse_config
from skinbatch.engines.driver import drive
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.run import Run
from skinbatch.engines.setup import prepare
from skinbatch.runs import layout
from tests.faces import face, png, rows, write_tree
from tests.faults.bench import differences
from tests.faults.fault import Fault
from tests.faults.in_process import InProcessEngine
from tests.faults.trial import Trial

BOTH = (signal.SIGINT, signal.SIGTERM)
LOCAL = [
    "skinbatch.cli.main:<module>",
    "skinbatch.config:<module>",
    "skinbatch.engines.score:score",
    "skinbatch.engines.setup:prepare",
    "skinbatch.engines.run:Run.__init__",
    "skinbatch.engines.driver:drive",
    "skinbatch.runs.claim:Claim.take",
    "skinbatch.engines.local:LocalPool.__init__",
]
RAY = [
    "ray:<module>",
    "ray._private.worker:init",
    "ray._private.node:Node.start_head_processes",
    "ray._private.services:start_raylet",
    "ray._private.worker:connect",
    "skinbatch.engines.ray_engine:RayEngine.check",
    "skinbatch.engines.driver:drive",
    "skinbatch.engines.ray_pool:RayPool.__init__",
]
# When the run is over, by engine.
DONE = {
    "local": ["skinbatch.engines.local:LocalEngine.close", "skinbatch.console:summary"],
    "ray": ["ray._private.worker:shutdown"],
}
# Runs `skinbatch`, which gets a signal when a function is called or a module begins to be imported.
PROGRAM = """
import os, runpy, sys
number, where = int(sys.argv[1]), sys.argv[2]
sys.argv[1:] = sys.argv[3:]

def look(frame, event, arg):
    if event == "call" and f"{frame.f_globals.get('__name__')}:{frame.f_code.co_qualname}" == where:
        sys.setprofile(None)
        open(os.environ["SIGNAL_SENT"], "x").close()
        os.kill(os.getpid(), number)

sys.setprofile(look)
runpy.run_module("skinbatch", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "photos", {f"{n}.png": png(face(n, 1, n)) for n in range(3)})


def sent(number: int, where: str, photos: Path, pack: str, engine: str) -> tuple[int, str, int]:
    """Return the exit code, the output and the session of a command that got a signal."""
    arguments = ["score", photos, photos.parent / "out", "--pack", pack, "--engine", engine]
    environment = os.environ | {"SIGNAL_SENT": str(photos.parent / "signal-sent")}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(int(number)), where, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    said = process.communicate(timeout=120)[0]
    assert (photos.parent / "signal-sent").exists(), f"nothing called {where}"
    return process.returncode, said, process.pid


def of_session(session: int) -> list[str]:
    """Return the processes of a session that have not ended, by their names."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            facts = (place / "stat").read_text().rpartition(")")[2].split()
            if int(facts[3]) == session and facts[0] != "Z":
                found.append((place / "cmdline").read_bytes().split(b"\0")[0].decode())
        except (OSError, IndexError):
            continue
    return found


def check(number: int, where: str, photos: Path, pack: str, engine: str) -> None:
    code, said, session = sent(number, where, photos, pack, engine)
    assert code == 130, said
    assert "nterrupted; run the same command again to continue" in said and "Traceback" not in said
    # Ray's processes take a moment to end, and a minute if nothing ends them.
    end = time.monotonic() + 20.0
    while left := of_session(session):
        assert time.monotonic() < end, left
        time.sleep(0.1)
    out = photos.parent / "out"
    assert not (out / layout.CLAIM).exists()
    assert not list(out.rglob(".tmp-*"))
    assert skinbatch.score(photos, out, pack=pack, engine="local").exit_code == 0
    assert differences(out) == []
    assert len(rows(out)) == 3


@pytest.mark.parametrize("number", BOTH, ids=lambda n: n.name)
@pytest.mark.parametrize(
    "where", [*LOCAL[:2], *(pytest.param(p, marks=pytest.mark.slow) for p in LOCAL[2:])]
)
def test_a_signal_ends_the_command_with_130(
    where: str, number: int, photos: Path, fake_pack: str
) -> None:
    check(number, where, photos, fake_pack, "local")


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH, ids=lambda n: n.name)
@pytest.mark.parametrize("where", RAY)
def test_a_signal_ends_the_command_with_130_while_ray_starts(
    where: str, number: int, photos: Path, fake_pack: str
) -> None:
    check(number, where, photos, fake_pack, "ray")


@pytest.mark.parametrize("number", BOTH, ids=lambda n: n.name)
@pytest.mark.parametrize(
    ("engine", "where"),
    [
        pytest.param(engine, where, marks=[pytest.mark.slow] if engine == "ray" else [])
        for engine, places in DONE.items()
        for where in places
    ],
)
def test_a_signal_when_all_is_done_changes_nothing(
    engine: str, where: str, number: int, photos: Path, fake_pack: str
) -> None:
    code, said, _ = sent(number, where, photos, fake_pack, engine)
    assert code == 0, said
    assert "Done." in said and "interrupted" not in said
    (record,) = (photos.parent / "out/_skinbatch/runs").glob("*.json")
    assert [json.loads(record.read_text())[name] for name in ("state", "exit_code")] == ["done", 0]


@pytest.mark.parametrize("deed", ["int", "term"])
def test_a_signal_before_there_is_a_run_ends_it_with_130(deed: str, trial: Trial) -> None:
    trial.plan(Fault("driver", "get dest", "before", 1, deed))  # type: ignore[arg-type]
    driver = trial.start()
    assert driver.end() == 130, driver.said
    assert (
        "interrupted; run the same command again to continue" in driver.said
        and "Traceback" not in driver.said
    )
    trial.run()
    trial.check()


@pytest.mark.parametrize("deed", ["int", "term"])
def test_a_signal_while_the_claim_is_given_back_leaves_none(deed: str, trial: Trial) -> None:
    trial.plan(Fault("driver", "delete claim", "before", 1, deed))  # type: ignore[arg-type]
    driver = trial.start()
    assert driver.end() == 0, driver.said  # everything was done
    assert len(trial.faults.happened) == 1
    assert not (trial.out / layout.CLAIM).exists()
    trial.check()


def test_a_signal_that_was_swallowed_while_the_run_was_set_up_ends_it(
    photos: Path, fake_pack: str, tmp_path: Path
) -> None:
    config = parse_config({"pack": fake_pack, "engine": {"name": "local", "cpus_per_worker": 1.0}})
    with signals.heard_by(signals.interrupt):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        run = Run(prepare(str(photos), str(tmp_path / "out"), config), SilentPresenter(), "test")
        assert drive(run, InProcessEngine()).exit_code == 130
    assert not (tmp_path / "out" / layout.CLAIM).exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_score_as_a_library_leaves_the_handlers_of_its_caller(
    engine: str, photos: Path, fake_pack: str, tmp_path: Path
) -> None:
    heard: list[int] = []
    with signals.heard_by(lambda number, frame: heard.append(number)):
        before = [signal.getsignal(number) for number in BOTH]
        assert (
            skinbatch.score(photos, tmp_path / "out", pack=fake_pack, engine=engine).exit_code == 0
        )
        assert [signal.getsignal(number) for number in BOTH] == before
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
