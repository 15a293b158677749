"""Test archives that change between runs that are killed, stopped, retried or use other packs.

After every `score`, the tables must match the archive, and only new and changed photos may be
decoded.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import skinbatch
from skinbatch.config import Config, parse_config
from skinbatch.engines.chosen_rows import RowRequest
from skinbatch.engines.driver import drive
from skinbatch.engines.local import LocalEngine
from skinbatch.engines.pool import Engine
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.run import Run
from skinbatch.engines.setup import prepare, prepare_again
from skinbatch.models.fake import write_fake_pack
from skinbatch.runs.run_report import RunReport
from tests.faces import face, jpeg, png, tar_bytes
from tests.faults.in_process import InProcessEngine, bury_claim, decodes, killed_at

FAST_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass(frozen=True)
class Content:
    """Hold the bytes of a photo and what its row must contain."""

    data: bytes
    status: str
    lesions: int | None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def _contents() -> list[Content]:
    faces = [(n % 5, n % 3, n) for n in range(10)]
    good = [Content((png if n % 3 else jpeg)(face(a, b, n)), "ok", a + b) for a, b, n in faces]
    return [*good, Content(b"", "empty", None), Content(png(face(1, 1))[:-40], "truncated", None)]


CONTENTS = _contents()
content = st.integers(0, len(CONTENTS) - 1)
some = st.integers(0, 10**6)
photo_names = st.sampled_from(
    [
        f"{folder}{n:02}.{ending}"
        for n in range(20)
        for folder, ending in (("", "png"), ("b/", "jpg"))
    ]
)
member_names = st.sampled_from([f"{n}.png" for n in range(6)])
shard_names = st.sampled_from(
    [f"s{n}.{ending}" for n in range(2) for ending in ("tar", "zip", "parquet")]
)
members = st.dictionaries(member_names, content, min_size=1, max_size=5)
change = st.one_of(
    st.tuples(st.just("put"), photo_names, content),
    st.tuples(st.just("remove"), some),
    st.tuples(st.just("rename"), some, photo_names),
    st.tuples(st.just("put_shard"), shard_names, members),
    st.tuples(st.just("put_member"), some, member_names, content),
    st.tuples(st.just("remove_member"), some),
    st.tuples(st.just("rename_shard"), some, shard_names),
)
kills = st.tuples(st.integers(1, 40), st.booleans())


def shard_bytes(name: str, members: Mapping[str, int]) -> bytes:
    photos = {member: CONTENTS[n].data for member, n in members.items()}
    if name.endswith(".tar"):
        return tar_bytes(photos)
    out = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(out, "w") as archive:
            for member, data in photos.items():
                archive.writestr(zipfile.ZipInfo(member), data)
    else:
        pq.write_table(pa.table({"image": pa.array(list(photos.values()), pa.binary())}), out)
    return out.getvalue()


class ChangedArchive(RuleBasedStateMachine):
    """Change and score an archive at random.

    photos, shards: the contents by name; numbers are places in CONTENTS.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="changed-archive-", dir=FAST_DISK))
        self.tree, self.dest = self.folder / "photos", self.folder / "out"
        self.tree.mkdir()
        self.packs = [str(write_fake_pack(self.folder / f"pack{n}")) for n in range(2)]
        manifest = Path(self.packs[1]) / "pack.toml"
        manifest.write_text(manifest.read_text().replace("size = 256", "size = 128", 1))
        self.pack = 0
        self.clock = 10**18
        self.photos: dict[str, int] = {}
        self.shards: dict[str, dict[str, int]] = {}
        self.versions: dict[str, str] = {}
        # Packs whose tables match the archive as it is.
        self.agrees: set[int] = set()
        # Packs whose newest plan is done.
        self.finished: set[int] = set()
        # Packs whose retry was killed: `verify` names what it left until the next run, and no
        # reader shows it.
        self.untidy: set[int] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def engine(self, deaths: int = 0, late: int = 0) -> Engine:
        return InProcessEngine({deaths}, {late})

    # What happens to the archive.

    @initialize(
        contents=st.lists(content, min_size=12, max_size=24),
        shards=st.dictionaries(shard_names, members),
    )
    def begin(self, contents: list[int], shards: dict[str, dict[str, int]]) -> None:
        for n, number in enumerate(contents):
            self.put(f"{n:02}.png", number)
        for name, its in shards.items():
            self.put_shard(name, its)
        self._score()

    @rule(changes=st.lists(change, min_size=1, max_size=4))
    def the_archive_changes(self, changes: list[tuple[Any, ...]]) -> None:
        for what, *how in changes:
            getattr(self, what)(*how)

    def put(self, name: str, number: int) -> None:
        """Add or replace a photo."""
        self.photos[name] = number
        self._write(name, CONTENTS[number].data)

    def remove(self, which: int) -> None:
        if len(self.photos) > 1:
            name = sorted(self.photos)[which % len(self.photos)]
            del self.photos[name]
            (self.tree / name).unlink()
            self.agrees.clear()

    def rename(self, which: int, name: str) -> None:
        old = sorted(self.photos)[which % len(self.photos)]
        self.photos[name] = self.photos.pop(old)
        (self.tree / name).parent.mkdir(exist_ok=True)
        (self.tree / old).rename(self.tree / name)
        self._note(name)

    def put_shard(self, name: str, its: dict[str, int]) -> None:
        self.shards[name] = its
        self._write(name, shard_bytes(name, its))

    def put_member(self, which: int, name: str, number: int) -> None:
        if self.shards:
            shard = sorted(self.shards)[which % len(self.shards)]
            self.put_shard(shard, self.shards[shard] | {name: number})

    def remove_member(self, which: int) -> None:
        """Remove a member. An archive file is removed with its last member."""
        if not self.shards:
            return
        shard = sorted(self.shards)[which % len(self.shards)]
        if len(self.shards[shard]) > 1:
            self.put_shard(shard, dict(list(self.shards[shard].items())[:-1]))
        else:
            del self.shards[shard]
            (self.tree / shard).unlink()
            self.agrees.clear()

    def rename_shard(self, which: int, name: str) -> None:
        if not self.shards:
            return
        old = sorted(self.shards)[which % len(self.shards)]
        if old.rpartition(".")[2] == name.rpartition(".")[2]:
            self.shards[name] = self.shards.pop(old)
            (self.tree / old).rename(self.tree / name)
            self._note(name)

    def _write(self, name: str, data: bytes) -> None:
        path = self.tree / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        self.clock += 10**9  # the file system's clock may not advance between two writes
        os.utime(path, ns=(self.clock, self.clock))
        self._note(name)

    def _note(self, name: str) -> None:
        self.versions[name] = str((self.tree / name).stat().st_mtime_ns)
        self.agrees.clear()

    # What is done with it.

    @rule(death=st.integers(0, 4), late=st.integers(0, 4))
    def run(self, death: int, late: int) -> None:
        if list(self.dest.glob("_skinbatch/attempts/*/*/*.json")):
            death = late = 0  # after three deaths of a photo on its own, it would be blamed
        self._score(death, late)

    @rule(kill=kills)
    def run_and_be_killed(self, kill: tuple[int, bool]) -> None:
        self.finished.discard(self.pack)
        with killed_at(*kill):
            self._score()
        bury_claim(self.dest)

    @rule()
    def run_with_a_limit(self) -> None:
        report = drive(Run(self._prepared(limit=1), SilentPresenter(), "test"), self.engine())
        assert report.exit_code in (0, 3, 6), report
        if report.exit_code == 6:
            self.finished.discard(self.pack)
        else:
            self.untidy.discard(self.pack)
            self.agrees.add(self.pack)
            self.finished.add(self.pack)

    @rule()
    def take_another_pack(self) -> None:
        self.pack = 1 - self.pack

    @precondition(lambda self: self.pack in self.finished)
    @rule(kill=st.none() | kills)
    def retry(self, kill: tuple[int, bool] | None) -> None:
        if kill is None:
            self._retry()
            return
        self.untidy.add(self.pack)
        with killed_at(*kill):
            self._retry()
        bury_claim(self.dest)

    @precondition(lambda self: self.pack in self.finished)
    @rule(which=st.lists(some, min_size=1, max_size=4), kill=st.none() | kills)
    def retry_some_rows(self, which: list[int], kill: tuple[int, bool] | None) -> None:
        """Score some of the rows that are shown again, whatever their status."""
        shown = skinbatch.open(self.dest, self._prepared().scoring.fingerprint).images()
        names = sorted(shown.column("image_id").to_pylist())
        request = RowRequest(image_ids=frozenset(names[n % len(names)] for n in which))
        if kill is None:
            self._retry_rows(request)
            return
        self.untidy.add(self.pack)
        with killed_at(*kill):
            self._retry_rows(request)
        bury_claim(self.dest)

    def _config(self, limit: int | None = None) -> Config:
        run = {"max_failures": 1.0} | ({"limit": limit} if limit else {})
        return parse_config(
            {
                "pack": self.packs[self.pack],
                "run": run,
                "engine": {"name": "local", "cpus_per_worker": 1.0},
            }
        )

    def _prepared(self, limit: int | None = None) -> Any:
        return prepare(str(self.tree), str(self.dest), self._config(limit))

    def _score(self, death: int = 0, late: int = 0) -> None:
        prepared = self._prepared()
        expected = self._new_or_changed(prepared.scoring.fingerprint)
        with decodes() as decoded:
            report = drive(Run(prepared, SilentPresenter(), "test"), self.engine(death, late))
        assert report.exit_code == 0, report
        self.untidy.discard(self.pack)
        self.agrees.add(self.pack)
        self.finished.add(self.pack)
        self.check_decoded(decoded, expected, report)
        self.tables_are_the_archive()

    def _retry(self) -> None:
        prepared = prepare_again(str(self.dest), self._config(), pack_named=True)
        agreed = self.pack in self.agrees
        expected = {
            image_id for image_id, found in self._expected().items() if found.status != "ok"
        }
        with decodes() as decoded:
            report = drive(Run(prepared, SilentPresenter(), "test"), self.engine(), retrying=True)
        assert report.exit_code == 0, report
        self.untidy.discard(self.pack)
        if agreed:
            self.check_decoded(decoded, expected, report)

    def _retry_rows(self, request: RowRequest) -> None:
        prepared = prepare_again(str(self.dest), self._config(), pack_named=True)
        receipts = self.dest.glob(f"_skinbatch/receipts/{prepared.scoring.fingerprint}/*/*.json")
        begun = any(json.loads(path.read_text())["request"] == request.digest for path in receipts)
        agreed = self.pack in self.agrees
        run = Run(prepared, SilentPresenter(), "test")
        with decodes() as decoded:
            report = drive(run, self.engine(), retrying=True, request=request)
        assert report.exit_code == 0, report
        self.untidy.discard(self.pack)
        if agreed and not begun:  # a killed run of the same request may have scored some of them
            self.check_decoded(decoded, set(request.image_ids or ()), report)

    def check_decoded(self, decoded: set[str], expected: set[str], report: RunReport) -> None:
        assert decoded == expected
        assert report.scored == len(expected)

    @invariant()
    def tables_are_the_archive(self) -> None:
        """Check the tables whenever a run has finished and nothing has changed since."""
        if self.pack not in self.agrees:
            return
        expected = self._expected()
        results = skinbatch.open(self.dest, self._prepared().scoring.fingerprint)
        table = results.images()
        found = {row["image_id"]: row for row in table.to_pylist()}
        assert len(found) == table.num_rows
        assert found.keys() == expected.keys()
        for image_id, row in found.items():
            wanted = expected[image_id]
            name = image_id if image_id in self.photos else image_id.split("/")[0]
            assert (row["sha256"], row["status"], row["count_total"]) == (
                wanted.sha256,
                wanted.status,
                wanted.lesions,
            )
            assert (row["size"], row["version"]) == (len(wanted.data), self.versions[name])
            assert row["uri"] == f"{self.tree}/{image_id}"
        boxes = results.boxes().column("image_id").to_pylist()
        assert {i: boxes.count(i) for i in set(boxes)} == {
            i: c.lesions for i, c in expected.items() if c.lesions
        }
        if self.pack in self.untidy:
            return
        checked = skinbatch.verify(self.dest, results.fingerprint)
        assert (checked.differences, checked.photos, checked.rows) == (
            [],
            len(expected),
            len(expected),
        )

    def _expected(self) -> dict[str, Content]:
        found = {name: CONTENTS[number] for name, number in self.photos.items()}
        for shard, members in self.shards.items():
            for place, (member, number) in enumerate(members.items()):
                row = place if shard.endswith(".parquet") else member
                found[f"{shard}/{row}"] = CONTENTS[number]
        return found

    def _new_or_changed(self, fingerprint: str) -> set[str]:
        """Return the photos that no committed unit has a row of.

        A row counts if it has the same bytes. For members, it must be in a version of their archive
        file, or in one of its size that is gone; for other photos, the name, size and version must
        match.
        """
        loose: set[tuple[str, int, str]] = set()
        members: list[tuple[str, int, set[str]]] = []
        for path in self.dest.glob(f"_skinbatch/receipts/{fingerprint}/*/*.json"):
            receipt = json.loads(path.read_text())
            files = {f["kind"]: self.dest / f["path"] for f in receipt["files"]}
            if not all(file.exists() for file in files.values()):
                continue
            rows = pq.read_table(files["images"]).to_pylist()
            if receipt["shard_size"] is None:
                loose |= {(row["image_id"], row["size"], row["version"]) for row in rows}
            elif rows:
                key = rows[0]["image_id"].split("/")[0]
                members.append((key, receipt["shard_size"], {row["sha256"] for row in rows}))
        new = set()
        for image_id, wanted in self._expected().items():
            if image_id in self.photos:
                known = (image_id, len(wanted.data), self.versions[image_id]) in loose
            else:
                shard = image_id.split("/")[0]
                size = (self.tree / shard).stat().st_size
                seen = [
                    s
                    for key, its, s in members
                    if key == shard or (its == size and key not in self.shards)
                ]
                known = any(wanted.sha256 in some for some in seen)
            if not known:
                new.add(image_id)
        return new


