"""Group the photos of a scoring by person: by a pattern over image_id, a column, or look."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.grouping import Grouping
from skinbatch.annotations.likeness import perceptual_groups
from skinbatch.errors import UsageError
from skinbatch.runs.named_column import fields_of, named_column
from skinbatch.runs.results import Results
from skinbatch.storage.local import path_of
from skinbatch.storage.locate import is_s3
from skinbatch.tables.names import similar


def parse_group(group: str | None) -> Grouping | None:
    """Return the grouping of an option `--group`; None without one. Raises UsageError."""
    try:
        return None if group is None else Grouping.parse(group)
    except re.error as e:
        raise UsageError(f"--group {group}: not a regular expression: {e}") from None


def persons_of(results: Results, image_ids: Sequence[str], grouping: Grouping) -> list[str | None]:
    """Return the person, or whatever else groups are, of each photo; None if unknown.

    Photos in shards or on S3 are not compared by look.

    Raises:
        UsageError: no photo has a group, or the column does not exist.
    """
    if grouping.by_look:
        names = _by_look(results, image_ids)
    elif grouping.pattern is not None:
        names = [grouping.of_name(image_id) for image_id in image_ids]
    else:
        values = named_column(results, grouping.text, image_ids)
        if values is None:
            fields = fields_of(results)
            near = similar(grouping.text, [*fields, *results.stored_columns])
            raise UsageError(
                f"--group {grouping.text}: the table `images` has no such column"
                f"{', but ' + ', '.join(near) if near else ''} (fields of the source: {', '.join(fields) or 'none'}); give a "
                "column, a regular expression over image_id with the person in brackets, or `look`"
            )
        names = values

    if image_ids and not any(names):
        where = "none is a file on this machine" if grouping.by_look else "none of them has a group"
        raise UsageError(
            f"--group {grouping.text}: fits none of {len(image_ids):,} photos, such as {image_ids[0]}: {where}"
        )
    return names


def _by_look(results: Results, image_ids: Sequence[str]) -> list[str | None]:
    table = results.images(["image_id", "uri"])
    places = pc.index_in(
        pa.array(image_ids, pa.string()), value_set=table.column("image_id").combine_chunks()
    )
    uris = table.column("uri").combine_chunks().take(places).to_pylist()

    photos = []
    for image_id, uri in zip(image_ids, uris, strict=True):
        path = None if is_s3(uri) else Path(path_of(uri))
        photos.append(
            AnnotatedPhoto(
                image_id, Path(image_id), path if path is not None and path.is_file() else None
            )
        )
    groups = perceptual_groups(photos)
    return [
        None if photo.path is None else f"look {number}"
        for photo, number in zip(photos, groups, strict=True)
    ]
