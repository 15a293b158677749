"""Decide which stages of a scoring can be taken from an earlier scoring of the same destination."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from skinbatch.errors import UsageError
from skinbatch.runs import destination, snapshot
from skinbatch.runs.destination import Scoring
from skinbatch.storage.store import Store
from skinbatch.tables.names import prob_columns

SEGMENTER, DETECTOR = "segmenter", "detector"
_CLASSIFIER = "classifier-"


def canonical_hash(values: Any) -> str:
    """Return the SHA-256 of the canonical JSON of plain values, hex."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_sound(scoring: Scoring) -> bool:
    """Return whether the fingerprint of a scoring's record is the hash of its numbers."""
    return canonical_hash(scoring.numbers).startswith(scoring.fingerprint)


def stage_keys(scoring: Scoring) -> dict[str, str]:
    """Return a hash for each stage of everything on which its columns of the tables depend.

    Detector and classifiers see what the segmenter cut out, so its hash is part of theirs. The
    detector's columns hold counts and grades, so the grading is part of its hash.

    scoring: must be sound.
    """
    numbers = scoring.numbers
    pack, model = numbers["pack"], numbers["model"]
    segmenter = canonical_hash([numbers["pipeline_version"], pack[SEGMENTER], model["precision"]])
    keys = {
        SEGMENTER: segmenter,
        DETECTOR: canonical_hash([segmenter, pack[DETECTOR], model, scoring.grading]),
    }
    for stem in pack:
        if stem.startswith(_CLASSIFIER):
            keys[stem] = canonical_hash([segmenter, pack[stem], model["precision"]])
    return keys


def columns_of(pack: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return classifier -> its columns of `images`, in the order of its classes.

    pack: stages as in a scoring's numbers.
    """
    return {
        stem: tuple(prob_columns(stage["head"], stage["classes"]).values())
        for stem, stage in pack.items()
        if stem.startswith(_CLASSIFIER)
    }


def needs_mask(pack: Mapping[str, Any], taken: Collection[str]) -> bool:
    """Return whether a stage that is not taken needs the mask of the face, not only its crop."""
    if DETECTOR not in taken:
        return True
    return any(
        stage["input"] == "masked_crop"
        for stem, stage in pack.items()
        if stem.startswith(_CLASSIFIER) and stem not in taken
    )


def takeable(earlier: Scoring, now: Scoring) -> tuple[str, ...]:
    """Return the stages of `now` whose results are those of an earlier scoring, by their hashes.

    The segmenter is among them only if its masks are stored where they are needed.
    """
    before, keys = stage_keys(earlier), stage_keys(now)
    if before[SEGMENTER] != keys[SEGMENTER]:
        return ()

    stages = [stem for stem in keys if stem != SEGMENTER and before.get(stem) == keys[stem]]
    if not (_distinct_columns(earlier) and _distinct_columns(now)):
        stages = [stem for stem in stages if stem == DETECTOR]
    if earlier.save_masks or not (now.save_masks or needs_mask(now.numbers["pack"], stages)):
        stages = [SEGMENTER, *stages]
    return tuple(stages)


def _distinct_columns(scoring: Scoring) -> bool:
    """Return whether no two classifiers want the same column, so that none has another name."""
    columns = [column for names in columns_of(scoring.numbers["pack"]).values() for column in names]
    return len({column.lower() for column in columns}) == len(columns)


def choose(store: Store, now: Scoring) -> dict[str, str]:
    """Return stage -> fingerprint of the finished scoring that saves most work; {} if none does."""
    best: tuple[Any, ...] = ()
    chosen: dict[str, str] = {}
    for name in destination.scoring_names(store):
        earlier = _sound_scoring(store, name)
        if earlier is None or name == now.fingerprint or not snapshot.names(store, name):
            continue
        stages = takeable(earlier, now)
        rank = (DETECTOR in stages, SEGMENTER in stages, len(stages), earlier.created)
        if stages and rank > best:
            best, chosen = rank, dict.fromkeys(stages, name)
    return chosen


def still_takeable(store: Store, now: Scoring) -> tuple[str, ...]:
    """Return those of the stages in the scoring's record that can still be taken.

    The earlier scoring may have been deleted, or begun anew with another grading.
    """
    stages: tuple[str, ...] = ()
    for name in sorted(set(now.taken.values())):
        earlier = _sound_scoring(store, name)
        if earlier is not None:
            stages += tuple(stem for stem in takeable(earlier, now) if now.taken.get(stem) == name)
    return stages


def _sound_scoring(store: Store, fingerprint: str) -> Scoring | None:
    """Return a scoring; None if it does not exist or its record is damaged."""
    try:
        scoring = destination.read_scoring(store, fingerprint)
    except UsageError:
        return None
    return scoring if scoring is not None and is_sound(scoring) else None