class ChangedArchiveOnTheLocalEngine(ChangedArchive):
    """Test the same with a worker in a process of its own.

    The run's own count gives the number of decoded photos.
    """

    def engine(self, deaths: int = 0, late: int = 0) -> Engine:
        return LocalEngine(self._config().engine)

    def check_decoded(self, decoded: set[str], expected: set[str], report: RunReport) -> None:
        assert not decoded
        assert report.scored == len(expected)


def trials(examples: int, steps: int, *, derandomize: bool = False) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=derandomize,
        print_blob=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def test_after_every_score_the_tables_are_the_archive_and_only_what_changed_was_decoded() -> None:
    run_state_machine_as_test(ChangedArchive, settings=trials(8, 10, derandomize=True))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_same_over_thousands_of_steps() -> None:
    run_state_machine_as_test(ChangedArchive, settings=trials(150, 40))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_same_with_the_worker_in_a_process_of_its_own() -> None:
    run_state_machine_as_test(ChangedArchiveOnTheLocalEngine, settings=trials(4, 15))


def test_an_archive_that_moves_and_grows_is_decoded_once() -> None:
    """Combine renamed archive files and split groups, both after a kill, which random steps rarely do."""
    archive = ChangedArchive()
    try:
        archive.begin(
            [n % 10 for n in range(14)],
            {"s0.tar": {"0.png": 1, "1.png": 10}, "s0.zip": {"0.png": 2}},
        )
        archive.rename_shard(0, "s1.tar")
        archive.rename_shard(0, "s1.zip")
        archive._score()
        for n in range(40):
            archive.put(f"b/{n:02}.jpg", n % 12)
        archive.run_and_be_killed((12, True))
        archive._score()
        archive.put_member(0, "2.png", 3)
        archive.put_shard("s0.tar", {"0.png": 1, "1.png": 10})
        archive._score()
        archive._retry()
        archive.tables_are_the_archive()
    finally:
        archive.teardown()
