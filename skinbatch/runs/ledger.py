"""Read every receipt of one scoring in the destination, and decide what they prove."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import pyarrow as pa

from skinbatch.errors import NotFoundError, TableError
from skinbatch.lookahead import ahead
from skinbatch.runs import layout, receipts
from skinbatch.runs.merged import MergedFile, open_merged
from skinbatch.runs.pages import Pages
from skinbatch.runs.receipts import Entry
from skinbatch.runs.stub import BITS, LISTED, Stub, Stubs, StubTable
from skinbatch.runs.units import Units
from skinbatch.storage.store import Store
from skinbatch.types import DataFile, Receipt
from skinbatch.unit_id import UnitId, family_of

_READERS = 16
# A footer takes up to 30 MB while it is read.
_FOOTER_READERS = 4
# How often to list again, at most, while files are missing that a compaction may have just moved.
_LISTINGS = 3


class Ledger:
    """Hold receipts as stubs, and data files as bits of the stub of their unit and attempt.

    Both are as they were listed. `add` takes a receipt that this run has just committed. A ledger
    must not be shared between threads.
    """

    def __init__(self, store: Store, fingerprint: str) -> None:
        self.store = store
        self.fingerprint = fingerprint
        # Data files without a receipt of their unit and attempt.
        self.orphans: set[str] = set()
        # Objects in the folder of receipts whose names are not those of receipts.
        self.strays: set[str] = set()
        # Objects that cannot be read as the receipt, fold or snapshot that they should be.
        self.unreadable: set[str] = set()
        # Receipts that are in no snapshot or fold.
        self.read_singly: list[Stub] = []
        # Files that hold the tables of many units, as in the last listing.
        self.merged: list[MergedFile] = []
        # Number of receipts and data files in the last listing.
        self.keys = 0
        self.table = StubTable()
        # Rows of the parts and halves of each group or shard.
        self._parts: dict[str, array[int]] = defaultdict(lambda: array("i"))
        self._split: set[str] = set()
        self._texts = Pages()
        self._opened: dict[str, MergedFile] = {}

    @classmethod
    def listed(cls, store: Store, fingerprint: str) -> Ledger:
        """Return a ledger of what exists, by LIST, without reading receipts.

        That is enough to tell which snapshot counts.
        """
        ledger = cls(store, fingerprint)
        ledger.list_again()
        return ledger

    @classmethod
    def load(cls, store: Store, fingerprint: str) -> Ledger:
        """Return a ledger of what exists, with every receipt read.

        Receipts come from snapshots and folds first; the rest are read one by one.
        """
        ledger = cls.listed(store, fingerprint)
        ledger._read_all()
        # A listing during a compaction may show neither a unit's file nor the merged file.
        incomplete = ledger._incomplete()
        for _ in range(_LISTINGS if incomplete else 0):
            ledger.list_again()
            before, incomplete = incomplete, ledger._incomplete()
            if incomplete in (0, before):
                break
        return ledger

    def list_again(self) -> None:
        """List again what exists now. Receipts that appeared since are not read.

        Receipts are listed before data files, so that the files of a unit that commits in between
        are seen.
        """
        self.table.there = bytearray(len(self.table))
        self.table.merged.clear()
        self.orphans, self.strays = set(), set()
        self.merged = []
        self.keys = 0
        prefix, *of_data = self.prefixes()
        for key in self.store.keys(prefix):
            self.keys += 1
            name = layout.receipt_name(prefix, key)
            if name is None:
                self.strays.add(key)
            else:
                (self.find(*name) or self._new(*name)).note(LISTED)
        for prefix, kind in zip(of_data, BITS, strict=True):
            merged_keys = []
            for key in self.store.keys(prefix):
                self.keys += 1
                if layout.merged_hashes(key) is None:
                    self._note_file(prefix, key, BITS[kind])
                else:
                    merged_keys.append(key)
            self._note_merged(kind, merged_keys)

    def prefixes(self) -> list[str]:
        """Return the prefixes that `list_again` lists: receipts, then data files by kind."""
        data = (layout.data_prefix(kind, self.fingerprint) for kind in BITS)
        return [layout.receipts_prefix(self.fingerprint), *data]

    def _note_file(self, prefix: str, key: str, bit: int) -> None:
        unit_id, attempt = layout.data_name(prefix, key) or ("", "")
        orphan = True
        for stub in self.of_unit(unit_id):
            if stub.attempt == attempt:
                stub.note(bit)
                orphan = False
        if orphan:
            self.orphans.add(key)

    def _incomplete(self) -> int:
        return sum(stub.listed and stub.read and not stub.complete for stub in self)

    def _note_merged(self, kind: str, keys: Sequence[str]) -> None:
        def opened(key: str) -> MergedFile | TableError | None:
            try:
                return self._opened.get(key) or open_merged(self.store, kind, key)
            except NotFoundError:  # another driver's clean-up
                return None
            except TableError as e:
                return e

        for key, file in ahead(keys, opened, _FOOTER_READERS):
            if isinstance(file, TableError):
                self.unreadable.add(key)
                self.orphans.add(key)
            elif file is not None:
                self._opened[key] = file
                self.merged.append(file)
                for unit in file:
                    for stub in self.of_unit(unit.unit_id):
                        if stub.attempt == unit.attempt:
                            stub.note_merged(file)

    def _read_all(self) -> None:
        self.unreadable |= self.strays
        left = sum(1 for _ in self.unread())
        for key in _copies(self.store, self.fingerprint):
            if not left:
                break
            left -= self._read_copy(key)
        unread = sorted(self.unread(), key=lambda stub: stub.key(self.fingerprint))
        for stub, text in ahead(unread, self._text_of, _READERS):
            if text is not None and self._fill(stub, text):
                self.read_singly.append(stub)
            else:
                self.unreadable.add(stub.key(self.fingerprint))

    def _read_copy(self, key: str) -> int:
        """Read what is not read yet from a snapshot or fold, and return the number of receipts."""
        read = 0
        prefix = layout.receipts_prefix(self.fingerprint)
        try:
            with receipts.open_parquet(self.store.get(key)[0]) as file:
                for receipt_key, text in receipts.rows_of(file, "receipt", "record"):
                    name = layout.receipt_name(prefix, receipt_key)
                    stub = self.find(*name) if name else None
                    if stub is not None and not stub.read:
                        if not self._fill(stub, text.encode()):
                            raise ValueError(f"{receipt_key}: not what its key says")
                        read += 1
        except NotFoundError:  # another driver's clean-up; the receipts themselves are read instead
            return read
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            self.unreadable.add(key)
        return read

    def _text_of(self, stub: Stub) -> bytes | None:
        try:
            return self.store.get(stub.key(self.fingerprint))[0]
        except NotFoundError:
            return None

    def _fill(self, stub: Stub, text: bytes) -> bool:
        """Take over the content of a receipt; return False if it does not match its key and its
        files.
        """
        try:
            receipt = receipts.from_json(text)
            return self._take(stub, receipt, text)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return False

    def _take(self, stub: Stub, receipt: Receipt, text: bytes) -> bool:
        if (receipt.unit_id, receipt.generation, receipt.attempt) != stub.name:
            return False
        needed = LISTED
        for file in receipt.files:
            if file.path != layout.data_key(
                file.kind, self.fingerprint, stub.unit_id, stub.attempt
            ):
                return False
            needed |= BITS[file.kind]
        whole, statuses = bytes.fromhex(receipt.whole_sha256), tuple(receipt.statuses.items())
        stub.fill(whole, needed, statuses, receipt.shard_size)
        stub.keep_text(self._texts.add(text.replace(b"\n", b" ")))
        return True

    def _new(self, unit_id: str, generation: int, attempt: str) -> Stub:
        stub = self.table.add(unit_id, generation, attempt)
        family = family_of(unit_id)
        if family != unit_id:
            self._parts[family].append(stub.row)
            self._split.update(UnitId(unit_id).halved)
        return stub

    def add(self, receipt: Receipt) -> Stub:
        """Add a receipt that a worker of this run has just written, with its files."""
        name = receipt.unit_id, receipt.generation, receipt.attempt
        stub = self.find(*name) or self._new(*name)
        taken = self._take(stub, receipt, receipts.to_json(receipt))
        assert taken, f"a worker's receipt names files that are not its own: {receipt}"
        stub.note(stub.needed)
        return stub

    def __iter__(self) -> Iterator[Stub]:
        return (Stub(self.table, row) for row in range(len(self.table)))

    def unread(self) -> Iterator[Stub]:
        """Return receipts that exist and were not read, or cannot be read."""
        return (stub for stub in self if stub.listed and not stub.read)

    def of_unit(self, unit_id: str) -> Sequence[Stub]:
        return self.table.of_unit(unit_id)

    def find(self, unit_id: str, generation: int, attempt: str) -> Stub | None:
        for stub in self.of_unit(unit_id):
            if stub.name == (unit_id, generation, attempt):
                return stub
        return None

    def at(self, receipt_key: str) -> Stub | None:
        """Return the receipt at a key, or None."""
        name = layout.receipt_name(layout.receipts_prefix(self.fingerprint), receipt_key)
        stub = self.find(*name) if name else None
        return stub if stub is not None and stub.listed else None

    def of_family(self, name: str) -> list[Stub]:
        """Return complete receipts of a group or shard, including its parts and halves."""
        parts = [Stub(self.table, row) for row in self._parts.get(name, ())]
        parts.sort(key=lambda stub: stub.unit_id)
        return [stub for stub in (*self.of_unit(name), *parts) if stub.complete]

    def best(self, unit_id: str, whole_sha256: str) -> Stub | None:
        """Return the receipt of a unit that counts for the inputs of its whole unit.

        It is complete and has the highest generation, then the smallest attempt.
        """
        whole = bytes.fromhex(whole_sha256)
        fitting = [stub for stub in self.of_unit(unit_id) if stub.whole == whole and stub.complete]
        return min(fitting, key=lambda stub: (-stub.generation, stub.attempt), default=None)

    def proof(self, unit_id: str, whole_sha256: str) -> list[Stub] | None:
        """Return the receipts by which a planned unit is done: its own, or those of its halves.

        Return None while it is not done.
        """
        own = self.best(unit_id, whole_sha256)
        halves = self._proof_of_halves(unit_id, whole_sha256) if unit_id in self._split else None
        if own is None or halves is None:
            return halves if own is None else [own]
        # A retry of the whole unit may have ended in halves. The later generation counts, as it
        # does among single receipts.
        return halves if min(stub.generation for stub in halves) > own.generation else [own]

    def _proof_of_halves(self, unit_id: str, whole_sha256: str) -> list[Stub] | None:
        proofs = [self.proof(half, whole_sha256) for half in UnitId(unit_id).halves]
        if proofs[0] is None or proofs[1] is None:
            return None
        return proofs[0] + proofs[1]

    def done(self, units: Units) -> Stubs:
        """Return the receipts by which those of the units that are done are done."""
        proofs = (self.proof(*inputs) or () for inputs in units.inputs())
        return Stubs(self.table, chain.from_iterable(proofs))

    def receipts_besides(self, named: Collection[Stub]) -> Iterator[Stub]:
        """Yield receipts that were listed, complete or not, and are not among `named`."""
        return (stub for stub in self if stub.listed and stub not in named)

    def files_besides(self, named: Collection[Stub]) -> Iterator[str]:
        """Yield data files that were listed and that no receipt of `named` names; some may come
        twice.
        """
        for stub in self:
            bits = stub.there
            # A copy of a receipt under another name has the same files.
            for other in self.of_unit(stub.unit_id):
                if other.attempt == stub.attempt and other in named:
                    bits &= ~other.needed
            yield from stub.files(self.fingerprint, bits)
        yield from sorted(self.orphans)

    def changed(self) -> Iterator[Stub]:
        """Yield receipts that differ from their copy in a snapshot or fold. Each of them is read."""
        singly = set(self.read_singly)
        copied = (stub for stub in self if stub.listed and stub.read and stub not in singly)
        for stub, text in ahead(copied, self._text_of, _READERS):
            if text is not None and text.replace(b"\n", b" ") != self._texts[stub.text]:
                yield stub

    def receipt(self, stub: Stub) -> Receipt:
        """Return the full content of a receipt that has been read.

        Files whose tables are in merged files are parts of those.
        """
        receipt = receipts.from_json(self._texts[stub.text])
        if not stub.merged:
            return receipt
        return replace(receipt, files=tuple(_place_of(file, stub) for file in receipt.files))

    def located(self, file: DataFile) -> DataFile:
        """Return where a data file's table is now: the file itself, or its part of a merged file."""
        prefix = layout.data_prefix(file.kind, self.fingerprint)
        unit_id, attempt = layout.data_name(prefix, file.path) or ("", "")
        for stub in self.of_unit(unit_id):
            if stub.attempt == attempt:
                return _place_of(file, stub)
        return file

    def entries(self, stubs: Iterable[Stub]) -> Iterator[Entry]:
        """Yield rows of a fold or snapshot for receipts that have been read."""
        for stub in stubs:
            files = stub.files(self.fingerprint, stub.needed)
            yield Entry(
                stub.unit_id, stub.key(self.fingerprint), stub.rows, files, self._texts[stub.text]
            )


def _place_of(file: DataFile, stub: Stub) -> DataFile:
    part = stub.part(file.kind)
    same = part is not None and (part.sha256, part.rows) == (file.sha256, file.rows)
    return part if part is not None and same else file


def _copies(store: Store, fingerprint: str) -> Iterator[str]:
    """Yield the keys of the newest snapshot, of the folds, newest first, and of the other
    snapshots.

    Other snapshots hold receipts that an interrupted clean-up left.
    """
    keys: list[list[str]] = []
    for prefix in (layout.snapshots_prefix(fingerprint), layout.folds_prefix(fingerprint)):
        names = [o.key[len(prefix) :] for o in store.list(prefix) if o.key.endswith(".parquet")]
        keys.append([prefix + name for name in layout.newest_first(names)])
    snapshots, folds = keys
    yield from (*snapshots[:1], *folds, *snapshots[1:])
