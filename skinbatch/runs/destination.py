"""Read and write what a destination records about itself: its source and its scorings."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from skinbatch.errors import NotFoundError, UsageError
from skinbatch.runs import layout
from skinbatch.storage.store import Store
from skinbatch.tables.schema import SCHEMA_VERSION

LAYOUT_VERSION = 1
# Layout of a destination that was compacted. Versions of skinbatch that do not know merged files
# would take their units for lost, so they must refuse it.
MERGED_LAYOUT_VERSION = 2


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Destination:
    """Hold dest.json. source: as the first run gave it, made absolute. bits: leading bits of groups
    at the first plan.
    """

    source: str
    bits: int | None
    schema_version: int
    layout_version: int = LAYOUT_VERSION


@dataclass(frozen=True, slots=True)
class Scoring:
    """Hold scorings/<fp>.json.

    numbers: what the fingerprint is the hash of. grading: threshold, scheme and counting of the
    first run. classes, prob_columns: the columns that depend on the pack. settings: what `retry`
    must be run with. taken: stage -> fingerprint of the earlier scoring from which its results are
    taken.
    """

    fingerprint: str
    numbers: Mapping[str, Any]
    grading: Mapping[str, Any]
    pack: str
    weights: Mapping[str, str]
    classes: tuple[str, ...]
    prob_columns: tuple[str, ...]
    save_masks: bool
    created: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    taken: Mapping[str, str] = field(default_factory=dict)

    @property
    def taken_from(self) -> str | None:
        """Return the earlier scoring's fingerprint; None if nothing is taken."""
        return next(iter(self.taken.values()), None)


def read_json(store: Store, key: str) -> dict[str, Any] | None:
    """Read a JSON object of the destination; None if it does not exist.

    Raises UsageError if it is not JSON, or not an object.
    """
    try:
        data, _ = store.get(key)
    except NotFoundError:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise UsageError(f"{store.uri_of(key)} is damaged: {e}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{store.uri_of(key)} is damaged: it is not a JSON object")
    return value


def read_destination(store: Store) -> Destination | None:
    """Read dest.json; None if there is none yet.

    Raises UsageError if another version of skinbatch wrote it.
    """
    raw = read_json(store, layout.DEST)
    if raw is None:
        return None
    if raw.get("layout_version") not in (LAYOUT_VERSION, MERGED_LAYOUT_VERSION):
        raise UsageError(
            f"{store.uri_of(layout.DEST)}: has layout version {raw.get('layout_version')}, but this skinbatch writes "
            f"{MERGED_LAYOUT_VERSION}; use another destination, or the version of skinbatch that wrote it"
        )
    try:
        dest = Destination(**raw)
    except TypeError as e:
        raise UsageError(f"{store.uri_of(layout.DEST)} is damaged: {e}") from None
    if type(dest.schema_version) is not int:
        raise UsageError(
            f"{store.uri_of(layout.DEST)} is damaged: schema version {dest.schema_version!r}"
        )
    if dest.schema_version > SCHEMA_VERSION:
        raise UsageError(
            f"{store.uri}: its tables have schema version {dest.schema_version}, but this skinbatch reads up to "
            f"{SCHEMA_VERSION}; update skinbatch"
        )
    if type(dest.source) is not str or not (
        dest.bits is None or (type(dest.bits) is int and dest.bits >= 0)
    ):
        raise UsageError(
            f"{store.uri_of(layout.DEST)} is damaged: source {dest.source!r}, bits {dest.bits!r}"
        )
    return dest


def require_destination(store: Store) -> Destination:
    """Read dest.json, or raise a UsageError that explains how a destination is made."""
    dest = read_destination(store)
    if dest is None:
        raise UsageError(
            f"{store.uri} is not a destination of skinbatch: it has no {layout.DEST}; `skinbatch score` makes one"
        )
    return dest


