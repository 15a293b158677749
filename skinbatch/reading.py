"""Open and verify a destination by its path or uri: `skinbatch.open` and `skinbatch.verify`."""

from __future__ import annotations

import os
from pathlib import Path

from skinbatch.config import StorageSettings, load_config
from skinbatch.errors import UsageError
from skinbatch.notebook import NotebookResults
from skinbatch.runs.results import open_results
from skinbatch.runs.verify import VerifyReport
from skinbatch.runs.verify import verify as verify_store
from skinbatch.storage.base import Store
from skinbatch.storage.local import path_of, uri_of
from skinbatch.storage.locate import absolute, is_s3, open_store


def destination_store(dest: str | Path, storage: StorageSettings | None = None) -> Store:
    """Return the store of an existing destination.

    Raises UsageError if its local folder is missing.
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
        dest: a folder or s3://bucket/prefix.
        scoring: fingerprint of a scoring, or its first digits; by default the newest scoring that
            is finished. If a newer one is not finished, a warning names it, and so does
            `newer_unfinished` of the results.
        storage: settings of S3.
        config: a TOML file whose [storage] is used if `storage` is not given.
        grading: id of a grading that `skinbatch regrade` made, its first digits, or the name of its
            scheme; by default the grading of the scoring's first run.

    Returns:
        The results. `images()` and `boxes()` return them as Arrow tables.

    Raises:
        UsageError: nothing has been scored there, or the scoring or grading does not exist.
        StoreError: the store does not answer.

    >>> skinbatch.open("scored").images()  # doctest: +SKIP
    """
    return open_results(
        destination_store(dest, storage or load_config(config).storage), scoring, grading, NotebookResults
    )


def verify(dest: str | Path, scoring: str | None = None, storage: StorageSettings | None = None) -> VerifyReport:
    """Check that every listed photo has exactly one row and that no file has changed since.

    Args:
        dest: a folder or s3://bucket/prefix.
        scoring: fingerprint of a scoring, or its first digits; by default that of the newest run.
        storage: settings of S3.

    Returns:
        The report. Its `differences` has one sentence for each problem; it is empty, and
        `exit_code` is 0, if everything agrees.

    Raises:
        UsageError: nothing has been scored there, or the scoring does not exist.
        StoreError: the store does not answer.

    >>> skinbatch.verify("scored").differences  # doctest: +SKIP
    []
    """
    return verify_store(destination_store(dest, storage), scoring)
