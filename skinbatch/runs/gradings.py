"""Write and read gradings: counts and grades of a scoring by another threshold, method or scheme.

A grading is stored beside the scoring that it was computed from. Its record names its files with
their hashes and the snapshot whose boxes were graded. Records and files are written under fresh
names, and the newest record of a grading counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skinbatch.errors import NotFoundError, UsageError
from skinbatch.grading.counting import ON_SKIN, Method
from skinbatch.grading.schemes import Scheme
from skinbatch.runs import layout
from skinbatch.runs.destination import read_json
from skinbatch.storage.store import Store
from skinbatch.tables.parquet import read_columns


@dataclass(frozen=True, slots=True)
class Grading:
    """Describe a way of grading stored boxes: everything that changes its numbers."""

    threshold: float
    scheme: Scheme
    counting: Method

    @property
    def gid(self) -> str:
        """Return the grading's id: 12 hexadecimal digits of the SHA-256 of its canonical JSON."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class GradingFile:
    """Name one file of a grading. path: relative to the destination."""

    path: str
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class GradingRecord:
    """Record how a grading was computed.

    name: `<n>.<random>`. gid: id of the grading. definition: the Grading as plain values. snapshot:
    the one whose boxes were graded. created: UTC. skinbatch: the version that computed it.
    """

    name: str
    gid: str
    definition: Mapping[str, Any]
    snapshot: str
    files: tuple[GradingFile, ...]
    created: str
    skinbatch: str

    @property
    def grading(self) -> Grading:
        """Return the definition as a Grading."""
        scheme = self.definition["scheme"]
        return Grading(
            self.definition["threshold"],
            Scheme(
                scheme["name"],
                tuple(scheme["grades"]),
                tuple(scheme["upper"]),
                scheme["area"],
                tuple(scheme["classes"]) if scheme["classes"] else None,
            ),
            self.definition["counting"],
        )


def record_key(fingerprint: str, gid: str, name: str) -> str:
    return f"{layout.gradings_prefix(fingerprint)}{gid}/{name}.json"


def write_record(store: Store, fingerprint: str, record: GradingRecord) -> None:
    """Write a record. All its files must exist."""
    text = json.dumps(asdict(record), indent=2, sort_keys=True, ensure_ascii=False)
    store.put(record_key(fingerprint, record.gid, record.name), text.encode() + b"\n")


def record_names(store: Store, fingerprint: str) -> dict[str, list[str]]:
    """Return gid -> names of its records, newest first."""
    prefix = layout.gradings_prefix(fingerprint)
    names: dict[str, list[str]] = {}
    for key in store.keys(prefix):
        gid, _, name = key[len(prefix) :].partition("/")
        if name.endswith(".json"):
            names.setdefault(gid, []).append(name.removesuffix(".json"))
    return {
        gid: layout.newest_first(some) for gid, some in names.items() if layout.newest_first(some)
    }


