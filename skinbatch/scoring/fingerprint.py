"""Compute a scoring's fingerprint, the hash of everything that changes numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skinbatch.config import ModelSettings
from skinbatch.models.pack import Pack
from skinbatch.runs.reused_stages import canonical_hash

# Raised only when the same photo, pack and settings give other numbers than before.
PIPELINE_VERSION = 1


def numbers(pack: Pack, settings: ModelSettings) -> Mapping[str, Any]:
    """Return everything that changes numbers, as plain JSON values.

    Threshold, grading, engine and batch size are not among them.
    """
    model = settings.model_dump(mode="json")
    if model["nms_iou"] is None:  # write out the pack's value: naming it gives the same scoring
        model["nms_iou"] = pack.detector.nms_iou
    model["precision"] = pack.precision(settings)
    return {"pipeline_version": PIPELINE_VERSION, "pack": pack.numbers(), "model": model}


def fingerprint(values: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of the canonical JSON."""
    return canonical_hash(values)[:12]
