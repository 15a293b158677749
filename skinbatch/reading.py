"""Open and verify a destination by its path or uri: `skinbatch.open` and `skinbatch.verify`."""

from __future__ import annotations

import os
from pathlib import Path

from skinbatch.config import StorageSettings, load_config
from skinbatch.errors import UsageError
from skinbatch.notebook import NotebookResults
from skinbatch.runs.results import open_results
from skinbatch.runs.verify import verify as verify_store
from skinbatch.runs.verify_report import VerifyReport
from skinbatch.storage.local import path_of, uri_of
from skinbatch.storage.locate import absolute, is_s3, open_store
from skinbatch.storage.store import Store


def destination_store(dest: str | Path, storage: StorageSettings | None = None) -> Store:
    """Return the store of an existing destination.

    Raises:
        UsageError: If its local folder is missing.
    """
    uri = absolute(str(dest))
    if not is_s3(uri) and not os.path.isdir(path_of(uri)):
        raise UsageError(f"{uri_of(str(dest))}: no such folder")
    return open_store(uri, storage or StorageSettings())


def open(
    dest: str | Path,
    scoring: str | None = None,
    storage: StorageSettings | None = None,
    config: str | Path | None = None,
    grading: str | None = None,
) -> NotebookResults:
    """Open the results of a destination.

    Args:
        dest: Folder or `s3://bucket/prefix`.
        scoring: Fingerprint of a scoring, or its first digits; by default the newest scoring that
            is finished. If a newer one is not finished, a warning names it, and so does
            `newer_unfinished` of the results.
        storage: Settings for S3.
        config: TOML file whose [storage] is used if `storage` is not given.
        grading: Id of a grading made by `skinbatch regrade`, its first digits, or the name of its
            scheme; by default the grading of the scoring's first run.

    Returns:
        The results. `images()` returns an Arrow table with one row for each photo, `boxes()` one
        with a row for each lesion, with corners in pixels of the displayed photo.

    Raises:
        UsageError: If nothing has been scored there, or the scoring or grading does not exist.
        StoreError: If the store does not answer.

    Example:
        >>> results = skinbatch.open("scored")
        >>> results.images().num_rows, results.boxes().num_rows
        (4, 5)
    """
    return open_results(
        destination_store(dest, storage or load_config(config).storage),
        scoring,
        grading,
        NotebookResults,
    )


def verify(
    dest: str | Path, scoring: str | None = None, storage: StorageSettings | None = None
) -> VerifyReport:
    """Check that every listed photo has exactly one row and that no file has changed since.

    Every receipt and every data file is read once.

    Args:
        dest: Folder or `s3://bucket/prefix`.
        scoring: Fingerprint of a scoring, or its first digits; by default that of the newest run.
        storage: Settings for S3.

    Returns:
        The report. `differences` has one sentence for each problem. If everything agrees, it is
        empty and `exit_code` is 0; otherwise `exit_code` is 5.

    Raises:
        UsageError: If nothing has been scored there, or the scoring does not exist.
        StoreError: If the store does not answer.

    Example:
        >>> report = skinbatch.verify("scored")
        >>> report.photos, report.rows, report.differences
        (4, 4, [])
    """
    return verify_store(destination_store(dest, storage), scoring)
