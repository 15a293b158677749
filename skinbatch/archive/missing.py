"""Guess why listed photos do not exist, from the objects that do."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from skinbatch.errors import SkinbatchError
from skinbatch.storage.local import LocalStore
from skinbatch.storage.locate import Locator, is_s3, split_s3
from skinbatch.storage.store import Store
from skinbatch.types import ImageRef

# Number of missing photos on which every guess is tried.
_TRIED = 5
# Most objects that are searched for a name that differs in case or folder.
_LOOKED_THROUGH = 50_000

# Ways in which a program may have changed a key on its way into the listing, and how to undo each.
_SPELLINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("the keys in the listing are URL-encoded", unquote),
    ("the keys in the listing are URL-encoded", unquote_plus),
    ("the keys in the listing are URL-encoded twice", lambda key: unquote_plus(unquote(key))),
    ("the objects' own names are URL-encoded, and the listing has them decoded", quote),
    ("the objects' own names are URL-encoded, and the listing has them decoded", quote_plus),
    (
        "the keys in the listing have backslashes instead of slashes",
        lambda key: key.replace("\\", "/"),
    ),
    (
        "accents are written in another Unicode form (composed)",
        lambda key: unicodedata.normalize("NFC", key),
    ),
    (
        "accents are written in another Unicode form (decomposed)",
        lambda key: unicodedata.normalize("NFD", key),
    ),
    (
        "the keys in the listing have spaces or line ends around them",
        lambda key: posixpath.join(*_stripped(key)),
    ),
    ("the keys in the listing have doubled slashes", lambda key: posixpath.normpath(key)),
)


def _stripped(key: str) -> list[str]:
    return [part.strip() for part in key.split("/")]


def likely_cause(missing: Sequence[ImageRef], source: str, locator: Locator) -> str | None:
    """Return one sentence on why the photos of a source do not exist, with an example.

    Args:
        missing: the first photos that are gone.
        source: the listing or folder that named them.
        locator: finds their stores.

    Returns:
        None without evidence, also if a store does not answer.
    """
    for guess in (_spelled_otherwise, _in_another_bucket, _elsewhere, _no_such_folder):
        for ref in missing[:_TRIED]:
            with suppress(SkinbatchError):
                cause = guess(ref, source, locator)
                if cause is not None:
                    return cause
    return None


def _spelled_otherwise(ref: ImageRef, source: str, locator: Locator) -> str | None:
    store, key = locator.locate(ref.uri)
    for what, spell in _SPELLINGS:
        spelled = spell(key)
        if spelled != key and _is_there(store, spelled):
            return f"{what}: {ref.uri} is there as {store.uri_of(spelled)}"
    return None


def _in_another_bucket(ref: ImageRef, source: str, locator: Locator) -> str | None:
    if not is_s3(ref.uri) or not is_s3(source):
        return None
    bucket, key = split_s3(ref.uri)
    other = split_s3(source)[0]
    if bucket == other:
        return None
    uri = f"s3://{other}/{key}"
    return (
        f"the photos are in another bucket: {uri} is there"
        if _is_there(*locator.locate(uri))
        else None
    )


def _elsewhere(ref: ImageRef, source: str, locator: Locator) -> str | None:
    """Look for the same name in another case, with another ending, or in another folder."""
    store, key = locator.locate(ref.uri)
    folder, name = posixpath.split(key)
    stem = posixpath.splitext(key)[0].casefold()
    elsewhere: str | None = None
    for neighbour in _neighbours(store, folder, source, locator):
        if neighbour.casefold() == key.casefold():
            return f"upper and lower case differ: {ref.uri} is there as {store.uri_of(neighbour)}"
        if posixpath.splitext(neighbour)[0].casefold() == stem:
            return f"the extension differs: {ref.uri} is there as {store.uri_of(neighbour)}"
        if elsewhere is None and posixpath.basename(neighbour).casefold() == name.casefold():
            elsewhere = neighbour
    if elsewhere is None:
        return None
    return f"the folder or prefix differs: {ref.uri} is there as {store.uri_of(elsewhere)}"


def _neighbours(store: Store, folder: str, source: str, locator: Locator) -> Iterator[str]:
    """Yield keys in a folder and in those above it, the nearest first.

    This goes up to the top of the bucket, or locally to the source's folder.
    """
    top = ""
    if isinstance(store, LocalStore):
        top = locator.locate(source)[1]
        if not store.is_folder(top):  # a listing: its own folder
            top = posixpath.dirname(top)
        if not f"{folder}/".startswith(f"{top}/"):
            folder = top

    while True:
        keys = list(islice(store.keys(f"{folder}/" if folder else ""), _LOOKED_THROUGH))
        yield from keys
        if folder == top or len(keys) == _LOOKED_THROUGH:
            return
        folder = posixpath.dirname(folder)


def _no_such_folder(ref: ImageRef, source: str, locator: Locator) -> str | None:
    store, key = locator.locate(ref.uri)
    folder = posixpath.dirname(key)
    if folder and next(iter(store.keys(f"{folder}/")), None) is None:
        return f"{store.uri_of(folder)} does not exist or is empty; another folder, prefix or disk may be meant"
    return None


def _is_there(store: Store, key: str) -> bool:
    try:
        store.head(key)
    except SkinbatchError:
        return False
    return True
