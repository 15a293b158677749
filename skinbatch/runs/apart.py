"""Rename photos beside a shard that would have the same name as its members."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import pyarrow as pa

from skinbatch.types import ShardRef


def tell_apart(
    photos: pa.Table, shards: Mapping[str, ShardRef]
) -> tuple[pa.Table, tuple[ShardRef, ...]]:
    """Return photos and shards under names that no member of a shard can have.

    A bucket may hold `x.tar` beside `x.tar/a.jpg`, which is also the name of the member `a.jpg` of the shard. The member
    keeps the name. The object becomes `x.tar/./a.jpg`, a name that no member can have, because they lose a leading `./`.

    Args:
        photos: table with a column image_id.
        shards: by key.
    """
    if not shards:
        return photos, ()

    # Photos share folders, and hardly any source has a folder with the name of a shard.
    folders: dict[str, str] = {}
    for chunk in photos.column("image_id").chunks:
        for key in chunk.to_pylist():
            folder = key.rpartition("/")[0]
            if folder not in folders:
                folders[folder] = apart_from(f"{folder}/", shards)

    if any(apart != f"{folder}/" for folder, apart in folders.items()):
        photos = _renamed(photos, folders)
    return photos, tuple(
        replace(shard, key=apart_from(shard.key, shards)) for shard in shards.values()
    )


def _renamed(photos: pa.Table, folders: Mapping[str, str]) -> pa.Table:
    chunks = []
    for chunk in photos.column("image_id").chunks:
        parts = [key.rpartition("/") for key in chunk.to_pylist()]
        names = [folders[folder] + name if slash else name for folder, slash, name in parts]
        chunks.append(pa.array(names, pa.string()))
    at = photos.schema.get_field_index("image_id")
    return photos.set_column(at, photos.schema.field(at), pa.chunked_array(chunks, pa.string()))


def apart_from(key: str, archives: Collection[str]) -> str:
    """Return `key` with `./` behind each part of it that is a shard.

    Example:
        >>> apart_from("sub/x.tar/a.jpg", {"sub/x.tar"})
        'sub/x.tar/./a.jpg'
    """
    parts = key.split("/")
    apart = [parts[0]]
    for number in range(1, len(parts)):
        if "/".join(parts[:number]) in archives:
            apart.append(".")
        apart.append(parts[number])
    return "/".join(apart)
