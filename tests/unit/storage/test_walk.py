"""Test that folders of any number and size are listed like a bucket's keys, with and without threads."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from skinbatch.errors import ForbiddenError
from skinbatch.lookahead import ahead
from skinbatch.storage import walk as walk_module
from skinbatch.storage.local import LocalStore
from skinbatch.storage.store import TEMPORARY
from skinbatch.storage.walk import Folder, walk


class Tree:
    """Simulate folders in memory that answer after `delay` seconds. A folder in `closed` cannot be read."""

    def __init__(self, keys: Iterable[str], delay: float = 0.0, closed: str | None = None) -> None:
        self.delay, self.closed = delay, closed
        self.scanned: list[str] = []
        self.threads: set[int] = set()
        # Names that were read with a limit.
        self.handed_out = 0
        self._folders: dict[str, set[str]] = defaultdict(set)
        for key in keys:
            parts = key.split("/")
            for depth in range(len(parts)):
                name = parts[depth] + ("/" if depth < len(parts) - 1 else "")
                self._folders["".join(f"{p}/" for p in parts[:depth])].add(name)

    def __call__(self, folder: str, most: int | None = None) -> Folder | None:
        self.scanned.append(folder)
        self.threads.add(threading.get_ident())
        if self.delay:
            time.sleep(self.delay)
        if folder == self.closed:
            raise ForbiddenError(folder)
        names = sorted(self._folders.get(folder, ()))
        if most is None:
            return Folder(names, set())
        if len(names) > most:
            return None
        self.handed_out += len(names)
        return Folder(names, set())


def _some_keys(seed: int) -> list[str]:
    """Return names that sort differently as names and as keys, one folder of hundreds, some deep, some large."""
    rng = random.Random(seed)
    keys = {
        f"many/{n:03d}{rng.choice(('', '-', '.', '0'))}/{rng.choice('abc')}.jpg" for n in range(400)
    }
    keys |= {
        f"many/{n:03d}-/deep/{m}/x.jpg" for n in range(0, 400, 7) for m in range(rng.randrange(4))
    }
    keys |= {f"many/large-{n}/{m:04d}.jpg" for n in range(3) for m in range(rng.randrange(60))}
    keys |= {f"{a}{b}{c}.jpg" for a in ("", "m", "many") for b in ("-", "0") for c in "ab"}
    return sorted(keys)


@pytest.fixture(params=["in turn", "in threads"])
def delay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Return the delay of a scan. With one, threads begin after the first go."""
    monkeypatch.setattr(walk_module, "_FOLDERS", 16)
    monkeypatch.setattr(walk_module, "_NAMES", 40)
    if request.param == "in threads":
        return 0.0005
    monkeypatch.setattr(walk_module, "_FOLDER_S", 1000.0)
    return 0.0


@pytest.mark.parametrize(
    "prefix", ["", "many/", "many/1", "many/2/", "m", "many/large-1/", "nothing/", "nothing"]
)
def test_keys_come_in_their_own_order(delay: float, prefix: str) -> None:
    keys = _some_keys(1)
    tree = Tree(keys, delay)
    assert [key for key, _ in walk(tree, prefix)] == [key for key in keys if key.startswith(prefix)]
    assert (len(tree.threads) > 1) == (delay > 0 and prefix in ("", "many/", "many/1", "m"))


@pytest.mark.parametrize("seed", range(10))
def test_keys_of_other_trees_too(delay: float, seed: int) -> None:
    keys = _some_keys(seed)
    assert [key for key, plain in walk(Tree(keys, delay), "") if plain] == keys


def test_a_folder_that_cannot_be_read_ends_the_listing_where_it_would_come(delay: float) -> None:
    keys = [f"{n:03d}/x.jpg" for n in range(200)]
    found = []
    with pytest.raises(ForbiddenError, match="150/"):
        for key, _ in walk(Tree(keys, delay, closed="150/"), ""):
            found.append(key)
    assert found == keys[:150]


def test_after_an_error_in_a_folder_further_down_nothing_is_read_on(delay: float) -> None:
    tree = Tree([f"{n:04d}/deep/x.jpg" for n in range(2000)], delay, closed="0150/deep/")
    with pytest.raises(ForbiddenError) as error:
        list(walk(tree, ""))
    assert error.value.__traceback__ is not None, "what holds on to the listing"
    _assert_nothing_reads(tree)


