"""List a large bucket by key ranges side by side, in the order of a single listing."""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from skinbatch.lookahead import ahead

Item = dict[str, Any]
# Requests a page of a listing, and returns it with the token of the next one; None after the last.
Ask = Callable[[dict[str, str]], tuple[dict[str, Any], str | None]]

# Most requests in flight at once for one listing.
_REQUESTS = 8
# Pages that are requested one after another before the rest is divided.
_PAGES = 4
# Ranges that are listed ahead of the reader, which bounds the memory.
_WAITING = 8
# Pages of a range that are listed ahead.
_AHEAD = 12
_MOST_CUTS = 9
_FOLDER_LEVELS = 3
_DIGITS = "0123456789"


@dataclass(frozen=True, slots=True)
class _Rest:
    """Describe where a listing was left: the first and last key of its latest pages."""

    first: str
    last: str


class RangeListing:
    """List the keys with a prefix.

    The first pages are requested one after another, so a small bucket costs no extra request. What
    follows is cut at folders. If there are none, it is cut where a digit of the last key would
    count up. Cuts are guesses that affect only the speed: each range is listed to its end.
    """

    def __init__(self, ask: Ask, prefix: str) -> None:
        """Create a listing. ask is called from several threads at once."""
        self._ask_server, self._prefix = ask, prefix
        self._slots = threading.BoundedSemaphore(_REQUESTS)
        # Folders in which no further folders were seen.
        self._flat: set[str] = set()
        # Keys that follow one another, and (last, None) at the end. Ranges between them are empty.
        self._gaps: deque[tuple[str, str | None]] = deque(maxlen=64)

    def pages(self) -> Iterator[list[Item]]:
        """Yield all items, ascending by key if the server's own listing is."""
        rest = yield from self._run("", None, _PAGES)
        yield from self._divided(rest, None)

    def _ask(self, place: dict[str, str]) -> tuple[dict[str, Any], str | None]:
        with self._slots:
            return self._ask_server(place)

    def _divided(self, rest: _Rest | None, upto: str | None) -> Iterator[list[Item]]:
        """Yield the items after rest.last and up to `upto`, which is included."""
        pages = _PAGES
        while rest is not None:
            cuts = self._cuts(rest, upto)
            if cuts:
                break
            pages *= 2
            rest = yield from self._run(rest.last, upto, pages)
        if rest is None:
            return

        ranges = pairwise([rest.last, *cuts, upto])
        listed = ahead(ranges, self._collected, _REQUESTS, budget=_WAITING, cost=lambda _: 1)
        with closing(listed):
            for (_, stop), (found, more) in listed:
                yield from found
                yield from self._divided(more, stop)

    def _collected(
        self, part: tuple[str | None, str | None]
    ) -> tuple[list[list[Item]], _Rest | None]:
        """Return the first pages of a range, and the rest if there is one."""
        after, upto = part
        assert after is not None
        pages: list[list[Item]] = []
        if self._is_empty(after, upto):
            return pages, None

        run = self._run(after, upto, _AHEAD)
        while True:
            try:
                pages.append(next(run))
            except StopIteration as e:
                return pages, e.value

    def _is_empty(self, after: str, upto: str | None) -> bool:
        return any(
            first <= after and (following is None or (upto is not None and upto < following))
            for first, following in tuple(self._gaps)
        )

    def _run(
        self, after: str, upto: str | None, pages: int
    ) -> Generator[list[Item], None, _Rest | None]:
        """Yield pages one after another, and return the rest after `pages` of them.

        A server that ignores StartAfter, or lists in another order, is listed to the end.
        """
        place = {"StartAfter": after} if after else {}
        first, last, orderly = "", after, True
        while True:
            page, token = self._ask(place)
            items: list[Item] = page.get("Contents", [])
            keys = [item["Key"] for item in items]
            orderly = orderly and all(a < b for a, b in pairwise([last, *keys]))
            last = keys[-1] if keys else last
            first = first or next(iter(keys), "")
            pages -= 1

            yield [i for i in items if i["Key"] > after and (upto is None or i["Key"] <= upto)]

            if token is None:
                if orderly:
                    self._gaps.append((last, None))
                return None
            if orderly and upto is not None and last > upto:
                beyond = bisect_right(keys, upto)
                self._gaps.append((keys[beyond - 1] if beyond else upto, keys[beyond]))
                return None
            if orderly and pages <= 0 and keys:
                return _Rest(first, last)
            place = {"ContinuationToken": token}

    def _cuts(self, rest: _Rest, upto: str | None) -> list[str]:
        """Return keys, ascending, between which the rest may be listed side by side."""
        cuts = self._folders(rest, upto) or self._counted_up(rest)
        inside = [cut for cut in cuts if cut > rest.last and (upto is None or cut < upto)]
        return inside[: 2 * _MOST_CUTS]

    def _folders(self, rest: _Rest, upto: str | None) -> list[str]:
        """Return folders after the rest's last key, evenly chosen among those in one request."""
        common = _shared(rest.first, rest.last)
        slashes = [m.end() for m in re.finditer("/", common) if m.end() > len(self._prefix)]
        levels = [self._prefix, *(common[:end] for end in slashes)]
        # Within the range, folders above the one that holds all of it do not differ.
        if upto is not None:
            deepest = _shared(rest.last, upto).rfind("/") + 1
            levels = [level for level in levels if len(level) >= deepest]

        for level in [name for name in levels if name not in self._flat][:_FOLDER_LEVELS]:
            page, _ = self._ask({"Prefix": level, "Delimiter": "/", "StartAfter": rest.last})
            names = [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
            names = sorted(n for n in names if n > rest.last and (upto is None or n < upto))
            if len(names) > 1:
                return names[:: -(-len(names) // _MOST_CUTS)]
            self._flat.add(level)
        return []

    def _counted_up(self, rest: _Rest) -> list[str]:
        """Return what the last key becomes if one of its digits counts up.

        Only digits that all latest pages share are used. Ranges are then seldom shorter than these.
        """
        common = _shared(rest.first, rest.last)
        stem = rest.last.rpartition("/")[2].partition(".")[0]
        digits = _digits_of(stem)
        cuts: list[str] = []
        for at in reversed(range(len(self._prefix), len(common))):
            if rest.last[at] in digits:
                following = digits[digits.index(rest.last[at]) + 1 :]
                cuts += [rest.last[:at] + digit for digit in following]
        return cuts


def _shared(first: str, second: str) -> str:
    """Return what both keys begin with."""
    shorter = min(len(first), len(second))
    unequal = (at for at in range(shorter) if first[at] != second[at])
    return first[: next(unequal, shorter)]


def _digits_of(stem: str) -> str:
    """Return the digits of numbers in a file's name: hexadecimal if it has no other letters."""
    if re.fullmatch(r"[\d-]*[a-f][\da-f-]*", stem):
        return _DIGITS + "abcdef"
    if re.fullmatch(r"[\d-]*[A-F][\dA-F-]*", stem):
        return _DIGITS + "ABCDEF"
    return _DIGITS
