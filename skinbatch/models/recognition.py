"""Recognise a user's weights: their network, and the settings that go with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from skinbatch.config import ModelSettings
from skinbatch.errors import PackError, UsageError
from skinbatch.models.build import classifier_spec, detector_spec
from skinbatch.models.checkpoint import check_tensors, read_tensors
from skinbatch.models.classifiers.classifier import PLAIN_CNN, build_network
from skinbatch.models.classifiers.classifier_layouts import classifier_defaults, network_name
from skinbatch.models.classifiers.classifier_layouts import outputs as classifier_outputs
from skinbatch.models.classifiers.classifier_layouts import recognise as recognise_classifier
from skinbatch.models.classifiers.torchvision_layouts import to_timm
from skinbatch.models.detectors.mmdet.architectures import DEFAULTS
from skinbatch.models.findings import ASSUMED, Recognised
from skinbatch.models.layers import Network, Shapes, find_network, shapes_of
from skinbatch.models.pack import DETECTOR_CONFIG
from skinbatch.models.segmenters.bisenet import AUXILIARY, BiSeNet
from skinbatch.models.segmenters.face_parsing import from_face_parsing, segmenter_defaults
from skinbatch.models.segmenters.face_parsing import outputs as segmenter_outputs
from skinbatch.models.segmenters.face_parsing import recognise as recognise_segmenter
from skinbatch.models.stages import AnyStage, ClassifierStage, DetectorStage, SegmenterStage

MakeStage = Callable[[Mapping[str, Any]], AnyStage]


def from_onnx(path: Path, arch: str, given: Mapping[str, Any]) -> Recognised:
    """Return the settings found in an ONNX file.

    Raises PackError naming what does not fit or is undecided.
    """
    if arch == "yolo-onnx":
        from skinbatch.models.detectors.yolo_onnx import examine as examine_detector

        return examine_detector(path, given)
    from skinbatch.models.classifiers.onnx_classifier import examine as examine_classifier

    return examine_classifier(path, given)


def segmenter_from(
    path: Path, arch: str, given: Mapping[str, Any], make: MakeStage, prefix: str | None
) -> Recognised:
    """Return the BiSeNet of a checkpoint.

    make: makes a stage of fields. prefix: see find_network.
    """
    tensors = read_tensors(path).tensors
    defaults = segmenter_defaults(arch)
    forms = [given["spatial"]] if "spatial" in given else ["path", "context"]
    variants: list[Shapes] = []
    for spatial in forms:
        stage = make({**defaults, **given, "spatial": spatial})
        assert isinstance(stage, SegmenterStage)
        variants.append(_bisenet(stage))

    network = find_network(path, tensors, variants, _to_bisenet, prefix)
    check_tensors(path, network.tensors)
    fields = defaults | recognise_segmenter(network.tensors)
    _check_outputs(path, segmenter_outputs(network.tensors), make({**fields, **given}), given)
    sources = {
        "layers": _where(network),
        "pixels": f"{ASSUMED}: those of ImageNet, as for most networks; set mean and std in a file for --config",
    }
    if fields["align_corners"]:
        sources |= dict.fromkeys(
            ("pixels", "size"),
            "as the public face-parsing code reads photos; its layers are the same",
        )
    if "classes" in fields:
        sources["classes"] = (
            "the order of the public face-parsing checkpoints, which have the same layers and 19 outputs"
        )
    return Recognised(fields, sources, network.tensors)


def _bisenet(stage: SegmenterStage) -> Shapes:
    return shapes_of(
        lambda: BiSeNet(stage.arch, len(stage.classes), spatial=stage.spatial, auxiliary=False)
    )


def _to_bisenet(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    named = from_face_parsing(state)
    return {name: tensor for name, tensor in named.items() if not name.startswith(AUXILIARY)}


def detector_from(
    path: Path,
    arch: str,
    given: Mapping[str, Any],
    make: MakeStage,
    prefix: str | None,
    model: tuple[dict[str, Any], dict[str, Any]] | None = None,
) -> Recognised:
    """Return the mmdet detector of a checkpoint.

    model: for arch `mmdet`, the config and the stage's fields.
    """
    checkpoint = read_tensors(path)
    fields = model[1] if model else dict(DEFAULTS.get(arch, {}))
    noted = checkpoint.classes if "classes" not in fields else None
    if noted is not None:
        fields["classes"] = noted
    stage = make({**fields, **given})
    assert isinstance(stage, DetectorStage)
    spec = detector_spec(stage, ModelSettings(), model[0] if model else None)
    from skinbatch.models.detectors.mmdet.detector import build_model

    try:
        shapes = shapes_of(lambda: build_model(spec, initialise=False))
    except PackError as e:
        raise PackError(f"{path}: {e}") from None
    network = find_network(path, checkpoint.tensors, [shapes], lambda state: state, prefix)
    check_tensors(path, network.tensors)
    where = (
        "the mmdet config"
        if model
        else f"{ASSUMED}: those of mmdet's public weights of this architecture"
    )
    sources = {"layers": _where(network), "pixels": where, "size": where}
    if "classes" in fields:
        sources["classes"] = (
            "the mmdet config" if noted is None else "mmdet's notes in the checkpoint (`meta`)"
        )
    return Recognised(fields, sources, network.tensors)


def read_mmdet_config(path: Path, directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the model of a user's mmdet config into `directory`.

    Returns the model, and the stage's fields that follow from the config.
    """
    from skinbatch.models.detectors.mmdet.config import read_config

    model, fields = read_config(path)
    text = json.dumps(model, indent=1, sort_keys=True)
    (directory / DETECTOR_CONFIG).write_text(text, encoding="utf-8")
    return dict(json.loads(text)), dict(fields) | {
        "config_sha256": hashlib.sha256(text.encode()).hexdigest()
    }


