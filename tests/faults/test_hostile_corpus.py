"""Test a source of hostile files: each listed photo has one row, and nothing crashes, hangs, grows or escapes."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import skinbatch
from skinbatch.archive.decode import PhotoError, decode
from skinbatch.archive.source import open_source
from skinbatch.archive.unit_reader import read_unit
from skinbatch.config import Config
from skinbatch.errors import SkinbatchError
from skinbatch.storage.local import _TO_KEY
from skinbatch.storage.locate import Locator
from skinbatch.types import ShardRef, WorkUnit
from tests.faces import rows
from tests.faults.corpus import Hostile, heavy_photos, hostile_photos
from tests.faults.corpus_archives import heavy_archives, hostile_archives, info

MOST_SECONDS = 10.0
# Bytes, of which importing torch takes 400 MiB. It is twice as much for a zip of a million members,
# whose directory is read whole.
MOST_OF_DRIVER = 1024 << 20
# Bytes of a worker, of which importing torch takes 400 MiB. The rest is [decode] ahead_bytes, and
# the largest photo three times: in the decoder, as pixels and as the models' input.
MOST_MEMORY = 2048 << 20
RUN = """
import dataclasses, json, resource, sys
import skinbatch
from skinbatch.config import parse_config
run = {"max_failures": 1.0, "stop_failures": 1.0}
settings = parse_config({"run": run, "engine": {"stall_timeout_s": 100.0, "cpus_per_worker": 1.0}})
report = skinbatch.score(sys.argv[1], sys.argv[2], pack=sys.argv[3], engine="local", config=settings)
driver = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]  # ru_maxrss begins with that of the test
memory = {"driver": int(driver) << 10, "worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10}
print(json.dumps({"report": dataclasses.asdict(report), "memory": memory}))
"""


# The path to which members of archives try to be unpacked.
OUTSIDE = Path(f"/tmp/skinbatch-must-not-be-{os.getpid()}")


@functools.cache
def corpus(*, heavy: bool) -> list[Hostile]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # zipfile's, of names that come twice
        every = [*hostile_photos(), *hostile_archives(str(OUTSIDE))]
        return [*every, *heavy_photos(), *heavy_archives()] if heavy else every


def write(tree: Path, hostile: Hostile) -> Path:
    """Write a file in a very deep folder.

    makedirs recurses once for each level, which is not deep enough here.
    """
    folder, *rest = tree, *hostile.path.split("/")
    for part in rest[:-1]:
        folder = folder / part
        folder.mkdir(exist_ok=True)
    path = folder / rest[-1]
    path.write_bytes(hostile.data)
    return path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Return a folder, and delete it afterwards: its folders are too deep for pytest to clean up."""
    place = tmp_path / "place"
    place.mkdir()
    yield place
    subprocess.run(["rm", "-rf", place], check=True)


def state_of(tree: Path) -> list[bytes]:
    """Return names, sizes and times of everything in a folder."""
    found = subprocess.run(
        ["find", tree, "-printf", r"%p %s %T@\0"], capture_output=True, check=True
    ).stdout
    return sorted(found.split(b"\0"))


def run(place: Path, tree: Path, pack: str, timeout: float) -> dict[str, Any]:
    """Run the command with a home, a temporary folder and a working folder of its own, which must stay empty."""
    for name in ("home", "temporary", "work"):
        (place / name).mkdir()
    env = {**os.environ, "HOME": str(place / "home"), "TMPDIR": str(place / "temporary")}
    env |= {"PYTHONPATH": str(Path(skinbatch.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tree), str(place / "out"), pack],
        cwd=place / "work", env=env, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert [list((place / name).iterdir()) for name in ("home", "temporary", "work")] == [
        [],
        [],
        [],
    ]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def check_corpus(place: Path, pack: str, *, heavy: bool) -> dict[str, int]:
    tree = place / "photos"
    tree.mkdir()
    files = corpus(heavy=heavy)
    for hostile in files:
        write(tree, hostile)
    (tree / "link.png").symlink_to("/etc/passwd")
    (tree / "loop.png").symlink_to("loop.png")
    (tree / "folder.png").symlink_to("..")
    os.mkfifo(tree / "pipe.png")
    before = state_of(tree)
    ran = run(place, tree, pack, 280 if heavy else 120)
    assert ran["report"]["exit_code"] == 0
    assert state_of(tree) == before
    assert not OUTSIDE.exists()
    assert sorted(p.name for p in place.iterdir()) == ["home", "out", "photos", "temporary", "work"]

    found = rows(place / "out")
    wrong = []
    for hostile in files:
        key = hostile.path.translate(_TO_KEY)
        own = {
            i.removeprefix(key): found.pop(i)
            for i in list(found)
            if i == key or i.startswith(f"{key}/")
        }
        wanted = hostile.rows if "*" not in hostile.rows else dict.fromkeys(own, hostile.rows["*"])
        fitting = all(row["status"] in wanted.get(i, "").split("|") for i, row in own.items())
        said = all(hostile.error in row["error"] for row in own.values() if row["error"])
        if (
            own.keys() != wanted.keys()
            or not fitting
            or not said
            or ("*" in hostile.rows and not own)
        ):
            wrong.append(
                (
                    hostile.path[-40:],
                    {i[-40:]: (row["status"], row["error"]) for i, row in own.items()},
                )
            )
    assert wrong == []
    assert found == {}
    assert len(files) >= 80
    checked = skinbatch.verify(place / "out")
    assert (checked.exit_code, checked.differences) == (0, [])
    (record,) = (place / "out/_skinbatch/runs").iterdir()
    assert json.loads(record.read_text())["worker_deaths"] == 0
    memory: dict[str, int] = ran["memory"]
    return memory


def test_every_hostile_file_is_a_row_or_no_photo_and_nothing_else_happens(
    place: Path, fake_pack: str
) -> None:
    memory = check_corpus(place, fake_pack, heavy=False)
    assert memory["worker"] < MOST_MEMORY and memory["driver"] < MOST_OF_DRIVER, memory


@pytest.mark.slow
def test_bombs_neither_burst_the_worker_nor_hold_it_up(place: Path, fake_pack: str) -> None:
    memory = check_corpus(place, fake_pack, heavy=True)
    assert memory["worker"] < MOST_MEMORY and memory["driver"] < MOST_OF_DRIVER, memory


@pytest.mark.slow
def test_no_file_takes_more_than_ten_seconds(place: Path) -> None:
    """Measure this process's own time, as the machine may be busy."""
    config, slow = Config(), {}
    for number, hostile in enumerate(corpus(heavy=True)):
        tree = place / str(number)
        tree.mkdir()
        write(tree, hostile)
        began = time.process_time()
        for entry in open_source(str(tree), config).entries():
            unit = (
                WorkUnit("u", shard=entry)
                if isinstance(entry, ShardRef)
                else WorkUnit("u", (entry,))
            )
            for fetched in read_unit(unit, Locator(config.storage), config.decode, 1):
                try:
                    decode(fetched.data or b"", config.decode, "photo")
                except PhotoError:
                    continue
        slow[hostile.path[-40:]] = time.process_time() - began
    worst = max(slow, key=lambda name: slow[name])
    assert slow[worst] < MOST_SECONDS, (worst, slow[worst])


MANY = 1_000_000


def write_many(path: Path, ending: str) -> None:
    if path.suffix == ".tar":
        template = info(f"0000000{ending}").tobuf(tarfile.USTAR_FORMAT)
        with path.open("wb") as out:
            for n in range(MANY):
                header = bytearray(template)
                header[:7] = b"%07d" % n
                header[148:156] = b" " * 8
                header[148:156] = b"%06o\0 " % sum(header)
                out.write(header)
            out.write(bytes(1024))
        return
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(MANY):
            archive.writestr(zipfile.ZipInfo(f"{n:07}{ending}"), b"")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "ending"), [("tar", ""), ("zip", ""), ("tar", ".png")])
