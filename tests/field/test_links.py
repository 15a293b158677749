"""Test folders with links: the Hugging Face hub's cache, data sets put together by hand, and hostile ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import skinbatch
from skinbatch.archive.source import open_source
from skinbatch.config import Config, SourceSettings, parse_config
from skinbatch.errors import UsageError
from skinbatch.types import ImageRef, ShardRef
from tests.faces import face, jpeg, rows, tar_bytes, write_tree

OUT = "(link out of the source: see --follow-links)"
LOOP = "(link in a loop)"


def listed(source: Path, **settings: object) -> tuple[list[str], dict[str, int]]:
    """Return the keys of photos and archive files, and what was skipped."""
    found = open_source(str(source), Config(source=SourceSettings(**settings)))  # type: ignore[arg-type]
    entries = list(found.entries())
    keys = [e.image_id if isinstance(e, ImageRef) else e.key for e in entries]
    assert all(isinstance(e, ImageRef | ShardRef) for e in entries)
    return keys, dict(found.skipped)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """Write a data set as in the Hugging Face hub's cache: two revisions, files in folders, one text file."""
    root = tmp_path / "hub" / "datasets--me--faces"
    blobs = {f"blobs/{n}{n}": jpeg(face(n)) for n in range(3)}
    write_tree(
        root, {**blobs, "blobs/33": b"text", "blobs/44": tar_bytes({"x.jpg": jpeg(face(4))})}
    )
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    for revision in ("abc", "old"):
        (root / "snapshots" / revision / "train").mkdir(parents=True)
    names = {
        "abc/0.jpg": 0,
        "abc/train/1.jpg": 1,
        "abc/readme.md": 3,
        "abc/more.tar": 4,
        "old/0.jpg": 2,
    }
    for name, blob in names.items():
        up = "../" * name.count("/") + "../blobs"
        (root / "snapshots" / name).symlink_to(f"{up}/{blob}{blob}")
    return root


def test_in_the_hubs_cache_the_link_is_the_photo_and_the_blob_is_not(hub: Path) -> None:
    of_revision = ["0.jpg", "more.tar", "train/1.jpg"]
    assert listed(hub / "snapshots" / "abc") == (of_revision, {".md": 1})
    assert listed(hub / "snapshots" / "abc" / "train") == (["1.jpg"], {})
    whole = [*(f"snapshots/abc/{name}" for name in of_revision), "snapshots/old/0.jpg"]
    assert listed(hub / "snapshots")[0] == [name.removeprefix("snapshots/") for name in whole]
    keys, skipped = listed(hub)
    assert (keys, skipped) == (whole, {".md": 1, "(no extension)": 1})
    assert listed(hub.parent)[0] == [f"{hub.name}/{name}" for name in whole]


def test_a_snapshot_of_the_hub_is_scored_under_the_names_of_its_links(
    hub: Path, tmp_path: Path, fake_pack: str
) -> None:
    report = skinbatch.score(
        hub / "snapshots" / "abc", tmp_path / "out", pack=fake_pack, engine="local"
    )
    found = rows(tmp_path / "out")
    assert report.exit_code == 0
    assert {name: row["status"] for name, row in found.items()} == dict.fromkeys(
        ("0.jpg", "more.tar/x.jpg", "train/1.jpg"), "ok"
    )
    assert found["train/1.jpg"]["count_total"] == 1
    assert skinbatch.verify(tmp_path / "out").differences == []


def test_a_link_to_one_file_that_is_the_source_keeps_its_name(
    hub: Path, tmp_path: Path, fake_pack: str
) -> None:
    skinbatch.score(
        hub / "snapshots" / "abc" / "more.tar", tmp_path / "out", pack=fake_pack, engine="local"
    )
    assert list(rows(tmp_path / "out")) == ["more.tar/x.jpg"]


