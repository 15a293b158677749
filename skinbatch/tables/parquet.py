"""Convert tables to the bytes of a Parquet file and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.errors import TableError
from skinbatch.tables.schema import SCHEMA_VERSION

_PREFIX = "skinbatch."


def file_metadata(
    fingerprint: str, pipeline_version: int, pack: str, weights: Mapping[str, str]
) -> dict[str, str]:
    """Return the metadata of every data file. weights: stage -> SHA-256 of its weights file."""
    return {
        "schema_version": str(SCHEMA_VERSION),
        "pipeline_version": str(pipeline_version),
        "fingerprint": fingerprint,
        "pack": pack,
        "weights": json.dumps(dict(sorted(weights.items()))),
    }


def write_parquet(table: pa.Table, metadata: Mapping[str, str]) -> bytes:
    """Return the table as one Parquet file, compressed with zstd.

    `metadata` becomes file metadata under `skinbatch.<name>`. Equal tables and metadata give equal
    bytes. Fields keep their descriptions.
    """
    stamped = table.replace_schema_metadata(
        {f"{_PREFIX}{name}": value for name, value in sorted(metadata.items())}
    )
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, stamped.schema, compression="zstd") as writer:
        # Hugging Face's `datasets` fails on a row group without rows, but reads a file without row
        # groups.
        if stamped.num_rows:
            writer.write_table(stamped.combine_chunks())
    return bytes(sink.getvalue())


def read_columns(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table in the bytes of any Parquet file, or those of `columns` that it has.

    Arrow's own threads are not used. They gain nothing on one small file, and a process that ends
    right after they were started can abort ("terminate called without an active exception") instead
    of ending with its exit code.

    Raises pa.ArrowException or OSError if the bytes cannot be read.
    """
    with pq.ParquetFile(
        pa.BufferReader(data), pre_buffer=False, page_checksum_verification=True
    ) as file:
        present = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
        return file.read(columns=present, use_threads=False)


def read_parquet(data: bytes, where: str) -> pa.Table:
    """Return the table in the bytes of a Parquet file that skinbatch wrote.

    where: the file's name, for errors. Raises TableError if the bytes are damaged, were not written
    by skinbatch, or have a newer schema.
    """
    try:
        table = read_columns(data)
    except (pa.ArrowException, OSError) as e:
        raise TableError(
            f"{where}: not readable as Parquet: {e}; delete it and run `score` again"
        ) from None
    version = read_metadata(table).get("schema_version")
    if version is None or not version.isdecimal():
        raise TableError(
            f"{where}: a Parquet file that skinbatch did not write (no schema version)"
        )
    if int(version) > SCHEMA_VERSION:
        raise TableError(
            f"{where}: has schema version {version}, but this skinbatch reads up to {SCHEMA_VERSION}; update it"
        )
    return table


def read_metadata(table: pa.Table) -> dict[str, str]:
    """Return the metadata that `write_parquet` stored, without the prefix; {} for other tables."""
    stored = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    return {
        key.removeprefix(_PREFIX): value for key, value in stored.items() if key.startswith(_PREFIX)
    }
