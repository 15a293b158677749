"""Provide the photos that every side of the benchmark scores.

They are loose files in one folder, with the same bytes for all sides.
"""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from skinbatch.archive.formats import HEAD_BYTES, image_format
from skinbatch.demo import write_demo_archive


@dataclass(frozen=True, slots=True)
class Photos:
    """Describe the photos.

    folder: contains `count` photos and nothing else. distinct: number of photos with bytes of their
    own. megabytes: of files.
    """

    folder: Path
    described: str
    count: int
    distinct: int
    megabytes: float


def from_folder(source: Path, count: int, to: Path) -> Photos:
    """Copy `count` photos of a folder, spread evenly over it; repeat them if there are fewer."""
    photos = [
        p for p in sorted(source.rglob("*")) if p.is_file() and image_format(_head(p)) is not None
    ]
    if not photos:
        raise SystemExit(f"{source}: no photos found")
    distinct = min(count, len(photos))
    chosen = [photos[n * len(photos) // distinct] for n in range(distinct)]
    return _copies(chosen, count, to, f"photos of {source}")


def from_demo(count: int, to: Path, distinct: int | None = None) -> Photos:
    """Copy the demonstration's photos without the truncated one.

    Those of its shard become loose files.
    """
    archive = to.parent / "demo"
    write_demo_archive(archive / "photos", distinct or count)
    for shard in archive.rglob("*.tar"):
        with tarfile.open(shard) as tar:
            tar.extractall(shard.with_suffix(""), filter="data")
    (archive / "photos/visit-1/cut-off.jpg").unlink()
    paths = [p for p in sorted((archive / "photos").rglob("portrait-*")) if p.suffix != ".json"]
    photos = _copies(paths, count, to, "the demonstration's photos")
    shutil.rmtree(archive)
    return photos


def write_shards(shards: int, photo: Path, to: Path) -> None:
    """Write `shards` tar files of two copies of one photo: many units with little work in them."""
    to.mkdir(parents=True)
    for n in range(shards):
        with tarfile.open(to / f"shard-{n:06d}.tar", "w") as tar:
            for name in ("a", "b"):
                tar.add(photo, f"{name}{photo.suffix}")


def write_shard(folder: Path, to: Path) -> None:
    """Write all photos of a folder into one tar, like the large units of large archives."""
    with tarfile.open(to, "w") as tar:
        for photo in sorted(folder.iterdir()):
            tar.add(photo, photo.name)


def _copies(chosen: list[Path], count: int, to: Path, described: str) -> Photos:
    to.mkdir(parents=True)
    for n in range(count):
        source = chosen[n % len(chosen)]
        shutil.copyfile(source, to / f"{n:05d}-{source.name}")
    size = sum(p.stat().st_size for p in to.iterdir())
    return Photos(to, described, count, min(count, len(chosen)), round(size / 1e6, 1))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)
