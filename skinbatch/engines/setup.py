"""Check everything that can be wrong with a command, before any photo is read."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from skinbatch.archive.source import Source, open_source
from skinbatch.config import Config, merge
from skinbatch.errors import ColumnNeededError, UsageError
from skinbatch.models.pack import Pack, load_pack
from skinbatch.runs import destination, reused_stages
from skinbatch.runs.destination import Scoring
from skinbatch.scoring.assignment import ScoringContext
from skinbatch.scoring.fingerprint import PIPELINE_VERSION, fingerprint, numbers
from skinbatch.storage.knock import knock
from skinbatch.storage.locate import absolute, open_store
from skinbatch.storage.store import Store
from skinbatch.tables.parquet import file_metadata


@dataclass(frozen=True, slots=True)
class Prepared:
    """Hold a run whose settings, pack, source and destination have been checked.

    source: what `score` lists; None for `retry`, which lists nothing.
    """

    config: Config
    source_uri: str
    source: Source | None
    store: Store
    scoring: Scoring
    context: ScoringContext


def prepare(source: str, dest: str, config: Config, *, writes: bool = True) -> Prepared:
    """Check source, destination, pack and settings. Raises UsageError for the first mistake.

    writes: also check, by writing, that the destination can be written to.
    """
    source_uri, dest_uri = absolute(source), absolute(dest)
    _apart(source_uri, dest_uri)
    knock(source_uri, config.storage, anonymous=config.storage.anonymous)
    knock(dest_uri, config.storage)
    pack = load_pack(config.pack, config.storage)
    pack.verify()
    opened = open_source(source_uri, config)
    return replace(_for_destination(source_uri, dest_uri, pack, config, writes), source=opened)


def _for_destination(
    source_uri: str, dest_uri: str, pack: Pack, config: Config, writes: bool = True
) -> Prepared:
    store = open_store(dest_uri, config.storage)
    if writes:
        store.probe_writable()
    recorded = destination.read_destination(store)
    if recorded is not None and recorded.source != source_uri:
        raise UsageError(
            f"{dest_uri} holds the tables of {recorded.source}, not of {source_uri}; a destination has one source: "
            "choose another destination"
        )
    if recorded is not None:
        destination.require_current(store, recorded)
    return _prepared(source_uri, store, pack, config)


def prepare_again(dest: str, config: Config, pack_named: bool) -> Prepared:
    """Prepare `retry` on a destination, which records its source and its scorings.

    pack_named: use the pack of `config`; otherwise the newest run's scoring, with its own pack and
    settings.
    """
    dest_uri = absolute(dest)
    knock(dest_uri, config.storage)
    store = open_store(dest_uri, config.storage)
    source = destination.require_destination(store).source
    if not pack_named:
        scoring = destination.read_scoring(store, destination.choose_scoring(store, None))
        assert scoring is not None
        config = merge(config, scoring.settings)
    pack = load_pack(config.pack, config.storage)
    pack.verify()
    with suppress(ColumnNeededError):  # the plan contains the column
        open_source(source, config)
    return _for_destination(source, store.uri, pack, config)


def _prepared(source_uri: str, store: Store, pack: Pack, config: Config) -> Prepared:
    values = numbers(pack, config.model)
    grading = config.grading.model_dump(mode="json")
    if grading["threshold"] is None:
        grading["threshold"] = pack.threshold
    scoring = Scoring(
        fingerprint=fingerprint(values),
        numbers=values,
        grading=grading,
        pack=pack.name,
        weights=pack.weights,
        classes=tuple(pack.detector_classes),
        prob_columns=tuple(pack.prob_columns),
        save_masks=config.run.save_masks,
        settings=_settings_of(pack, config),
        created=destination.now(),
    )
    before = destination.read_scoring(store, scoring.fingerprint)
    _same_as_before(before, scoring, store)
    taken = (
        before.taken
        if before is not None
        else reused_stages.choose(store, scoring)
        if config.run.reuse
        else {}
    )
    scoring = replace(scoring, taken=taken)
    context = ScoringContext(
        fingerprint=scoring.fingerprint,
        destination=store.uri,
        config=config.model_copy(update={"pack": pack.address}),
        classes=scoring.classes,
        prob_columns=scoring.prob_columns,
        metadata=file_metadata(scoring.fingerprint, PIPELINE_VERSION, pack.name, scoring.weights),
        taken=reused_stages.still_takeable(store, scoring) if config.run.reuse else (),
    )
    return Prepared(config, source_uri, None, store, scoring, context)


def _settings_of(pack: Pack, config: Config) -> dict[str, Any]:
    """Return the settings that must be given again to score more photos in the same way."""
    return {
        "pack": pack.address,
        "model": config.model.model_dump(mode="json"),
        "grading": config.grading.model_dump(mode="json"),
        "run": {"save_masks": config.run.save_masks},
    }


def _same_as_before(before: Scoring | None, now: Scoring, store: Store) -> None:
    if before is None:
        return
    if dict(before.grading) != dict(now.grading):
        changed = [
            f"{k} {v!r} (now {now.grading.get(k)!r})"
            for k, v in before.grading.items()
            if now.grading.get(k) != v
        ]
        raise UsageError(
            f"{store.uri}: scoring {before.fingerprint} was started with [grading] {', '.join(changed)}; grade its boxes "
            "again with `skinbatch regrade`, or choose another destination"
        )
    if before.save_masks != now.save_masks:
        how = "with" if before.save_masks else "without"
        raise UsageError(
            f"{store.uri}: scoring {before.fingerprint} was started {how} --save-masks; continue {how} it, or "
            "choose another destination"
        )


def _apart(source: str, dest: str) -> None:
    if (
        source == dest
        or source.startswith(f"{dest.rstrip('/')}/")
        or dest.startswith(f"{source.rstrip('/')}/")
    ):
        raise UsageError(
            f"source {source} and destination {dest} overlap, so the tables would be listed as photos; choose another "
            "destination"
        )
