"""Find which merged files hold the tables of a snapshot's units, and which are to be replaced."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from skinbatch.errors import NotFoundError, TableError
from skinbatch.lookahead import ahead
from skinbatch.runs import layout
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.merged import WAY_OUT, MergedFile, MergedUnit
from skinbatch.runs.stub import BITS, Stub
from skinbatch.storage.store import Store

# A merged file is about 128 MB.
_READERS = 2


@dataclass(frozen=True, slots=True)
class Holdings:
    """Hold what a scoring's merged files are good for.

    kept: files of which every unit is named by the snapshot and in no other kept file. replaced:
    the other files, each with the units that the snapshot names and no kept file has. doubled: keys
    of units' own files whose tables a kept file has too. relied_on: kept files without which
    deleting the doubled and replaced ones would lose rows.
    """

    kept: tuple[MergedFile, ...]
    replaced: tuple[tuple[MergedFile, tuple[MergedUnit, ...]], ...]
    doubled: tuple[str, ...]
    relied_on: tuple[MergedFile, ...]


def find_holdings(ledger: Ledger, named: Collection[Stub]) -> Holdings:
    """Compare the merged files with the receipts that a snapshot names.

    Everyone who sees the same files keeps the same ones: the largest, then the first by name.
    """
    held: dict[str, set[Stub]] = {kind: set() for kind in BITS}
    kept: list[MergedFile] = []
    others: list[MergedFile] = []
    for file in sorted(ledger.merged, key=lambda file: (-len(file), file.key)):
        own = set(_stubs_of(ledger, file, named))
        if len(own) == len(file) and not own & held[file.kind]:
            held[file.kind] |= own
            kept.append(file)
        else:
            others.append(file)

    doubled: list[str] = []
    for kind, stubs in held.items():
        for stub in stubs:
            doubled += stub.files(ledger.fingerprint, stub.there & BITS[kind])

    relied_on = []
    elsewhere = {(file.kind, stub) for file in others for stub in _stubs_of(ledger, file, named)}
    for file in kept:
        for stub in _stubs_of(ledger, file, named):
            if stub.there & BITS[file.kind] or (file.kind, stub) in elsewhere:
                relied_on.append(file)
                break

    replaced = []
    for file in others:
        left = []
        for unit in file:
            named_stub = _stub_of(ledger, file.kind, unit, named)
            if named_stub is not None and named_stub not in held[file.kind]:
                held[file.kind].add(named_stub)
                left.append(unit)
        replaced.append((file, tuple(left)))
    return Holdings(tuple(kept), tuple(replaced), tuple(sorted(doubled)), tuple(relied_on))


def _stubs_of(ledger: Ledger, file: MergedFile, named: Collection[Stub]) -> Iterator[Stub]:
    """Yield the named receipts whose tables a merged file holds."""
    for unit in file:
        stub = _stub_of(ledger, file.kind, unit, named)
        if stub is not None:
            yield stub


def _stub_of(ledger: Ledger, kind: str, unit: MergedUnit, named: Collection[Stub]) -> Stub | None:
    """Return the named receipt of a unit's table; None if the snapshot does not name it."""
    for stub in ledger.of_unit(unit.unit_id):
        if stub.attempt == unit.attempt and stub in named and stub.needed & BITS[kind]:
            return stub
    return None


def left_behind(ledger: Ledger, named: Collection[Stub]) -> Iterator[tuple[str, str]]:
    """Yield keys of files that an interrupted compaction or clean-up has left, each with a sentence."""
    again = "run `skinbatch compact` again, or the same `skinbatch score`"
    holdings = find_holdings(ledger, named)
    for key in holdings.doubled:
        yield key, f"a merged file holds its rows too; {again}"
    for file, _ in holdings.replaced:
        yield (
            file.key,
            f"it holds rows that the snapshot does not name, or that another file holds too; {again}",
        )


def changed_merged(ledger: Ledger) -> Iterator[str]:
    """Yield a sentence for each merged file that is not what was written. Each is read once."""

    def problem(file: MergedFile) -> str | None:
        try:
            _require_sound(ledger.store, file)
        except NotFoundError:
            return f"{ledger.store.uri_of(file.key)}: the file is gone"
        except TableError as e:
            return str(e)
        return None

    for _, sentence in ahead(ledger.merged, problem, _READERS):
        if sentence is not None:
            yield sentence


def require_sound(store: Store, files: Iterable[MergedFile]) -> None:
    """Read merged files, and raise an error unless each is what was written.

    Raises:
        NotFoundError: If a file is gone, because another command is at work.
        TableError: If a file is damaged.
    """
    for _ in ahead(files, partial(_require_sound, store), _READERS):
        pass


def _require_sound(store: Store, file: MergedFile) -> None:
    hashes = layout.merged_hashes(file.key)
    assert hashes is not None, "merged files are recognised by their names"
    data, _ = store.get(file.key)
    if hashlib.sha256(data).hexdigest() != hashes[0]:
        raise TableError(
            f"{store.uri_of(file.key)}: its bytes are not those that were written (its SHA-256 is not the one in "
            f"its name); {WAY_OUT}"
        )
