"""Tell before a run what it will take: `skinbatch plan`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from skinbatch.config import Config, load_config, merge
from skinbatch.engines.late import LateEngine
from skinbatch.engines.planning import NothingSince, Planner
from skinbatch.engines.presenter import Presenter
from skinbatch.engines.rehearsal import Measured, Rehearsal, Rehearser
from skinbatch.engines.sample import ShardCounts, bytes_of, count_shards, sample_units
from skinbatch.engines.setup import Prepared, prepare
from skinbatch.engines.terminal import shown
from skinbatch.errors import UsageError
from skinbatch.runs import plan
from skinbatch.runs.cost import Cost
from skinbatch.runs.hash_groups import target_size
from skinbatch.runs.record import RunLog, RunRecord
from skinbatch.runs.standing import Standing, read_standing
from skinbatch.storage.discard import DISCARD
from skinbatch.types import ShardRef
from skinbatch.worker_range import most_of

_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Range:
    """Hold an estimate with its 95 % interval. The ends are None if the sample is too small."""

    value: float
    low: float | None = None
    high: float | None = None

    def apply(self, change: Callable[[float], float]) -> Range:
        """Return the range of a quantity that grows with this one."""
        low = None if self.low is None else change(self.low)
        high = None if self.high is None else change(self.high)
        return Range(change(self.value), low, high)


@dataclass(frozen=True, slots=True)
class ForecastSample:
    """Describe what was really scored.

    photos, failed: rows, and those that are not ok. parts: units that were measured one by one.
    workers: that took part. resource: `cpu` or `gpu`. worker_seconds: for one photo.
    """

    photos: int
    failed: int
    parts: int
    workers: int
    resource: str
    worker_seconds: Range


@dataclass(frozen=True, slots=True)
class Forecast:
    """Describe what a run would do and take.

    Attributes:
        source, destination, fingerprint: As of the run.
        photos, bytes: Photos listed, and bytes as far as the listing gives them.
        loose, shards: Loose photos, and shards.
        counted: Whether every shard was counted; otherwise `photos` and `left` are estimates.
        scored: Photos that have rows already.
        left, left_bytes: Photos to score, and their bytes.
        skipped: Listed files that are no photos, by extension or reason.
        sample: What was really scored; None if nothing is left or no sample was asked for.
        workers: For which time and cost are given.
        seconds: Duration of the run, from the first worker's start.
        cost: Worker-seconds and requests of the run, and bytes to read.
        money, currency: Its price; None unless [prices] are set.
        notes: What the numbers do not cover.
    """

    source: str
    destination: str
    fingerprint: str
    photos: int
    bytes: int
    loose: int
    shards: int
    counted: bool
    scored: int
    left: int
    left_bytes: int
    skipped: dict[str, int] = field(default_factory=dict)
    sample: ForecastSample | None = None
    workers: int | None = None
    seconds: Range | None = None
    cost: Cost | None = None
    money: Range | None = None
    currency: str | None = None
    notes: tuple[str, ...] = ()


def forecast(
    source: str | Path,
    dest: str | Path,
    *,
    sample: int = 200,
    workers: int | None = None,
    pack: str | None = None,
    engine: str | None = None,
    ray_address: str | None = None,
    device: str | None = None,
    config: Config | str | Path | None = None,
    presenter: Presenter | None = None,
) -> Forecast:
    """Count what is to be scored, score a sample of it, and tell what the whole will take.

    Nothing is written to the destination: the tables of the sample are discarded.

    Args:
        source, dest: As for `score`.
        sample: Photos to score; 0 to only count.
        workers: Workers that the run will have. By default as many as took part in the sample.
        pack, engine, ray_address, device, config, presenter: As for `score`.

    Raises:
        UsageError: If source, destination, pack or settings are wrong (exit code 2).
        StoreError: If a store fails, or if the sample could not be scored (exit code 4).

    Example:
        >>> outlook = forecast("photos", "scored", sample=100, workers=64)  # doctest: +SKIP
        >>> outlook.left, outlook.seconds.value  # doctest: +SKIP
        (120000, 2310.0)
    """
    chosen = {"name": engine, "ray_address": ray_address, "device": device, "workers": workers}
    overrides = {"pack": pack, "engine": chosen}
    settings = (
        merge(config, overrides) if isinstance(config, Config) else load_config(config, overrides)
    )
    worker_count = most_of(settings.engine.workers)
    # The number of workers is what is asked about. The sample has as many as fit.
    alone = settings.engine.model_copy(update={"workers": None})
    settings = settings.model_copy(update={"engine": alone})

    with shown(presenter) as seen:
        prepared = prepare(str(source), str(dest), settings, writes=False)
        counted, standing, shards = _count(prepared, seen)
        if not counted.left or not sample:
            return counted
        rehearsal = _rehearse(prepared, standing, shards, sample, worker_count, seen)
        return _with_times(counted, prepared, standing, shards, rehearsal, worker_count)


def _count(prepared: Prepared, presenter: Presenter) -> tuple[Forecast, Standing, ShardCounts]:
    """List the source and compare it with what is done."""
    store, fingerprint = prepared.store, prepared.scoring.fingerprint
    record = RunRecord("", "plan", "", fingerprint, prepared.source_uri)
    planner = Planner(prepared, presenter, RunLog(store, record), lambda: None)
    newest, _ = plan.newest_whole(store, fingerprint)
    try:
        listing = planner.listing(newest)
    except NothingSince:
        raise UsageError(
            f"{prepared.source_uri}: nothing was modified since {prepared.config.source.since}"
        ) from None

    presenter.phase("reading what is done")
    standing = read_standing(store, fingerprint, listing, newest)
    presenter.phase("counting photos in shards")
    shards = count_shards(standing.shards, planner.locator, prepared.config.decode)
    open_shards = [shard for shard, _ in standing.shards]
    left = standing.photos.num_rows + shards.photos
    counted = Forecast(
        source=prepared.source_uri,
        destination=store.uri,
        fingerprint=fingerprint,
        photos=standing.scored + left,
        bytes=bytes_of(listing.photos, listing.shards),
        loose=listing.photos.num_rows,
        shards=len(listing.shards),
        counted=shards.exact,
        scored=standing.scored,
        left=left,
        left_bytes=bytes_of(standing.photos, open_shards),
        skipped=dict(record.skipped),
    )
    return counted, standing, shards


def _rehearse(
    prepared: Prepared,
    standing: Standing,
    shards: ShardCounts,
    size: int,
    worker_count: int | None,
    presenter: Presenter,
) -> Rehearsal:
    """Score the sample on the workers that the engine gives."""
    config = prepared.config
    open_shards = [shard for shard, _ in standing.shards]
    units, warm_up = sample_units(standing.photos, open_shards, shards.photos, size)
    most = len(units) if worker_count is None else min(worker_count, len(units))
    context = replace(prepared.context, destination=DISCARD, taken=(), units=most)
    engine = LateEngine(config.engine)
    engine.prepared = replace(prepared, context=context)
    try:
        presenter.phase("starting workers")
        pool = engine.start(context)
        try:
            stall_s = config.engine.stall_timeout_s
            stall_s += config.storage.max_attempts * config.storage.timeout_s
            return Rehearser(pool, units, warm_up, stall_s, presenter).run()
        finally:
            pool.close()
    finally:
        engine.close()


def _with_times(
    counted: Forecast,
    prepared: Prepared,
    standing: Standing,
    shards: ShardCounts,
    rehearsal: Rehearsal,
    worker_count: int | None,
) -> Forecast:
    """Add time and cost to what was counted."""
    per_photo = per_photo_range(rehearsal.units)
    resource = Counter(unit.resource for unit in rehearsal.units).most_common(1)[0][0]
    sample = ForecastSample(
        sum(unit.photos for unit in rehearsal.units),
        sum(unit.failed for unit in rehearsal.units),
        len(rehearsal.units),
        rehearsal.workers,
        resource,
        per_photo,
    )
    workers = worker_count or rehearsal.workers
    open_shards = [shard for shard, _ in standing.shards]
    units = _units(standing.photos.num_rows, open_shards)
    busy = min(workers, units)
    # The last worker cannot be faster than the largest unit.
    longest = max(counted.left / busy, _largest_unit(standing, open_shards, shards))
    seconds = per_photo.apply(lambda photo_s: photo_s * longest + rehearsal.start_s)

    tables = 3 if prepared.config.run.save_masks else 2
    gets = standing.photos.num_rows + 2 * len(open_shards)
    puts = units * (tables + 1)
    prices = prepared.config.prices

    def cost_of(photo_s: float) -> Cost:
        # Workers that no unit is left for are ended, so waiting costs nothing.
        spent = {resource: round(counted.left * photo_s, 3)}
        return Cost(spent, counted.left, gets, puts, counted.left_bytes)

    def price(photo_s: float) -> float:
        return cost_of(photo_s).money(prices) or 0.0

    return replace(
        counted,
        sample=sample,
        workers=workers,
        seconds=seconds,
        cost=cost_of(per_photo.value),
        money=per_photo.apply(price) if prices.given else None,
        currency=prices.currency,
        notes=tuple(_notes(prepared, rehearsal, workers, busy, counted)),
    )


def per_photo_range(units: Sequence[Measured]) -> Range:
    """Return worker-seconds for one photo, with the 95 % interval of a ratio estimate.

    The interval is Student's, over the units: it shows how much photos differ. One unit has none.
    """
    photos = sum(unit.photos for unit in units)
    ratio = sum(unit.seconds for unit in units) / photos
    if len(units) < 2:
        return Range(ratio)
    from scipy.stats import t  # takes a while to import

    squares = sum((unit.seconds - ratio * unit.photos) ** 2 for unit in units)
    error = math.sqrt(squares * len(units) / (len(units) - 1)) / photos
    half = float(t.ppf((1 + _LEVEL) / 2, len(units) - 1)) * error
    return Range(ratio, max(0.0, ratio - half), ratio + half)


def _units(loose: int, shards: Sequence[ShardRef]) -> int:
    """Return about how many units the run has."""
    groups = math.ceil(loose / target_size(loose)) if loose else 0
    return max(1, groups + len(shards))


def _largest_unit(standing: Standing, shards: Sequence[ShardRef], counts: ShardCounts) -> int:
    """Return about how many photos the largest unit has. A tar is one unit, however long it is."""
    loose = standing.photos.num_rows
    group = min(loose, target_size(loose)) if loose else 0
    tars = any(shard.kind == "tar" for shard in shards)
    return max(group, counts.largest if tars else 0)


def _notes(
    prepared: Prepared, rehearsal: Rehearsal, workers: int, busy: int, counted: Forecast
) -> list[str]:
    notes = [
        f"The range is the 95 % interval over {len(rehearsal.units)} parts of the sample. It covers how photos "
        "differ, not other machines, networks or faults; writing to the destination is not in it."
    ]
    if workers != rehearsal.workers:
        notes.append(
            f"It is assumed that each of {workers} workers is as fast as the {rehearsal.workers} of the sample were."
        )
    if busy < workers:
        notes.append(f"There are only about {busy} units, so more workers have nothing to do.")
    if not counted.counted:
        notes.append("Photos in shards are estimated from the size of a few.")
    if prepared.context.taken:
        stages = ", ".join(prepared.context.taken)
        notes.append(f"The run takes {stages} from an earlier scoring, so it will be faster.")
    if rehearsal.problems:
        notes.append(f"Parts of the sample could not be scored: {rehearsal.problems[0]}")
    return notes
