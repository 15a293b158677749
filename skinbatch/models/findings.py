"""What an import takes a weights file for, and from where it has each answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from skinbatch.models.stages import AnyStage, ClassifierStage, DetectorStage

AS_SET = "as set"
# How a source begins where neither the file nor the user has the answer.
ASSUMED = "not in the file"


@dataclass(frozen=True, slots=True)
class Recognised:
    """Settings of a stage that a weights file answers.

    Attributes:
        fields: By the stage's names.
        sources: For some of them, and for `layers` and `pixels`, where the answer is from, in words.
        tensors: The network, by the architecture's names; None for ONNX.
    """

    fields: dict[str, Any]
    sources: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer. what: the setting. value: as people read it. source: metadata, numbers, a setting, or what was assumed."""

    what: str
    value: str
    source: str

    @property
    def is_assumed(self) -> bool:
        """Whether nothing said so."""
        return self.source.startswith(ASSUMED)

    def as_json(self) -> dict[str, str]:
        return {"what": self.what, "value": self.value, "source": self.source}


def findings_of(stage: AnyStage, given: Mapping[str, Any], sources: Mapping[str, str]) -> tuple[Finding, ...]:
    """List what was taken, for people.

    Args:
        stage: As it was made.
        given: Fields that the user has set.
        sources: Of a Recognised, completed by what was assumed.
    """
    values: dict[str, str] = {"classes": ", ".join(stage.classes), "size": f"{stage.size} px"}
    if isinstance(stage, DetectorStage) and stage.layout is not None:
        values = {"layout": stage.layout} | values
    if isinstance(stage, ClassifierStage):
        values["size"] += ", the centre square" if stage.fit == "crop" else ", the whole photo"
        values["outputs"] = stage.outputs

    found = [Finding(name, value, _source(name, given, sources)) for name, value in values.items()]
    # One line for the three: who sets one of them decides about all.
    colours = [name for name in ("mean", "std", "bgr") if name in given]
    found.append(
        Finding("pixels", _pixels(stage), AS_SET if colours else sources.get("pixels", "the architecture's own"))
    )
    if "layers" in sources:
        found.append(Finding("layers", f"{stage.parameters or 0:,} numbers", sources["layers"]))
    return tuple(found)


def _source(name: str, given: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    return AS_SET if name in given else sources.get(name, "the architecture's own")


def _pixels(stage: AnyStage) -> str:
    """How photos are scaled, in the unit that the stage's own mean is in."""
    if isinstance(stage, DetectorStage) and stage.layout is not None:
        from skinbatch.models.detectors.onnx_layouts import ALWAYS_RGB, LAYOUTS

        layout = LAYOUTS[stage.layout]
        usual = {"mean": stage.mean, "std": stage.std, "bgr": stage.bgr} == layout.pixels
        if usual or stage.layout in ALWAYS_RGB:
            return layout.reads
    order = "BGR" if isinstance(stage, DetectorStage) and stage.bgr else "RGB"
    mean, std = (", ".join(f"{number:g}" for number in three) for three in (stage.mean, stage.std))
    return f"{order}, mean {mean}, std {std}"
