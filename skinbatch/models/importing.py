"""Import a user's weights as a stage of a pack (`pack import`).

They are checked, hashed, and stored as safetensors or as the ONNX file itself.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
from pydantic import ValidationError

from skinbatch.config import ModelSettings
from skinbatch.errors import ModelOutputError, PackError, UnsupportedOpError, UsageError
from skinbatch.models.build import build_classifier, build_detector, build_segmenter
from skinbatch.models.findings import ASSUMED, Finding, Recognised, findings_of
from skinbatch.models.manifest import explain
from skinbatch.models.recognition import (
    classifier_from,
    detector_from,
    from_onnx,
    read_mmdet_config,
    segmenter_from,
)
from skinbatch.models.segmenters.face_parsing import CLASS_ORDERS
from skinbatch.models.stages import (
    ARCHITECTURES,
    ONNX,
    TRAINED_HERE,
    AnyStage,
    ClassifierStage,
    DetectorStage,
    SegmenterStage,
)
from skinbatch.models.weights import save_tensors
from skinbatch.toml_file import read_toml

DISEASES = (
    "seborrheic_keratosis",
    "actinic_keratosis",
    "rosacea",
    "lupus_erythematosus",
    "basal_cell_carcinoma",
    "squamous_cell_carcinoma",
)
LESIONS = ("comedone", "nodule", "papule", "pustule")
# The classes that are assumed if neither the user nor the file names them. The command reports the
# assumption.
CLASSES: Mapping[str, tuple[str, ...]] = {
    "segmenter": ("background", "skin", "nose"),
    "detector": ("acne",),
    "classifier": DISEASES,
}
STAGES: Mapping[str, type[SegmenterStage] | type[DetectorStage] | type[ClassifierStage]] = {
    "segmenter": SegmenterStage,
    "detector": DetectorStage,
    "classifier": ClassifierStage,
}
_OURS = ("sha256", "config_sha256", "parameters", "arch")


@dataclass(frozen=True, slots=True)
class Import:
    """Describe an import.

    Attributes:
        stage: `segmenter`, `detector` or `classifier`.
        arch: the architecture.
        weights: the file to import.
        configs: TOML files with fields of the stage, and for arch `mmdet` one mmdet config.
        classes: class names in order.
        fields: fields that the user set one by one; they override those of the files.
        prefix: the beginning of the network's names in a checkpoint that holds several networks;
            None to look for it.
    """

    stage: str
    arch: str
    weights: Path
    configs: Sequence[Path] = ()
    classes: tuple[str, ...] | None = None
    fields: Mapping[str, Any] | None = None
    prefix: str | None = None


def import_stage(wanted: Import, directory: Path) -> tuple[AnyStage, tuple[Finding, ...]]:
    """Write the stage's files into `directory`, and return the stage and the findings about it.

    The model is built from these files and tried on a photo first.

    Raises:
        PackError: names the weights file and the layer, input, output or field that is wrong.
        UsageError: there is no such architecture.
    """
    arch, backbone = _architecture(wanted)
    given = _given(wanted, backbone)
    found = _recognised(wanted, arch, given, directory)
    fields = found.fields | given
    sources = dict(found.sources)
    if "classes" not in fields:
        fields["classes"] = _default_classes(wanted, arch)
        sources["classes"] = (
            f"{ASSUMED}: the papers' classes are assumed; --classes sets others or their order"
        )
    state = found.tensors
    stem = _stem(wanted.stage, fields)
    path = directory / f"{stem}{'.onnx' if arch in ONNX else '.safetensors'}"
    if state is None:
        shutil.copyfile(wanted.weights, path)
    else:
        save_tensors(state, path)
        fields["parameters"] = sum(
            tensor.numel()
            for name, tensor in state.items()
            if tensor.is_floating_point() and "running_" not in name
        )
    with path.open("rb") as file:
        fields["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    stage = _stage(wanted, {"arch": arch, "source": wanted.weights.name} | fields)
    _try_out(wanted, stage, path)
    return stage, findings_of(stage, given, sources)


def stem_of(wanted: Import) -> str:
    """Return the stage's name in the pack: `segmenter`, `detector` or `classifier-<head>`.

    Raises UsageError for wrong fields.
    """
    return _stem(wanted.stage, _given(wanted, _architecture(wanted)[1]))


def _stem(stage: str, fields: Mapping[str, Any]) -> str:
    return f"classifier-{fields.get('head', 'disease')}" if stage == "classifier" else stage


def _architecture(wanted: Import) -> tuple[str, str | None]:
    """Return the architecture and the backbone of a `timm` one.

    timm's networks are given as `timm:NAME`, or as NAME alone.
    """
    if wanted.stage not in STAGES:
        raise UsageError(f"no stage `{wanted.stage}`; there are: {', '.join(STAGES)}")
    arch, _, backbone = wanted.arch.partition(":")
    named = backbone or (wanted.fields or {}).get("backbone")
    if arch in (*ARCHITECTURES[wanted.stage], *TRAINED_HERE[wanted.stage]):
        if (
            arch == "timm"
            and not named
            and not any(path.suffix == ".toml" for path in wanted.configs)
        ):
            raise UsageError(
                "arch `timm` needs the name of one of timm's networks: --arch timm:NAME"
            )
        return arch, backbone or None
    if wanted.stage == "classifier" and timm.is_model(wanted.arch):
        return "timm", wanted.arch
    raise UsageError(
        f"no {wanted.stage} architecture `{wanted.arch}`; there are: {', '.join(ARCHITECTURES[wanted.stage])}"
        + (", and every network of timm" if wanted.stage == "classifier" else "")
    )


def _given(wanted: Import, backbone: str | None) -> dict[str, Any]:
    """Return the fields of the stage that the user set, in TOML files or one by one."""
    fields: dict[str, Any] = {}
    for path in wanted.configs:
        if path.suffix != ".toml":
            if wanted.arch != "mmdet":
                raise UsageError(
                    f"{path}: an mmdet config needs --arch mmdet; fields of the stage go into a .toml"
                )
            continue
        try:
            fields |= read_toml(path)
        except FileNotFoundError:
            raise UsageError(f"{path}: no such file") from None
        ours = next((name for name in _OURS if name in fields), None)
        if ours is not None:
            raise UsageError(f"{path}: `{ours}` is set automatically; leave it out")
        unknown = [name for name in fields if name not in STAGES[wanted.stage].model_fields]
        if unknown:
            known = [name for name in STAGES[wanted.stage].model_fields if name not in _OURS]
            raise UsageError(
                f"{path}: unknown setting `{unknown[0]}`; a {wanted.stage} has: {', '.join(known)}"
            )
    if wanted.classes is not None:
        fields["classes"] = _class_names(wanted)
    if backbone is not None:
        fields["backbone"] = backbone
    return fields | {
        name: value for name, value in (wanted.fields or {}).items() if value is not None
    }


def _class_names(wanted: Import) -> tuple[str, ...]:
    assert wanted.classes is not None
    if (
        wanted.stage == "segmenter"
        and len(wanted.classes) == 1
        and wanted.classes[0] in CLASS_ORDERS
    ):
        return CLASS_ORDERS[wanted.classes[0]]
    return wanted.classes


def _recognised(wanted: Import, arch: str, given: Mapping[str, Any], directory: Path) -> Recognised:
    """Return the settings that follow from the file itself and from the architecture."""
    path, prefix = wanted.weights, wanted.prefix
    if arch in ONNX:
        return from_onnx(path, arch, given)

    def make(fields: Mapping[str, Any]) -> AnyStage:
        return _stage(
            wanted,
            {"classes": _default_classes(wanted, arch), "arch": arch, "sha256": "0" * 64, **fields},
        )

    if wanted.stage == "segmenter":
        return segmenter_from(path, arch, given, make, prefix)
    if wanted.stage == "classifier":
        return classifier_from(path, arch, given, make, prefix)
    model = read_mmdet_config(_mmdet_config(wanted), directory) if arch == "mmdet" else None
    return detector_from(path, arch, given, make, prefix, model)


def _default_classes(wanted: Import, arch: str) -> tuple[str, ...]:
    return LESIONS if arch == "cnn-multilabel" else CLASSES[wanted.stage]


def _mmdet_config(wanted: Import) -> Path:
    paths = [path for path in wanted.configs if path.suffix != ".toml"]
    if len(paths) != 1:
        raise UsageError("arch `mmdet` needs one mmdet config: --config my.py (or .json, .yaml)")
    return paths[0]


def _stage(wanted: Import, fields: Mapping[str, Any]) -> AnyStage:
    try:
        return STAGES[wanted.stage].model_validate_json(json.dumps(fields, default=str))
    except ValidationError as e:
        raise UsageError(
            "\n".join(explain(error, f"{wanted.stage} {wanted.weights}") for error in e.errors())
        ) from None


def _try_out(wanted: Import, stage: AnyStage, path: Path) -> None:
    """Build the model and run it on a photo of noise."""
    settings = ModelSettings()
    photo = np.random.default_rng(0).integers(0, 256, (96, 80, 3), np.uint8)
    try:
        if isinstance(stage, SegmenterStage):
            build_segmenter(stage, path, "cpu", settings)([photo])
        elif isinstance(stage, DetectorStage):
            build_detector(stage, path, "cpu", settings)([photo])
        else:
            probabilities = build_classifier(stage, path, "cpu", settings)([photo])
            if not np.isfinite(probabilities).all():
                raise PackError(
                    f"{wanted.weights}: gives NaN for a photo of noise; check the weights and the stage's settings"
                )
    except (PackError, UsageError) as e:
        raise type(e)(str(e).replace(str(path), str(wanted.weights))) from None
    except (ModelOutputError, UnsupportedOpError) as e:
        raise PackError(f"{wanted.weights}: {e}") from None
    except Exception as e:
        if stage.arch != "mmdet":
            raise
        # The parts of a user's config may each be right and still not fit together. mmdet then
        # fails in any way.
        raise PackError(
            f"{wanted.weights}: its config builds a model that cannot run: {type(e).__name__}: {e}"
        ) from None
