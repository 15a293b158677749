"""What a scoring is: the hash of everything that changes numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from skinbatch.config import ModelSettings
from skinbatch.models.pack import Pack

PIPELINE_VERSION = 1
"""Raised only when the same photo, pack and settings give other numbers than before."""


def numbers(pack: Pack, settings: ModelSettings) -> Mapping[str, Any]:
    """Everything that changes numbers, as plain JSON values; no threshold, grading, engine or batch size."""
    model = settings.model_dump(mode="json")
    if model["nms_iou"] is None:  # the pack's, written out, so that naming the same value is the same scoring
        model["nms_iou"] = pack.detector.nms_iou
    return {"pipeline_version": PIPELINE_VERSION, "pack": pack.numbers(), "model": model}


def fingerprint(values: Mapping[str, Any]) -> str:
    """12 hex digits of the SHA-256 of the canonical JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
