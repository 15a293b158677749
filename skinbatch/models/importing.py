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
from skinbatch.models.architectures import ARCHITECTURES, Architecture
from skinbatch.models.build import BUILDERS
from skinbatch.models.families import family_of
from skinbatch.models.family import ImportedFile
from skinbatch.models.findings import ASSUMED, Finding, Recognised, findings_of
from skinbatch.models.segmenters.face_parsing import CLASS_ORDERS
from skinbatch.models.stages import STAGES, AnyStage
from skinbatch.models.weights import save_tensors
from skinbatch.setting_errors import explain
from skinbatch.toml_file import read_toml

# Fields of a stage that the import sets.
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


def import_stage(request: Import, directory: Path) -> tuple[AnyStage, tuple[Finding, ...]]:
    """Write the stage's files into `directory`, and return the stage and the findings about it.

    The model is built from these files and tried on a photo first. `classes` are assumed if neither
    the user nor the file names them; the findings say so.

    Raises:
        PackError: names the weights file and the layer, input, output or field that is wrong.
        UsageError: there is no such architecture.
    """
    architecture, backbone = _architecture(request)
    given = _given(request, backbone)
    recognised = _recognised(request, architecture, given, directory)
    fields = recognised.fields | given
    sources = dict(recognised.sources)
    if "classes" not in fields:
        fields["classes"] = architecture.classes
        sources["classes"] = (
            f"{ASSUMED}: the papers' classes are assumed; --classes sets others or their order"
        )

    path = directory / f"{_stem(request.stage, fields)}{architecture.suffix}"
    state = recognised.tensors
    if state is None:
        shutil.copyfile(request.weights, path)
    else:
        save_tensors(state, path)
        fields["parameters"] = sum(
            tensor.numel()
            for name, tensor in state.items()
            if tensor.is_floating_point() and "running_" not in name
        )
    with path.open("rb") as file:
        fields["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()

    origin = {"arch": architecture.name, "source": request.weights.name}
    stage = _stage(request, origin | fields)
    _try_out(request, stage, path)
    return stage, findings_of(stage, given, sources)


def _stem(stage: str, fields: Mapping[str, Any]) -> str:
    return f"classifier-{fields.get('head', 'disease')}" if stage == "classifier" else stage


def _architecture(request: Import) -> tuple[Architecture, str | None]:
    """Return the architecture and the network's name in timm, if it is given with it.

    timm's networks are given as `timm:NAME`, or as NAME alone.
    """
    known = ARCHITECTURES.get(request.stage)
    if known is None:
        raise UsageError(f"no stage `{request.stage}`; there are: {', '.join(STAGES)}")

    arch, _, backbone = request.arch.partition(":")
    named = backbone or (request.fields or {}).get("backbone")
    if arch in known and known[arch].weights != "none":
        is_in_file = any(path.suffix == ".toml" for path in request.configs)
        if arch == "timm" and not named and not is_in_file:
            raise UsageError(
                "arch `timm` needs the name of one of timm's networks: --arch timm:NAME"
            )
        return known[arch], backbone or None

    if request.stage == "classifier" and timm.is_model(request.arch):
        return known["timm"], request.arch
    names = ", ".join(name for name in known if known[name].weights == "public")
    more = ", and every network of timm" if request.stage == "classifier" else ""
    raise UsageError(f"no {request.stage} architecture `{request.arch}`; there are: {names}{more}")


def _given(request: Import, backbone: str | None) -> dict[str, Any]:
    """Return the fields of the stage that the user set, in TOML files or one by one."""
    fields: dict[str, Any] = {}
    for path in request.configs:
        if path.suffix != ".toml":
            if request.arch != "mmdet":
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
        unknown = [name for name in fields if name not in STAGES[request.stage].model_fields]
        if unknown:
            known = [name for name in STAGES[request.stage].model_fields if name not in _OURS]
            raise UsageError(
                f"{path}: unknown setting `{unknown[0]}`; a {request.stage} has: {', '.join(known)}"
            )
    if request.classes is not None:
        fields["classes"] = _class_names(request)
    if backbone is not None:
        fields["backbone"] = backbone
    return fields | {
        name: value for name, value in (request.fields or {}).items() if value is not None
    }


def _class_names(request: Import) -> tuple[str, ...]:
    assert request.classes is not None
    if (
        request.stage == "segmenter"
        and len(request.classes) == 1
        and request.classes[0] in CLASS_ORDERS
    ):
        return CLASS_ORDERS[request.classes[0]]
    return request.classes


def _recognised(
    request: Import, architecture: Architecture, given: Mapping[str, Any], directory: Path
) -> Recognised:
    """Return the settings that follow from the file itself and from the architecture."""

    def make(fields: Mapping[str, Any]) -> AnyStage:
        assumed = {
            "classes": architecture.classes,
            "arch": architecture.name,
            "sha256": "0" * 64,
        }
        return _stage(request, assumed | dict(fields))

    configs = [path for path in request.configs if path.suffix != ".toml"]
    file = ImportedFile(
        request.weights, architecture, given, make, request.prefix, configs, directory
    )
    recognise = family_of(architecture).recognise
    assert recognise is not None, "fakes are not imported"
    return recognise(file)


def _stage(request: Import, fields: Mapping[str, Any]) -> AnyStage:
    try:
        return STAGES[request.stage].model_validate_json(json.dumps(fields, default=str))
    except ValidationError as e:
        raise UsageError(
            "\n".join(explain(error, f"{request.stage} {request.weights}") for error in e.errors())
        ) from None


def _try_out(request: Import, stage: AnyStage, path: Path) -> None:
    """Build the model and run it on a photo of noise."""
    settings = ModelSettings()
    photo = np.random.default_rng(0).integers(0, 256, (96, 80, 3), np.uint8)
    try:
        output = BUILDERS[stage.NAME](stage, path, "cpu", settings)([photo])
        if isinstance(output, np.ndarray) and not np.isfinite(output).all():
            raise PackError(
                f"{request.weights}: gives NaN for a photo of noise; check the weights and the stage's settings"
            )
    except (PackError, UsageError) as e:
        raise type(e)(str(e).replace(str(path), str(request.weights))) from None
    except (ModelOutputError, UnsupportedOpError) as e:
        raise PackError(f"{request.weights}: {e}") from None
    except Exception as e:
        if getattr(stage, "config_sha256", None) is None:
            raise
        # The parts of a user's config may each be right and still not fit together. mmdet then
        # fails in any way.
        raise PackError(
            f"{request.weights}: its config builds a model that cannot run: {type(e).__name__}: {e}"
        ) from None
