"""`skinbatch.open` and `skinbatch.verify`: a destination by its path or uri."""

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
    """The store of a destination that is there. UsageError for a local folder that is not."""
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
    """Return the tables of a destination, as `images()` and `boxes()`.

    Args:
        dest: Its folder or s3://bucket/prefix.
        scoring: Fingerprint of a scoring, or its first digits; by default the newest scoring that is finished. If a newer
            one is not finished, a warning names it, and `newer_unfinished` of the results holds it.
        storage: How S3 is reached.
        config: A TOML file whose [storage] says the same.
        grading: Id of a grading that `skinbatch regrade` made, its first digits, or the name of its scheme; by default
            the grading of the scoring's first run.

    Raises:
        UsageError: Nothing has been scored there, or the scoring or grading does not exist.

    >>> skinbatch.open("scored").images()  # doctest: +SKIP
    """
    return open_results(
        destination_store(dest, storage or load_config(config).storage), scoring, grading, NotebookResults
    )


def verify(dest: str | Path, scoring: str | None = None, storage: StorageSettings | None = None) -> VerifyReport:
    """Prove that every listed photo has exactly one row; what does not agree is in the report's `differences`."""
    return verify_store(destination_store(dest, storage), scoring)
