"""Find photos of a scoring that look the same: a photo in another size, turned or mirrored."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow.compute as pc

from skinbatch.annotations.likeness import Look, groups_of, look_of
from skinbatch.archive.unit_reader import read_unit
from skinbatch.config import Config, merge
from skinbatch.errors import NotFoundError, SkinbatchError
from skinbatch.lookahead import ahead
from skinbatch.runs import destination, plan
from skinbatch.runs.results import Results
from skinbatch.storage.locate import Locator
from skinbatch.types import Fetched, WorkUnit

# Photos between two lines of progress.
_STEP = 200


@dataclass(frozen=True, slots=True)
class LookAlikes:
    """Hold photos that look the same.

    groups: image_ids, two or more in each, the largest group first. compared: photos whose look was
    compared; copies of the same bytes are one. unread: photos that were scored and could not be
    read again. problem: why, for the first of them; "" if all were read.
    """

    groups: tuple[tuple[str, ...], ...]
    compared: int
    unread: int
    problem: str


def find_lookalikes(
    results: Results, config: Config, progress: Callable[[str], None] = lambda text: None
) -> LookAlikes:
    """Read all photos of a scoring again and compare how they look.

    Every photo is compared with every other: 10,000 photos take minutes, 70,000 take hours.

    Args:
        config: how the source is reached.
        progress: called with a line of text from time to time.
    """
    scoring = destination.read_scoring(results.store, results.fingerprint)
    assert scoring is not None, "the results are of this scoring"
    digests = _scored(results)

    names: list[str] = []
    looks: list[Look] = []
    seen: set[str] = set()
    problems: Counter[str] = Counter()
    read = 0
    for fetched, look in _looks(results, merge(config, scoring.settings), problems):
        digest = digests.get(fetched.ref.image_id)
        if digest is None:
            continue
        read += 1
        if read % _STEP == 0:
            progress(f"{read:,} of {len(digests):,} photos read again")
        if isinstance(look, str):
            problems[f"`{fetched.ref.image_id}`: {look}"] += 1
        elif look.sha256 != digest:
            problems[f"`{fetched.ref.image_id}` has changed since it was scored"] += 1
        elif digest not in seen:
            seen.add(digest)
            names.append(fetched.ref.image_id)
            looks.append(look)

    progress(f"comparing {len(looks):,} photos")
    members: dict[int, list[str]] = {}
    for name, group in zip(names, groups_of(looks), strict=True):
        members.setdefault(group, []).append(name)
    groups = [tuple(sorted(group)) for group in members.values() if len(group) > 1]

    unread = len(set(digests.values())) - len(looks)
    return LookAlikes(
        groups=tuple(sorted(groups, key=lambda group: (-len(group), group))),
        compared=len(looks),
        unread=unread,
        problem=next(iter(problems), "they are no longer in the source") if unread else "",
    )


def _scored(results: Results) -> dict[str, str]:
    """Return image_id -> SHA-256 of the photos that were scored."""
    table = results.images(["image_id", "sha256", "status"])
    table = table.filter(
        pc.and_(pc.equal(table.column("status"), "ok"), pc.is_valid(table.column("sha256")))
    )
    return dict(
        zip(table.column("image_id").to_pylist(), table.column("sha256").to_pylist(), strict=True)
    )


def _looks(
    results: Results, config: Config, problems: Counter[str]
) -> Iterator[tuple[Fetched, Look | str]]:
    """Yield the photos of the newest plan with their looks. Units that cannot be read are problems."""
    store, fingerprint = results.store, results.fingerprint
    newest = plan.read(store, fingerprint, plan.names(store, fingerprint)[0])
    locator = Locator(config.storage)
    for unit in plan.work_units(store, fingerprint, newest, newest.units):
        try:
            yield from ahead(_photos(unit, locator, config), _look, os.cpu_count() or 1)
        except NotFoundError as e:
            problems[str(e)] += 1
        except SkinbatchError as e:
            # A store that does not answer is not asked again for each unit.
            problems[str(e)] += 1
            return


def _photos(unit: WorkUnit, locator: Locator, config: Config) -> Iterator[Fetched]:
    yield from read_unit(unit, locator, config.decode, threads=4)


def _look(fetched: Fetched) -> Look | str:
    return look_of(fetched.data) if fetched.data is not None else fetched.error or fetched.status