def _assert_nothing_reads(tree: Tree, most: int = 1000) -> None:
    read = len(tree.scanned)
    assert read < most
    time.sleep(0.02)
    assert len(tree.scanned) == read
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_large_folders_wait_for_their_turn(delay: float) -> None:
    keys = [f"{n:03d}/{m:03d}.jpg" for n in range(100) for m in range(50 if n % 10 else 1)]
    tree = Tree(keys, delay)
    assert [key for key, _ in walk(tree, "")] == keys
    again = len(tree.scanned) - len(set(tree.scanned))
    assert 0 < again <= 10, "the first ones say how large they are"


def test_few_names_are_held_ahead(delay: float) -> None:
    """Use small folders first, so that the goes grow, and then larger ones."""
    tree = Tree(
        [f"{n:04d}/{m:02d}.jpg" for n in range(1000) for m in range(1 if n < 500 else 30)], delay
    )
    goes = 4 * walk_module._THREADS + 1 if delay else 1
    held = max(tree.handed_out - n for n, _ in enumerate(walk(tree, "")))
    assert (len(tree.threads) > 1) == (delay > 0)
    assert 40 < held <= goes * 40 if delay else held <= 40, "a go of 16 folders would hold 480"


def test_a_large_folder_among_small_ones_is_read_in_its_turn(delay: float) -> None:
    keys = [f"{n:04d}/{m:02d}.jpg" for n in range(1000) for m in range(50 if n == 700 else 1)]
    tree = Tree(keys, delay)
    assert [key for key, _ in walk(tree, "")] == keys
    assert (len(tree.threads) > 1) == (delay > 0)
    assert tree.scanned.count("0700/") == 2


@pytest.mark.parametrize("names", [200, 4000])
def test_folders_with_many_names_are_read_in_threads_too(names: int) -> None:
    tree = Tree([f"{n:03d}/{m:04d}.jpg" for n in range(150) for m in range(names)], 0.005)
    assert sum(1 for _ in walk(tree, "")) == 150 * names
    assert len(tree.threads) > 1


@pytest.mark.parametrize("kept", [True, False])
def test_a_listing_ends_with_the_work_ahead_that_it_feeds(kept: bool) -> None:
    def work(entry: tuple[str, bool]) -> None:
        if entry[0] == "0300/x.jpg":
            raise ForbiddenError(entry[0])

    tree = Tree([f"{n:04d}/x.jpg" for n in range(5000)], 0.001)
    errors: list[Exception] = []
    try:
        list(ahead(walk(tree, ""), work, 4))
    except ForbiddenError as e:
        errors += [e] * kept
    assert len(tree.threads) > 1
    _assert_nothing_reads(tree, most=4000)


def test_the_first_key_costs_one_folder() -> None:
    tree = Tree([f"{n:04d}/x.jpg" for n in range(1000)])
    assert next(iter(walk(tree, "")))[0] == "0000/x.jpg"
    assert tree.scanned == ["", "0000/"]


def test_a_listing_that_is_left_early_has_not_read_everything(delay: float) -> None:
    tree = Tree([f"{n:04d}/x.jpg" for n in range(3000)], delay)
    listing = walk(tree, "")
    assert [next(listing)[0] for _ in range(20)] == [f"{n:04d}/x.jpg" for n in range(20)]
    del listing
    _assert_nothing_reads(tree)


def test_a_listing_that_is_left_waits_for_no_more_than_what_each_thread_is_reading() -> None:
    tree = Tree([f"{n:04d}/x.jpg" for n in range(3000)], 0.001)
    listing = walk(tree, "")
    for _ in range(1000):
        next(listing)
    tree.delay = 0.05
    time.sleep(0.01)
    before = len(tree.scanned)
    del listing
    assert len(tree.scanned) - before <= 2 * walk_module._THREADS, "a go has 128"
    _assert_nothing_reads(tree, most=3000)


def test_a_store_of_many_folders_is_listed_in_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk_module, "_FOLDERS", 16)
    monkeypatch.setattr(walk_module, "_FOLDER_S", -1)  # as if every folder took long
    keys = [f"done/{n:03d}{'-' * (n % 2)}/{n}.jpg" for n in range(300)]
    for key in keys:
        (tmp_path / key).parent.mkdir(parents=True)
        (tmp_path / key).write_bytes(b"x")
    (tmp_path / "done" / "299-" / f"{TEMPORARY}dead").write_bytes(b"")
    (tmp_path / "done" / "150" / "link").symlink_to("/")
    store = LocalStore(tmp_path)
    assert list(store.keys()) == sorted(keys)
    assert [info.key for info in store.list()] == sorted(keys)
    assert store.clear_temporary(["done/"]) == 1, "what a thread has passed over is known"
