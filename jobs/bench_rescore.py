"""Measure what a scoring costs if only one stage is new and the others are taken from an earlier scoring."""

from __future__ import annotations

import hashlib
import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skinbatch.models.manifest import write_manifest
from skinbatch.models.pack import Pack, load_pack

TARGET = 0.4


@dataclass(frozen=True, slots=True)
class Rescore:
    """Hold the seconds of each repeat.

    full: every stage is run. rescore: one stage is run. They are those of the photos alone.
    """

    stage: str
    photos: int
    full: list[float]
    rescore: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.rescore) / statistics.median(self.full)

    def line(self) -> str:
        met = "reached" if self.ratio < TARGET else "MISSED"
        return (
            f"{self.photos} photos: all stages {statistics.median(self.full):.1f} s, a new {self.stage} alone "
            f"{statistics.median(self.rescore):.1f} s: x {self.ratio:.2f}   target < {TARGET} {met}"
        )


def measure(
    pack: str, repeats: int, work: Path, run: Callable[[str, Path], tuple[int, float]]
) -> Rescore:
    """Score with the pack, then with another classifier, in turn with and without the earlier scoring.

    run: scores the photos with a pack into a destination; returns photos and seconds.
    """
    other = str(with_other_stage(load_pack(pack), "classifier", work / "other"))
    before = work / "before"
    photos, _ = run(pack, before)
    full, again = [], []
    for repeat in range(repeats):
        fresh, earlier = work / f"fresh-{repeat}", work / f"earlier-{repeat}"
        full.append(run(other, fresh)[1])
        shutil.copytree(before, earlier)
        again.append(run(other, earlier)[1])
    return Rescore("classifier", photos, full, again)


def with_other_stage(pack: Pack, name: str, to: Path) -> Path:
    """Write a copy of a pack in which the weights of one stage differ, and return its folder.

    name: detector, or classifier for the first one.
    """
    shutil.copytree(pack.directory, to)
    stem = (
        name
        if name != "classifier"
        else next(stem for stem in pack.stages if stem.startswith(name))
    )
    stage = pack.stages[stem]
    changed: dict[str, Any] = {"input": "image"}
    if stage.architecture.weights != "none":
        changed = {"sha256": _change_weights(to / pack.weights_file(stem).name)}

    manifest = pack.manifest
    other = stage.model_copy(update=changed)
    values = (
        {"detector": other}
        if name == "detector"
        else {"classifier": (other, *manifest.classifier[1:])}
    )
    write_manifest(manifest.model_copy(update=values), to)
    return to


def _change_weights(path: Path) -> str:
    """Make the last matrix of a safetensors file a little larger, and return the file's SHA-256."""
    from safetensors.torch import load_file

    from skinbatch.models.weights import save_tensors

    tensors = load_file(path)
    name = [name for name, tensor in sorted(tensors.items()) if tensor.dim() > 1][-1]
    tensors[name] = tensors[name] * 1.05
    save_tensors(tensors, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