def read_record(store: Store, fingerprint: str, gid: str, name: str) -> GradingRecord:
    """Read a record. Raises UsageError if it is gone or damaged."""
    key = record_key(fingerprint, gid, name)
    try:
        raw = read_json(store, key)
        if raw is None:
            raise KeyError("it is gone")
        files = tuple(GradingFile(**file) for file in raw["files"])
        record = GradingRecord(**(raw | {"files": files}))
        if record.grading.gid != gid:
            raise ValueError(f"its definition has the id {record.grading.gid}")
    except UsageError as e:
        raise UsageError(f"{e}; {_AGAIN}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise UsageError(f"{store.uri_of(key)} is damaged: {e}; {_AGAIN}") from None
    return record


def list_gradings(store: Store, fingerprint: str) -> list[GradingRecord]:
    """Return the newest record of each grading of a scoring, oldest first."""
    names = record_names(store, fingerprint)
    records = [read_record(store, fingerprint, gid, some[0]) for gid, some in names.items()]
    return sorted(records, key=lambda record: (record.created, record.gid))


def choose_grading(store: Store, fingerprint: str, name: str) -> GradingRecord:
    """Return the grading with this id, or its first digits, or the only one with this scheme name.

    Raises UsageError with a list of the gradings if none or several fit.
    """
    records = list_gradings(store, fingerprint)
    fitting = [r for r in records if r.gid.startswith(name)] or [
        r for r in records if r.definition["scheme"]["name"] == name
    ]
    if len(fitting) == 1:
        return fitting[0]

    known = (
        ", ".join(f"{r.gid} ({describe(r.grading)})" for r in records)
        or "none; `skinbatch regrade` makes one"
    )
    problem = "no grading" if not fitting else "several gradings"
    raise UsageError(
        f"{store.uri}: {problem} `{name}` of scoring {fingerprint}; there are: {known}"
    )


def describe(grading: Grading) -> str:
    """Return a short description such as `hayashi, boxes from 0.3`."""
    return f"{grading.scheme.name}, {grading.counting} from {grading.threshold:g}"


# The way out if a record of a grading is damaged.
_AGAIN = "delete it, and run `skinbatch regrade` with the same options again"

# The column by which rows of a grading and of `images` belong together.
_BY_PHOTO = "image_id"


class AppliedGrading:
    """Apply a grading to the tables of its scoring as they are read.

    Args:
        record: of the grading.
        snapshot: the one that is shown. The grading must be of the same snapshot.

    Raises:
        UsageError: photos were scored after the grading was made, or its files are gone or damaged.
    """

    def __init__(self, store: Store, record: GradingRecord, snapshot: str | None) -> None:
        self.record = record
        if record.snapshot != snapshot:
            raise UsageError(
                f"{store.uri}: more photos were scored since the grading {record.gid} ({describe(record.grading)}) was made "
                f"at {record.created}; run `skinbatch regrade` with the same options again"
            )

        self._table = _read_tables(store, record)
        units = self._table.column("unit_id").to_pylist()
        self._rows: dict[str, tuple[int, int]] = {}
        for row, unit_id in enumerate(units):
            first, _ = self._rows.get(unit_id, (row, row))
            self._rows[unit_id] = (first, row + 1)

    def needs(self, kind: str) -> tuple[str, ...]:
        """Return the stored columns that `apply` needs. kind: images or boxes."""
        return (_BY_PHOTO,) if kind == "images" else ("score", "skin_overlap")

    def apply(self, kind: str, unit_id: str, table: pa.Table) -> pa.Table:
        """Return the table of one unit with the columns replaced that the grading changes."""
        if kind == "boxes":
            return self._counted(table)

        first, stop = self._rows.get(unit_id, (0, 0))
        mine = self._table.slice(first, stop - first)
        if not mine.column(_BY_PHOTO).equals(table.column(_BY_PHOTO)):
            raise UsageError(
                f"the grading {self.record.gid} belongs to other photos; run `skinbatch regrade` again"
            )

        for n, field in enumerate(table.schema):
            if field.name in mine.column_names and field.name not in (_BY_PHOTO, "unit_id"):
                table = table.set_column(n, field, mine.column(field.name))
        return table

    def _counted(self, table: pa.Table) -> pa.Table:
        if "counted" not in table.column_names:
            return table
        n = table.column_names.index("counted")
        # The grading compares in double precision: 0.7 in single precision is less than 0.7.
        scores = pc.cast(table.column("score"), pa.float64())
        reached = pc.greater_equal(scores, self.record.grading.threshold)
        on_skin = pc.fill_null(pc.greater_equal(table.column("skin_overlap"), ON_SKIN), False)
        return table.set_column(n, table.schema.field(n), pc.and_(reached, on_skin))


def _read_tables(store: Store, record: GradingRecord) -> pa.Table:
    tables = []
    for file in record.files:
        where = store.uri_of(file.path)
        try:
            data, _ = store.get(file.path)
        except NotFoundError:
            raise UsageError(f"{where}: the file is gone; run `skinbatch regrade` again") from None
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise UsageError(
                f"{where}: the file has changed since it was written; run `skinbatch regrade` again"
            )
        tables.append(read_columns(data).replace_schema_metadata(None))
    return pa.concat_tables(tables)
