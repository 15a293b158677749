"""`skinbatch.score` and `retry`: settings in, a run, a report out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from skinbatch import signals
from skinbatch.config import Config, EngineSettings, Overrides, load_config, merge
from skinbatch.engines.driver import Driver
from skinbatch.engines.pool import Engine
from skinbatch.engines.presenter import Presenter, Silent
from skinbatch.engines.setup import Prepared, check_source, prepare, prepare_again
from skinbatch.logs import bound, event
from skinbatch.runs.report import RunReport
from skinbatch.storage.local import uri_of
from skinbatch.storage.locate import absolute

_ENDED = ("exit_code", "message", "rows", "scored", "copied", "vanished", "statuses", "units_left", "seconds")


def score(
    source: str | Path,
    dest: str | Path,
    *,
    pack: str | None = None,
    engine: str | None = None,
    ray_address: str | None = None,
    workers: int | None = None,
    limit: int | None = None,
    max_failures: float | None = None,
    deadline_s: float | None = None,
    save_masks: bool | None = None,
    image_column: str | None = None,
    config: Config | str | Path | None = None,
    presenter: Presenter | None = None,
) -> RunReport:
    """Score what is not scored yet; the same call again resumes, or picks up what changed.

    source, dest: local paths or s3://bucket/prefix. image_column: as [source] image_column. config: a Config, or a TOML
    file; the other arguments win over it.
    Raises UsageError (exit 2) before any photo is touched, ClaimError (7) when another run holds the destination.
    Other ends are in the report's exit_code.
    """
    settings = _settings(
        config,
        {
            "pack": pack,
            "source": {"image_column": image_column},
            "engine": {"name": engine, "ray_address": ray_address, "workers": workers},
            "run": {"limit": limit, "max_failures": max_failures, "deadline_s": deadline_s, "save_masks": save_masks},
        },
    )
    check_source(str(source), settings)  # at once; Ray takes seconds to start
    engine_of = _engine(
        settings.engine
    )  # then: on a cluster, paths are probed from its nodes before anything is written
    try:
        engine_of.check(absolute(str(source)), absolute(str(dest)), settings)
        return _run(engine_of, prepare(str(source), str(dest), settings), presenter)
    finally:
        engine_of.close()


def retry(
    dest: str | Path,
    *,
    pack: str | None = None,
    engine: str | None = None,
    ray_address: str | None = None,
    workers: int | None = None,
    config: Config | str | Path | None = None,
    presenter: Presenter | None = None,
) -> RunReport:
    """Score again only the rows that failed, of the newest run's scoring, with its pack and settings unless `pack` names one.

    Raises and returns as `score`; UsageError if `score` has not finished.
    """
    settings = _settings(
        config, {"pack": pack, "engine": {"name": engine, "ray_address": ray_address, "workers": workers}}
    )
    engine_of = _engine(settings.engine)
    try:
        prepared = prepare_again(str(dest), settings, pack_named=pack is not None)
        engine_of.check(prepared.source_uri, prepared.store.uri, prepared.config)
        return _run(engine_of, prepared, presenter, retrying=True)
    finally:
        engine_of.close()


def _settings(config: Config | str | Path | None, overrides: Overrides) -> Config:
    if isinstance(config, Config):
        return merge(config, overrides)
    return load_config(config, overrides)


def _engine(settings: EngineSettings) -> Engine:
    if settings.name == "local":
        from skinbatch.engines.local import LocalEngine

        return LocalEngine(settings)
    from skinbatch.engines.ray_engine import RayEngine

    return RayEngine(settings)


def _run(engine: Engine, prepared: Prepared, presenter: Presenter | None, retrying: bool = False) -> RunReport:
    command = uri_of(shlex.join(sys.argv)) if sys.argv and sys.argv[0] else "python"
    driver = Driver(prepared, presenter or Silent(), command)
    with bound(run_id=driver.log.record.run_id):
        event("run_started", source=prepared.source_uri, destination=prepared.store.uri, fingerprint=driver.fingerprint)
        report = driver.run(engine, retry=retrying)
        signals.exit_is_decided()
        event("run_ended", **{name: getattr(report, name) for name in _ENDED})
    return report
