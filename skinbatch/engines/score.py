"""`skinbatch.score` and `retry`: settings in, a run, a report out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from skinbatch import signals
from skinbatch.config import Config, Overrides, load_config, merge
from skinbatch.engines.driver import Driver
from skinbatch.engines.late import LateEngine
from skinbatch.engines.presenter import Presenter, Silent
from skinbatch.engines.setup import Prepared, prepare, prepare_again
from skinbatch.logs import bound, event
from skinbatch.runs import destination
from skinbatch.runs.report import RunReport
from skinbatch.storage.local import uri_of

_ENDED = ("exit_code", "message", "rows", "scored", "copied", "vanished", "statuses", "units_left", "seconds")


def score(
    source: str | Path,
    dest: str | Path,
    *,
    pack: str | None = None,
    engine: str | None = None,
    ray_address: str | None = None,
    device: str | None = None,
    workers: int | None = None,
    limit: int | None = None,
    max_failures: float | None = None,
    deadline_s: float | None = None,
    since: str | datetime | None = None,
    save_masks: bool | None = None,
    image_column: str | Sequence[str] | None = None,
    config: Config | str | Path | None = None,
    presenter: Presenter | None = None,
) -> RunReport:
    """Score what is not scored yet. The same call again resumes, or picks up what changed.

    Args:
        source, dest: Local paths or `s3://bucket/prefix`.
        deadline_s: Seconds after which no more units are handed out.
        since: Leave out what was last modified before this date, or this long ago (`36h`), unless it was planned before.
        image_column: As `image_column` in [source].
        config: A Config, or a TOML file; the other arguments win over it.

    Returns:
        What the run came to; ends other than the errors below are in its `exit_code`.

    Raises:
        UsageError: If source, destination, pack or settings are wrong (exit code 2); no photo was touched.
        ClaimError: If another run holds the destination (7).

    Example:
        >>> report = skinbatch.score("photos/", "scored/", engine="local")
    """
    settings = _settings(
        config,
        {
            "pack": pack,
            "engine": {"name": engine, "ray_address": ray_address, "device": device, "workers": workers},
            "source": {"image_column": image_column, "since": since},
            "run": {"limit": limit, "max_failures": max_failures, "deadline_s": deadline_s, "save_masks": save_masks},
        },
    )
    engine_of = LateEngine(settings.engine)
    try:
        prepared = prepare(str(source), str(dest), settings)
        engine_of.prepared = prepared
        if destination.read_destination(prepared.store) is None:
            engine_of.made()  # there is something to do, and what workers cannot reach is refused before anything is written
        return _run(engine_of, prepared, presenter)
    finally:
        engine_of.close()


def retry(
    dest: str | Path,
    *,
    pack: str | None = None,
    engine: str | None = None,
    ray_address: str | None = None,
    device: str | None = None,
    workers: int | None = None,
    config: Config | str | Path | None = None,
    presenter: Presenter | None = None,
) -> RunReport:
    """Score again only the rows that failed, of the newest run's scoring, with its pack and settings unless `pack` names one.

    Raises and returns as `score`; UsageError if `score` has not finished.
    """
    settings = _settings(
        config,
        {
            "pack": pack,
            "engine": {"name": engine, "ray_address": ray_address, "device": device, "workers": workers},
        },
    )
    engine_of = LateEngine(settings.engine)
    try:
        prepared = prepare_again(str(dest), settings, pack_named=pack is not None)
        engine_of.prepared = prepared
        return _run(engine_of, prepared, presenter, retrying=True)
    finally:
        engine_of.close()


def _settings(config: Config | str | Path | None, overrides: Overrides) -> Config:
    if isinstance(config, Config):
        return merge(config, overrides)
    return load_config(config, overrides)


def _run(engine: LateEngine, prepared: Prepared, presenter: Presenter | None, retrying: bool = False) -> RunReport:
    command = uri_of(shlex.join(sys.argv)) if sys.argv and sys.argv[0] else "python"
    driver = Driver(prepared, presenter or Silent(), command)
    with bound(run_id=driver.log.record.run_id):
        event("run_started", source=prepared.source_uri, destination=prepared.store.uri, fingerprint=driver.fingerprint)
        report = driver.run(engine, retry=retrying)
        signals.exit_is_decided()
        event("run_ended", **{name: getattr(report, name) for name in _ENDED})
    return report
