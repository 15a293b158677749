"""Compare the photos of two listings by size and version."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def compare_photos(now: pa.Table, before: pa.Table) -> tuple[pa.Array, pa.Array]:
    """Return for each photo of a listing whether an earlier one has it, and has it unchanged.

    Args:
        now, before: Tables with image_id, size and version.

    Returns:
        Two bool arrays with one value for each row of `now`: known, and unchanged.
    """
    place = pc.index_in(now.column("image_id"), value_set=before.column("image_id"))
    known = unchanged = pc.is_valid(place)
    for name in ("size", "version"):
        old, new = before.column(name).take(place), now.column(name)
        equal = pc.fill_null(pc.equal(new, old), False)
        unchanged = pc.and_(unchanged, pc.or_(equal, pc.and_(pc.is_null(new), pc.is_null(old))))
    return known, unchanged