def classifier_from(
    path: Path, arch: str, given: Mapping[str, Any], make: MakeStage, prefix: str | None
) -> Recognised:
    """Return the classifier of a checkpoint: one of timm's or torchvision's, or the plain CNN."""
    tensors = read_tensors(path).tensors
    backbone = given.get("backbone")
    defaults = classifier_defaults(arch, backbone)
    variants = list(_classifiers(arch, {**defaults, **given}, given, tensors, make))
    network = find_network(path, tensors, variants, lambda state: to_timm(arch, state), prefix)
    check_tensors(path, network.tensors)
    known = recognise_classifier(arch, network.tensors, backbone)
    fields = defaults | known
    _check_outputs(
        path, classifier_outputs(arch, network.tensors, backbone), make({**fields, **given}), given
    )

    name = network_name(arch, backbone)
    assumed = (
        "as for most networks with a classifier of their own"
        if "outputs" in known
        else "as in paper 000"
    )
    sources = {
        "layers": _where(network),
        "outputs": f"{ASSUMED}: {assumed}; set outputs in a file for --config",
        "size": f"{ASSUMED}: the architecture's own; set size in a file for --config",
        "pixels": f"{ASSUMED}: those of timm's own weights of {name}; set mean and std in a file for --config",
    }
    return Recognised(fields, sources, network.tensors)


def _classifiers(
    arch: str,
    fields: Mapping[str, Any],
    given: Mapping[str, Any],
    names: Iterable[str],
    make: MakeStage,
) -> Iterable[Shapes]:
    """Yield the layers of a classifier under each top that the file may have.

    The top is the network's own, or one of the papers'.
    """
    tops = ["native"]
    if arch != PLAIN_CNN and any(name.endswith("head.out.weight") for name in names):
        tops += ["pooled", "flatten"]
    if "top" in given:
        tops = [given["top"]]
    for top in tops:
        stage = make({**fields, "top": top})
        assert isinstance(stage, ClassifierStage)
        spec = classifier_spec(stage)
        try:
            yield shapes_of(lambda spec=spec: build_network(spec))  # type: ignore[misc]
        except PackError:
            # Not every backbone supports every top. If only one top is possible, the import reports
            # the error.
            if len(tops) == 1:
                raise


def _check_outputs(
    path: Path, number: int | None, stage: AnyStage, given: Mapping[str, Any]
) -> None:
    """Raise UsageError if the file has more or fewer classes than assumed, and nothing names them.

    stage: with the assumed classes.
    """
    if number is None or "classes" in given or number == len(stage.classes):
        return
    raise UsageError(
        f"{path}: distinguishes {number} classes and does not name them; give their names in order: --classes a,b,c"
    )


def _where(network: Network) -> str:
    """Describe where in the file the layers are, and what else it contains."""
    begins = f"names begin with `{network.prefix}`" if network.prefix else "all names in the file"
    if not network.left_out:
        return begins
    left_out = [f"{name} ({n} tensors)" if n > 1 else name for name, n in network.left_out.items()]
    shown = ", ".join(left_out[:3]) + (
        f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    )
    return f"{begins}; left out: {shown}"
