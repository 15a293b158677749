"""Read and write pack.toml, which describes the models of a pack.

No framework is needed, so that a driver can read it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from skinbatch.errors import PackError
from skinbatch.models.stages import (
    AnyStage,
    ClassifierStage,
    DetectorStage,
    Section,
    SegmenterStage,
)
from skinbatch.setting_errors import explain
from skinbatch.toml_file import read_toml, toml_text

FILENAME = "pack.toml"
DETECTOR_CONFIG = "detector.json"
TEXTS = ("CARD.md", "LICENSE.md")
# The names that a pack may have. A pack's name is the name of a folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Manifest(Section):
    """Hold the whole of pack.toml. A pack that is not complete yet lacks stages.

    precision: the one that the pack was measured in. A scoring uses it unless its settings give
    another. Without it that is fp32. A pack that gets another stage loses it, and the import prints a note.
    """

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    version: str
    description: str = ""
    licence: str
    precision: Literal["fp32", "bf16"] | None = None
    segmenter: SegmenterStage | None = None
    detector: DetectorStage | None = None
    classifier: tuple[ClassifierStage, ...] = ()

    @model_validator(mode="after")
    def _check_heads(self) -> Manifest:
        heads = [stage.head for stage in self.classifier]
        if len(set(heads)) != len(heads):
            raise ValueError("two classifiers have the same head")
        return self

    @property
    def stages(self) -> dict[str, AnyStage]:
        """Return the stages by the stem of their weights file.

        The stems are `segmenter`, `detector` and `classifier-<head>`.
        """
        stages: dict[str, AnyStage | None] = {
            "segmenter": self.segmenter,
            "detector": self.detector,
        }
        stages |= {f"classifier-{stage.head}": stage for stage in self.classifier}
        return {stem: stage for stem, stage in stages.items() if stage is not None}

    @property
    def weights(self) -> dict[str, str]:
        """Map each stage to the recorded SHA-256 of its weights file. Fakes have none."""
        return {
            stem: stage.sha256 for stem, stage in self.stages.items() if stage.sha256 is not None
        }

    @property
    def files(self) -> dict[str, str]:
        """Map the name of every file except texts to its recorded SHA-256."""
        files = {self.weights_file(stem): sha256 for stem, sha256 in self.weights.items()}
        config = self.detector and self.detector.config_sha256
        return files | ({DETECTOR_CONFIG: config} if config else {})

    def weights_file(self, stem: str) -> str:
        """Return the name of a stage's weights file."""
        return f"{stem}{self.stages[stem].suffix}"


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of a pack's directory.

    Raises PackError naming the file and every setting that is wrong.
    """
    path = directory / FILENAME
    try:
        data = read_toml(path, PackError)
    except FileNotFoundError:
        raise PackError(f"{path}: not there; a pack is a directory with a {FILENAME}") from None
    try:
        # Strict validation of JSON accepts arrays as tuples and 1 as 1.0, as people write them in
        # TOML.
        return Manifest.model_validate_json(json.dumps(data, default=str))
    except ValidationError as e:
        raise PackError("\n".join(explain(error, path) for error in e.errors())) from None


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write pack.toml without the settings that are None."""
    data = manifest.model_dump(mode="json", exclude_none=True)
    if not manifest.classifier:
        del data["classifier"]
    (directory / FILENAME).write_text(toml_text(data, nested=True), encoding="utf-8")
