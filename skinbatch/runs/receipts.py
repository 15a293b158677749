"""Receipts: the record that a unit is done; folds, which hold many in one object; and what they prove."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.errors import NotFoundError
from skinbatch.runs import layout
from skinbatch.storage.base import Store
from skinbatch.tables.parquet import read_columns
from skinbatch.types import DataFile, Receipt

FOLD_EVERY = 1000
_READERS = 16
_ROWS_AT_ONCE = 500
"""Rows of a table of receipts that exist as Python objects at the same time, six times as large as in Arrow."""

RECEIPTS_SCHEMA = pa.schema(
    [
        pa.field("unit_id", pa.string(), nullable=False),
        pa.field("receipt", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("files", pa.list_(pa.string()), nullable=False),
        pa.field("record", pa.string(), nullable=False),
    ]
)
"""Columns of folds and snapshots: unit, key of its receipt, rows, keys of its data files, the receipt's own JSON."""


def to_json(receipt: Receipt) -> bytes:
    return json.dumps(asdict(receipt), separators=(",", ":")).encode()


def from_json(data: bytes | str) -> Receipt:
    """A receipt from what `to_json` wrote. ValueError, KeyError or TypeError for anything else."""
    raw = json.loads(data)
    return Receipt(**(raw | {"files": tuple(DataFile(**f) for f in raw["files"])}))


def to_table(fingerprint: str, receipts: Iterable[Receipt]) -> pa.Table:
    """One row a receipt, columns of RECEIPTS_SCHEMA."""
    parts = [RECEIPTS_SCHEMA.empty_table()]
    left = iter(receipts)
    while some := list(islice(left, _ROWS_AT_ONCE)):
        rows = [
            {
                "unit_id": r.unit_id,
                "receipt": key_of(fingerprint, r),
                "rows": rows_of(r),
                "files": [f.path for f in r.files],
                "record": to_json(r).decode(),
            }
            for r in some
        ]
        parts.append(pa.Table.from_pylist(rows, schema=RECEIPTS_SCHEMA))
    return pa.concat_tables(parts)


def from_table(table: pa.Table) -> list[Receipt]:
    return [from_json(record.as_py()) for record in table.column("record")]


def key_of(fingerprint: str, receipt: Receipt) -> str:
    return layout.receipt_key(fingerprint, receipt.unit_id, receipt.generation, receipt.attempt)


def rows_of(receipt: Receipt) -> int:
    """Rows of its images file, one a photo."""
    return sum(f.rows for f in receipt.files if f.kind == "images")


