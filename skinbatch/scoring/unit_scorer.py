"""Score one unit: write its tables, then its receipt."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

import pyarrow as pa
import torch

from skinbatch.archive.members import unnamed_ref
from skinbatch.archive.reader_activity import Reading
from skinbatch.archive.unit_reader import UnitReader, read_unit
from skinbatch.errors import (
    ChangedError,
    ForbiddenError,
    NotFoundError,
    PackError,
    StoreError,
    UsageError,
    memory_is_full,
)
from skinbatch.runs import layout, receipts
from skinbatch.runs.destination import now
from skinbatch.scoring.ahead import Activity, PreparedPhoto, decoded_ahead
from skinbatch.scoring.assignment import Assignment, Outcome, ScoringContext, UnitDone, UnitFailed
from skinbatch.scoring.budget import Budget
from skinbatch.scoring.earlier import Earlier, EarlierResults
from skinbatch.scoring.failures import DeviceLost
from skinbatch.scoring.fingerprint import fingerprint, numbers
from skinbatch.scoring.lanes import Lanes
from skinbatch.scoring.reuse import CopiedTables, OlderRows
from skinbatch.scoring.scorer import Scorer
from skinbatch.storage.locate import Locator, is_s3, open_store
from skinbatch.storage.traffic import TRAFFIC
from skinbatch.tables.parquet import write_parquet
from skinbatch.tables.rows import Row, boxes_table, concat_images, images_table, masks_table
from skinbatch.types import DataFile, Fetched, ImageRef, ImageResult, Receipt, Status, WorkUnit

_NUMBER = re.compile(r"0x[0-9a-f]+|\d[\d,.]*\d|\d")
MAX_THREADS = 16
# Requests to a bucket at the same time: they wait more than they compute.
REQUESTS = 16
# Batches in preparation at the same time. On CPUs, several batches on one thread each are faster
# than one batch on all threads, which wait for each other after every layer; more than a few would
# wait for Python's lock. On a GPU, one batch is graded while the next is inferred.
MAX_LANES = 4
DEVICE_LOST = 70
# Most failed photos of a unit that the log names. The tables name all of them.
MOST_NAMED = 100
MAX_REASONS = 20


@dataclass(frozen=True, slots=True)
class _Contents:
    """Hold what is committed for a unit.

    photos: number of photos that were found. copied: number of rows from older receipts of the
    scoring. computed_by, taken, taken_from: as in the files' metadata and in Receipt.
    """

    tables: Mapping[str, pa.Table]
    photos: int
    copied: int
    computed_by: str
    taken: Mapping[str, int]
    taken_from: tuple[DataFile, ...]


class UnitScorer:
    """Score units in a worker, one at a time. Models, stores and threads are created once."""

    def __init__(self, context: ScoringContext) -> None:
        config = context.config
        self.context = context
        # nvidia-smi may list what this torch cannot use.
        self._gpu = gpu = context.gpu and torch.cuda.is_available()
        lanes = 2 if gpu else min(MAX_LANES, context.threads)
        # This comes before the models: the other runtimes take the setting from here.
        torch.set_num_threads(max(1, context.threads // lanes))
        self._further = self._steps = 0
        self._lock = threading.Lock()
        self.scorer = Scorer(
            config.pack,
            device="cuda" if gpu else "cpu",
            config=config,
            on_progress=lambda: self._step(photos=0),
            lanes=lanes,
        )
        if fingerprint(numbers(self.scorer.pack, config.model)) != context.fingerprint:
            raise PackError(
                f"{config.pack}: the pack is no longer the one that this run began with; start it again"
            )
        self.device = torch.cuda.get_device_name() if gpu else f"CPU, {context.threads} threads"
        self.store = open_store(context.destination, config.storage)
        self.locator = Locator(config.storage)
        self.threads = config.decode.threads or min(MAX_THREADS, max(2, context.threads))
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")
        self.activity = Activity()
        self.lanes = Lanes(lanes, self.scorer, self.activity)

    @property
    def photos_further(self) -> int:
        """Return the photos of the present unit that are done, to show progress.

        Decoding a photo counts half, and scoring it the other half.
        """
        return self._further // 2

    @property
    def steps(self) -> int:
        """Return the number of steps in the present unit, for the watch for stalls.

        Steps are photos decoded, calls of models ended and photos scored. A batch may take minutes,
        and is taken only after those before it.
        """
        return self._steps

    @property
    def waits_on_store(self) -> bool:
        """Return whether the unit is waiting for its photos or its tables, neither decoding nor
        computing.
        """
        return self.activity.idle

    def score(self, assignment: Assignment) -> Outcome:
        """Score a unit and commit it.

        It never raises an exception that a photo, a shard or a store can cause.
        """
        self._further = self._steps = 0
        before = TRAFFIC.all()
        outcome = replace(self._outcome(assignment), traffic=TRAFFIC.since(before))
        if self._gpu and isinstance(outcome, UnitDone):
            reserved, (_, card) = torch.cuda.max_memory_reserved(), torch.cuda.mem_get_info()
            return replace(outcome, gpu_memory=reserved, gpu_card=card)
        return outcome

    def _outcome(self, assignment: Assignment) -> Outcome:
        try:
            return self._score(assignment)
        except ChangedError as e:
            return UnitFailed("drift", str(e))
        except NotFoundError as e:
            return UnitFailed("drift" if assignment.unit.shard else "store", str(e))
        except (
            ForbiddenError,
            UsageError,
        ) as e:  # a bucket that a listing names may not be there at all
            return UnitFailed("forbidden", str(e))
        except StoreError as e:
            return UnitFailed("store", str(e))
        except DeviceLost:
            traceback.print_exc()
            # The engine starts another worker, and tries the unit again as after any death.
            os._exit(DEVICE_LOST)
        except Exception as e:
            if memory_is_full(e):
                return UnitFailed("memory", str(e) or "an allocation failed")
            return UnitFailed("defect", traceback.format_exc())

    def _score(self, assignment: Assignment) -> Outcome:
        started = time.perf_counter()
        self.scorer.seconds.clear()
        older = OlderRows(self.store, assignment, self.context.config.run.save_masks)
        reading = Reading(self.activity, lambda: self._step(photos=0))
        earlier = EarlierResults(
            self.store,
            () if assignment.verdict else assignment.earlier,
            self.context.taken,
            self.scorer.pack,
            masks=self.context.config.run.save_masks,
            computed_by=self.scorer.computed_by,
            step=lambda: self._step(photos=0),
        )
        reader = read_unit(
            assignment.unit,
            self.locator,
            self.context.config.decode,
            self._fetch_threads(assignment.unit),
            skip=older.has,
            reading=reading,
        )

        to_copy: list[tuple[ImageRef, str | None]] = []
        if assignment.verdict:
            rows = self._verdict_rows(assignment, reader)
        else:
            rows, to_copy = self._fresh_rows(assignment, reader, older, earlier)
            to_copy += [(ref, None) for ref in assignment.unit.images if older.has(ref)]

        changed, vanished = tuple(reader.changed), tuple(r.image_id for r in reader.vanished)
        if assignment.is_half and (changed or vanished):
            return UnitFailed("drift", "photos changed while they were read", changed, vanished)
        unit = amended(assignment, changed, vanished).unit
        if unit.shard is None and not unit.images:
            return UnitDone(None, changed, vanished, reader.skipped)

        copied = older.copy(to_copy, unit.unit_id)
        computed_by = copied.computed_by | ({self.scorer.computed_by} if rows else set())
        contents = _Contents(
            self._tables(rows, copied),
            len(unit.images) if unit.shard is None else len(rows) + len(to_copy),
            copied.rows,
            " and ".join(sorted(computed_by)),
            Counter(stage for row in rows for stage in sorted(row.result.taken)),
            earlier.files_of(rows),
        )
        receipt = self._commit(replace(assignment, unit=unit), contents, started)

        failed = [row for row in rows if row.result.status is not Status.OK]
        reasons = Counter(map(_reason, failed)).most_common(MAX_REASONS)
        statuses = Counter(row.result.status.value for row in failed)
        named = tuple(
            (r.ref.image_id, r.result.status.value, r.result.error or "")
            for r in failed[:MOST_NAMED]
        )
        return UnitDone(
            receipt,
            changed,
            vanished,
            reader.skipped,
            failed=statuses,
            reasons=dict(reasons),
            failures=named,
            notes=tuple(earlier.notes),
        )

    def _fetch_threads(self, unit: WorkUnit) -> int:
        """Return how many threads read the unit's loose photos."""
        if self.context.config.decode.threads or not unit.images or not is_s3(unit.images[0].uri):
            return self.threads
        return max(self.threads, REQUESTS)

    def _verdict_rows(self, assignment: Assignment, reader: UnitReader) -> list[Row]:
        """Return the rows of a photo that must not be touched again.

        A shard is read for its member's name only, or not at all.
        """
        assert assignment.verdict is not None
        status, error = assignment.verdict
        unit = assignment.unit
        if unit.shard is None:
            refs = unit.images
        elif assignment.unread:
            refs = (unnamed_ref(unit.shard, unit.start, status),)
        else:
            refs = tuple(fetched.ref for fetched in reader)
        return [Row(ref, unit.unit_id, ImageResult(status, error)) for ref in refs]

    def _fresh_rows(
        self, assignment: Assignment, reader: UnitReader, older: OlderRows, earlier: EarlierResults
    ) -> tuple[list[Row], list[tuple[ImageRef, str | None]]]:
        """Return rows of what had to be scored, and the members whose rows are to be copied."""
        rows: list[Row] = []
        to_copy: list[tuple[ImageRef, str | None]] = []

        def is_needed(fetched: Fetched, sha256: str) -> bool:
            return not older.has_member(fetched.ref, sha256)

        def takes(ready: PreparedPhoto) -> Earlier | None:
            return earlier.of(ready.fetched.ref, ready.sha256)

        decode = self.context.config.decode
        expected = _expected(assignment.unit, older)
        alone = expected == 1
        budget = Budget(decode.ahead_bytes, 2 * max(self.threads, self.scorer.batch_size))
        with (
            closing(
                decoded_ahead(
                    reader,
                    decode,
                    self.pool,
                    budget,
                    is_needed,
                    self._step,
                    self.activity,
                    alone,
                    self.scorer.seconds,
                )
            ) as photos,
            closing(self.lanes.scored(photos, budget, expected, takes)) as scored,
        ):
            for ready, result in scored:
                ref = ready.fetched.ref
                if result is not None:
                    rows.append(
                        Row(ref, assignment.unit.unit_id, replace(result, sha256=ready.sha256))
                    )
                elif ready.status is Status.OK or older.has_member(ref, ready.sha256):
                    to_copy.append((ref, ready.sha256))
                else:
                    failed = ImageResult(ready.status, ready.error, sha256=ready.sha256)
                    rows.append(Row(ref, assignment.unit.unit_id, failed))
                self._step()
        return rows, to_copy

    def _step(self, photos: int = 1) -> None:
        with self._lock:
            self._steps += 1
            self._further += photos

    def _tables(self, rows: list[Row], copied: CopiedTables) -> dict[str, pa.Table]:
        context = self.context
        fresh = images_table(rows, context.classes, context.prob_columns)
        tables = {
            "images": concat_images([fresh, *copied.images]),
            "boxes": pa.concat_tables([boxes_table(rows), *copied.boxes]),
        }
        if context.config.run.save_masks:
            masks = masks_table(rows, self.scorer.models.segmenter.classes)
            tables["masks"] = pa.concat_tables([masks, *copied.masks])
        return tables

    def _commit(self, assignment: Assignment, contents: _Contents, started: float) -> Receipt:
        begun = time.perf_counter()
        unit, fingerprint, attempt = assignment.unit, self.context.fingerprint, layout.fresh()
        files = []
        metadata = {**self.context.metadata, "computed_by": contents.computed_by}
        for kind, table in contents.tables.items():
            data = write_parquet(table, metadata)
            path = layout.data_key(kind, fingerprint, unit.unit_id, attempt)
            self.store.put(path, data)
            files.append(
                DataFile(kind, path, hashlib.sha256(data).hexdigest(), len(data), table.num_rows)
            )
        ended = time.perf_counter()
        timings = self.scorer.seconds.all() | {"write": ended - begun, "unit": ended - started}
        statuses = Counter(contents.tables["images"].column("status").to_pylist())
        receipt = Receipt(
            unit_id=unit.unit_id,
            generation=assignment.generation,
            attempt=attempt,
            inputs_sha256=unit.inputs_sha256,
            whole_sha256=assignment.whole_sha256 if assignment.is_half else unit.inputs_sha256,
            inputs_count=contents.photos,
            start=unit.start,
            stop=unit.stop,
            files=tuple(files),
            statuses=dict(sorted(statuses.items())),
            copied=contents.copied,
            timings={name: round(seconds, 4) for name, seconds in timings.items()},
            host=socket.gethostname(),
            written_at=now(),
            shard_size=unit.shard.size if unit.shard else None,
            taken=dict(contents.taken),
            taken_from=contents.taken_from,
            request=assignment.request,
        )
        self.store.put(receipts.key_of(fingerprint, receipt), receipts.to_json(receipt))
        return receipt


def _reason(row: Row) -> str:
    """Return status and error of a row without what belongs to this photo alone: its name and
    numbers.
    """
    error = (row.result.error or "").removeprefix(f"{row.ref.image_id}: ")
    for name in (row.ref.uri, row.ref.image_id):
        error = error.replace(name, "…")
    return f"{row.result.status.value}: {_NUMBER.sub('#', error)}"[:200]


def _expected(unit: WorkUnit, older: OlderRows) -> int | None:
    """Return the number of photos that will be read; None for a shard that is read to its end."""
    if unit.shard is None:
        return sum(not older.has(ref) for ref in unit.images)
    return None if unit.stop is None else unit.stop - unit.start


def amended(
    assignment: Assignment, changed: tuple[ImageRef, ...], vanished: tuple[str, ...]
) -> Assignment:
    """Return the assignment for the photos as they were read.

    The next plan will list them this way, and its inputs will match.
    """
    if assignment.unit.shard is not None or not (changed or vanished):
        return assignment
    again = {ref.image_id: ref for ref in changed}
    images = tuple(
        again.get(r.image_id, r) for r in assignment.unit.images if r.image_id not in vanished
    )
    return replace(assignment, unit=replace(assignment.unit, images=images))
