"""Make sources and destinations for measurements, with many files and few bytes."""

from __future__ import annotations

import io
import math
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from skinbatch.runs import layout, plan, receipts
from skinbatch.runs.ledger import Ledger
from skinbatch.storage.local import LocalStore
from skinbatch.types import Receipt

# The most names of one file; file systems allow 65,000.
_LINKS = 50_000


def tiny_photo() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (210, 160, 130)).save(out, "JPEG")
    return out.getvalue()


class Links:
    """Give many names to the same bytes, the cheapest way to have many files."""

    def __init__(self, data: Path) -> None:
        self._data, self._count = data, 0

    def to(self, path: Path) -> None:
        if self._count % _LINKS == 0:
            own = self._data.with_name(f"{self._data.name}.{self._count}")
            shutil.copy2(self._data, own)
            self._own = own
        self._count += 1
        os.link(self._own, path)


def finished_destination(
    units: int, source: Path, dest: Path, score_one: Callable[[], object]
) -> int:
    """Make a source of `units` tar files of one photo, and a destination where all are done.

    Only the snapshot is missing. Returns how many listing requests of 1,000 keys list all of it
    once.

    score_one: a run that plans all of `source` and scores one unit. The others get that unit's
    receipt under names, inputs and attempts of their own, and its data files as further names of
    the same files. Receipts and folds are written as the pipeline writes them, but not synced one
    by one.
    """
    spare = source.parent / "spare"
    spare.mkdir()
    with tarfile.open(spare / "one.tar", "w") as tar:
        photo = tiny_photo()
        info = tarfile.TarInfo("photo.jpg")
        info.size = len(photo)
        tar.addfile(info, io.BytesIO(photo))
    links = Links(spare / "one.tar")
    for n in range(units):
        folder = source / f"{n // 1000:04d}"
        if n % 1000 == 0:
            folder.mkdir(parents=True)
        links.to(folder / f"{n:07d}.tar")
    score_one()
    store = LocalStore(str(dest))
    (fingerprint,) = (
        path.name.removesuffix(".json") for path in (dest / layout.SCORINGS).iterdir()
    )
    _fill(store, fingerprint, dest, spare)
    pages = math.ceil(units / 1000)
    return (3 + 1) * pages  # receipts, images, boxes; the source


def _fill(store: LocalStore, fingerprint: str, dest: Path, spare: Path) -> None:
    ledger = Ledger.load(store, fingerprint)
    (stub,) = ledger
    first = ledger.receipt(stub)
    kinds = {}
    for file in first.files:
        shutil.copy2(dest / file.path, spare / file.kind)
        kinds[file.kind] = Links(spare / file.kind)
    (name,) = plan.names(store, fingerprint)
    unfolded: list[Receipt] = [first]
    folds = 0
    for unit in plan.read(store, fingerprint, name).units:
        if unit.unit_id == first.unit_id:
            continue
        attempt = layout.fresh()
        paths = {
            f.kind: layout.data_key(f.kind, fingerprint, unit.unit_id, attempt) for f in first.files
        }
        receipt = replace(
            first,
            unit_id=unit.unit_id,
            attempt=attempt,
            inputs_sha256=unit.inputs_sha256,
            whole_sha256=unit.inputs_sha256,
            files=tuple(replace(f, path=paths[f.kind]) for f in first.files),
        )
        for kind, path in paths.items():
            kinds[kind].to(dest / path)
        key = dest / receipts.key_of(fingerprint, receipt)
        key.parent.mkdir()
        key.write_bytes(receipts.to_json(receipt))
        unfolded.append(receipt)
        if len(unfolded) == receipts.FOLD_EVERY:
            folds += 1
            _fold(store, fingerprint, folds, unfolded)
            unfolded = []
    if unfolded:
        _fold(store, fingerprint, folds + 1, unfolded)


def _fold(store: LocalStore, fingerprint: str, n: int, done: list[Receipt]) -> None:
    entries = (
        receipts.Entry(
            r.unit_id,
            receipts.key_of(fingerprint, r),
            sum(r.statuses.values()),
            [f.path for f in r.files],
            receipts.to_json(r),
        )
        for r in done
    )
    receipts.write_fold(store, fingerprint, n, entries)