class Ledger:
    """Every receipt of one scoring that lies in the destination, and every data file, both as listed.

    `add` takes what a unit of this run has just committed. Not shared between threads.
    """

    def __init__(self, store: Store, fingerprint: str) -> None:
        self.store = store
        self.fingerprint = fingerprint
        self.by_unit: dict[str, list[Receipt]] = defaultdict(list)
        self.data_keys: set[str] = set()
        self.receipt_keys: set[str] = set()
        self.unreadable: list[str] = []
        self.read_singly: list[Receipt] = []
        self._split: set[str] = set()
        self._families: dict[str, set[str]] = defaultdict(set)

    @classmethod
    def listed(cls, store: Store, fingerprint: str) -> Ledger:
        """Only what exists, by LIST; no receipt is read. Enough to tell which snapshot counts.

        Receipts are listed before data files: a unit that commits between the two has its files listed.
        """
        ledger = cls(store, fingerprint)
        ledger.receipt_keys.update(o.key for o in store.list(layout.receipts_prefix(fingerprint)))
        for kind in layout.DATA_KINDS:
            ledger.data_keys.update(o.key for o in store.list(layout.data_prefix(kind, fingerprint)))
        return ledger

    @classmethod
    def load(cls, store: Store, fingerprint: str) -> Ledger:
        """What exists, and every receipt: from snapshots and folds, then one by one those that none of them holds."""
        ledger = cls.listed(store, fingerprint)
        wanted, ledger.receipt_keys = ledger.receipt_keys, set()
        for key in _copies(store, fingerprint):
            if not wanted:
                break
            for receipt in ledger._read_copies(key):
                receipt_key = key_of(fingerprint, receipt)
                if receipt_key in wanted:
                    wanted.remove(receipt_key)
                    ledger._remember(receipt)
        with ThreadPoolExecutor(_READERS) as pool:
            for key, receipt_or_none in zip(sorted(wanted), pool.map(ledger._read, sorted(wanted)), strict=True):
                if receipt_or_none is None:
                    ledger.unreadable.append(key)
                else:
                    ledger._remember(receipt_or_none)
                    ledger.read_singly.append(receipt_or_none)
        return ledger

    def _read_copies(self, key: str) -> list[Receipt]:
        try:
            return from_table(read_columns(self.store.get(key)[0]))
        except NotFoundError:  # another driver's clean-up; the receipts themselves are read instead
            return []
        except (pa.ArrowInvalid, ValueError, KeyError, TypeError):
            self.unreadable.append(key)
            return []

    def _read(self, key: str) -> Receipt | None:
        try:
            receipt = from_json(self.store.get(key)[0])
        except (NotFoundError, ValueError, KeyError, TypeError):
            return None
        return receipt if key_of(self.fingerprint, receipt) == key else None

    def _remember(self, receipt: Receipt) -> None:
        self.by_unit[receipt.unit_id].append(receipt)
        self._families[family(receipt.unit_id)].add(receipt.unit_id)
        parts = receipt.unit_id.split(".")
        self._split.update(".".join(parts[:depth]) for depth in range(1, len(parts)))
        self.receipt_keys.add(key_of(self.fingerprint, receipt))

    def add(self, receipt: Receipt) -> None:
        """A receipt that a worker of this run has just written, with its files."""
        self._remember(receipt)
        self.data_keys.update(f.path for f in receipt.files)

    def complete(self, receipt: Receipt) -> bool:
        """All its data files exist."""
        return all(f.path in self.data_keys for f in receipt.files)

    def all_complete(self) -> list[Receipt]:
        return [r for receipts in self.by_unit.values() for r in receipts if self.complete(r)]

    def of_family(self, name: str) -> list[Receipt]:
        """Complete receipts of a group or an archive file, of its parts and halves."""
        return [
            r for unit_id in sorted(self._families.get(name, ())) for r in self.by_unit[unit_id] if self.complete(r)
        ]

    @property
    def families(self) -> set[str]:
        return set(self._families)

    def best(self, unit_id: str, whole_sha256: str) -> Receipt | None:
        """The receipt of a unit that counts for the inputs of its whole unit: complete, highest generation, then
        smallest attempt."""
        fitting = [r for r in self.by_unit.get(unit_id, ()) if r.whole_sha256 == whole_sha256 and self.complete(r)]
        return min(fitting, key=lambda r: (-r.generation, r.attempt), default=None)

    def proof(self, unit_id: str, whole_sha256: str) -> list[Receipt] | None:
        """The receipts by which a planned unit is done: its own, or those of its halves; None while it is not."""
        own = self.best(unit_id, whole_sha256)
        halves = self._proof_of_halves(unit_id, whole_sha256) if unit_id in self._split else None
        if own is None or halves is None:
            return halves if own is None else [own]
        # A retry of the whole unit may have ended in halves: the later generation counts, as among single receipts.
        return halves if min(r.generation for r in halves) > own.generation else [own]

    def _proof_of_halves(self, unit_id: str, whole_sha256: str) -> list[Receipt] | None:
        proofs = [self.proof(f"{unit_id}.{half}", whole_sha256) for half in (0, 1)]
        if proofs[0] is None or proofs[1] is None:
            return None
        return proofs[0] + proofs[1]


def _copies(store: Store, fingerprint: str) -> list[str]:
    """Keys of snapshots, then of folds, each newest first."""
    keys = []
    for prefix in (layout.snapshots_prefix(fingerprint), layout.folds_prefix(fingerprint)):
        found = [o.key[len(prefix) :] for o in store.list(prefix) if o.key.endswith(".parquet")]
        keys += [prefix + name for name in layout.newest_first(found)]
    return keys


def family(unit_id: str) -> str:
    """The group or archive file of a unit: its id without part and halves."""
    return unit_id.split(".")[0].split("-")[0]


def write_fold(store: Store, fingerprint: str, n: int, receipts: Iterable[Receipt]) -> None:
    """A copy of receipts in one object, so that resuming reads few objects."""
    sink = io.BytesIO()
    pq.write_table(to_table(fingerprint, receipts), sink, compression="zstd")
    store.put(f"{layout.folds_prefix(fingerprint)}{layout.numbered(n)}.parquet", sink.getvalue())


def count_attempts(store: Store, fingerprint: str) -> Mapping[tuple[str, str], int]:
    """(unit_id, first 12 digits of its inputs_sha256) -> failed attempts on record, from their names alone."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    prefix = layout.attempts_prefix(fingerprint)
    for info in store.list(prefix):
        unit_id, _, name = info.key[len(prefix) :].partition("/")
        counts[unit_id, name.split(".")[0]] += 1
    return counts


def write_attempt(store: Store, fingerprint: str, unit_id: str, inputs_sha256: str, record: Mapping[str, str]) -> None:
    """Put a failed attempt on record, so that a driver that dies does not count from nothing again."""
    key = f"{layout.attempts_prefix(fingerprint)}{unit_id}/{inputs_sha256[:12]}.{layout.fresh()}.json"
    store.put(key, json.dumps(dict(record)).encode())
