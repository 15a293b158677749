"""Report the state of a scoring from the files in the destination, also during a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from skinbatch.config import PriceSettings
from skinbatch.errors import NotFoundError, TableError
from skinbatch.runs import destination, plan, record, snapshot
from skinbatch.runs.cost import Cost, prices_of
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.results import Results, done_for_newest_plan
from skinbatch.runs.units import Units
from skinbatch.storage.store import Store

SILENT_S = 60.0
_NO_PRICES = PriceSettings()


@dataclass(frozen=True, slots=True)
class ScoringStatus:
    """Describe one scoring of a destination.

    created: when its first run began. photos: rows that `open` shows. state: as in RunStatus.
    finished: every listed photo has had a row once, so `open` shows the scoring completely. taken:
    stage -> fingerprint of the earlier scoring from which its results are taken.
    """

    fingerprint: str
    pack: str
    created: str
    photos: int
    state: str
    finished: bool
    taken: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Describe the state of one scoring, and list all scorings of its destination.

    scorings: the one with the newest run first. state: running, done, stopped, failed or
    interrupted, from the newest run's record; `lost` if the record is `running` but has not been
    rewritten for a minute. total_known: False while the members of some shard have not been
    counted. statuses: number of rows by status. left_s: None unless a run is going on at a known
    rate. units_retried, photos_isolated, requests_*: of the newest run, from its record. cost: of
    that run. money: its price, None unless prices are set.
    """

    fingerprint: str
    state: str
    updated: str
    message: str
    photos_done: int
    photos_total: int
    total_known: bool
    units_total: int
    units_left: int
    statuses: Mapping[str, int]
    snapshot: str | None
    photos_per_second: float
    left_s: float | None
    open_units: Mapping[str, str]
    units_retried: int
    photos_isolated: int
    requests_retried: int
    requests_throttled: int
    cost: Cost
    photos_per_worker_hour: float | None
    money: float | None
    currency: str | None
    scorings: tuple[ScoringStatus, ...]


def _silent(updated: str) -> bool:
    """Return whether a record has not been rewritten for so long that its driver must be gone."""
    try:
        age = datetime.now(UTC) - datetime.strptime(updated, "%Y-%m-%dT%H:%M:%SZ").replace(
            tzinfo=UTC
        )
    except ValueError:
        return True
    return age.total_seconds() > SILENT_S


def _state_of(run: Mapping[str, Any]) -> str:
    """Return the state of a run from its record, which is empty for a scoring that was never run."""
    state = str(run.get("state", "never run"))
    return "lost" if state == "running" and _silent(str(run.get("updated", ""))) else state


def _scorings(store: Store, shown: RunStatus) -> tuple[ScoringStatus, ...]:
    """Return all scorings of a destination, reusing the numbers of the one that is shown."""
    names = destination.newest_scorings(store)
    runs = record.newest_of_each(store, names)
    listed = []
    for name in names:
        scoring = destination.read_scoring(store, name)
        if name == shown.fingerprint:
            photos, finished = shown.photos_done, shown.snapshot is not None
        else:
            # Only the newest snapshot is read. To check that it counts, everything that the scoring
            # has would have to be listed.
            whole = snapshot.rows_of_newest(store, name)
            finished = whole is not None
            photos = whole if whole is not None else _rows_so_far(store, name)
        pack, created, taken = (
            (scoring.pack, scoring.created, scoring.taken) if scoring else ("", "", {})
        )
        listed.append(
            ScoringStatus(
                name, pack, created, photos, _state_of(runs.get(name, {})), finished, taken
            )
        )
    return tuple(listed)


def _rows_so_far(store: Store, fingerprint: str) -> int:
    return sum(stub.rows for stub in done_for_newest_plan(Ledger.load(store, fingerprint)))


def read_status(
    store: Store, scoring: str | None = None, prices: PriceSettings = _NO_PRICES
) -> RunStatus:
    """Return the state of a scoring.

    Args:
        store: The destination.
        scoring: Fingerprint or its first digits; None for the scoring of the newest run.
        prices: For the cost of the newest run; if none is set, those of the run's own settings.

    Raises:
        UsageError: If nothing was ever scored.
    """
    destination.require_destination(store)
    shown = _read_one(store, destination.choose_scoring(store, scoring), prices)
    return replace(shown, scorings=_scorings(store, shown))


def _read_one(store: Store, fingerprint: str, prices: PriceSettings = _NO_PRICES) -> RunStatus:
    """Return the state of one scoring, without a list of the others."""
    ledger = Ledger.load(store, fingerprint)
    run = record.newest(store, fingerprint) or {}
    names = plan.names(store, fingerprint)
    units = plan.read(store, fingerprint, names[0]).units if names else Units.of(())
    statuses: Counter[str] = Counter()
    left = unknown = photos_left = 0
    for unit_id, inputs_sha256, count in units.columns("unit_id", "inputs_sha256", "count"):
        proof = ledger.proof(unit_id, inputs_sha256)
        if proof is None:
            left += 1
            unknown += count is None
            photos_left += count or 0
        else:
            for stub in proof:
                for status, rows in stub.statuses:
                    statuses[status] += rows
    newest = snapshot.newest_that_counts(ledger)
    done = sum(statuses.values())
    state = _state_of(run)
    running = state == "running"
    message = str(run.get("message", ""))
    if state == "lost":
        message = "its driver has not reported for a minute; run the same command again to continue"
    rate = float(run.get("photos_per_second", 0.0))
    cost, paid = Cost.of_run(run), prices_of(run, prices)
    return RunStatus(
        fingerprint=fingerprint,
        state=state,
        updated=str(run.get("updated", "")),
        message=message,
        photos_done=done,
        photos_total=done + photos_left,
        total_known=unknown == 0,
        units_total=len(units),
        units_left=left,
        statuses=dict(statuses),
        snapshot=newest.name if newest else None,
        photos_per_second=rate,
        left_s=photos_left / rate if running and rate > 0 and not unknown else None,
        open_units=run.get("open_units", {}),
        units_retried=int(run.get("units_retried", 0)),
        photos_isolated=int(run.get("photos_isolated", 0)),
        requests_retried=int(run.get("requests_retried", 0)),
        requests_throttled=int(run.get("requests_throttled", 0)),
        cost=cost,
        photos_per_worker_hour=cost.photos_per_worker_hour,
        money=cost.money(paid),
        currency=paid.currency,
        scorings=(),
    )


def unfinished(results: Results) -> str | None:
    """Return a sentence on how much of the shown scoring is missing; None if nothing is.

    It is also None if the plan is damaged, which `verify` tells.

    Example:
        >>> unfinished(skinbatch.open("scored")) is None
        True
    """
    try:
        state = _read_one(results.store, results.fingerprint)
    except (NotFoundError, TableError):
        return None
    if not state.units_left:
        return None

    photos = f"{state.photos_done:,} of {state.photos_total:,} photos"
    if not state.total_known:
        photos = f"{state.photos_done:,} photos of those that are counted so far ({state.photos_total:,})"
    shown = "so far" if results.snapshot is None else "of the last finished run"
    return (
        f"{results.store.uri}: the run has not finished: {photos} are done, and {state.units_left:,} of "
        f"{state.units_total:,} units are left. These are the results {shown}; run the same `skinbatch score` again "
        "for the rest"
    )