def test_a_million_empty_members_are_a_million_rows_or_none(
    place: Path, fake_pack: str, kind: str, ending: str
) -> None:
    tree = place / "photos"
    tree.mkdir()
    write_many(tree / f"many.{kind}", ending)
    (tree / "photo.jpg").write_bytes(b"")
    ran = run(place, tree, fake_pack, 800)
    assert ran["report"]["statuses"] == {"empty": 1 + (MANY if ending else 0)}
    assert ran["memory"]["worker"] < 2 * MOST_MEMORY, ran["memory"]
    assert ran["memory"]["driver"] < 2 * MOST_OF_DRIVER, ran["memory"]
    assert skinbatch.verify(place / "out").differences == []


@pytest.mark.parametrize(
    "name", ["out.tar", "names.zip", "text.parquet", "cut.zip", "deep.png", "sidecars.tar"]
)
def test_a_hostile_file_that_is_the_source_itself_is_scored_or_refused_in_one_message(
    place: Path, name: str
) -> None:
    (hostile,) = (h for h in corpus(heavy=False) if h.path.endswith(f"/{name}"))
    path = write(place, hostile)
    try:
        entries = list(open_source(str(path), Config()).entries())
    except SkinbatchError as e:
        assert (e.exit_code, name in str(e), "\n" in str(e)) == (2, True, False)
    else:
        assert len(entries) == 1
