"""Keep in memory the little of a receipt that decides whether it counts.

A destination may have millions of receipts, so they are rows of columns, and a Stub is made only
while somebody looks at it.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Generic, TypeVar, overload

from skinbatch.runs import layout
from skinbatch.runs.merged import MergedFile
from skinbatch.types import MergedPart

BITS = {kind: 1 << n for n, kind in enumerate(layout.DATA_KINDS)}
# The bit of the receipt itself.
LISTED = 1 << len(BITS)

_SHA256 = 32
# Slots of the first index of names, a power of two.
_SLOTS = 1024

Value = TypeVar("Value", bound=Hashable)


class Distinct(Generic[Value]):
    """Hold a column of few distinct values, in four bytes a row."""

    def __init__(self, first: Value) -> None:
        """Create an empty column. first: the value of new rows."""
        self._values = [first]
        self._codes = {first: 0}
        self._rows = array("i")

    def grow(self) -> None:
        """Add a row."""
        self._rows.append(0)

    def clear(self) -> None:
        """Give every row the first value."""
        self._rows = array("i", bytes(4 * len(self._rows)))

    def __getitem__(self, row: int) -> Value:
        return self._values[self._rows[row]]

    def __setitem__(self, row: int, value: Value) -> None:
        code = self._codes.setdefault(value, len(self._values))
        if code == len(self._values):
            self._values.append(value)
        self._rows[row] = code


class StubTable:
    """Hold receipts as rows of columns, in about 120 bytes each. Rows are only added.

    The columns are those of Stub. A hash index finds the rows of a unit: each slot holds a row, or
    -1, and rows whose slot is taken have one of the next.
    """

    def __init__(self) -> None:
        self.there = bytearray()
        self.needed = bytearray()
        self.whole = bytearray()
        self.text = array("i")
        self.shard_size = array("q")
        self.statuses = Distinct[tuple[tuple[str, int], ...]](())
        self.merged = Distinct[tuple[MergedFile, ...]](())
        # Every row's `<unit_id>/<generation>.<attempt>`, one after the other, and where they end.
        self._names = bytearray()
        self._ends = array("q", [0])
        self._slots = array("i", [-1]) * _SLOTS

    def __len__(self) -> int:
        return len(self.text)

    def add(self, unit_id: str, generation: int, attempt: str) -> Stub:
        """Add a receipt that was not read yet. unit_id: without a slash."""
        row = len(self)
        self._names += _encoded(f"{unit_id}/{generation}.{attempt}")
        self._ends.append(len(self._names))
        self.there.append(0)
        self.needed.append(LISTED)
        self.whole += bytes(_SHA256)
        self.text.append(-1)
        self.shard_size.append(-1)
        self.statuses.grow()
        self.merged.grow()

        self._slots[self._free_slot(unit_id)] = row
        if 3 * len(self) > 2 * len(self._slots):
            self._enlarge()
        return Stub(self, row)

    def name(self, row: int) -> tuple[str, int, str]:
        """Return the unit_id, generation and attempt of a row."""
        text = self._names[self._ends[row] : self._ends[row + 1]].decode("utf-8", "surrogatepass")
        unit_id, _, rest = text.partition("/")
        generation, _, attempt = rest.partition(".")
        return unit_id, int(generation), attempt

    def of_unit(self, unit_id: str) -> list[Stub]:
        """Return the receipts of a unit, in the order in which they were added."""
        if "/" in unit_id:
            return []
        start = _encoded(f"{unit_id}/")
        mask = len(self._slots) - 1
        slot = hash(unit_id) & mask
        stubs = []
        while (row := self._slots[slot]) >= 0:
            if self._names.startswith(start, self._ends[row]):
                stubs.append(Stub(self, row))
            slot = (slot + 1) & mask
        return stubs

    def _free_slot(self, unit_id: str) -> int:
        mask = len(self._slots) - 1
        slot = hash(unit_id) & mask
        while self._slots[slot] >= 0:
            slot = (slot + 1) & mask
        return slot

    def _enlarge(self) -> None:
        """Double the index."""
        self._slots = array("i", [-1]) * (2 * len(self._slots))
        for row in range(len(self)):
            self._slots[self._free_slot(self.name(row)[0])] = row


def _encoded(text: str) -> bytes:
    """Return text as bytes, also the name of a file that is not UTF-8."""
    return text.encode("utf-8", "surrogatepass")


class Stub:
    """Show a receipt's name, whether it and its files exist, and what decides whether it counts.

    It is a row of a ledger's table, and shows what is there now.
    """

    __slots__ = ("_table", "row")

    def __init__(self, table: StubTable, row: int) -> None:
        self._table = table
        self.row = row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stub) and (self.row, self._table) == (other.row, other._table)

    def __hash__(self) -> int:
        return self.row

    @property
    def name(self) -> tuple[str, int, str]:
        """Return its unit_id, generation and attempt."""
        return self._table.name(self.row)

    @property
    def unit_id(self) -> str:
        return self.name[0]

    @property
    def generation(self) -> int:
        return self.name[1]

    @property
    def attempt(self) -> str:
        return self.name[2]

    @property
    def there(self) -> int:
        """Return the bits of what was listed under its own name."""
        return self._table.there[self.row]

    @property
    def needed(self) -> int:
        """Return the bits of the files that it names and of itself."""
        return self._table.needed[self.row]

    @property
    def read(self) -> bool:
        """Return whether its content has been read."""
        return self.text >= 0

    @property
    def whole(self) -> bytes | None:
        """Return whole_sha256 as bytes; None while the receipt has not been read."""
        if not self.read:
            return None
        return bytes(self._table.whole[_SHA256 * self.row : _SHA256 * (self.row + 1)])

    @property
    def statuses(self) -> tuple[tuple[str, int], ...]:
        """Return the number of rows by status."""
        return self._table.statuses[self.row]

    @property
    def shard_size(self) -> int | None:
        """Return the bytes of its shard; None for loose photos."""
        size = self._table.shard_size[self.row]
        return None if size < 0 else size

    @property
    def text(self) -> int:
        """Return the number of its text in the ledger's pages; -1 while it has not been read."""
        return self._table.text[self.row]

    @property
    def merged(self) -> tuple[MergedFile, ...]:
        """Return the files that hold tables of its unit among others."""
        return self._table.merged[self.row]

    @property
    def listed(self) -> bool:
        """Return whether the receipt itself exists."""
        return bool(self.there & LISTED)

    @property
    def present(self) -> int:
        """Return the bits of what exists, under its own name or in a merged file."""
        bits = self.there
        for file in self.merged:
            bits |= BITS[file.kind]
        return bits

    @property
    def complete(self) -> bool:
        """Return whether it was read and exists with all the files that it names."""
        return self.read and not self.needed & ~self.present

    @property
    def rows(self) -> int:
        """Return the rows of its images file, one for each photo."""
        return sum(count for _, count in self.statuses)

    @property
    def failed(self) -> int:
        """Return the number of rows that are not ok."""
        return sum(count for status, count in self.statuses if status != "ok")

    def note(self, bits: int) -> None:
        """Keep that these exist under their own name."""
        self._table.there[self.row] |= bits

    def note_merged(self, file: MergedFile) -> None:
        """Keep that a merged file holds a table of its unit."""
        self._table.merged[self.row] = (*self.merged, file)

    def fill(
        self, whole: bytes, needed: int, statuses: tuple[tuple[str, int], ...], size: int | None
    ) -> None:
        """Keep the content of the receipt, except its text. size: of its shard.

        Raises ValueError, TypeError or OverflowError if it is not what a worker writes.
        """
        if len(whole) != _SHA256:
            raise ValueError(f"not a SHA-256: {whole.hex()}")
        self._table.statuses[self.row] = statuses
        self._table.shard_size[self.row] = -1 if size is None else size
        self._table.whole[_SHA256 * self.row : _SHA256 * (self.row + 1)] = whole
        self._table.needed[self.row] = needed

    def keep_text(self, number: int) -> None:
        """Keep the number of its text. From now on, it has been read."""
        self._table.text[self.row] = number

    def key(self, fingerprint: str) -> str:
        """Return the key of the receipt."""
        return layout.receipt_key(fingerprint, *self.name)

    def files(self, fingerprint: str, bits: int) -> list[str]:
        """Return the keys of its data files of these kinds."""
        kinds = (kind for kind, bit in BITS.items() if bits & bit)
        unit_id, _, attempt = self.name
        return [layout.data_key(kind, fingerprint, unit_id, attempt) for kind in kinds]

    def part(self, kind: str) -> MergedPart | None:
        """Return where a merged file holds its table of a kind; None if none does."""
        for file in self.merged:
            if file.kind == kind:
                return file.part(self.unit_id, self.attempt)
        return None


class Stubs(Sequence[Stub]):
    """Hold some receipts of one ledger, in five bytes each."""

    def __init__(self, table: StubTable, stubs: Iterable[Stub]) -> None:
        self._table = table
        self._rows = array("i", (stub.row for stub in stubs))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Stub]:
        return (Stub(self._table, row) for row in self._rows)

    @overload
    def __getitem__(self, place: int) -> Stub: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Stub]: ...
    def __getitem__(self, place: int | slice) -> Stub | Sequence[Stub]:
        if isinstance(place, slice):
            return [Stub(self._table, row) for row in self._rows[place]]
        return Stub(self._table, self._rows[place])

    def __contains__(self, stub: object) -> bool:
        return isinstance(stub, Stub) and stub.row < len(self._held) and self._held[stub.row] == 1

    @cached_property
    def _held(self) -> bytearray:
        """Return a byte for each row of the table: 1 if it is among these."""
        held = bytearray(len(self._table))
        for row in self._rows:
            held[row] = 1
        return held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stubs) and self._rows == other._rows

    __hash__ = None  # type: ignore[assignment]
