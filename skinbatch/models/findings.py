"""Describe what an import found out about a weights file, with the source of each answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skinbatch.models.stages import AnyStage, ClassifierStage, DetectorStage

if TYPE_CHECKING:
    from torch import Tensor

AS_SET = "as set"
# The beginning of a source if neither the file nor the user gave the answer.
ASSUMED = "not in the file"


@dataclass(frozen=True, slots=True)
class Recognised:
    """Hold the settings of a stage that were found in a weights file.

    Attributes:
        fields: settings by the stage's own names.
        sources: for some of the settings, and for `layers` and `pixels`, where the answer came
            from, in words.
        tensors: the network by the architecture's names; None for ONNX.
    """

    fields: dict[str, Any]
    sources: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold one answer.

    what: the setting. value: its value for people. source: metadata, numbers, a setting, or an
    assumption.
    """

    what: str
    value: str
    source: str

    @property
    def is_assumed(self) -> bool:
        """Return whether the value was assumed, because neither the file nor the user gave it."""
        return self.source.startswith(ASSUMED)

    def as_json(self) -> dict[str, str]:
        return {"what": self.what, "value": self.value, "source": self.source}


def findings_of(
    stage: AnyStage, given: Mapping[str, Any], sources: Mapping[str, str]
) -> tuple[Finding, ...]:
    """List the answers for people.

    Args:
        stage: the finished stage.
        given: fields that the user set.
        sources: those of a Recognised, completed by the assumptions.
    """
    values: dict[str, str] = {"classes": ", ".join(stage.classes), "size": f"{stage.size} px"}
    if isinstance(stage, DetectorStage) and stage.layout is not None:
        values = {"layout": stage.layout} | values
    if isinstance(stage, ClassifierStage):
        values["size"] += ", the centre square" if stage.fit == "crop" else ", the whole photo"
        values["outputs"] = stage.outputs

    findings = [
        Finding(name, value, _source(name, given, sources)) for name, value in values.items()
    ]
    # One line covers all three: a user who sets one of them decides about all.
    colours = [name for name in ("mean", "std", "bgr") if name in given]
    findings.append(
        Finding(
            "pixels",
            _pixels(stage),
            AS_SET if colours else sources.get("pixels", "the architecture's own"),
        )
    )
    if "layers" in sources:
        findings.append(Finding("layers", f"{stage.parameters or 0:,} numbers", sources["layers"]))
    return tuple(findings)


def _source(name: str, given: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    return AS_SET if name in given else sources.get(name, "the architecture's own")


def _pixels(stage: AnyStage) -> str:
    """Describe how photos are scaled, in the unit of the stage's own mean."""
    if isinstance(stage, DetectorStage) and stage.layout is not None:
        from skinbatch.models.detectors.onnx_layouts import ALWAYS_RGB, LAYOUTS

        layout = LAYOUTS[stage.layout]
        usual = {"mean": stage.mean, "std": stage.std, "bgr": stage.bgr} == layout.pixels
        if usual or stage.layout in ALWAYS_RGB:
            return layout.reads
    order = "BGR" if isinstance(stage, DetectorStage) and stage.bgr else "RGB"
    mean, std = (", ".join(f"{number:g}" for number in three) for three in (stage.mean, stage.std))
    return f"{order}, mean {mean}, std {std}"