def test_folders_called_blobs_and_snapshots_that_are_no_cache_are_listed_whole(
    tmp_path: Path,
) -> None:
    write_tree(
        tmp_path,
        {"blobs/a.jpg": jpeg(face()), "snapshots/b.jpg": jpeg(face(1)), "c.jpg": jpeg(face(2))},
    )
    (tmp_path / "snapshots" / "c.jpg").symlink_to("../c.jpg")
    assert listed(tmp_path)[0] == ["blobs/a.jpg", "c.jpg", "snapshots/b.jpg", "snapshots/c.jpg"]
    assert listed(tmp_path / "snapshots") == (["b.jpg"], {OUT: 1})


def test_links_within_the_tree_are_followed_under_their_own_names(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path / "root", {"all/a.jpg": jpeg(face(1)), "all/sub/b.jpg": jpeg(face(2))}
    )
    (root / "train").symlink_to("all")
    (root / "first.jpg").symlink_to("all/a.jpg")
    (root / "second.jpg").symlink_to("first.jpg")
    assert listed(root) == (
        ["all/a.jpg", "all/sub/b.jpg", "first.jpg", "second.jpg", "train/a.jpg", "train/sub/b.jpg"],
        {},
    )
    (tmp_path / "other").symlink_to("root")
    assert len(listed(tmp_path / "other")[0]) == 6


def test_loops_end_and_are_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"a/1.jpg": jpeg(face(1)), "b/2.jpg": jpeg(face(2))})
    (root / "a" / "self").symlink_to(".")
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "b").symlink_to("../b")
    (root / "b" / "a").symlink_to("../a")
    (root / "eats.jpg").symlink_to("eats.jpg")
    (root / "gone.jpg").symlink_to("nowhere.jpg")
    keys, skipped = listed(root)
    assert keys == ["a/1.jpg", "a/b/2.jpg", "b/2.jpg", "b/a/1.jpg"]
    assert skipped == {LOOP: 6, "(link to no file)": 2}


def test_folders_that_all_link_to_each_other_are_not_walked_in_every_order(tmp_path: Path) -> None:
    names = [f"{n:02}" for n in range(8)]
    for name in names:
        write_tree(tmp_path / name, {"x.jpg": jpeg(face())})
    for one in names:
        for other in names:
            (tmp_path / one / f"to-{other}").symlink_to(f"../{other}")
    keys, skipped = listed(tmp_path)
    assert len(keys) == 8 * (1 + 7 + 7 * 6)
    assert skipped["(link within links)"] > 0


def test_links_out_of_the_tree_are_followed_only_when_asked_for(
    tmp_path: Path, fake_pack: str
) -> None:
    write_tree(tmp_path / "elsewhere", {"a.jpg": jpeg(face(1)), "deep/b.jpg": jpeg(face(2))})
    root = write_tree(tmp_path / "root", {"c.jpg": jpeg(face(3))})
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "file.jpg").symlink_to("../elsewhere/a.jpg")
    (root / "above").symlink_to("..")
    (root / "device.jpg").symlink_to("/dev/zero")

    report = skinbatch.score(root, tmp_path / "out", pack=fake_pack, engine="local")
    assert (report.statuses, report.skipped) == ({"ok": 1}, {OUT: 4})
    config = parse_config({"source": {"follow_links": True}})
    report = skinbatch.score(root, tmp_path / "out", pack=fake_pack, engine="local", config=config)
    assert sorted(rows(tmp_path / "out")) == [
        "c.jpg",
        "file.jpg",
        "folder/a.jpg",
        "folder/deep/b.jpg",
    ]
    assert report.skipped == {LOOP: 1, "(link to no file)": 1}
    (record, _) = sorted((tmp_path / "out/_skinbatch/runs").iterdir())
    assert json.loads(record.read_text())["skipped"] == {OUT: 4}


def test_a_source_with_nothing_but_links_out_of_it_says_how_to_include_them(
    tmp_path: Path, fake_pack: str
) -> None:
    write_tree(tmp_path / "elsewhere", {"a.jpg": jpeg(face(1))})
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.jpg").symlink_to("../elsewhere/a.jpg")
    with pytest.raises(
        UsageError, match=r"no photos found .*1 \(link out of the source: see --follow-links\)"
    ):
        skinbatch.score(tmp_path / "root", tmp_path / "out", pack=fake_pack, engine="local")
