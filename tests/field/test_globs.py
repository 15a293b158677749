"""Test --include and --exclude inside archives, and files that look like photos but are none."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skinbatch
from skinbatch.archive.shard import count_members, read_member
from skinbatch.archive.source import open_source
from skinbatch.archive.unit_reader import read_unit
from skinbatch.config import Config, SourceSettings, parse_config
from skinbatch.errors import UsageError
from skinbatch.storage.locate import Locator
from skinbatch.types import ShardRef, WorkUnit
from tests.faces import face, jpeg, png, rows, tar_bytes, write_tree

PHOTO, MASK = jpeg(face(1)), png(face())
EXCLUDED = "(excluded)"
SAMPLES = {
    f"{n:03}{end}": data
    for n in range(3)
    for end, data in ((".jpg", PHOTO), (".seg.png", MASK), (".json", b"{}"))
}


def zip_bytes(members: Mapping[str, bytes], system: int = 3) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.create_system = name, system
            archive.writestr(info, data)
    return out.getvalue()


def parquet_bytes(count: int) -> bytes:
    out = io.BytesIO()
    pq.write_table(
        pa.table({"image": [jpeg(face(n % 7)) for n in range(count)]}), out, row_group_size=3
    )
    return out.getvalue()


def listed(source: Path | str, **settings: Any) -> tuple[list[str], dict[str, int]]:
    """Return the image_ids of all photos, also in archives, and what was skipped; read in one go and one by one."""
    config = Config(source=SourceSettings(**settings))
    locator = Locator(config.storage)
    found = open_source(str(source), config)
    ids: list[str] = []
    skipped = None
    for entry in found.entries():
        if not isinstance(entry, ShardRef):
            ids.append(entry.image_id)
            continue
        reader = read_unit(WorkUnit("u", shard=entry), locator, config.decode, 1)
        members = [row.ref.image_id for row in reader]
        assert count_members(entry, locator) == len(members)
        parts = [
            read_unit(WorkUnit("u", (), entry, n, n + 1), locator, config.decode, 1)
            for n in range(len(members))
        ]
        assert [row.ref.image_id for part in parts for row in part] == members
        for image_id in members:
            again = read_member(entry, image_id, locator, config.decode)
            assert again is not None and again.ref.image_id == image_id
        ids += members
        skipped = reader.skipped if skipped is None else skipped + reader.skipped
    return ids, dict(found.skipped + (skipped or type(found.skipped)()))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(
        tmp_path / "in",
        {
            "a.jpg": PHOTO,
            "a.seg.png": MASK,
            "sub/s.tar": tar_bytes(SAMPLES),
            "z.zip": zip_bytes({"masks/0.png": MASK, "photos/0.jpg": PHOTO, "photos/1.jpg": PHOTO}),
            "t.parquet": parquet_bytes(7),
        },
    )


ROWS = [f"t.parquet/{n}" for n in range(7)]
ZIPPED = ["z.zip/masks/0.png", "z.zip/photos/0.jpg", "z.zip/photos/1.jpg"]
TARRED = [f"sub/s.tar/{n:03}{end}" for n in range(3) for end in (".jpg", ".seg.png")]
CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["a.jpg", "a.seg.png", *TARRED, *ROWS, *ZIPPED]),
    ({"exclude": ("*.seg.png",)}, ["a.jpg", *TARRED[::2], *ROWS, *ZIPPED]),
    ({"include": ("*.jpg",)}, ["a.jpg", *TARRED[::2], *ZIPPED[1:]]),
    ({"include": ("*.jpg",), "exclude": ("*/000*",)}, ["a.jpg", *TARRED[2::2], *ZIPPED[1:]]),
    ({"include": ("*.tar",)}, TARRED),
    ({"include": ("sub/*",), "exclude": ("*.png",)}, TARRED[::2]),
    ({"include": ("*.tar", "*.jpg")}, ["a.jpg", *TARRED, *ZIPPED[1:]]),
    ({"exclude": ("*.tar", "*.parquet")}, ["a.jpg", "a.seg.png", *ZIPPED]),
    ({"exclude": ("z.zip/masks/*", "*.tar", "t.*")}, ["a.jpg", "a.seg.png", *ZIPPED[1:]]),
    ({"exclude": ("**/masks/*", "*.tar", "t.*")}, ["a.jpg", "a.seg.png", *ZIPPED[1:]]),
    ({"include": ("t.parquet/[135]",)}, ROWS[1:6:2]),
    ({"include": ("*.parquet",), "exclude": ("t.parquet/0", "t.parquet/6")}, ROWS[1:6]),
    ({"include": ("elsewhere/*",)}, []),
    ({"include": ("a.jpg",)}, ["a.jpg"]),
]


@pytest.mark.parametrize(("globs", "expected"), CASES, ids=[str(globs) for globs, _ in CASES])
def test_globs_hold_inside_archives(tree: Path, globs: dict[str, Any], expected: list[str]) -> None:
    ids, skipped = listed(tree, **globs)
    assert ids == expected
    everything = 2 + len(TARRED) + len(ROWS) + len(ZIPPED)
    # Every archive was opened, so each photo is counted.
    if "sub/s.tar/000.jpg" in ids and ROWS[0] in ids:
        assert skipped.get(EXCLUDED, 0) == everything - len(expected)


def test_the_members_of_an_archive_that_is_the_source_have_names_of_their_own(tree: Path) -> None:
    assert listed(tree / "z.zip", include=("photos/*",))[0] == ZIPPED[1:]
    assert listed(tree / "z.zip", exclude=("masks/*",)) == (ZIPPED[1:], {EXCLUDED: 1})
    assert listed(tree / "z.zip", exclude=("z.zip/masks/*",))[0] == ZIPPED[1:]
    assert listed(tree / "z.zip", include=("z.zip",))[0] == ZIPPED
    assert listed(tree / "t.parquet", include=("2", "t.parquet/4"))[0] == [ROWS[2], ROWS[4]]
    assert listed(tree / "sub" / "s.tar", exclude=("*.seg.png",)) == (
        [name.removeprefix("sub/") for name in TARRED[::2]],
        {EXCLUDED: 3},
    )
    assert listed(tree / "z.zip", exclude=("z.zip",)) == ([], {EXCLUDED: 1})
    assert listed(tree / "a.jpg", exclude=("*.jpg",)) == ([], {EXCLUDED: 1})


def test_globs_hold_inside_archives_that_a_listing_names(tree: Path) -> None:
    (tree / "list.csv").write_text("uri\na.jpg\nsub/s.tar\nz.zip\n")
    assert listed(tree / "list.csv", exclude=("*.png",))[0] == ["a.jpg", *TARRED[::2], *ZIPPED[1:]]
    assert listed(tree / "list.csv", include=("*.zip/photos/*",))[0] == ZIPPED[1:]


def test_a_glob_with_an_extension_of_its_own_finds_images_by_content(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {"s.tar": tar_bytes({"a.img": PHOTO, "b.img": b"text", "c.jpg": PHOTO}), "d.img": PHOTO},
    )
    assert listed(tmp_path, include=("*.img",)) == (
        ["d.img", "s.tar/a.img"],
        {".img": 1, EXCLUDED: 1},
    )


def test_other_globs_are_another_input_of_the_same_archives(
    tree: Path, tmp_path: Path, fake_pack: str
) -> None:
    dest = tmp_path / "out"

    def run(**source: Any) -> set[str]:
        config = parse_config({"source": {name: list(globs) for name, globs in source.items()}})
        report = skinbatch.score(tree, dest, pack=fake_pack, engine="local", config=config)
        assert report.exit_code == 0
        assert skinbatch.verify(dest).differences == []
        return set(rows(dest))

    every = run()
    photos = run(exclude=["*.seg.png"])
    assert photos == {name for name in every if not name.endswith(".seg.png")}
    assert run(exclude=["*.seg.png"]) == photos
    assert run(include=["t.parquet/[0-2]"]) == set(ROWS[:3])
    assert run() == every
    with pytest.raises(UsageError, match="no photos found"):
        run(include=["nothing/*"])


JUNK = {
    "._a.jpg": b"\0\5\x16\7" + bytes(82),
    "album/._a.jpg": b"\0\5\x16\7" + bytes(82),
    "__MACOSX/album/._a.jpg": b"\0\5\x16\7" + bytes(82),
    "__MACOSX/a.jpg": b"\0\5\x16\7" + bytes(82),
    ".AppleDouble/a.jpg": b"\0\5\x16\7" + bytes(82),
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg": PHOTO,
    "album/@eaDir/a.jpg/SYNOFILE_THUMB_M.png": PHOTO,
    ".@__thumb/default/a.jpg": PHOTO,
    "DCIM/.thumbnails/1.jpg": PHOTO,
    ".git/annex/objects/xx/a.jpg": PHOTO,
    ".dvc/cache/files/md5/ab/cd": PHOTO,
    ".DS_Store": b"\0\0\0\1Bud1",
    "Thumbs.db": b"\xd0\xcf\x11\xe0",
    "desktop.ini": b"[.ShellClassInfo]",
}
KEPT = {
    "album/a.jpg": PHOTO,
    "eaDir/b.jpg": PHOTO,
    "thumbnails/c.jpg": PHOTO,
    "d._e.jpg": PHOTO,
    "git/f.jpg": PHOTO,
}


@pytest.mark.parametrize("kind", ["folder", "tar", "zip", "windows.zip", "windows.tar"])
def test_what_systems_put_beside_photos_is_no_photo(tmp_path: Path, kind: str) -> None:
    files = {**JUNK, **KEPT}
    if kind.startswith("windows"):
        files = {name.replace("/", "\\"): data for name, data in files.items()}
    kept = [name.replace("/", "\\") if kind.startswith("windows") else name for name in KEPT]
    if kind == "folder":
        source, prefix = write_tree(tmp_path / "in", files), ""
    else:
        source, prefix = tmp_path / f"in.{kind}", f"in.{kind}/"
        source.write_bytes(tar_bytes(files) if kind.endswith("tar") else zip_bytes(files, system=0))
    ids, skipped = listed(source)
    assert sorted(ids) == sorted(prefix + name for name in kept)
    assert skipped == {
        "._*": 5, "@eaDir": 2, ".@__thumb": 1, ".thumbnails": 1, ".git": 1, ".dvc": 1, ".DS_Store": 1, ".db": 1, ".ini": 1,
    }  # fmt: skip


def test_a_folder_within_such_a_place_can_be_named_itself(tmp_path: Path) -> None:
    write_tree(tmp_path / "@eaDir", {"a.jpg": PHOTO})
    assert listed(tmp_path / "@eaDir") == (["a.jpg"], {})
