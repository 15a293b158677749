"""Fetch packs from S3 into a cache, once per node.

A pack is cached under the hash of its manifest, and each file is checked while it is fetched.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock

from skinbatch.config import StorageSettings
from skinbatch.errors import NotFoundError, PackError
from skinbatch.models.cache import cache_folder
from skinbatch.models.manifest import FILENAME, TEXTS, read_manifest
from skinbatch.storage.locate import open_store
from skinbatch.storage.store import Store

_CHUNK = 1 << 20


def fetch(uri: str, settings: StorageSettings) -> Path:
    """Return the local copy of the pack's directory at `s3://bucket/prefix/NAME`.

    The first process of a node fetches it, and the others wait.

    Raises:
        PackError: there is no pack, or a file does not match its manifest.
        StoreError, UsageError: raised by the store.
    """
    store = open_store(uri, settings)
    try:
        manifest, _ = store.get(FILENAME)
    except NotFoundError:
        raise PackError(
            f"{uri}/{FILENAME}: not there; a pack is a folder with a {FILENAME}"
        ) from None
    packs = cache_folder() / "packs"
    packs.mkdir(parents=True, exist_ok=True)
    directory = packs / hashlib.sha256(manifest).hexdigest()[:16]
    with FileLock(f"{directory}.lock"):
        if not directory.exists():
            _download(store, manifest, directory)
    return directory


def verify_origin(uri: str, files: Mapping[str, str], settings: StorageSettings) -> None:
    """Read and hash every file of a pack on S3 again, as `Pack.verify` does with the local copy.

    Args:
        uri: the pack's address.
        files: the recorded SHA-256 of each file by its name.
        settings: for S3.
    """
    store = open_store(uri, settings)
    for name, recorded in files.items():
        _checked(store, name, recorded, lambda chunk: None)


def _download(store: Store, manifest: bytes, directory: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=".tmp-", dir=directory.parent))
    try:
        (unfinished / FILENAME).write_bytes(manifest)
        try:
            recorded_files = read_manifest(unfinished).files
        except PackError as e:
            raise PackError(str(e).replace(str(unfinished), store.uri)) from None
        for name, recorded in recorded_files.items():
            with (unfinished / name).open("wb") as target:
                _checked(store, name, recorded, target.write)
        for name in TEXTS:
            try:
                (unfinished / name).write_bytes(store.get(name)[0])
            except NotFoundError:
                continue
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _checked(store: Store, name: str, recorded: str, take: Callable[[bytes], object]) -> None:
    digest = hashlib.sha256()
    try:
        with store.stream(name) as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                take(chunk)
    except NotFoundError:
        raise PackError(
            f"{store.uri_of(name)}: missing, but {FILENAME} lists it; upload the pack again"
        ) from None
    if digest.hexdigest() != recorded:
        raise PackError(
            f"{store.uri_of(name)}: SHA-256 is {digest.hexdigest()[:12]}…, {FILENAME} records {recorded[:12]}…; "
            "the file was changed or cut off: upload the pack again"
        )
