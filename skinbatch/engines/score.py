"""Run `skinbatch.score` and `skinbatch.retry` from settings to report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from skinbatch import signals
from skinbatch.config import Config, Overrides, load_config, merge
from skinbatch.engines.driver import drive
from skinbatch.engines.late import LateEngine
from skinbatch.engines.presenter import Presenter
from skinbatch.engines.run import Run
from skinbatch.engines.setup import Prepared, prepare, prepare_again
from skinbatch.engines.terminal import shown
from skinbatch.logs import bound, event
from skinbatch.runs import destination
from skinbatch.runs.run_report import RunReport
from skinbatch.storage.local import uri_of

if TYPE_CHECKING:
    from skinbatch.engines.chosen_rows import RowRequest

_ENDED = (
    "exit_code",
    "message",
    "rows",
    "scored",
    "copied",
    "vanished",
    "statuses",
    "units_left",
    "seconds",
)


def score(
    source: str | Path,
    dest: str | Path,
    *,
    pack: str | None = None,
    engine: str | None = None,
    ray_address: str | None = None,
    device: str | None = None,
    workers: int | str | None = None,
    limit: int | None = None,
    max_failures: float | None = None,
    deadline_s: float | None = None,
    since: str | datetime | None = None,
    only_new: bool | None = None,
    save_masks: bool | None = None,
    image_column: str | Sequence[str] | None = None,
    config: Config | str | Path | None = None,
    presenter: Presenter | None = None,
) -> RunReport:
    """Score every photo that has no row yet. Call it again to resume, or to pick up changes.

    Args:
        source: Folder, shard or listing, as a local path or `s3://bucket/prefix`.
        dest: Folder or `s3://bucket/prefix` for the tables.
        pack: Name or folder of a pack; the starter pack by default.
        engine: `ray` (default) or `local`.
        ray_address: Address of a Ray cluster; by default RAY_ADDRESS, else Ray on this machine.
        device: `auto` (default), `cpu` or `gpu`.
        workers: Number of workers, or a range such as `"4:64"`; chosen from the CPUs, GPUs and memory
            by default.
        limit: Stop once this many photos are scored. Units that have begun are finished.
        max_failures: Share of photos that may fail before `exit_code` is 3; 0.05 by default.
        deadline_s: Seconds after which no more units are handed out.
        since: Leave out photos last modified before this date, or before this long ago (`36h`),
            unless an earlier run planned them.
        only_new: Score only photos and shards that no earlier run has listed. Everything else keeps
            its rows, even if it has changed or is gone.
        save_masks: Also write the skin masks.
        image_column: Columns of Parquet files that hold photos, as `image_column` in [source].
        config: A Config or the path of a TOML file. The other arguments take precedence over it.
        presenter: Receives phases, notes and progress; by default a bar on stderr where that is a
            terminal, a line in a notebook, and nothing elsewhere.

    Returns:
        The report of the run: its exit code (docs/exit-codes.md), rows by status, units left,
        duration in seconds, and where the tables are.

    Raises:
        UsageError: If source, destination, pack or settings are wrong (exit code 2).
        ClaimError: If another run is using the destination (exit code 7).
        StoreError: If a store fails, or if no worker can be started (exit code 4).

    Example:
        >>> report = skinbatch.score("photos", "scored", pack="packs/own", engine="local")
        >>> report.statuses
        {'ok': 3, 'truncated': 1}
        >>> report.failed, report.exit_code  # more failed than max_failures allows
        (1, 3)
    """
    settings = _settings(
        config,
        {
            "pack": pack,
            "engine": {
                "name": engine,
                "ray_address": ray_address,
                "device": device,
                "workers": workers,
            },
            "source": {"image_column": image_column, "since": since, "only_new": only_new},
            "run": {
                "limit": limit,
                "max_failures": max_failures,
                "deadline_s": deadline_s,
                "save_masks": save_masks,
            },
        },
    )
    engine_of = LateEngine(settings.engine)
    try:
        with shown(presenter) as seen:
            prepared = prepare(str(source), str(dest), settings)
            engine_of.prepared = prepared
            if destination.read_destination(prepared.store) is None:
                # There is work to do. The engine's checks come before anything is written.
                engine_of.expect_work()
            return _run(engine_of, prepared, seen)
    finally:
        engine_of.close()


def retry(
    dest: str | Path,
    *,
    where: str | None = None,
    image_ids: Iterable[str] | None = None,
    pack: str | None = None,
    engine: str | None = None,
    ray_address: str | None = None,
    device: str | None = None,
    workers: int | str | None = None,
    config: Config | str | Path | None = None,
    presenter: Presenter | None = None,
) -> RunReport:
    """Score failed or chosen rows of a finished scoring again. Other rows stay as they are.

    It uses the pack and settings of the newest run, unless `pack` names another scoring's pack.

    Args:
        dest: Destination of an earlier `score`.
        where: SQL condition on the columns of `images`. The rows for which it is true are scored
            again, whether they failed or not.
        image_ids: Photos whose rows are scored again. With `where`, only those that fit it.
        pack: Name or folder of the pack of another scoring in the destination.
        engine, ray_address, device, workers, config, presenter: As for `score`.

    Returns:
        The report of the run, as from `score`.

    Raises:
        UsageError: If `score` has not finished, if an image_id has no row, or if the condition, the
            pack or the settings are wrong (exit code 2).
        ClaimError: If another run is using the destination (exit code 7).
        StoreError: If a store fails, or if no worker can be started (exit code 4).

    Example:
        >>> report = skinbatch.retry("scored/", engine="local")  # doctest: +SKIP
        >>> report.failed  # doctest: +SKIP
        0
        >>> skinbatch.retry("scored/", where="status = 'timeout'").scored  # doctest: +SKIP
        12
    """
    settings = _settings(
        config,
        {
            "pack": pack,
            "engine": {
                "name": engine,
                "ray_address": ray_address,
                "device": device,
                "workers": workers,
            },
        },
    )
    engine_of = LateEngine(settings.engine)
    try:
        with shown(presenter) as seen:
            prepared = prepare_again(str(dest), settings, pack_named=pack is not None)
            request = _request_of(where, image_ids, prepared)
            engine_of.prepared = prepared
            return _run(engine_of, prepared, seen, retrying=True, request=request)
    finally:
        engine_of.close()


def _request_of(
    where: str | None, image_ids: Iterable[str] | None, prepared: Prepared
) -> RowRequest | None:
    """Return the rows that `retry` is asked for, or None for those that failed.

    Raises UsageError if the condition is wrong.
    """
    if where is None and image_ids is None:
        return None
    from skinbatch.engines.chosen_rows import RowRequest  # imports DuckDB

    request = RowRequest(where, None if image_ids is None else frozenset(image_ids))
    request.condition(prepared.scoring)
    return request


def _settings(config: Config | str | Path | None, overrides: Overrides) -> Config:
    if isinstance(config, Config):
        return merge(config, overrides)
    return load_config(config, overrides)


def _run(
    engine: LateEngine,
    prepared: Prepared,
    presenter: Presenter,
    retrying: bool = False,
    request: RowRequest | None = None,
) -> RunReport:
    command = uri_of(shlex.join(sys.argv)) if sys.argv and sys.argv[0] else "python"
    run = Run(prepared, presenter, command)
    with bound(run_id=run.id):
        event(
            "run_started",
            source=prepared.source_uri,
            destination=prepared.store.uri,
            fingerprint=run.fingerprint,
        )
        report = drive(run, engine, retrying, request)
        signals.exit_is_decided()
        event("run_ended", **{name: getattr(report, name) for name in _ENDED})
    return report
