"""Test that `compact` loses and doubles nothing when it is killed, or when others work beside it."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import skinbatch
from skinbatch.errors import ClaimError, SkinbatchError
from skinbatch.reading import destination_store
from skinbatch.runs import compact as compact_module
from skinbatch.runs import layout
from skinbatch.runs.compact import Compacted
from skinbatch.storage.local import LocalStore
from tests.faces import comparable, face, png, rows, write_tree
from tests.faults.bench import differences, same_rows
from tests.faults.fault import Fault
from tests.faults.in_process import bury_claim, killed_at
from tests.faults.trial import Trial
from tests.faults.zygote import Driver
from tests.field.in_process import command, score

SLOW = pytest.mark.slow
# What `verify` may say between a kill and the next command: rows in two files, and nothing else.
LEFT_BEHIND = ("a merged file holds its rows too", "it holds rows that the snapshot does not name")


def compact(dest: Path) -> Compacted:
    return compact_module.compact(destination_store(dest))


def copy_of(scored: Path, dest: Path) -> Path:
    return Path(shutil.copytree(scored, dest))


def in_globs(dest: Path, kind: str = "images") -> Counter[str]:
    """Return how often a plain glob over the files shows each photo."""
    found: Counter[str] = Counter()
    for path in (dest / kind).glob("scoring=*/*.parquet"):
        with suppress(FileNotFoundError):
            found.update(pq.read_table(path, columns=["image_id"]).column(0).to_pylist())
    return found


def in_files(dest: Path) -> int:
    return len([*(dest / "images").rglob("*.parquet"), *(dest / "boxes").rglob("*.parquet")])


def again(archive: Path, dest: Path, pack: str) -> None:
    assert score(archive, dest, pack).exit_code == 0


@pytest.mark.parametrize(
    ("steps", "landed"),
    [
        pytest.param(range(3, 20, 5), True, id="a few"),
        pytest.param(range(1, 30), True, id="after each", marks=SLOW),
        pytest.param(range(1, 30), False, id="before each", marks=SLOW),
    ],
)
def test_a_compact_killed_anywhere_is_finished_by_the_next(
    steps: range, landed: bool, undisturbed: Path, tmp_path: Path
) -> None:
    """Kill it at one of its writes and deletes, then run it again."""
    before = comparable(undisturbed)
    expected = Counter(rows(undisturbed).keys())
    for step in steps:
        dest = copy_of(undisturbed, tmp_path / str(step))
        finished = False
        with killed_at(step, landed):
            compact(dest)
            finished = True
        if finished:
            break

        bury_claim(dest)
        said = differences(dest)
        assert all(any(part in each for part in LEFT_BEHIND) for each in said), said
        assert all(a.equals(b) for a, b in zip(comparable(dest), before, strict=True))
        shown = in_globs(dest)
        assert shown.keys() == expected.keys() and max(shown.values()) <= 2
        if not said:
            assert shown == expected

        compact(dest)
        assert differences(dest) == []
        assert in_globs(dest) == expected
        assert all(a.equals(b) for a, b in zip(comparable(dest), before, strict=True))
        assert in_files(dest) == 2
        shutil.rmtree(dest)
    assert step > 15


@pytest.mark.parametrize("landed", [True, pytest.param(False, marks=SLOW)])
def test_a_run_finishes_what_a_killed_compact_has_left(
    landed: bool, archive: Path, undisturbed: Path, fake_pack: str, tmp_path: Path
) -> None:
    expected = Counter(rows(undisturbed).keys())
    for step in range(4, 16, 6):
        dest = copy_of(undisturbed, tmp_path / str(step))
        with killed_at(step, landed):
            compact(dest)
        bury_claim(dest)
        again(archive, dest, fake_pack)
        assert differences(dest) == []
        assert in_globs(dest) == expected
        assert same_rows(dest, undisturbed)


@SLOW
@pytest.mark.parametrize("landed", [True, False])
@pytest.mark.parametrize("then", ["run", "compact"])
def test_a_killed_run_on_a_compacted_destination_is_finished_by_the_next_command(
    then: str, landed: bool, undisturbed: Path, fake_pack: str, archive: Path, tmp_path: Path
) -> None:
    """Kill a run that gives a unit a new row, so that it has to replace merged files."""
    source = Path(shutil.copytree(archive, tmp_path / "photos"))
    compacted = tmp_path / "compacted"
    again(source, compacted, fake_pack)
    compact(compacted)
    write_tree(source, {"new.png": png(face(3, 1, 7))})
    whole = tmp_path / "whole"
    again(source, whole, fake_pack)
    old, new = Counter(rows(compacted).keys()), Counter(rows(whole).keys())

    for step in count(1):
        dest = copy_of(compacted, tmp_path / str(step))
        finished = False
        with killed_at(step, landed):
            again(source, dest, fake_pack)
            finished = True
        if finished:
            break

        bury_claim(dest)
        assert Counter(rows(dest).keys()) in (old, new)
        if then == "compact":
            compact(dest)
            bury_claim(dest)
            assert Counter(rows(dest).keys()) in (old, new)
        again(source, dest, fake_pack)
        assert differences(dest) == []
        assert in_globs(dest) == new
        assert same_rows(dest, whole)
        shutil.rmtree(dest)
    assert step > 15


@pytest.mark.parametrize(
    "fault",
    [
        Fault("driver", "put images", "after"),
        pytest.param(Fault("driver", "put images", "before"), marks=SLOW),
        pytest.param(Fault("driver", "put boxes", "before"), marks=SLOW),
        pytest.param(Fault("driver", "put boxes", "after"), marks=SLOW),
        pytest.param(Fault("driver", "delete images", "before"), marks=SLOW),
        pytest.param(Fault("driver", "delete images", "after"), marks=SLOW),
        pytest.param(Fault("driver", "delete boxes", "before"), marks=SLOW),
        pytest.param(Fault("driver", "put dest", "before"), marks=SLOW),
        pytest.param(Fault("driver", "delete claim", "before"), marks=SLOW),
    ],
    ids=lambda fault: f"{fault.when} {fault.point}",
)
def test_a_killed_process_leaves_all_rows_and_the_same_command_goes_on(
    fault: Fault, trial: Trial
) -> None:
    trial.run()
    trial.plan(fault)
    driver = compacting(trial)
    assert driver.end() == -signal.SIGKILL
    assert same_rows(trial.out, trial.like)

    trial.plan()
    driver = trial.zygote.start(["compact", str(trial.out), "--json"], trial.faults)
    assert driver.end() == 0, driver.said
    assert in_files(trial.out) == 2
    trial.check()
    assert in_globs(trial.out) == Counter(rows(trial.like).keys())


@pytest.mark.parametrize("other", ["compact", "score"])
def test_what_runs_beside_a_compact_ends_with_7_and_names_it(other: str, trial: Trial) -> None:
    trial.run()
    trial.plan(Fault("driver", "put images", "before", 1, "hang"))
    first = compacting(trial)
    hanging = trial.hit()
    starts = {"score": trial.start, "compact": lambda: compacting(trial)}
    second = starts[other]()
    assert second.end() == 7
    assert "held by another run, compact 2" in second.said
    assert f"process {hanging}" in second.said

    first.send(signal.SIGKILL)
    first.end()
    trial.plan()
    assert compacting(trial).end() == 0
    trial.check()


def test_a_compact_beside_a_run_ends_with_7_and_names_it(trial: Trial) -> None:
    trial.run()
    trial.plan(Fault("driver", "list snapshots", "before", 2, "hang"))
    first = trial.start()
    hanging = trial.hit()
    second = compacting(trial)
    assert second.end() == 7
    assert "held by another run, run 2" in second.said and f"process {hanging}" in second.said

    first.send(signal.SIGKILL)
    first.end()
    trial.plan()
    assert compacting(trial).end() == 0
    trial.check()


def compacting(trial: Trial) -> Driver:
    """Start `skinbatch compact` in the background."""
    return trial.zygote.start(["compact", str(trial.out)], trial.faults)


class _Between:
    """Do something else once, before a given write or delete of a local store."""

    def __init__(self, step: int, deed: Callable[[], object]) -> None:
        self.left, self.deed = step, deed

    def reached(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.deed()

    @property
    def happened(self) -> bool:
        return self.left <= 0


def patched(monkeypatch: pytest.MonkeyPatch, between: _Between) -> None:
    put, delete = LocalStore.put, LocalStore.delete

    def slow_put(self: LocalStore, key: str, data: bytes) -> Any:
        between.reached()
        return put(self, key, data)

    def slow_delete(self: LocalStore, keys: Iterable[str]) -> None:
        for key in keys:
            between.reached()
            delete(self, [key])

    monkeypatch.setattr(LocalStore, "put", slow_put)
    monkeypatch.setattr(LocalStore, "delete", slow_delete)


@pytest.mark.parametrize(
    "steps",
    [range(4, 30, 11), pytest.param(range(1, 40), marks=SLOW)],
    ids=["a few", "every one"],
)
@pytest.mark.parametrize("other", ["compact", "run", "retry"])
def test_two_that_know_nothing_of_each_other_lose_and_double_nothing(
    other: str,
    steps: range,
    archive: Path,
    undisturbed: Path,
    fake_pack: str,
    tmp_path: Path,
) -> None:
    """Let another command do all its work between two writes or deletes of a compact."""
    source = Path(shutil.copytree(archive, tmp_path / "photos"))
    scored = tmp_path / "scored"
    again(source, scored, fake_pack)
    if other == "run":
        write_tree(source, {"new.png": png(face(3, 1, 7)), "another.png": png(face(1, 1, 8))})
    last = tmp_path / "last"
    again(source, last, fake_pack)
    expected = Counter(rows(last).keys())

    for step in steps:
        dest = copy_of(scored, tmp_path / str(step))

        def meanwhile(dest: Path = dest) -> None:
            (dest / layout.CLAIM).unlink(missing_ok=True)
            if other == "compact":
                compact(dest)
            elif other == "run":
                again(source, dest, fake_pack)
            else:
                assert retry(dest) == 0
            assert differences_besides(dest) == []

        between = _Between(step, meanwhile)
        with pytest.MonkeyPatch.context() as patch:
            patched(patch, between)
            with suppress(SkinbatchError):
                compact(dest)
        if not between.happened:
            break
        (dest / layout.CLAIM).unlink(missing_ok=True)
        assert differences_besides(dest) == []
        assert Counter(rows(dest).keys()) == expected
        compact(dest)
        again(source, dest, fake_pack)
        assert differences(dest) == []
        assert in_globs(dest) == expected
        assert same_rows(dest, last)
        shutil.rmtree(dest)


@pytest.mark.parametrize(
    "steps",
    [range(3, 30, 8), pytest.param(range(1, 100), marks=SLOW)],
    ids=["a few", "every one"],
)
@pytest.mark.parametrize("outer", ["run", "retry"])
@pytest.mark.parametrize("compacted", [False, True], ids=["", "compacted before"])
def test_a_run_beside_which_a_compact_does_all_its_work_loses_and_doubles_nothing(
    outer: str,
    compacted: bool,
    steps: range,
    archive: Path,
    fake_pack: str,
    tmp_path: Path,
) -> None:
    """Let `compact` do all its work between two writes or deletes of a run."""
    source = Path(shutil.copytree(archive, tmp_path / "photos"))
    scored = tmp_path / "scored"
    again(source, scored, fake_pack)
    if compacted:
        compact(scored)
    old = Counter(rows(scored).keys())
    if outer == "run":
        write_tree(source, {"new.png": png(face(3, 1, 7)), "another.png": png(face(1, 1, 8))})
    last = copy_of(scored, tmp_path / "last")
    again(source, last, fake_pack)
    new = Counter(rows(last).keys())

    for step in steps:
        dest = copy_of(scored, tmp_path / str(step))

        def meanwhile(dest: Path = dest) -> None:
            (dest / layout.CLAIM).unlink(missing_ok=True)
            compact(dest)
            assert Counter(rows(dest).keys()) in (old, new)

        between = _Between(step, meanwhile)
        with pytest.MonkeyPatch.context() as patch:
            patched(patch, between)
            if outer == "retry":
                assert retry(dest) in (0, 7)
            else:
                with suppress(ClaimError):  # exit code 7
                    again(source, dest, fake_pack)
        if not between.happened:
            break
        (dest / layout.CLAIM).unlink(missing_ok=True)
        assert Counter(rows(dest).keys()) in (old, new)
        compact(dest)
        again(source, dest, fake_pack)
        assert differences(dest) == []
        assert in_globs(dest) == new
        assert same_rows(dest, last)
        shutil.rmtree(dest)


@pytest.mark.parametrize("step", [4, *(pytest.param(n, marks=SLOW) for n in (2, 3, 5, 6))])
def test_a_retry_keeps_the_rows_of_deleted_photos_while_a_compact_moves_them(
    step: int, archive: Path, fake_pack: str, tmp_path: Path
) -> None:
    """Let `compact` work after the retry has read where the rows are, and before it copies them."""
    source = Path(shutil.copytree(archive, tmp_path / "photos"))
    dest = tmp_path / "out"
    again(source, dest, fake_pack)
    before = Counter(rows(dest).keys())
    table = skinbatch.open(dest).images(["image_id", "count_total"]).to_pylist()
    others = [source / row["image_id"] for row in table if not row["count_total"]]
    deleted = [photo for photo in others if photo.is_file()]
    for photo in deleted:
        photo.unlink()
    assert deleted

    def meanwhile() -> None:
        (dest / layout.CLAIM).unlink(missing_ok=True)
        compact(dest)

    with pytest.MonkeyPatch.context() as patch:
        patched(patch, _Between(step, meanwhile))
        assert retry(dest) == 0
    assert Counter(rows(dest).keys()) == before


def differences_besides(dest: Path) -> list[str]:
    """Return what `verify` finds besides leftovers of a compaction."""
    return [said for said in differences(dest) if not any(part in said for part in LEFT_BEHIND)]


def retry(dest: Path) -> int:
    """Score every photo whose count is not 0 again, as a new generation, and return the exit code."""
    ids = dest.parent / "ids.txt"
    table = skinbatch.open(dest).images(["image_id", "count_total"])
    names = [row["image_id"] for row in table.to_pylist() if row["count_total"]]
    ids.write_text("\n".join(names))
    return command("retry", str(dest), "--ids", str(ids), "--engine", "local")[0]


def test_every_moment_of_a_compact_shows_open_each_row_once(
    undisturbed: Path, tmp_path: Path
) -> None:
    """Look before each write and delete: `open` is right always, and a glob misses nothing."""
    dest = copy_of(undisturbed, tmp_path / "out")
    before = comparable(undisturbed)
    expected = Counter(rows(undisturbed).keys())
    doubled = 0

    def look() -> None:
        nonlocal doubled
        assert all(a.equals(b) for a, b in zip(comparable(dest), before, strict=True))
        shown = in_globs(dest)
        assert shown.keys() == expected.keys()
        doubled += shown != expected

    class Always(_Between):
        def reached(self) -> None:
            look()

    with pytest.MonkeyPatch.context() as patch:
        patched(patch, Always(0, look))
        compact(dest)
    look()
    # Rows are in two files only while the old ones are being deleted.
    assert 0 < doubled <= 7
