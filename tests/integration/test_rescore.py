"""Score photos again with the starter pack and one new stage: the other networks are not called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import skinbatch
from jobs.bench_photos import from_demo
from jobs.bench_rescore import with_other_stage
from skinbatch.models.classifiers.classifier import TorchClassifier
from skinbatch.models.detectors.mmdet.detector import MMDetDetector
from skinbatch.models.pack import load_pack
from skinbatch.models.segmenters.segmenter import BiSeNetSegmenter
from tests.field.in_process import command, score

PHOTOS = 6
MODELS = {"segmenter": BiSeNetSegmenter, "detector": MMDetDetector, "classifier": TorchClassifier}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the photos that each network is given."""
    counts: Counter[str] = Counter()

    def counted(stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def model(self: Any, photos: Any) -> Any:
            counts[stage] += len(photos)
            return call(self, photos)

        return model

    for stage, model in MODELS.items():
        monkeypatch.setattr(model, "__call__", counted(stage, model.__call__))
    return counts


def tables(dest: Path, fingerprint: str) -> list[pa.Table]:
    results = skinbatch.open(str(dest), scoring=fingerprint)
    return [results.images(), results.boxes(), results.masks()]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["classifier", "detector"])
def test_a_rescore_gives_the_tables_of_a_full_scoring_and_runs_one_network(
    tmp_path: Path, seen: Counter[str], stage: str
) -> None:
    source, dest, full = (
        from_demo(PHOTOS, tmp_path / "photos").folder,
        tmp_path / "out",
        tmp_path / "full",
    )
    masks = {"run": {"save_masks": stage == "detector"}}
    other = str(with_other_stage(load_pack("starter"), stage, tmp_path / "other"))
    first = score(source, dest, "starter", **masks)
    right = score(source, full, other, **masks)
    assert seen["segmenter"] == seen["detector"] == seen["classifier"] == 2 * PHOTOS
    seen.clear()

    report = score(source, dest, other, **masks)
    assert dict(seen) == {stage: PHOTOS}
    assert report.fingerprint == right.fingerprint != first.fingerprint
    assert report.taken == {
        name: PHOTOS
        for name in ("segmenter", "detector", "classifier-disease")
        if stage not in name
    }
    for found, wanted in zip(
        tables(dest, report.fingerprint), tables(full, right.fingerprint), strict=True
    ):
        assert found.equals(wanted)
    before = tables(dest, first.fingerprint)
    assert not tables(dest, report.fingerprint)[0 if stage == "classifier" else 1].equals(
        before[0 if stage == "classifier" else 1]
    )
    assert command("verify", str(dest), "--scoring", report.fingerprint)[0] == 0