def require_current(store: Store, dest: Destination) -> None:
    """Raise UsageError if an older version of skinbatch made the destination: its tables are read, and not added to."""
    if dest.schema_version < SCHEMA_VERSION:
        raise UsageError(
            f"{store.uri}: its tables have schema version {dest.schema_version}, this skinbatch writes version "
            f"{SCHEMA_VERSION}, and files of both would not open together. Score into another destination; this one can "
            "still be read (open, verify, evaluate, export), and the version that started it can continue"
        )


def write_destination(store: Store, destination: Destination) -> None:
    store.put(layout.DEST, _text(asdict(destination)))


def read_scoring(store: Store, fingerprint: str) -> Scoring | None:
    """Read a scoring by its fingerprint; None if it does not exist. Raises UsageError if it is
    damaged.
    """
    raw = read_json(store, layout.scoring_key(fingerprint))
    if raw is None:
        return None
    try:
        scoring = Scoring(
            **(raw | {"classes": tuple(raw["classes"]), "prob_columns": tuple(raw["prob_columns"])})
        )
    except (KeyError, TypeError) as e:
        raise UsageError(
            f"{store.uri_of(layout.scoring_key(fingerprint))} is damaged: {e}"
        ) from None
    if scoring.fingerprint != fingerprint:
        raise UsageError(
            f"{store.uri_of(layout.scoring_key(fingerprint))} is damaged: its fingerprint is {scoring.fingerprint}"
        )
    return scoring


def write_scoring(store: Store, scoring: Scoring) -> None:
    store.put(layout.scoring_key(scoring.fingerprint), _text(asdict(scoring)))


def scoring_names(store: Store) -> list[str]:
    """Return the fingerprints of all scorings of a destination, readable or not."""
    keys = (info.key[len(layout.SCORINGS) :] for info in store.list(layout.SCORINGS))
    return sorted(key.removesuffix(".json") for key in keys if key.endswith(".json"))


def damaged_scorings(store: Store) -> dict[str, str]:
    """Return the fingerprints of scorings whose file cannot be read, with the reason."""
    damaged = {}
    for name in scoring_names(store):
        try:
            read_scoring(store, name)
        except UsageError as e:
            damaged[name] = str(e)
    return damaged


def fingerprints(store: Store, damaged: Container[str] = ()) -> list[str]:
    """Return the scorings of a destination, oldest first, after those of `damaged`, which are not
    read.
    """
    names = scoring_names(store)
    scorings = [
        s
        for s in (read_scoring(store, name) for name in names if name not in damaged)
        if s is not None
    ]
    whole = [s.fingerprint for s in sorted(scorings, key=lambda s: (s.created, s.fingerprint))]
    return [*(name for name in names if name in damaged), *whole]


def choose_scoring(store: Store, name: str | None, damaged: Container[str] = ()) -> str:
    """Return the scoring that is meant: the one named, the only one, or that of the newest run.

    damaged: see fingerprints.
    """
    names = fingerprints(store, damaged)
    if name is not None:
        fitting = [fp for fp in names if fp.startswith(name)]
        if len(fitting) != 1:
            raise UsageError(
                f"{store.uri}: no scoring `{name}`; there are: {', '.join(names) or 'none'}"
            )
        return fitting[0]
    return newest_scorings(store, damaged)[0]


def newest_scorings(store: Store, damaged: Container[str] = ()) -> list[str]:
    """Return the scorings of a destination, that of the newest run first. UsageError if there are none."""
    names = fingerprints(store, damaged)
    if not names:
        raise UsageError(
            f"{store.uri}: nothing has been scored here yet; run `skinbatch score SOURCE {store.uri}` first"
        )
    if len(names) == 1:
        return names

    ordered: dict[str, None] = {}
    for info in sorted(store.list(layout.RUNS), key=lambda o: o.key, reverse=True):
        record = read_json(store, info.key)
        if record and record.get("fingerprint") in names:
            ordered[str(record["fingerprint"])] = None
        if len(ordered) == len(names):
            break
    return [*ordered, *(name for name in reversed(names) if name not in ordered)]


def _text(value: object) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
